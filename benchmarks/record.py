"""Train recipes over seeds and record what they reach: the numbers in the README and in docs/tutorials.md.

    python benchmarks/record.py --seeds 0 1 2 [--only mlp-sigma] [--samples 1000] [--runs DIR]

One file a recipe in benchmarks/records/, with the command, data hash, hardware and commit of every run: all metrics
of the best checkpoint, and the quick ones of the first and the last. With --runs the folders are kept, and a run that
is there is only measured.
Needs MNIST and Fashion-MNIST (NELBO_DATA, or they are downloaded).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nelbo
from nelbo.core.files import atomic
from nelbo.core.registry import names
from nelbo.evaluation.card import quick
from nelbo.training.store import Run

RECORDS = Path(__file__).parent / "records"


def record(
    recipe: str,
    seed: int,
    samples: int,
    runs: Path,
    changes: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Train and measure one run; with `changes` to the recipe it has a name of its own."""
    changes, name = changes or {}, f"{name or recipe}-s{seed}"
    run = nelbo.train(recipe, overrides={"seed": seed, **changes}, runs=runs, name=name)
    cards = {
        checkpoint: nelbo.evaluate(run, checkpoint=checkpoint, samples=0, metrics=quick())
        for checkpoint in ("first", "last")
    }
    cards["best"] = nelbo.evaluate(run, samples=samples)
    environment, summary = Run(run.path).read_json("env.json"), run.summary
    return {
        "recipe": recipe,
        "seed": seed,
        "command": f"{command(recipe, seed, changes, name)} && nelbo evaluate {run.name} --samples {samples}",
        "commit": environment.get("git"),
        "measured_at": cards["best"]["environment"].get("git"),
        "data_hash": environment["data"]["hash"],
        "hardware": f"{environment['processor']}, {environment['threads']} threads",
        "torch": environment["packages"]["torch"],
        "precision": summary["precision"],
        "compiled": summary["compiled"],
        "epochs": summary["epochs"],
        "best_epoch": summary["best_epoch"],
        "selection": summary["selection"],
        "seconds": summary["seconds"],
        "test": {
            checkpoint: {
                "epoch": card["epoch"],
                "n": card["n"],
                "metrics": {
                    name: value for name, value in card["metrics"].items() if name != "kl_per_dimension"
                },
            }
            for checkpoint, card in cards.items()
        },
    }


def command(recipe: str, seed: int, changes: Mapping[str, Any], name: str) -> str:
    """Return the command that trains the same run by hand."""
    named = "" if name == f"{recipe}-s{seed}" else f" --name {name}"
    return " ".join([f"nelbo train {recipe}{named} --seed {seed}", *flags(changes)])


def flags(changes: Mapping[str, Any]) -> list[str]:
    """Return changed fields as they are written on the command line."""
    return [f"--{key.replace('_', '-')} {_text(value)}" for key, value in changes.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "") or "[]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def parser(description: str, every: list[str]) -> argparse.ArgumentParser:
    """Return the flags of the scripts that record trainings."""
    flags_of_script = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags_of_script.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags_of_script.add_argument("--only", nargs="+", choices=every, default=every, metavar="NAME")
    flags_of_script.add_argument(
        "--samples", type=int, default=1000, help="K of the importance-weighted NLL, first seed only"
    )
    flags_of_script.add_argument("--runs", type=Path, default=None, help="keep the run folders here")
    return flags_of_script


def record_seeds(
    options: argparse.Namespace,
    recipe: str,
    changes: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Train and measure every seed, and write its row into the file of that name."""
    name = name or recipe
    file = RECORDS / f"{name}.json"
    for position, seed in enumerate(options.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            samples = 0 if position else options.samples
            row = record(recipe, seed, samples, options.runs or Path(scratch), changes, name)
        rows = json.loads(file.read_text()) if file.is_file() else []
        rows = [other for other in rows if other["seed"] != seed] + [row]
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(sorted(rows, key=lambda row: row["seed"]), indent=1) + "\n")
        best = row["test"]["best"]["metrics"]["nelbo"]
        print(name, seed, best["value"], best["note"], flush=True)


def main() -> None:
    options = parser(__doc__ or "", names("recipe")).parse_args()
    for recipe in options.only:
        record_seeds(options, recipe)


if __name__ == "__main__":
    main()
