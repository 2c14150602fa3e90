"""Fits every sampler to a recipe's runs and records what `nelbo samplers` says: the table of docs/samplers/README.md.

    python benchmarks/samplers.py [--recipe digits] [--seeds 0 1 2] [--runs DIR]

One record in benchmarks/records/ (samplers.json; of another recipe samplers-RECIPE.json), with every sampler's numbers
on the validation split, and those of the chosen one on the test split. Writes the table of the page from samplers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import nelbo
from nelbo.core.files import atomic
from nelbo.evaluation import samplers

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "records"
PAGE = ROOT / "docs" / "samplers" / "README.md"
MARKS = "<!-- table: samplers -->", "<!-- end: samplers -->"
SHOWN = ("precision", "recall", "density", "coverage")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=None, help="keep the run folders here")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in given.seeds:
            rows.append(record(given.recipe, seed, given.runs or Path(scratch)))
            print(given.recipe, seed, rows[-1]["chosen"], flush=True)
    name = "samplers" if given.recipe == "digits" else f"samplers-{given.recipe}"
    with atomic(RECORDS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    if name == "samplers":
        write_page(table(rows))


def record(recipe: str, seed: int, runs: Path) -> dict[str, Any]:
    """Trains a run and compares all samplers on it."""
    run = nelbo.train(recipe, overrides={"seed": seed}, runs=runs, name=f"{recipe}-s{seed}")
    found = samplers.compare(run, seed=seed)
    environment = found.pop("environment")
    return {
        "recipe": recipe,
        "command": f"nelbo train {recipe} --seed {seed} && nelbo samplers {run.name} --seed {seed}",
        "commit": environment.get("git"),
        "hardware": f"{environment['processor']}, {environment['threads']} threads",
        "torch": environment["packages"]["torch"],
        **found,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds ± their standard deviation, nearest first."""
    by = rows[0]["by"]

    def values(name: str, metric: str) -> list[float]:
        return [
            row["samplers"][name]["metrics"][metric]["value"]
            for row in rows
            if row["samplers"].get(name, {}).get("metrics", {}).get(metric, {}).get("value") is not None
        ]

    names = [name for name in rows[0]["samplers"] if len(values(name, by)) == len(rows)]
    shown = [metric for metric in SHOWN if all(values(name, metric) for name in names)]
    seconds = {
        name: [
            statistics.median(row["samplers"][name]["seconds"][what] for row in rows)
            for what in ("fit", "draw")
        ]
        for name in names
    }
    lines = [
        f"| sampler | distance | {' | '.join(shown)} | fit, draw, s | chosen |",
        f"|---|---|{'---|' * len(shown)}---|---|",
    ]
    for name in sorted(names, key=lambda name: statistics.mean(values(name, by))):
        cells = [spread(values(name, by), 3), *(spread(values(name, metric), 2) for metric in shown)]
        chosen = sum(row["chosen"] == name for row in rows)
        fit, draw = seconds[name]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {fit:.1f}, {draw:.1f} | {chosen or ''} |")
    for reference in rows[0]["validation"]["references"]:
        found = [row["validation"]["references"][reference]["value"] for row in rows]
        if None not in found:
            words = reference.rpartition("_")[2]
            lines.append(f"| ({words}) | {spread(found, 3)} |{' |' * (len(shown) + 2)}")
    first = rows[0]
    test = spread([row["test"]["metrics"][by]["value"] for row in rows], 3)
    commits = ", ".join(sorted({str(row["commit"]) for row in rows}))
    lines.append(
        f"\n`{by}` on the validation split, n = {first['validation']['n']}; mean ± standard deviation over "
        f"{len(rows)} seeds, each a training run. The chosen ones on the test split, n = {first['test']['n']}: {test}. "
        f"{first['hardware']}, torch {first['torch']}, data {first['data_hash']}, commit {commits}; "
        "`python benchmarks/samplers.py`."
    )
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def write_page(made: str) -> None:
    opening, closing = MARKS
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(opening)
    _, _, tail = rest.partition(closing)
    with atomic(PAGE) as temporary:
        temporary.write_text(f"{head}{opening}\n{made}\n{closing}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
