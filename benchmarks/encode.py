"""Times what a trained model is used for: encoding, reconstructing and sampling 70,000 images of 28 x 28.

    python benchmarks/encode.py [--images 70000] [--repeat 3] [--only mlp-sigma] [--device cpu]

For each recipe's network, whose weights hardly matter (one epoch over 200 images): seconds inside a program, through
the same batches that `nelbo encode`, `reconstruct` and `sample` use, and of these commands as processes of their own,
from the start of Python to the last file on the disk (the last two once: they write a PNG an image). Images are made,
four fifths of the pixels black as in MNIST. Needs a quiet machine and some 2 GB of disk for the pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nelbo
from nelbo import engine
from nelbo.core.files import atomic
from nelbo.metrics.latent import posteriors
from nelbo.pictures.view import View
from nelbo.training.store import Run

RECIPES = ("mlp-sigma", "mlp-tanh-binary", "fashion-mlp")
RECORD = Path(__file__).parent / "records" / "encode.json"
TRAINED_ON = 200


def made(n: int, seed: int) -> NDArray[np.uint8]:
    stream = np.random.default_rng(seed)
    pixels = stream.integers(1, 256, size=(n, 28, 28), dtype=np.uint8)
    pixels[stream.random((n, 28, 28), dtype=np.float32) < 0.8] = 0
    return pixels


def run_of(recipe: str, folder: Path, device: str) -> Run:
    """A run of the recipe whose test split has the images."""
    changes = {"epochs": 1, "data.source": str(folder / "images.npz"), "data.validation": 0}
    return nelbo.train(recipe, overrides=changes, runs=folder, name=recipe, device=device)


def summary(values: list[float], images: int) -> dict[str, Any]:
    median = statistics.median(values)
    return {
        "median": round(median, 3),
        "all": [round(value, 3) for value in values],
        "images_per_second": round(images / median),
    }


def inside(run: Run, images: int, repeat: int, device: str) -> dict[str, Any]:
    """Seconds of each use of a model that is there already; the first time is left out."""
    view = View.open(run, device=device)
    x_NCHW = view.x_NCHW
    uses: dict[str, Callable[[], object]] = {
        "encode": lambda: posteriors(view.model, view.split),
        "reconstruct": lambda: view.reconstruct(x_NCHW),
        "sample": lambda: view.samples(images),
    }

    def seconds(use: Callable[[], object]) -> float:
        begun = time.perf_counter()
        use()  # its result is on the CPU, so nothing is left to wait for
        return time.perf_counter() - begun

    return {
        name: summary([seconds(use) for _ in range(repeat + 1)][1:], images) for name, use in uses.items()
    }


def command(run: Run, verb: str, images: int, device: str) -> tuple[float, int]:
    """Wall seconds of a verb as a process of its own, and its peak memory in MB; what it wrote is removed."""
    out = run.path / "out"
    where = out / "latents.npz" if verb == "encode" else out
    line = [sys.executable, "-m", "nelbo", verb, str(run.path), "--device", device, "--out", str(where)]
    begun = time.perf_counter()
    with subprocess.Popen(
        [*line, *([] if verb == "encode" else ["-n", str(images)])], stdout=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"nelbo {verb} failed")
    shutil.rmtree(out)
    return seconds, round(used.ru_maxrss / 1024)


def commands(run: Run, images: int, repeat: int, device: str) -> dict[str, Any]:
    found = {}
    for verb in ("encode", "reconstruct", "sample"):
        times = repeat if verb == "encode" else 1  # the others write a PNG an image: most of a minute
        seconds, peak_mb = zip(*(command(run, verb, images, device) for _ in range(times)), strict=True)
        found[verb] = summary(list(seconds), images) | {"peak_mb": max(peak_mb)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=70_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(RECIPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        labels, most = np.arange(TRAINED_ON) % 10, np.arange(given.images) % 10
        np.savez(
            folder / "images.npz",
            images=made(TRAINED_ON, 0), labels=labels, x_test=made(given.images, 1), y_test=most,
        )  # fmt: skip
        for recipe in given.only:
            run = run_of(recipe, folder, given.device)
            rows[recipe] = {
                "latent_dim": run.recipe.model.setting("latent_dim"),
                "seconds": inside(run, given.images, given.repeat, given.device),
                "commands": commands(run, given.images, given.repeat, given.device),
            }
            medians = {
                part: {verb: row["median"] for verb, row in rows[recipe][part].items()}
                for part in ("seconds", "commands")
            }
            print(recipe, medians, flush=True)
    words = (
        f"python benchmarks/encode.py --images {given.images} --repeat {given.repeat} --device {given.device}"
    )
    where = engine.pick_device(given.device)
    table = {
        "command": words,
        "environment": engine.describe(where),
        "images": given.images,
        "recipes": rows,
    }
    with atomic(given.record) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
