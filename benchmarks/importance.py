"""Times the importance-weighted NLL: 10,000 test images x K samples of `fashion-mlp`'s network on MNIST.

    python benchmarks/importance.py [--samples 100 1000] [--repeat 3]

Trains that network for one epoch, then runs `nelbo evaluate --metrics importance` as a command of its own for each
K: seconds of the measurement, in float32 as every evaluation, and the largest memory of the process. Needs MNIST
(NELBO_DATA) and a quiet machine.
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

RECORD = Path(__file__).parent / "records" / "importance.json"
NELBO = [sys.executable, "-m", "nelbo"]


def measured(run: str, runs: str, samples: int, device: str) -> dict[str, Any]:
    """Wall seconds and peak memory of one evaluation, and what it found."""
    command = [*NELBO, "evaluate", run, "--runs", runs, "--metrics", "importance", "--json"]
    begun = time.perf_counter()
    with subprocess.Popen(
        [*command, "--samples", str(samples), "--device", device], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        card = json.loads(process.stdout.read())
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return {
        "seconds": card["seconds"],
        "with start-up": round(time.perf_counter() - begun, 2),
        "peak_mb": round(used.ru_maxrss / 1024),
        "iw_nll": card["metrics"]["iw_nll"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as runs:
        train = ["train", "fashion-mlp", "--data", "mnist", "--epochs", "1", "--no-figures", "--name", "f"]
        subprocess.run(
            [*NELBO, *train, "--runs", runs, "--device", given.device],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for samples in given.samples:
            found = [measured("f", runs, samples, given.device) for _ in range(given.repeat)]
            seconds = [row["seconds"] for row in found]
            rows[str(samples)] = {
                "seconds": {"median": statistics.median(seconds), "all": seconds},
                "samples_per_second": round(10_000 * samples / statistics.median(seconds)),
                "peak_mb": max(row["peak_mb"] for row in found),
                "iw_nll": found[0]["iw_nll"],
            }
            print(samples, rows[str(samples)], flush=True)
    table = {
        "command": f"python benchmarks/importance.py --repeat {given.repeat} --device {given.device}",
        "environment": engine.describe(engine.pick_device(given.device)),
        "k": rows,
    }
    with atomic(RECORD.with_stem(f"importance-{given.device}")) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
