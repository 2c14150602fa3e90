"""How the time of an epoch and the memory grow with the number of images, from a thousand to ten million.

    python benchmarks/scale.py [--sizes 1000 10000 100000 1000000 10000000] [--folder DIR] [--device cpu]

Each size is a .npy of synthetic uint8 images, 28 x 28, written to --folder (ten million are 7.8 GB; with --keep a file
that is there is used again) and trained on by `nelbo.train` in a process of its own: a small MLP, the same for all,
float32 and not compiled, so that every size runs the same step. Seconds are of training alone, the median epoch after
the first; memory is the largest that the process ever had resident. Writes records/scale.json, docs/images/scale.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "records" / "scale.json"
FIGURE = ROOT / "docs" / "images" / "scale.png"
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SIDE = 28
TEST = 500  # images beside those that are trained on
BLOCK = 20_000  # images that are made at a time
FEWEST, MOST, IMAGES = 3, 30, 200_000  # epochs, and about how many images to time
SLOPE_FROM = 10_000  # below that an epoch is a few steps, and what it begins and ends with is most of it

RECIPE = {
    "model.latent_dim": 8,
    "model.encoder.hidden": [128],
    "model.decoder.hidden": [128],
    "batch_size": 128,
    "precision": "fp32",
    "compile": "off",
    "latent_every": 0,
    "data.test": TEST,
}


def write(path: Path, n: int) -> None:
    """n images of three bands with noise; the same file for the same n, on every machine."""
    stream = np.random.RandomState(0)
    noise = stream.randint(0, 90, (BLOCK, SIDE, SIDE)).astype(np.uint8)
    part = path.with_suffix(".part")
    images = np.lib.format.open_memmap(part, "w+", np.uint8, (n, SIDE, SIDE))
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        block = np.roll(noise, start // BLOCK, axis=1)[:count].copy()
        bands = stream.randint(0, SIDE // 4, (3, count))
        for rows in bands:
            for line in range(4):
                block[np.arange(count), 4 * rows + line] += 55
        images[start : start + count] = block
    images.flush()
    del images
    part.replace(path)


# --- one size, in a process of its own --------------------------------------------------------


def memory(field: str) -> float | None:
    """VmHWM (the largest so far) or VmRSS of this process in MB, where the system says."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:")), None)


def measure(path: Path, device: str) -> dict[str, Any]:
    """Trains on the file and times the epochs."""
    import nelbo
    from nelbo import engine
    from nelbo.training.events import EpochDone, Event
    from nelbo.training.recipe import Recipe, resolve

    n = int(np.load(path, mmap_mode="r").shape[0]) - TEST
    epochs = min(MOST, max(FEWEST, IMAGES // n))
    recipe = resolve(Recipe(), RECIPE | {"data": {"source": str(path), "test": TEST}, "epochs": epochs})
    clocks: list[float] = []

    def tell(event: Event) -> None:
        if isinstance(event, EpochDone):
            clocks.append(event.row["seconds"]["train"])

    before = memory("VmRSS")
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as runs:
        run = nelbo.train(recipe, runs=runs, device=device, tell=tell)
        wall, summary = time.perf_counter() - begun, run.summary
    seconds = [later - earlier for earlier, later in itertools.pairwise(clocks)]
    return {
        "images": n,
        "bytes": path.stat().st_size,
        "epochs": epochs,
        "seconds": {
            "median": round(statistics.median(seconds), 4),
            "all": [round(value, 4) for value in seconds],
            "first": round(clocks[0], 4),
        },
        "images_per_second": round(n / statistics.median(seconds), 1),
        "seconds_of_loading": round(summary["seconds"]["data"], 3),
        "wall": round(wall, 2),
        "mb_before": before and round(before, 1),
        "peak_mb": (peak := memory("VmHWM")) and round(peak, 1),
        "threads": summary["threads"],
        "environment": engine.describe(engine.pick_device(device)),
    }


def of_size(n: int, folder: Path, device: str, keep: bool) -> dict[str, Any]:
    path = folder / f"scale-{n}.npy"
    if not (keep and path.is_file()):
        write(path, n + TEST)
    command = [sys.executable, __file__, "--measure", str(path), "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        if not keep:
            path.unlink(missing_ok=True)
    if done.returncode:
        raise SystemExit(f"{n} images: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- all of them ------------------------------------------------------------------------------


def slope(rows: list[dict[str, Any]]) -> float | None:
    """Exponent b of seconds ~ images^b by least squares of the logarithms; 1 is linear."""
    points = [
        (math.log(row["images"]), math.log(row["seconds"]["median"]))
        for row in rows
        if row["images"] >= SLOPE_FROM
    ]
    if len(points) < 2:
        return None
    logarithms = np.array(points)
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])


def draw(table: dict[str, Any], file: Path) -> None:
    """Seconds an epoch, and the largest memory, against the number of images."""
    from nelbo.core.files import atomic
    from nelbo.plots.style import BLUE, GREY, ORANGE, SMALL, chart, footnotes, name_axes

    rows = table["rows"]
    n = [row["images"] for row in rows]
    about = table["environment"]
    figure, (left, right) = chart(
        1, 2, title="An epoch and its memory, by the number of images", size=(3.7, 3.0)
    )
    left.loglog(n, [row["seconds"]["median"] for row in rows], "o-", color=BLUE)
    middle = rows[len(rows) // 2]
    left.loglog(
        n, [x / middle["images"] * middle["seconds"]["median"] for x in n], "--", color=GREY, zorder=1
    )
    if table["slope"] is not None:
        words = f"slope {table['slope']:.2f} from {SLOPE_FROM:,} images on\n(dashed: 1, linear)"
        left.text(0.05, 0.95, words, transform=left.transAxes, va="top", fontsize=SMALL)
    name_axes(left, "images", "seconds an epoch")
    right.loglog(n, [row["peak_mb"] for row in rows], "o-", color=ORANGE)
    right.loglog(n, [row["bytes"] / 1e6 for row in rows], "--", color=GREY, zorder=1)
    right.text(
        0.97, 0.04, "dashed: the images themselves", transform=right.transAxes, ha="right", fontsize=SMALL
    )
    name_axes(right, "images", "largest resident memory, MB")
    footnotes(
        figure,
        [
            f"{about['processor']}, {about['threads']} threads, torch {about['packages']['torch']}, "
            f"{about.get('device', 'cpu')}; commit {about.get('git', '?')}; {table['command']}"
        ],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as temporary:
        figure.savefig(temporary, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument(
        "--folder", type=Path, help="where the files are written; a temporary folder otherwise"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the files there, and use those that are there"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.device)))
        return
    from nelbo.core.files import atomic

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for n in sorted(given.sizes):
            rows.append(of_size(n, folder, given.device, given.keep))
            print(json.dumps({key: rows[-1][key] for key in ("images", "seconds", "peak_mb")}), flush=True)
    environment = [row.pop("environment") for row in rows][-1]
    table = {
        "command": "python benchmarks/scale.py"
        + ("" if given.device == "cpu" else f" --device {given.device}")
        + (
            ""
            if sorted(given.sizes) == list(SIZES)
            else f" --sizes {' '.join(map(str, sorted(given.sizes)))}"
        ),
        "environment": environment,
        "recipe": RECIPE,
        "slope": slope(rows),
        "rows": rows,
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")
    draw(table, FIGURE)
    print("slope", table["slope"])


if __name__ == "__main__":
    main()
