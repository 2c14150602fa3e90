"""Training speed side by side: this project's recipes against another program's loop, in one process, in turn.

    python benchmarks/speed.py --data DIR --baseline seeds.py [--repeat 3] [--only fashion-mlp]

The baseline is a file with `run(name, data_dir, epochs, device)` that prints one JSON line with `s_epoch`: the
published tutorials as their authors would run them. It is not part of this repository. One epoch each, baseline
and nelbo alternating; the clock stops for loading, evaluation and saving on both sides. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import statistics
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import nelbo
from nelbo import engine
from nelbo.store import atomic

PAIRS = {  # recipe: what the baseline calls the same network, data and batch size
    "conv-2d": "S0",
    "mlp-sigma": "S1",
    "conv-bn-128": "S2",
    "mlp-tanh-binary": "S3",
    "fashion-mlp": "S4",
}
RECORD = Path(__file__).parent / "records" / "speed.json"


def seconds_of_ours(recipe: str, data: Path, device: str) -> float:
    """Seconds of one epoch of the recipe, scaled to the images the baseline sees."""
    with tempfile.TemporaryDirectory() as scratch:
        run = nelbo.train(recipe, overrides={"epochs": 1}, runs=scratch, data_dir=data, device=device)
        images = 54_000 if recipe == "fashion-mlp" else 60_000
        return images / float(run.summary["images_per_second"])


def seconds_of_baseline(module: ModuleType, name: str, data: Path, device: str) -> float:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        module.run(name, str(data), 1, device)
    return float(json.loads(printed.getvalue().splitlines()[-1])["s_epoch"])


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("baseline", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def summary(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 3), "all": [round(value, 3) for value in values]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NELBO_DATA", "data")))
    parser.add_argument("--baseline", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", default=list(PAIRS))
    given = parser.parse_args()
    module = load(given.baseline)
    rows: dict[str, Any] = {}
    for recipe in given.only:
        theirs, ours = [], []
        for _ in range(given.repeat):
            theirs.append(seconds_of_baseline(module, PAIRS[recipe], given.data, given.device))
            ours.append(seconds_of_ours(recipe, given.data, given.device))
        ratio = [a / b for a, b in zip(theirs, ours, strict=True)]
        rows[recipe] = {"baseline_s": summary(theirs), "nelbo_s": summary(ours), "ratio": summary(ratio)}
        print(recipe, {key: value["median"] for key, value in rows[recipe].items()}, flush=True)
    table = {
        "command": f"python benchmarks/speed.py --baseline seeds.py --repeat {given.repeat}",
        "environment": engine.describe(engine.pick_device(given.device)),
        "seconds_an_epoch": rows,
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
