"""Regularised autoencoders beside a VAE: how near drawn images are, with the prior and with samplers fitted afterwards.

    python benchmarks/regularised.py [--seeds 0 1 2] [--only VAE RAE-L2] [--epochs 20] [--runs DIR]

The comparison of Ghosh et al. 2020, table 1, on grey MNIST with a small network: the same for every method, and for
each run Fréchet distances on the test images of what N(0, I), one Gaussian and a mixture of ten draw, and of
reconstructions. Nothing is chosen by them. The features are those of the data's own classifier, not Inception's, so
that the columns can be compared with each other and not with the paper's. Writes benchmarks/records/regularised.json,
adding to what is there of the same length; `python benchmarks/tables.py` shows it in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import record

RECORD = Path(__file__).parent / "records" / "regularised.json"
RECIPE, EPOCHS = "mnist-vae", 20
NETWORK: dict[str, Any] = {
    "data.transforms": [],
    "data.validation": 5000,
    "model.latent_dim": 16,
    "model.likelihood": "gaussian",
    "model.likelihood.mean": "sigmoid",
    "model.likelihood.sigma": 0.1,
    "model.encoder.hidden": [512, 256],
    "model.decoder.hidden": [256, 512],
    "precision": "bf16",
}
POINT = {"model.posterior": "dirac"}
METHODS: dict[str, dict[str, Any]] = {
    "VAE": {"objective": "elbo", "objective.beta": 1.0},
    "AE": {**POINT, "objective": "rae", "objective.latent_weight": 0.0},
    "RAE-L2": {**POINT, "objective": "rae-l2", "objective.decoder_weight": 0.01},
    "RAE-GP": {**POINT, "objective": "rae-gp", "objective.decoder_weight": 0.1},
    "RAE-SN": {**POINT, "objective": "rae", "model.decoder.spectral_norm": True},
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "N(0, I)": {"name": "prior"},
    "one Gaussian": {"name": "gaussian-mixture", "components": 1},
    "mixture of ten": {"name": "gaussian-mixture", "components": 10},
}
PUBLISHED = {
    "VAE": ("19.21", "17.66", "18.26"),
    "AE": ("58.73", "10.66", "12.95"),
    "RAE-L2": ("22.22", "8.69", "10.53"),
    "RAE-GP": ("22.21", "11.54", "14.04"),
    "RAE-SN": ("19.67", "11.74", "15.65"),
}
"""FID of Ghosh et al. 2020, table 1, MNIST: one Gaussian (a VAE's prior), mixture of ten, reconstructions."""
MAIN = "frechet_classifier_distance"


def changes(method: str, epochs: int) -> dict[str, Any]:
    return {"epochs": epochs, **NETWORK, **METHODS[method]}


def measured(method: str, seed: int, epochs: int, runs: Path) -> dict[str, Any]:
    """One run, trained, and what each sampler draws from it."""
    import nelbo
    from nelbo.evaluation import samplers
    from nelbo.training.store import Run

    name = f"{method.lower()}-s{seed}"
    run = nelbo.train(RECIPE, overrides={"seed": seed, **changes(method, epochs)}, runs=runs, name=name)
    distances: dict[str, Any] = {}
    for words, sampler in SAMPLERS.items():
        fields = dict(sampler)
        kind = fields.pop("name")
        settings = {f"{kind}.{key}": value for key, value in fields.items()}
        found = samplers.compare(run, [kind], settings, seed=seed)
        distances[words] = found["test"]["metrics"][MAIN]
    environment = Run(run.path).read_json("env.json")
    references = {key.rpartition("_")[2]: value for key, value in found["test"]["references"].items()}
    card = nelbo.evaluate(run, samples=0, metrics=("error",))
    return {
        "method": method,
        "seed": seed,
        "command": command(method, seed, epochs),
        "commit": environment.get("git"),
        "hardware": f"{environment['processor']}, {environment['threads']} threads",
        "torch": environment["packages"]["torch"],
        "data_hash": environment["data"]["hash"],
        "seconds": run.summary["seconds"]["train"],
        "best_epoch": run.summary["best_epoch"],
        "epochs": epochs,
        "n": found["test"]["n"],
        "distances": distances,
        "references": references,
        "mse": card["metrics"]["mse"]["value"],
    }


def command(method: str, seed: int, epochs: int) -> str:
    return record.command(RECIPE, seed, changes(method, epochs), f"{method.lower()}-s{seed}")


def rows_of(method: str, epochs: int = EPOCHS) -> list[dict[str, Any]]:
    """The records of a method as it is now, and of that length."""
    found = json.loads(RECORD.read_text()) if RECORD.is_file() else []
    mine = [row for row in found if row["method"] == method]
    return [row for row in mine if row["command"] == command(method, row["seed"], epochs)]


def write(row: dict[str, Any]) -> None:
    from nelbo.core.files import atomic

    kept = [one for method in METHODS for one in rows_of(method, row["epochs"])]
    kept = [one for one in kept if (one["method"], one["seed"]) != (row["method"], row["seed"])]
    order = list(METHODS)
    kept = sorted([*kept, row], key=lambda one: (order.index(one["method"]), one["seed"]))
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n")


def spread(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def table() -> str:
    """Methods down, samplers across: Fréchet distance on test images, and the paper's FID."""
    kept = [method for method in METHODS if rows_of(method)]
    if not kept:
        return "*Not recorded yet: `python benchmarks/regularised.py`.*"
    lines = [
        f"| method | {' | '.join(SAMPLERS)} | reconstructions | MSE | runs | FID, paper: Gaussian, mixture, rec. |",
        "|---" * (len(SAMPLERS) + 5) + "|",
    ]
    for method in kept:
        rows = rows_of(method)
        cells = [spread([row["distances"][words]["value"] for row in rows], 3) for words in SAMPLERS]
        cells.append(spread([row["references"]["reconstructions"]["value"] for row in rows], 3))
        cells.append(spread([row["mse"] for row in rows], 4))
        settings = " ".join(record.flags(METHODS[method]))
        published = ", ".join(PUBLISHED.get(method, ("-",)))
        lines.append(f"| {method}: `{settings}` | {' | '.join(cells)} | {len(rows)} | {published} |")
    first = rows_of(kept[0])[0]
    train = f"{first['references']['train']['value']:.3f}"
    commits = sorted({str(row["commit"]) for method in kept for row in rows_of(method)})
    return "\n".join(
        [*lines, f"\n`{MAIN}` on the test split, n = {first['n']:,}, mean ± standard deviation over seeds; training "
         f"images against the same: {train}. {first['epochs']} epochs, `{' '.join(record.flags(NETWORK))}`. "
         f"{first['hardware']}, torch {first['torch']}, data {first['data_hash']}, commit {', '.join(commits)}; "
         "`python benchmarks/regularised.py`."]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--runs", type=Path, default=None, help="keep the run folders here")
    given = parser.parse_args()
    for seed in given.seeds:
        for method in given.only:
            with tempfile.TemporaryDirectory() as scratch:
                row = measured(method, seed, given.epochs, given.runs or Path(scratch))
            write(row)
            found = {words: round(one["value"], 3) for words, one in row["distances"].items()}
            print(method, seed, found, flush=True)


if __name__ == "__main__":
    main()
