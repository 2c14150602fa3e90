"""Do objectives for separate factors separate them? VAE, beta-VAE, beta-TCVAE, FactorVAE and DIP-VAE on `shapes`.

    python benchmarks/disentangle.py [--epochs 15] [--seeds 0 1 2 3 4] [--only beta-TCVAE] [--images N] [--jobs 2]

The network of the recipe `shapes`, known factors, every objective with every seed; test split, best epoch by the
validation bound. Each run has one thread, two run at a time. Writes benchmarks/records/disentangle.json, adding to what
is there of the same settings; `python benchmarks/tables.py` shows it in docs/objectives/. `--images` takes a random few
of the images instead of all, for a trial. About a minute a run alone: twenty minutes for all thirty on two cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import record

RECORD = Path(__file__).parent / "records" / "disentangle.json"
EPOCHS, SEEDS, JOBS = 15, (0, 1, 2, 3, 4), 2
DIP = {"objective": "dip-vae", "objective.off_diagonal": 10.0}
METHODS: dict[str, dict[str, Any]] = {
    "VAE": {"objective": "elbo", "objective.beta": 1.0},  # the recipe's own is 8
    "beta-VAE": {"objective": "elbo", "objective.beta": 8.0},
    "beta-TCVAE": {"objective": "tcvae", "objective.beta": 8.0},
    "FactorVAE": {
        "objective": "factor-vae",
        "objective.gamma": 35.0,
        "objective.critic.hidden": [256, 256, 256],
    },
    "DIP-VAE-I": DIP | {"objective.kind": "I", "objective.diagonal": 100.0},
    "DIP-VAE-II": DIP | {"objective.kind": "II", "objective.diagonal": 10.0},
}
"""beta is the recipe's, also for beta-TCVAE; gamma is that of Kim & Mnih 2018 for 2D shapes; DIP-VAE's are in the
middle of the range of Locatello et al. 2019. None was searched for here."""
KEPT = (
    "nelbo",
    "reconstruction",
    "kl",
    "active_units",
    "mutual_information",
    "total_correlation",
    "mig",
    "sap",
    "dci_disentanglement",
    "dci_completeness",
    "dci_informativeness",
    "factor_vae_score",
    "modularity",
)


def command(method: str, seed: int, epochs: int) -> str:
    """What trains the same run by itself."""
    return record.command("shapes", seed, {"epochs": epochs, **METHODS[method]}, f"shapes-s{seed}")


def trained(method: str, seed: int, epochs: int, source: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """One run, trained and measured with one thread; and what it ran on."""
    import torch

    import nelbo
    from nelbo.training.store import Run

    torch.set_num_threads(1)
    changes = METHODS[method] | {"seed": seed, "epochs": epochs, "latent_every": epochs}
    if source is not None:
        changes |= {"data.source": source, "data.validation": 0.1}
    with tempfile.TemporaryDirectory() as runs:
        run = nelbo.train("shapes", overrides=changes, runs=runs, name="run", device="cpu")
        card = nelbo.evaluate(run, samples=0, metrics=("bound", "latent", "information", "factors"))
        environment, summary = Run(run.path).read_json("env.json"), run.summary
    found = {name: card["metrics"][name] for name in KEPT}
    row = {
        "method": method,
        "seed": seed,
        "command": command(method, seed, epochs),
        "commit": environment.get("git"),
        "best_epoch": summary["best_epoch"],
        "seconds": round(summary["seconds"]["train"], 1),
        "n": card["n"],
        "metrics": {
            name: {key: value[key] for key in ("value", "missing", "note")} for name, value in found.items()
        },
    }
    return row, environment


def few(images: int, folder: Path) -> str:
    """A file of that many of the images, with their factors."""
    import numpy as np

    from nelbo.data import Data

    train = Data(source="shapes").load().train
    assert train.factors_NF is not None
    assert train.factor_names is not None
    file = folder / "few.npz"
    np.savez(
        file,
        images=train.pixels_NCHW[:images].permute(0, 2, 3, 1).numpy(),
        factors=train.factors_NF[:images].numpy(),
        factor_names=np.array(train.factor_names),
    )
    return str(file)


def write(rows: list[dict[str, Any]], environment: dict[str, Any], about: dict[str, Any]) -> None:
    """The record, with the rows that are there of the same settings."""
    from nelbo.core.files import atomic

    kept: list[dict[str, Any]] = []
    if RECORD.is_file():
        before = json.loads(RECORD.read_text())
        kept = before["rows"] if all(before[key] == about[key] for key in ("epochs", "images")) else []
    new = {(row["method"], row["seed"]) for row in rows}
    rows = [row for row in kept if (row["method"], row["seed"]) not in new] + rows
    order = list(METHODS)
    table = {
        **about,
        "data_hash": environment["data"]["hash"],
        "hardware": f"{environment['processor']}, 1 thread a run",
        "torch": environment["packages"]["torch"],
        "summary": {method: summary(rows, method) for method in order if summary(rows, method)},
        "rows": sorted(rows, key=lambda row: (order.index(row["method"]), row["seed"])),
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


def summary(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every number that all of them have."""
    mine = [row for row in rows if row["method"] == method]
    found: dict[str, Any] = {"seeds": sorted(row["seed"] for row in mine)} if mine else {}
    for name in KEPT if mine else ():
        values = [row["metrics"][name]["value"] for row in mine]
        if None not in values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            found[name] = {"mean": statistics.mean(values), "spread": spread}
    return found


