"""Training speed side by side: this project's recipes against another program's loop, each as its own command.

    python benchmarks/speed.py --data DIR --baseline seeds.py [--repeat 3] [--only fashion-mlp]

The baseline is a script called as `seeds.py DIR --epochs 1 --only NAME`, which prints one JSON line with `s_epoch`:
the published tutorials as their authors would run them. It is not part of this repository. One epoch each,
baseline and nelbo in turn; the clock stops for loading, evaluation and saving on both sides. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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


def last_line(command: list[str]) -> dict[str, Any]:
    """Runs a command and reads the JSON object on the last line of its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def seconds_of_ours(recipe: str, data: Path, device: str) -> float:
    """Seconds of one epoch of the recipe."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "nelbo", "train", recipe, "--epochs", "1", "--json", "--no-figures"]
        found = last_line([*command, "--runs", runs, "--data-dir", str(data), "--device", device])
        return float(found["seconds"]["train"])


def of_baseline(script: Path, name: str, data: Path, device: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(script), str(data), "--epochs", "1", "--only", name]
    return last_line([*command, "--device", device])


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
    rows: dict[str, Any] = {}
    for recipe in given.only:
        theirs, ours = [], []
        for _ in range(given.repeat):
            row = of_baseline(given.baseline, PAIRS[recipe], given.data, given.device)
            theirs.append(float(row["s_epoch"]))
            ours.append(seconds_of_ours(recipe, given.data, given.device))
        ratio = [a / b for a, b in zip(theirs, ours, strict=True)]
        rows[recipe] = {
            "baseline_s": summary(theirs),
            "nelbo_s": summary(ours),
            "ratio": summary(ratio),
            "loader": row["loader"],
        }
        print(
            recipe,
            {key: rows[recipe][key]["median"] for key in ("baseline_s", "nelbo_s", "ratio")},
            flush=True,
        )
    table = {
        "command": f"python benchmarks/speed.py --baseline seeds.py --repeat {given.repeat}",
        "environment": engine.describe(engine.pick_device(given.device)),
        "seconds_an_epoch": rows,
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
