"""Finds images of another data set among test images: AUROC of every score of `nelbo score`, there and back.

    python benchmarks/outliers.py [--images 300] [--epochs 5]

Trains the network of `fashion-mlp` on 20,000 images of Fashion-MNIST, and of MNIST, with two likelihoods; scores 300
test images of each set, beside 300 validation images. AUROC is the chance that an image of the other set is stranger
than one of the own: 0.5 is a coin, and below it other images look more usual than the own. Needs both sets
(NELBO_DATA). Writes benchmarks/records/outliers.json and the table in docs/outliers.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

import nelbo
from nelbo import engine
from nelbo.core.files import atomic
from nelbo.data import Data, Images, Loaded, data_root
from nelbo.evaluation.scoring import LOWER_IS_STRANGER, SCORES

RECORD = Path(__file__).parent / "records" / "outliers.json"
PAGE = Path(__file__).parent.parent / "docs" / "outliers.md"
MARKS = "<!-- table: outliers -->", "<!-- end: outliers -->"
SETS = {"fashion-mnist": "mnist", "mnist": "fashion-mnist"}
LIKELIHOODS = ("bernoulli", "discretised-logistic")
TRAINED, VALIDATION = 20_000, 2_000
SAMPLES, STEPS = 20, 30
TITLES = {"fashion-mnist": "Fashion-MNIST", "mnist": "MNIST"}


def data_of(name: str, images: int) -> Loaded:
    """Return the first training and validation images of a set, and its first test images."""
    splits = Data(source=name).load(data_root(None))
    assert splits.test is not None
    train = splits.train.select(torch.arange(TRAINED + VALIDATION))
    return Loaded(
        train.select(torch.arange(TRAINED)),
        train.select(torch.arange(TRAINED, TRAINED + VALIDATION)),
        splits.test.select(torch.arange(images)),
    )


def both(own: Loaded, other: Loaded) -> Images:
    """Return the test images of two sets, those of the own first."""
    assert own.test is not None
    assert other.test is not None
    return Images(torch.cat([own.test.pixels_NCHW, other.test.pixels_NCHW]))


def measured(name: str, likelihood: str, images: int, epochs: int, runs: Path) -> dict[str, Any]:
    """Train on one set; return the AUROC of every score against the other set."""
    own, other = data_of(name, images), data_of(SETS[name], images)
    changes = {"model.likelihood": likelihood, "data.transforms": [], "epochs": epochs, "objective.beta": 1.0}
    begun = time.perf_counter()
    run = nelbo.train(
        "fashion-mlp", overrides=changes, data=own, runs=runs, name=f"{name}-{likelihood}", device="cpu"
    )
    trained = time.perf_counter()
    scores = nelbo.score(
        run, both(own, other), samples=SAMPLES, steps=STEPS, reference=own, held_out=images, device="cpu"
    )
    is_other = torch.arange(2 * images) >= images
    rows: dict[str, Any] = {}
    for score, values_N in scores.values.items():
        sign = -1.0 if score in LOWER_IS_STRANGER else 1.0
        small = scores.places[score].p_N < 0.05
        rows[score] = {
            "auroc": round(float(roc_auc_score(is_other.numpy(), (sign * values_N).numpy())), 4),
            "p_below_5_percent": {
                "own": round(float(small[~is_other].double().mean()), 4),
                "other": round(float(small[is_other].double().mean()), 4),
            },
            "mean": {"own": float(values_N[~is_other].mean()), "other": float(values_N[is_other].mean())},
        }
    seconds = {"train": round(trained - begun, 1), "score": round(time.perf_counter() - trained, 1)}
    return {"scores": rows, "missing": dict(scores.missing), "seconds": seconds}


def table(results: dict[str, Any]) -> str:
    """Return the AUROCs as a table of Markdown."""
    columns = [(likelihood, name) for likelihood in LIKELIHOODS for name in SETS]
    heads = [f"{likelihood}: {TITLES[name]}, then {TITLES[SETS[name]]}" for likelihood, name in columns]
    lines = ["| score | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    for score in SCORES:
        cells = []
        for likelihood, name in columns:
            row = results[likelihood][name]["scores"].get(score)
            cells.append("-" if row is None else f"{row['auroc']:.3f}")
        lines.append(f"| `{score}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as runs:
        for likelihood in LIKELIHOODS:
            results[likelihood] = {}
            for name in SETS:
                result = measured(name, likelihood, arguments.images, arguments.epochs, Path(runs))
                results[likelihood][name] = result
                print(
                    likelihood,
                    name,
                    {k: row["auroc"] for k, row in result["scores"].items()},
                    result["seconds"],
                    flush=True,
                )
    record = {
        "command": f"python benchmarks/outliers.py --images {arguments.images} --epochs {arguments.epochs}",
        "environment": engine.describe(torch.device("cpu")),
        "trained_on": TRAINED, "images": arguments.images, "samples": SAMPLES, "steps": STEPS,
        "results": results,
    }  # fmt: skip
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(f"{before}{MARKS[0]}\n{table(results)}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
