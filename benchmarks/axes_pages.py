"""Tables of docs/objectives, posteriors, priors and models: each method on digits.

They are written by `tables.py` from the records of `record.py`.
"""

from __future__ import annotations

import functools
import json
import statistics
from pathlib import Path
from typing import Any

import literature
import regularised

from nelbo.core.registry import lookup, names
from nelbo.training.recipe import named

RECORDS = Path(__file__).parent / "records"
PARTS = {
    "objectives": ("bound_recipes", "aggregate_recipes", "autoencoder_recipes"),
    "posteriors": ("posterior_recipes", "space_recipes"),
    "priors": ("prior_recipes", "space_recipes"),
    "models": ("model_recipes",),
}
"""Folder of docs/ -> the modules whose recipes its table shows."""


def rows_of(recipe: str) -> list[dict[str, Any]]:
    file = RECORDS / f"{recipe}.json"
    return json.loads(file.read_text()) if file.is_file() else []


def module_of(recipe: str) -> str:
    """`bound_recipes` of a recipe that is written there."""
    return str(lookup("recipe", recipe).__module__).rpartition(".")[2]


def metric(rows: list[dict[str, Any]], name: str, digits: int = 1) -> str:
    """Mean over seeds ± their standard deviation; a dash where there is none."""
    values = [row["test"]["best"]["metrics"].get(name, {}).get("value") for row in rows]
    found = [value for value in values if value is not None]
    if len(found) < len(values) or not found:
        return "-"
    spread = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.{digits}f}{spread}"


def digits_table(part: str) -> str:
    """Every method of a part, trained on the embedded digits."""
    recipes = [recipe for recipe in names("recipe") if module_of(recipe) in PARTS[part]]
    lines = [
        "| recipe | objective | posterior | prior | test NELBO, nats | reconstruction | KL | IW-NLL | active | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    kept = [recipe for recipe in recipes if rows_of(recipe)]
    for recipe in kept:
        rows, made = rows_of(recipe), named(recipe)
        parts = [
            getattr(getattr(made.model, part, None), "name", made.model.name)
            for part in ("posterior", "prior")
        ]
        seconds = statistics.median(row["seconds"]["train"] for row in rows)
        lines.append(
            f"| `{recipe}` | {made.objective.name} | {' | '.join(parts)} | {metric(rows, 'nelbo')} "
            f"| {metric(rows, 'reconstruction')} | {metric(rows, 'kl')} | {metric(rows[:1], 'iw_nll')} "
            f"| {metric(rows, 'active_units', 0)} | {seconds:.0f} |"
        )
    if not kept:
        return "*Not recorded yet: `python benchmarks/record.py`.*"
    first = rows_of(kept[0])[0]
    commits = sorted({row["commit"] for recipe in kept for row in rows_of(recipe)})
    notes = [
        rows_of(recipe)[0]["test"]["best"]["metrics"].get("iw_nll", {}).get("note", "") for recipe in kept
    ]
    importance = next(note for note in notes if note.startswith("K = ")).split(";")[0]
    lines.append(
        f"\nTest split of `digits` (binary, 8 x 8), best checkpoint, mean ± standard deviation over seeds; IW-NLL "
        f"({importance}) of seed 0; a dash where the number does not exist. Seconds of training, one thread. float32, "
        f"torch {first['torch']}, {first['hardware']}, data {first['data_hash']}, commit {', '.join(commits)}; "
        "`python benchmarks/record.py`. A recipe shows what its method does, not the best number of the set."
    )
    return "\n".join(lines)


TABLES = {
    **{f"digits-{part}": functools.partial(digits_table, part) for part in PARTS},
    "literature": literature.table,
    "regularised": regularised.table,
}
