"""Models of papers on dynamically binarised MNIST, beside the papers' numbers: the table of docs/results.md.

    python benchmarks/literature.py [--only iwae-50 vamp] [--seeds 0] [--samples 5000] [--runs DIR]

Each is the recipe `mnist-vae` with some fields changed. Writes benchmarks/records/literature.json, adding to what is
there; `python benchmarks/tables.py` shows it. With --runs the folders are kept, and a run that is there is only
measured. All of them take hours on two cores: a run with 50 samples an image half an hour and more, and measuring one
with 5,000 samples six to ten minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import record

RECORD = Path(__file__).parent / "records" / "literature.json"
RECIPE = "mnist-vae"
WIDE = {
    "epochs": 200,
    "precision": "bf16",
    "model.latent_dim": 40,
    "model.encoder.hidden": [300, 300],
    "model.encoder.activation": "gated",
    "model.decoder.hidden": [300, 300],
    "model.decoder.activation": "gated",
}
WARM = {"objective.beta": "linear", "objective.beta.epochs": 20, "precision": "bf16"}


@dataclasses.dataclass(frozen=True)
class Row:
    """words, the changes to `mnist-vae`, and the published test NLL in nats."""

    words: str
    published: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)


def weighted(objective: str, k: int, epochs: int, **more: Any) -> dict[str, Any]:
    """Importance-weighted objectives, with a warm-up."""
    own = {f"objective.{key}": value for key, value in more.items()}
    return {"epochs": epochs, "objective": objective, "objective.k": k, **own, **WARM}


ROWS = {
    RECIPE: Row(
        "VAE, 784-200-200-50",
        "86.76 (86.35 with 50 samples in the ELBO); a public reproduction with warm-up 86.32",
    ),
    "iwae-5": Row("IWAE-5, same networks", "85.54", weighted("iwae", 5, 400)),
    "iwae-50": Row(
        "IWAE-50, same networks",
        "84.78; reproductions 84.59 and 84.69",
        weighted("iwae", 50, 250, resample=5),
    ),
    "vae-300": Row("VAE, N(0, I), 784-300-300-40, gated layers", "84.45", WIDE),
    "vamp-300": Row(
        "the same, VampPrior of 500",
        "82.43",
        {**WIDE, "epochs": 120, "clip_norm": 5.0, "model.prior": "vamp", "model.prior.components": 500},
    ),
    "exemplar-300": Row(
        "the same, exemplars (5,000 images, not all)",
        "82.09",
        {**WIDE, "model.prior": "exemplar", "model.prior.exemplars": 200, "model.prior.images": 5000},
    ),
    "miwae-64": Row(
        "MIWAE, 8 groups of 8, 784-200-200-50",
        "84.97; a reproduction 85.09",
        weighted("miwae", 64, 100, groups=8, resample=8),
    ),
    "piwae-64": Row(
        "PIWAE, the same", "84.46; a reproduction 84.58", weighted("piwae", 64, 100, groups=8, resample=8)
    ),
    "ciwae-64": Row(
        "CIWAE, 64 samples, share 0.05",
        "84.57; a reproduction 84.74",
        weighted("ciwae", 64, 100, share=0.05, resample=8),
    ),
}


def rows_of(name: str) -> list[dict[str, Any]]:
    """The records of a row as it is now; those of the recipe itself are where those of all recipes are."""
    file = RECORD.with_name(f"{RECIPE}.json") if name == RECIPE else RECORD
    found = json.loads(file.read_text()) if file.is_file() else []
    return [row for row in found if row["command"].startswith(f"{command(name, row['seed'])} && ")]


def command(name: str, seed: int) -> str:
    return record.command(RECIPE, seed, ROWS[name].changes, f"{name}-s{seed}")


def write(name: str, found: dict[str, Any]) -> None:
    from nelbo.core.files import atomic

    kept = [row for other in ROWS if other != RECIPE for row in rows_of(other)]
    kept = [row for row in kept if (row["name"], row["seed"]) != (name, found["seed"])]
    order = list(ROWS)
    kept = sorted([*kept, {"name": name, **found}], key=lambda row: (order.index(row["name"]), row["seed"]))
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(kept, indent=1) + "\n")


def metric(rows: list[dict[str, Any]], name: str) -> str:
    """Mean over the seeds that have it (as the first has it: of as many samples) ± their standard deviation."""
    found = [row["test"]["best"]["metrics"].get(name) for row in rows]
    values = [one["value"] for one in found if one and one.get("conditions") == found[0].get("conditions")]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def table() -> str:
    """Dynamically binarised MNIST, one fixed binarisation of the test images: here beside what is published."""
    lines = [
        "| model | published NLL, nats | here, IW-NLL | standard error | NELBO | epochs | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    notes, hardware = [], set()
    for name, row in ROWS.items():
        rows = rows_of(name)
        if not rows:
            lines.append(f"| {row.words} | {row.published} | *not run* | | | | |")
            continue
        first = rows[0]["test"]["best"]["metrics"]["iw_nll"]
        lines.append(
            f"| {row.words} | {row.published} | **{metric(rows, 'iw_nll')}** (K = {first['conditions']['K']}) "
            f"| {first['standard_error']:.2f} | {metric(rows, 'nelbo')} | {rows[0]['epochs']} | {len(rows)} |"
        )
        hardware |= {one["hardware"] for one in rows}
        notes.append(f"`{rows[0]['command']}` (commit {rows[0]['commit']}, {rows[0]['precision']})")
    if not notes:
        return "\n".join([*lines, "\nNothing recorded yet."])
    return "\n".join(
        [*lines, "\nTest split, 10,000 images, float32; the standard error is over the images, of the first seed. "
         f"Trained on {', '.join(sorted(hardware))}:\n", *(f"- {note}" for note in notes)]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[name for name in ROWS if name != RECIPE], default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=5000, help="K of the importance-weighted NLL")
    parser.add_argument("--runs", type=Path, default=None, help="keep the run folders here")
    given = parser.parse_args()
    for name in given.only or [name for name in ROWS if name != RECIPE]:
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                runs = given.runs or Path(scratch)
                found = record.record(RECIPE, seed, given.samples, runs, ROWS[name].changes, name)
            write(name, found)
            print(name, seed, found["test"]["best"]["metrics"]["iw_nll"]["value"], flush=True)


if __name__ == "__main__":
    main()
