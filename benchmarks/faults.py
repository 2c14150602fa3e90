"""What seven faults of the five tutorials cost: each as published against corrected, one thing changed at a time.

    python benchmarks/faults.py [--runs DIR] [--seeds 0 1 2]

Trains what it needs and writes benchmarks/records/faults.json, which `python benchmarks/tables.py` shows in
docs/tutorials.md. With --runs a run that is there already is used and not trained again (record.py keeps its runs
with the same flag). Needs MNIST and Fashion-MNIST (NELBO_DATA, or they are downloaded).
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

import nelbo
from nelbo import engine
from nelbo.core.files import atomic
from nelbo.core.layout import number
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full
from nelbo.errors import TrainingFailed
from nelbo.likelihoods import Likelihood
from nelbo.likelihoods.base import LikelihoodModule, ObservationKind
from nelbo.likelihoods.bernoulli import BernoulliImage
from nelbo.metrics import bound_of
from nelbo.objectives import halves
from nelbo.training import api
from nelbo.training.store import Run

RECORD = Path(__file__).parent / "records" / "faults.json"


class SquashedTwice(Likelihood):
    """Bernoulli pixels whose sigmoid outputs are taken for logits: a fault, and likely where 524 nats come from."""

    observation_kind: ClassVar[ObservationKind] = "binary"
    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def build(self, shape: Shape) -> LikelihoodModule:
        return SquashedTwiceModule()


class SquashedTwiceModule(LikelihoodModule):
    def forward(self, outputs: Tensor) -> BernoulliImage:
        return BernoulliImage(full(outputs).sigmoid())


SHORTER = {"epochs": 20, "objective.beta": "linear", "objective.beta.epochs": 10}
REAL = {  # likelihoods of the 8-bit levels of Fashion-MNIST, in place of the cross-entropy of grey pixels
    "discretised logistic": {"model.likelihood": "discretised-logistic"},
    "dequantised, Gaussian": {
        "data.transforms": "dequantise",
        "model.likelihood": "gaussian",
        "model.likelihood.sigma": "per-pixel",
    },
}


class Trials:
    """Trains a recipe with overrides once for each seed, and measures it."""

    def __init__(self, runs: Path, seeds: list[int]) -> None:
        self.runs = runs
        self.seeds = seeds
        self.commands: list[str] = []

    def train(self, recipe: str, seed: int, overrides: Mapping[str, Any], name: str | None = None) -> Run:
        flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in overrides.items())
        self.commands.append(f"nelbo train {recipe} --seed {seed} {flags}".strip())
        name = f"{name or recipe}-s{seed}"
        return nelbo.train(recipe, overrides={**overrides, "seed": seed}, runs=self.runs, name=name)

    def each(self, recipe: str, measure: Callable[[Run], Any], **more: Any) -> list[Any]:
        overrides, name = more.get("overrides", {}), more.get("name")
        return [measure(self.train(recipe, seed, overrides, name)) for seed in self.seeds]


def card(run: Run) -> dict[str, Any]:
    """NELBO and its halves on the test split, nats an image; bits/dim where there are any."""
    found = nelbo.evaluate(run, samples=0, metrics=["bound", "error", "latent"])["metrics"]
    wanted = ("nelbo", "reconstruction", "kl", "bits_per_dim", "grey_cross_entropy", "mse", "active_units")
    return {name: found[name]["value"] for name in wanted if name in found}


def printed_sum(run: Run) -> dict[str, float]:
    """Reconstruction plus the KL of the density that is not the one sampled from: what the tutorial prints."""
    split = api.open_split(run, "test", torch.device("cpu"))
    model = api.load(run, device="cpu")
    reconstruction, kl, n = 0.0, 0.0, 0
    for x_BCHW in split.batches():
        parts, _ = halves(model.draw(x_BCHW))
        reconstruction += float(parts["reconstruction"].double().sum())
        kl += float(parts["surrogate_kl"].double().sum())
        n += len(x_BCHW)
    honest = nelbo.evaluate(run, samples=0, metrics=["bound"])["metrics"]["nelbo_independent_noise"]
    return {"reconstruction": reconstruction / n, "kl": kl / n, "independent": number(honest) or math.nan}


def signs(run: Run) -> dict[str, float]:
    """Where the raw sigma of a trained encoder lies on the test split."""
    split = api.open_split(run, "test", torch.device("cpu"))
    model = api.load(run, device="cpu")
    sigmas = (model.encode(x_BCHW).std for x_BCHW in split.batches())
    sigma_NZ = torch.cat([sigma_BZ for sigma_BZ in sigmas if sigma_BZ is not None])
    negative = sigma_NZ < 0
    return {
        "negative": float(negative.double().mean()),
        "both_signs": int((negative.any(0) & ~negative.all(0)).sum()),
        "smallest": float(sigma_NZ.abs().min()),
        "nelbo": float(sum(part.mean() for part in bound_of(model, split).values())),
    }


def selected(run: Run) -> dict[str, float]:
    """The epoch that the lowest validation loss picks while beta moves, and the one that the bound picks."""
    rows = run.history()
    moving = min(rows, key=lambda row: row["validation"]["total"])
    best = max(rows, key=lambda row: row["validation"]["bound"])
    return {
        "moving_epoch": moving["epoch"],
        "moving_beta": moving["beta"],
        "moving_loss": moving["validation"]["total"],
        "moving_nelbo": -moving["validation"]["bound"],
        "best_epoch": best["epoch"],
        "best_nelbo": -best["validation"]["bound"],
    }


def first_and_picked(run: Run) -> dict[str, float]:
    """Reconstruction and KL on the validation split after the first epoch, and where the moving loss is lowest."""
    rows = run.history()
    moving = min(rows, key=lambda row: row["validation"]["total"])
    found = {"first": rows[0], "picked": moving}
    table = {
        f"{name}_{part}": row["validation"][part]
        for name, row in found.items()
        for part in ("reconstruction", "kl")
    }
    return table | {"picked_epoch": moving["epoch"]}


def hidden_weight(mse: float) -> list[dict[str, str | float]]:
    """0.1 x averaged KL + averaged MSE, read as beta of a Gaussian of this sigma: beta = 0.1 D / (2 Z sigma^2)."""
    pixels, latents, weight = 32 * 32, 128, 0.1
    chosen = {"sqrt(0.4)": math.sqrt(0.4), "1": 1.0, "root of its own MSE": math.sqrt(mse)}
    return [
        {"words": words, "sigma": sigma, "beta": weight * pixels / (2 * latents * sigma**2)}
        for words, sigma in chosen.items()
    ]


def stopped(trials: Trials, recipe: str, overrides: Mapping[str, Any], name: str) -> list[Any]:
    """`signs` of each seed, or the message of a run that ended in numbers that are not finite."""
    found: list[Any] = []
    for seed in trials.seeds:
        try:
            found.append(signs(trials.train(recipe, seed, overrides, name)))
        except TrainingFailed as error:
            found.append({"stopped": str(error).partition(";")[0]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=None, help="keep the run folders here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        trials = Trials(given.runs or Path(scratch), given.seeds)
        published = "mlp-sigma-as-published"
        found = {
            "sixty-one": trials.each("mlp-tanh-binary-as-published", printed_sum),
            "half": trials.each("mlp-sigma", card, overrides={"objective.beta": 2.0}, name="missing-half"),
            "whole": trials.each("mlp-sigma", card),
            "sigma as published": trials.each(published, signs),
            "sigma at 1e-3": stopped(trials, published, {"optimizer.lr": 1e-3}, "raw-sigma-1e-3"),
            "hidden weight": hidden_weight(trials.each("conv-bn-128", card)[0]["mse"]),
            "selection": trials.each("fashion-mlp", selected),
            "grey": trials.each("fashion-mlp", card),
        }
        trials.seeds = given.seeds[:1]
        twice = {"model.likelihood": "squashed-twice", "epochs": 12}
        found["squashed twice"] = trials.each(
            "fashion-mlp", first_and_picked, overrides=twice, name="squashed-twice"
        )
        for words, overrides in REAL.items():
            found[words] = trials.each(
                "fashion-mlp", card, overrides=overrides | SHORTER, name=words.split(",")[0]
            )
        environment = engine.describe(torch.device("cpu"))
        table = {
            "command": "python benchmarks/faults.py",
            "trained_by": trials.commands,
            "commit": environment.get("git"),
            "environment": environment,
            "faults": found,
        }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
