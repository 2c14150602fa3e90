"""Training speed side by side: this project's recipes against another program's loop, each as its own command.

    python benchmarks/speed.py --data DIR --baseline seeds.py [--repeat 3] [--epochs 3] [--only fashion-mlp]
                               [--sides nelbo-compiled ...] [--jax jax_peer.py --jax-python PYTHON]

The baseline is a script called as `seeds.py DIR --epochs N --only NAME --device D`, which prints one JSON line with
`s_epoch`, the median over its N epochs: the published tutorials as their authors would run them. It is not part of this
repository. nelbo is run by `nelbo bench`, one side at a time: as many epochs, the first left out. Baseline and sides
take turns; the clock stops for loading, compilation, evaluation and saving on both. The JAX script is called as
`jax_peer.py DIR --epochs N [--bf16]` by an interpreter that has JAX. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import speed_pages

from nelbo.bench import SIDES
from nelbo.core.files import atomic

PAIRS = {  # recipe: what the baseline calls the same network, data and batch size
    "mlp-tanh-binary": "S3",
    "fashion-mlp": "S4",
    "mlp-sigma": "S1",
    "conv-2d": "S0",
    "conv-bn-128": "S2",
}
OWN = [name for name, side in SIDES.items() if side.program == "nelbo"]
HEADLINE = "nelbo-compiled"  # precision as the recipe allows, compiled
SHOWN = [HEADLINE, *(side for side in OWN if side != HEADLINE)]
RECORD = Path(__file__).parent / "records" / "speed.json"


def lines_of(command: list[str], seconds: float | None = None) -> list[dict[str, Any]]:
    """Runs a command and reads the JSON objects that it prints, one a line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def some_lines_of(command: list[str], seconds: float) -> tuple[list[dict[str, Any]], bool]:
    """The JSON objects that a command prints until it ends, or is ended; and whether it was done."""
    try:
        return lines_of(command, seconds), True
    except subprocess.TimeoutExpired as late:
        text = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")], False


def of_baseline(given: argparse.Namespace, recipe: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(given.baseline), str(given.data), "--only", PAIRS[recipe]]
    return lines_of([*command, "--epochs", str(given.epochs), "--device", given.device])[-1]


def of_ours(given: argparse.Namespace, recipe: str, side: str) -> dict[str, Any]:
    """The report of `nelbo bench` on one side of one recipe."""
    command = [sys.executable, "-m", "nelbo", "bench", recipe, "--sides", side, "--repeat", "1", "--json"]
    command += ["--epochs", str(given.epochs), "--device", given.device, "--data-dir", str(given.data)]
    (found,) = lines_of(command)
    if left_out := found["recipes"][recipe]["left_out"]:
        raise SystemExit(f"{recipe}: {left_out}")
    return found


def summary(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 3), "all": [round(value, 3) for value in values]}