SHOWN = {
    "nelbo": ("NELBO, nats", 1),
    "kl": ("KL", 1),
    "total_correlation": ("TC", 2),
    "active_units": ("active", 1),
    "mig": ("MIG", 2),
    "dci_disentanglement": ("DCI-D", 2),
    "dci_completeness": ("DCI-C", 2),
    "dci_informativeness": ("DCI-I", 2),
    "factor_vae_score": ("FactorVAE score", 2),
}
"""What the table of docs/objectives/ shows: metric -> (heading, digits)."""


def table() -> str:
    """Objectives down, scores across: mean ± standard deviation over seeds."""
    if not RECORD.is_file():
        return "*Not recorded yet: `python benchmarks/disentangle.py`.*"
    found = json.loads(RECORD.read_text())
    lines = [
        f"| objective | {' | '.join(words for words, _ in SHOWN.values())} | seeds |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for method, numbers in found["summary"].items():
        cells = [_cell(numbers.get(name), digits) for name, (_, digits) in SHOWN.items()]
        settings = " ".join(record.flags(METHODS[method]))
        lines.append(f"| {method}: `{settings}` | {' | '.join(cells)} | {len(numbers['seeds'])} |")
    first, commits = found["rows"][0], sorted({str(row["commit"]) for row in found["rows"]})
    which = "`shapes`" if found["images"] is None else f"{found['images']} images of `shapes`"
    return "\n".join(
        [*lines, f"\n{which}, {found['epochs']} epochs, test split (n = {first['n']:,}), best epoch by the validation "
         "bound; mean ± standard deviation over seeds, a dash where a run has no such number. Grey pixels: the NELBO "
         f"is a cross-entropy plus KL. {found['hardware']}, torch {found['torch']}, data {found['data_hash']}, commit "
         f"{', '.join(commits)}; `{found['command']}`."]
    )  # fmt: skip


def _cell(number: dict[str, Any] | None, digits: int) -> str:
    if number is None:
        return "-"
    spread = "" if number["spread"] is None else f" ± {number['spread']:.{digits}f}"
    return f"{number['mean']:.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=JOBS)
    given = parser.parse_args()
    flags = "" if given.epochs == EPOCHS else f" --epochs {given.epochs}"
    flags += "" if given.images is None else f" --images {given.images}"
    about = {
        "command": f"python benchmarks/disentangle.py{flags}",
        "epochs": given.epochs,
        "images": given.images,
    }
    with tempfile.TemporaryDirectory() as scratch:
        source = None if given.images is None else few(given.images, Path(scratch))
        # Fresh processes: torch's threads do not survive a fork.
        with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
            waiting = [
                pool.submit(trained, method, seed, given.epochs, source)
                for seed in given.seeds
                for method in given.only
            ]
            for done in as_completed(waiting):
                row, environment = done.result()
                write([row], environment, about)
                values = {name: row["metrics"][name]["value"] for name in ("nelbo", "mig")}
                print(row["method"], row["seed"], values, f"{row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
