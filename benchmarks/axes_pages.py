"""The tables of docs/objectives, posteriors, priors and models: each method on digits.

They are written by `tables.py` from the records of `methods.py`.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import literature
import regularised
from methods import METHODS, recipe_of

RECORDS = Path(__file__).parent / "records"
PARTS = {
    "objectives": ("objectives",),
    "posteriors": ("posteriors", "spaces"),
    "priors": ("priors", "spaces"),
    "models": ("models",),
}
"""Folder of docs/ -> the parts of METHODS that its table shows."""


def rows_of(name: str) -> list[dict[str, Any]]:
    file = RECORDS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else []


def metric(rows: list[dict[str, Any]], name: str, digits: int = 1) -> str:
    """Return the mean over seeds ± their standard deviation; a dash where there is none."""
    values = [row["test"]["best"]["metrics"].get(name, {}).get("value") for row in rows]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or not numbers:
        return "-"
    spread = f" ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.{digits}f}{spread}"


def digits_table(part: str) -> str:
    """Return the table of every method of a part, trained on the embedded digits."""
    rows_by_method = {
        name: rows_of(name) for name in sorted(METHODS) if METHODS[name].part in PARTS[part] and rows_of(name)
    }
    lines = [
        "| method | objective | posterior | prior | test NELBO, nats | reconstruction | KL | IW-NLL | active | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in rows_by_method.items():
        recipe = recipe_of(name)
        parts = [
            getattr(getattr(recipe.model, part, None), "name", recipe.model.name)
            for part in ("posterior", "prior")
        ]
        seconds = statistics.median(row["seconds"]["train"] for row in rows)
        lines.append(
            f"| `{name}` | {recipe.objective.name} | {' | '.join(parts)} | {metric(rows, 'nelbo')} "
            f"| {metric(rows, 'reconstruction')} | {metric(rows, 'kl')} | {metric(rows[:1], 'iw_nll')} "
            f"| {metric(rows, 'active_units', 0)} | {seconds:.0f} |"
        )
    if not rows_by_method:
        return "*Not recorded yet: `python benchmarks/methods.py`.*"
    first = next(iter(rows_by_method.values()))[0]
    commits = sorted({row["commit"] for rows in rows_by_method.values() for row in rows})
    estimates = [rows[0]["test"]["best"]["metrics"].get("iw_nll", {}) for rows in rows_by_method.values()]
    samples = next(one["conditions"]["K"] for one in estimates if one.get("conditions"))
    lines.append(
        f"\nTest split of `digits` (binary, 8 x 8), best checkpoint, mean ± standard deviation over seeds; IW-NLL "
        f"(K = {samples}) of seed 0; a dash where the number does not exist. Seconds of training, one thread. float32, "
        f"torch {first['torch']}, {first['hardware']}, data {first['data_hash']}, commit {', '.join(commits)}; "
        "`python benchmarks/methods.py`. A row shows what its method does, not the best number of the set."
    )
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    **{f"digits-{part}": functools.partial(digits_table, part) for part in PARTS},
    "literature": literature.table,
    "regularised": regularised.table,
}