def measure(given: argparse.Namespace, recipe: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a recipe, and the reports that it was made from."""
    theirs: list[dict[str, Any]] = []
    ours: dict[str, list[dict[str, Any]]] = {side: [] for side in given.sides}
    for _ in range(given.repeat):
        theirs.append(of_baseline(given, recipe))
        for side, found in ours.items():
            found.append(of_ours(given, recipe, side))
    baseline = [float(row["s_epoch"]) for row in theirs]
    sides = {}
    for side, found in ours.items():
        rows = [report["recipes"][recipe]["rows"][side] for report in found]
        seconds = [row["seconds_an_epoch"]["median"] for row in rows]
        memory = [row["peak_mb"] for row in rows if row["peak_mb"] is not None]
        sides[side] = {
            "seconds": summary(seconds),
            "ratio": summary([a / b for a, b in zip(baseline, seconds, strict=True)]),
            "images_per_second": rows[0]["images"] / statistics.median(seconds),
            "percent_of_product_rate": statistics.median(row["percent_of_product_rate"] for row in rows),
            "compile_seconds": statistics.median(row["compile_seconds"]["median"] for row in rows),
            "precision": rows[0]["precision"],
            "how": rows[0]["how"],
            "threads": rows[0]["threads"],
            "peak_mb": max(memory) if memory else None,
            "notes": sorted({note for row in rows for note in row["notes"]}),
        }
    best = sides[given.sides[0]]
    row = {
        "baseline_s": summary(baseline),
        "nelbo_s": best["seconds"],
        "ratio": best["ratio"],
        "loader": theirs[0]["loader"],
        "precision": best["precision"],
        "percent_of_product_rate": best["percent_of_product_rate"],
        "sides": sides,
    }
    return row, [report for found in ours.values() for report in found]


def of_jax(given: argparse.Namespace, rows: dict[str, Any]) -> dict[str, Any]:
    """What the JAX script measures, its ratio to the same baseline; or why it was not run."""
    if given.jax is None:
        return {"about": "JAX was not run", "rows": {}}
    there = subprocess.run([given.jax_python, "-c", "import jax"], capture_output=True, check=False)
    if there.returncode:
        return {"about": "JAX was not run: the given interpreter cannot import it", "rows": {}}
    named = {seed: recipe for recipe, seed in PAIRS.items() if recipe in rows}
    seconds: dict[tuple[str, str], list[float]] = {}
    peer, late = "", ""
    for _ in range(given.jax_repeat):
        for precision, flags in (("fp32", []), ("bf16", ["--bf16"])):
            command = [
                given.jax_python,
                str(given.jax),
                str(given.data),
                "--epochs",
                str(given.epochs),
                *flags,
            ]
            lines, in_time = some_lines_of(command, given.jax_seconds)
            late = late if in_time else f"; what was not done after {given.jax_seconds} s is left out"
            for line in lines:
                if line["seed"] in named:
                    seconds.setdefault((named[line["seed"]], precision), []).append(float(line["s_epoch"]))
                    peer = f"{line['peer']} on {line['device']}"
    found: dict[str, Any] = {}
    for (recipe, precision), values in seconds.items():
        baseline = rows[recipe]["baseline_s"]["median"]
        found.setdefault(recipe, {})[precision] = {
            "seconds": summary(values),
            "ratio": summary([baseline / value for value in values]),
            "images_per_second": None,
        }
    about = (
        f"{peer}, after the others and with no turn among them: its ratios are to the baseline's median{late}"
    )
    return {"about": about, "rows": found}


def command_of(given: argparse.Namespace) -> str:
    """The command again, without the places of scripts and data."""
    words = [
        "python benchmarks/speed.py --baseline seeds.py",
        f"--repeat {given.repeat} --epochs {given.epochs}",
    ]
    words += [] if given.device == "cpu" else [f"--device {given.device}"]
    words += [] if given.only == list(PAIRS) else [f"--only {' '.join(given.only)}"]
    words += [] if given.sides == SHOWN else [f"--sides {' '.join(given.sides)}"]
    return " ".join([*words, *([f"--jax jax_peer.py --jax-repeat {given.jax_repeat}"] if given.jax else [])])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NELBO_DATA", "data")))
    parser.add_argument("--baseline", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument(
        "--sides", nargs="+", default=SHOWN, choices=OWN,
        help="the first is the headline",
    )  # fmt: skip
    parser.add_argument("--jax", type=Path, help="a script that trains the same in JAX")
    parser.add_argument("--jax-repeat", type=int, default=1)
    parser.add_argument("--jax-seconds", type=float, default=600, help="after which a JAX run is ended")
    parser.add_argument("--jax-python", default=sys.executable, help="an interpreter that has JAX")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    rows: dict[str, Any] = {}
    images: dict[str, int] = {}
    reports: list[dict[str, Any]] = []
    for recipe in given.only:
        rows[recipe], found = measure(given, recipe)
        images[recipe] = found[0]["recipes"][recipe]["images"]
        reports += found
        print(
            recipe, {side: row["ratio"]["median"] for side, row in rows[recipe]["sides"].items()}, flush=True
        )
    jax = of_jax(given, rows)
    for recipe, precisions in jax["rows"].items():
        for row in precisions.values():
            row["images_per_second"] = images[recipe] / row["seconds"]["median"]
    means = {
        side: statistics.geometric_mean(row["sides"][side]["ratio"]["median"] for row in rows.values())
        for side in given.sides
    }
    table = {
        "command": command_of(given),
        "environment": {key: value for key, value in reports[0]["environment"].items() if key != "command"},
        "products": {
            name: max(report["machine"]["products"][name]["flops_per_second"] for report in reports)
            for name in reports[0]["machine"]["products"]
        },
        "repeat": given.repeat,
        "epochs": given.epochs,
        "headline": given.sides[0],
        "images": images,
        "seconds_an_epoch": rows,
        "geometric_mean": {"headline": means[given.sides[0]], "sides": means},
        "jax": jax,
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")
    print({name: round(value, 2) for name, value in means.items()}, speed_pages.draw())


if __name__ == "__main__":
    main()
