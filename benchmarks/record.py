"""Trains recipes over seeds and records what they reach: the numbers in the README and in docs/tutorials.md.

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
from nelbo.evaluation.card import QUICK
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
    """One run, trained and measured; with `changes` to the recipe under a name of its own."""
    changes, name = changes or {}, f"{name or recipe}-s{seed}"
    run = nelbo.train(recipe, overrides={"seed": seed, **changes}, runs=runs, name=name)
    cards = {
        checkpoint: nelbo.evaluate(run, checkpoint=checkpoint, samples=0, metrics=QUICK)
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
    """What trains the same run by hand."""
    named = "" if name == f"{recipe}-s{seed}" else f" --name {name}"
    return " ".join([f"nelbo train {recipe}{named} --seed {seed}", *flags(changes)])


def flags(changes: Mapping[str, Any]) -> list[str]:
    """Changed fields as they are written on the command line."""
    return [f"--{key.replace('_', '-')} {_text(value)}" for key, value in changes.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "[]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=names("recipe"))
    parser.add_argument(
        "--samples", type=int, default=1000, help="K of the importance-weighted NLL, first seed only"
    )
    parser.add_argument("--runs", type=Path, default=None, help="keep the run folders here")
    given = parser.parse_args()
    for position, seed in enumerate(given.seeds):
        for recipe in given.only:
            with tempfile.TemporaryDirectory() as scratch:
                found = record(recipe, seed, 0 if position else given.samples, given.runs or Path(scratch))
            file = RECORDS / f"{recipe}.json"
            kept = json.loads(file.read_text()) if file.is_file() else []
            kept = [row for row in kept if row["seed"] != seed] + [found]
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(sorted(kept, key=lambda row: row["seed"]), indent=1) + "\n")
            best = found["test"]["best"]["metrics"]["nelbo"]
            print(recipe, seed, best["value"], best["note"], flush=True)


if __name__ == "__main__":
    main()
