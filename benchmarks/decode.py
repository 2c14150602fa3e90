"""How fast a large folder is decoded, and how much of the cores that takes.

    python benchmarks/decode.py [--files 4000] [--side 256] [--to 64] [--repeat 3]

JPEG and PNG files of noise over smooth colours are written to a temporary folder and decoded to a smaller size: on one
core, by threads, and by the processes that decode folders too large for memory. The clock starts with the first block
that is decoded; how long the processes take to start is a number of its own. Writes records/decode.json. Needs a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nelbo import engine
from nelbo.core.files import atomic
from nelbo.data import workers

RECORD = Path(__file__).parent / "records" / "decode.json"


def write(folder: Path, kind: str, n: int, side: int) -> list[Path]:
    """n different files; the same ones on every machine."""
    stream = np.random.RandomState(0)
    coarse = Image.fromarray(stream.randint(0, 256, (8, 8, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((side, side)), np.int64)
    picture = np.clip(smooth + stream.randint(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
    paths = [folder / f"{i}.{kind}" for i in range(n)]
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(picture, i % side, axis=1)).save(path)
    return paths


def cpu_seconds(children: list[subprocess.Popen[bytes]]) -> float:
    """Of this process and of those that it runs (Linux)."""
    used = os.times()
    total = used.user + used.system
    for child in children:
        ticks = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        total += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return total


def timed(paths: list[Path], to: int, *, processes: bool) -> dict[str, float]:
    """Images a second and the share of all cores that was busy, both from the first block that was decoded on."""
    children: list[subprocess.Popen[bytes]] = []
    start = workers._start

    def noticed() -> subprocess.Popen[bytes]:
        child = start()
        children.append(child)
        return child

    workers._start = noticed
    try:
        begun = time.perf_counter()
        blocks = workers.decoded(
            paths[0].parent, [path.name for path in paths], (3, to, to), (to, to), processes=processes
        )
        few = len(next(blocks))
        first, before = time.perf_counter(), cpu_seconds(children)
        done = 0
        while done < len(paths) - few:
            done += len(next(blocks))
        last, after = time.perf_counter(), cpu_seconds(children)
        blocks.close()
    finally:
        workers._start = start
    return {
        "images_per_second": done / (last - first),
        "busy": (after - before) / (last - first) / workers.cores(),
        "seconds": last - first,
        "seconds_to_the_first_block": first - begun,
    }


def one_core(paths: list[Path], to: int) -> float:
    """Images a second of a plain loop."""
    few = paths[: max(1, len(paths) // 4)]
    begun = time.perf_counter()
    workers.decode_block(few, (3, to, to), (to, to))
    return len(few) / (time.perf_counter() - begun)


def median(rows: list[dict[str, float]]) -> dict[str, Any]:
    return {
        key: {
            "median": round(statistics.median(row[key] for row in rows), 3),
            "all": [round(row[key], 3) for row in rows],
        }
        for key in rows[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--to", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    kinds: dict[str, Any] = {}
    for kind in ("jpg", "png"):
        with tempfile.TemporaryDirectory() as scratch:
            paths = write(Path(scratch), kind, given.files, given.side)
            rates = [one_core(paths, given.to) for _ in range(given.repeat)]
            ways = {
                name: median([timed(paths, given.to, processes=processes) for _ in range(given.repeat)])
                for name, processes in (("threads", False), ("processes", True))
            }
        alone = statistics.median(rates)
        kinds[kind] = {"one_core_images_per_second": round(alone, 1), **ways}
        for name, way in ways.items():
            rate, busy = way["images_per_second"]["median"], way["busy"]["median"]
            print(f"{kind} {name}: {rate:,.0f}/s, {rate / alone:.2f} x one core, {busy:.0%} busy", flush=True)
    table = {
        "command": f"python benchmarks/decode.py --files {given.files} --side {given.side} --to {given.to}",
        "environment": engine.describe(),
        "cores": workers.cores(),
        "kinds": kinds,
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
