"""Time to a result: a whole `nelbo train fashion-mlp` as a fresh process, and how long it takes to begin.

    python benchmarks/result.py [--data DIR] [--repeat 3] [--device cpu]

Wall time by clock (data, compilation, training, validation, latents, checkpoints, final evaluation; the rest is
starting Python), training time until the NELBO is the published 524.16, images a second, the largest memory; then
`nelbo --help`, and the time from a command to the end of its first step. Needs Fashion-MNIST and a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nelbo import engine
from nelbo.core.files import atomic

RECORD = Path(__file__).parent / "records" / "result.json"
NELBO = [sys.executable, "-m", "nelbo"]
RECIPE, PUBLISHED = "fashion-mlp", 524.16
FIRST_STEPS = ("digits", RECIPE)
# Eager, because a run that compiles begins later to end sooner. Prints when the first step is done and stops there.
FIRST_STEP = """
import os, sys
from nelbo.training import api, events

def tell(event):
    if isinstance(event, events.StepDone):
        print("done", flush=True)
        os._exit(0)

recipe, runs, data, device = sys.argv[1:]
api.train(recipe, overrides={"compile": "off"}, runs=runs, data_dir=data, device=device, tell=tell)
"""


def whole_run(data: Path, device: str) -> dict[str, Any]:
    """Wall seconds, memory and summary of one training from its command to its end."""
    with tempfile.TemporaryDirectory() as runs:
        command = [*NELBO, "train", RECIPE, "--no-figures", "--json", "--runs", runs, "--data-dir", str(data)]
        begun = time.perf_counter()
        with subprocess.Popen(
            [*command, "--device", device], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            text = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    summary: dict[str, Any] = json.loads(text)
    return summary | {"wall": wall, "peak_mb": used.ru_maxrss / 1024}


def to_target(data: Path, device: str, repeat: int) -> dict[str, Any] | None:
    """Seconds of training until the mean NELBO of ten batches is the published one, as `nelbo bench` measures it."""
    command = [*NELBO, "bench", RECIPE, "--sides", "nelbo", "--target", str(PUBLISHED), "--json"]
    command += ["--repeat", str(repeat), "--device", device, "--data-dir", str(data)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    reached: dict[str, Any] | None = found["recipes"][RECIPE]["rows"]["nelbo"]["seconds_to_target"]
    return reached and summary(reached["all"])


def wall(command: list[str]) -> float:
    """Seconds from a command to its end."""
    begun = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - begun


def first_step(recipe: str, data: Path, device: str) -> float:
    with tempfile.TemporaryDirectory() as runs:
        return wall([sys.executable, "-c", FIRST_STEP, recipe, runs, str(data), device])


def summary(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 4), "all": [round(value, 4) for value in values]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NELBO_DATA", "data")))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    data, device, repeat = given.data, given.device, given.repeat
    runs = [whole_run(data, device) for _ in range(repeat)]
    clocks = runs[0]["seconds"]
    table: dict[str, Any] = {
        "command": f"python benchmarks/result.py --repeat {repeat}"
        + ("" if device == "cpu" else f" --device {device}"),
        "environment": engine.describe(engine.pick_device(device)),
        "run": {
            "command": f"nelbo train {RECIPE} --no-figures",
            "wall": summary([run["wall"] for run in runs]),
            "seconds": {clock: summary([run["seconds"].get(clock, 0.0) for run in runs]) for clock in clocks},
            "images_per_second": summary([run["images_per_second"] for run in runs]),
            "nelbo": [run["metrics"]["nelbo"]["value"] for run in runs],
            "precision": runs[0]["precision"],
            "compiled": runs[0]["compiled"],
            "peak_mb": max(run["peak_mb"] for run in runs),
        },
        "target": {"nats": PUBLISHED, "seconds": to_target(data, device, repeat)},
        "start": {
            "help": summary([wall([*NELBO, "--help"]) for _ in range(5)]),
            "step": {
                recipe: summary([first_step(recipe, data, device) for _ in range(repeat)])
                for recipe in FIRST_STEPS
            },
        },
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table["run"]["wall"]), json.dumps(table["start"]))


if __name__ == "__main__":
    main()
