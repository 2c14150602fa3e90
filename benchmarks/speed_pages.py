"""Tables and figure of docs/speed.md, from records/speed.json and records/result.json; `tables.py` writes the tables.

python benchmarks/speed_pages.py        draws docs/images/speed.png anew
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any

from nelbo.core.files import atomic
from nelbo.plots.style import INK, SMALL, chart, class_colours, footnotes, legend, name_axes

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "records"
FIGURE = ROOT / "docs" / "images" / "speed.png"


FLOAT32 = "nelbo-fp32-compiled"


def record(name: str) -> dict[str, Any] | None:
    file = RECORDS / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def missing(script: str) -> str:
    return f"*Not recorded yet: `python benchmarks/{script}`.*"


def speed_table() -> str:
    """Baseline and nelbo, seconds an epoch, with every ratio; float32 beside the precision that the recipe allows."""
    table = record("speed")
    assert table is not None
    rows = table["seconds_an_epoch"]
    lines = [
        "| recipe | tutorial's own code, s an epoch | nelbo, s an epoch | ratio (all pairs) | of the product rate "
        "| nelbo in float32, s an epoch | ratio |",
        "|---" * 7 + "|",
    ]
    for recipe, row in rows.items():
        pairs = ", ".join(f"{value:.1f}" for value in row["ratio"]["all"])
        share = f"{row['percent_of_product_rate']:.0f} % {row['precision']}"
        single = row["sides"].get(FLOAT32)
        in_float32 = (
            f"{single['seconds']['median']:.2f} | {single['ratio']['median']:.1f}×" if single else "| "
        )
        lines.append(
            f"| `{recipe}` | {row['baseline_s']['median']:.2f} | {row['nelbo_s']['median']:.2f} "
            f"| **{row['ratio']['median']:.1f}×** ({pairs}) | {share} | {in_float32} |"
        )
    if mean := table.get("geometric_mean"):
        single = mean["sides"].get(FLOAT32)
        in_float32 = f"{single:.2f}×" if single else ""
        lines.append(f"| geometric mean | | | **{mean['headline']:.2f}×** | | | {in_float32} |")
    loaders = ", ".join(sorted({row["loader"] for row in rows.values()}))
    lines.append(
        f"\nMedians{_epochs(table)} in turn, every one its own command, {hardware(table)}"
        f", commit {table['environment'].get('git', '?')}; the tutorials' images come "
        f"from {loaders}; `{table['command']}`, whose baseline is not in this repository."
    )
    return "\n".join(lines)


def _epochs(table: dict[str, Any]) -> str:
    epochs = table.get("epochs")
    if epochs is None:
        return " of one epoch each"
    return f" of {table['repeat']} runs of {epochs} epochs each (nelbo's first left out, the baseline's own median)"


def hardware(table: dict[str, Any]) -> str:
    about = table["environment"]
    gpu = "" if about.get("device", "cpu") == "cpu" else f"{', '.join(about.get('gpus', []))}, "
    return f"{gpu}{about['processor']}, {about['threads']} threads, torch {about['packages']['torch']}"


def sides_table() -> str:
    """Every way to train a recipe: ratio to the baseline, share of the product rate, compilation, memory."""
    table = record("speed")
    if table is None or "geometric_mean" not in table:
        return missing("speed.py --baseline seeds.py")
    lines = [
        "| recipe | side | s an epoch (all) | images/s | ratio | arithmetic | of its rate | compiling, s | MB |",
        "|---" * 9 + "|",
    ]
    for recipe, row in table["seconds_an_epoch"].items():
        for side, one in row["sides"].items():
            every = ", ".join(f"{value:.2f}" for value in one["seconds"]["all"])
            memory = "" if one["peak_mb"] is None else f"{one['peak_mb']:.0f}"
            lines.append(
                f"| `{recipe}` | `{side}` | {one['seconds']['median']:.2f} ({every}) "
                f"| {one['images_per_second']:,.0f} | {one['ratio']['median']:.2f} | {one['precision']}, {one['how']} "
                f"| {one['percent_of_product_rate']:.0f} % | {one['compile_seconds']:.1f} | {memory} |"
            )
        for precision, one in table.get("jax", {}).get("rows", {}).get(recipe, {}).items():
            every = ", ".join(f"{value:.2f}" for value in one["seconds"]["all"])
            lines.append(
                f"| `{recipe}` | JAX, an epoch as one scan | {one['seconds']['median']:.2f} ({every}) "
                f"| {one['images_per_second']:,.0f} | {one['ratio']['median']:.2f} | {precision}, XLA | | | |"
            )
    means = ", ".join(f"`{side}` {value:.2f}" for side, value in table["geometric_mean"]["sides"].items())
    rates = ", ".join(f"{name} {value / 1e9:,.0f}" for name, value in table["products"].items())
    lines.append(
        f"\nGeometric means of the ratios: {means}. Matrix products on this machine, GFLOP/s: {rates}. "
        f"{hardware(table)}, commit {table['environment'].get('git', '?')}; `{table['command']}`; "
        f"{table.get('jax', {}).get('about', 'JAX was not run')}."
    )
    return "\n".join(lines)


def result_table() -> str:
    """How long a whole run takes, by clock, and how long it takes to begin."""
    table = record("result")
    if table is None:
        return missing("result.py")
    run, start = table["run"], table["start"]
    lines = ["| what | seconds, median (all) |", "|---|---|"]
    rows = {
        f"`{run['command']}`, 50 epochs, a fresh process: wall time": run["wall"],
        **{f"of it {name}": value for name, value in run["seconds"].items()},
        f"training until the NELBO is {table['target']['nats']}": table["target"]["seconds"],
        "`nelbo --help`": start["help"],
        **{
            f"from the command to the end of the first step, `{name}`": value
            for name, value in start["step"].items()
        },
    }
    for what, value in rows.items():
        if value is None:
            lines.append(f"| {what} | not reached |")
            continue
        every = ", ".join(f"{one:.3g}" for one in value["all"])
        lines.append(f"| {what} | {value['median']:.3g} ({every}) |")
    lines.append(
        f"\nTest NELBO {', '.join(f'{value:.1f}' for value in run['nelbo'])} nats; "
        f"{run['images_per_second']['median']:,.0f} images/s in training, {run['precision']}, "
        f"{'compiled' if run['compiled'] else 'eager'}; largest memory {run['peak_mb']:.0f} MB; {hardware(table)}, "
        f"commit {table['environment'].get('git', '?')}; `{table['command']}`."
    )
    return "\n".join(lines)


TABLES = {"speed": speed_table, "speed-sides": sides_table, "speed-result": result_table}


def bars(table: dict[str, Any]) -> dict[str, dict[str, tuple[float, str]]]:
    """Legend -> recipe -> (median seconds an epoch, what is written behind the bar)."""
    rows = table["seconds_an_epoch"]
    found = {
        "the tutorial's own code": {name: (row["baseline_s"]["median"], "") for name, row in rows.items()},
        "nelbo": {name: _with_ratio(row["nelbo_s"], row["ratio"]) for name, row in rows.items()},
    }
    for precision in ("fp32", "bf16"):
        ours = {
            name: _with_ratio(row[precision]["seconds"], row[precision]["ratio"])
            for name, row in table.get("jax", {}).get("rows", {}).items()
            if precision in row
        }
        if ours:
            found[f"JAX, an epoch as one scan, {precision}"] = ours
    return found


def _with_ratio(seconds: dict[str, Any], ratio: dict[str, Any]) -> tuple[float, str]:
    return seconds["median"], f"  {ratio['median']:.1f}×"


def draw() -> Path:
    """Seconds an epoch of the tutorials' code, of nelbo, and of JAX where it was run, for each recipe."""
    table = record("speed")
    assert table is not None
    names, groups = list(table["seconds_an_epoch"]), bars(table)
    figure, (ax,) = chart(1, 1, title="Training: the tutorials' own code and nelbo", size=(7.4, 3.4))
    height, handles = 0.8 / len(groups), []
    for i, (of_recipe, colour) in enumerate(zip(groups.values(), class_colours(len(groups)), strict=True)):
        at = {name: names.index(name) + (i - (len(groups) - 1) / 2) * height for name in of_recipe}
        handles.append(
            ax.barh(
                list(at.values()), [seconds for seconds, _ in of_recipe.values()], height * 0.9, color=colour
            )
        )
        for name, (seconds, words) in of_recipe.items():
            ax.text(seconds, at[name], words, va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    name_axes(ax, "seconds an epoch, median (shorter is better)", "")
    legend(figure, handles, ["\n".join(wrap(name, 16)) for name in groups], loc="outside right upper")
    footnotes(figure, [f"{hardware(table)}; commit {table['environment'].get('git', '?')}"])
    with atomic(FIGURE) as temporary:
        figure.savefig(temporary, format="png")
    return FIGURE


if __name__ == "__main__":
    print(draw())
