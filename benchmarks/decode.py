"""How fast a large folder is decoded, and how much of the cores that takes.

    python benchmarks/decode.py [--files 4000] [--side 256] [--to 64] [--repeat 3]

JPEG and PNG files of noise over smooth colours are written to a temporary folder and decoded to a smaller size: on one
core, and by one thread a core. The clock starts with the first block that is decoded; the time until then is a number
of its own. Writes records/decode.json. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nelbo import engine
from nelbo.core.files import atomic
from nelbo.data import decode
from nelbo.data.imagefile import Decoding

RECORD = Path(__file__).parent / "records" / "decode.json"


def write(folder: Path, kind: str, n: int, side: int) -> list[Path]:
    """Write n different files; the same ones on every machine."""
    stream = np.random.RandomState(0)
    coarse = Image.fromarray(stream.randint(0, 256, (8, 8, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((side, side)), np.int64)
    picture = np.clip(smooth + stream.randint(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
    paths = [folder / f"{i}.{kind}" for i in range(n)]
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(picture, i % side, axis=1)).save(path)
    return paths


def cpu_seconds() -> float:
    """Return the seconds that all threads of this process were busy."""
    used = os.times()
    return used.user + used.system


def entries(paths: list[Path]) -> list[decode.Entry]:
    return [decode.Entry(path.name) for path in paths]


def timed(paths: list[Path], to: int) -> dict[str, float]:
    """Return images a second and the busy share of all cores, both from the first decoded block on."""
    begun = time.perf_counter()
    blocks = decode.decode_folder(paths[0].parent, entries(paths), (3, to, to), Decoding((to, to)))
    few = len(next(blocks))
    first, before = time.perf_counter(), cpu_seconds()
    done = sum(len(block) for block in blocks)
    last, after = time.perf_counter(), cpu_seconds()
    assert few + done == len(paths)
    return {
        "images_per_second": done / (last - first),
        "busy": (after - before) / (last - first) / decode.cores(),
        "seconds": last - first,
        "seconds_to_the_first_block": first - begun,
    }


def one_core(paths: list[Path], to: int) -> float:
    """Return images a second of a plain loop."""
    few = paths[: max(1, len(paths) // 4)]
    begun = time.perf_counter()
    decode.decode_block(paths[0].parent, entries(few), (3, to, to), Decoding((to, to)))
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
    options = parser.parse_args()
    kinds: dict[str, Any] = {}
    for kind in ("jpg", "png"):
        with tempfile.TemporaryDirectory() as scratch:
            paths = write(Path(scratch), kind, options.files, options.side)
            rates = [one_core(paths, options.to) for _ in range(options.repeat)]
            threads = median([timed(paths, options.to) for _ in range(options.repeat)])
        alone = statistics.median(rates)
        kinds[kind] = {"one_core_images_per_second": round(alone, 1), "threads": threads}
        rate, busy = threads["images_per_second"]["median"], threads["busy"]["median"]
        print(f"{kind}: {rate:,.0f}/s, {rate / alone:.2f} x one core, {busy:.0%} busy", flush=True)
    table = {
        "command": f"python benchmarks/decode.py --files {options.files} --side {options.side} --to {options.to}",
        "environment": engine.describe(),
        "cores": decode.cores(),
        "kinds": kinds,
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
