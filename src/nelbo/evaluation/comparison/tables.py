"""A comparison as tables: its groups, the settings that differ, the metrics and the differences."""

from collections.abc import Sequence

from nelbo.evaluation.comparison.intervals import Interval, mean_and_error
from nelbo.evaluation.comparison.values import Comparison, Difference, MetricRow
from nelbo.evaluation.comparison.words import listed, shown
from nelbo.evaluation.labels import decimals, label, rounded
from nelbo.evaluation.labels import section as section_label
from nelbo.evaluation.tables import NONE, Cell, Row, Section, Table, plain

OVER_IMAGES = (
    "over images: with other test images, for these very weights; it says nothing about another seed"
)
OVER_SEEDS = "over seeds: with other seeds, on these very images (Welch's t)"
NO_INTERVAL = f"{NONE}: no mean over images, or fewer than two seeds that differ on either side"
STARS = {"seeds": " *", "images": " (*)", "": ""}


def groups(comparison: Comparison) -> Table:
    """Return the table of the groups: their runs, and what training each took on which hardware."""
    hardware = list(dict.fromkeys(run.hardware for group in comparison.groups for run in group.runs))
    size = "" if comparison.n is None else f", n = {comparison.n:,}"
    trained = "" if len(hardware) > 1 else f" · trained on {hardware[0]}"
    caption = f"{comparison.split}{size} · {comparison.checkpoint} checkpoint{trained}"
    heads = ["group", "what", "runs", "seeds", "epochs", "best at", "train, s", "images/s", "weights"]
    rows: list[list[Cell | str]] = []
    for group in comparison.groups:
        runs = group.runs
        names = tuple(run.name for run in runs)
        row: list[Cell | str] = [
            group.name,
            f"{group.label} (baseline)" if group.name == comparison.baseline else group.label,
            Cell(", ".join(names), names=names),
            ", ".join(str(run.seed) for run in runs),
            _range([run.epochs for run in runs]),
            _range([run.epoch for run in runs]),
            _seconds([run.train_seconds for run in runs]),
            f"{sum(run.images_per_second for run in runs) / len(runs):,.0f}",
            f"{runs[0].weights:,}",
        ]
        if len(hardware) > 1:
            row.append(Cell(" | ".join(dict.fromkeys(run.hardware for run in runs))))
        rows.append(row)
    if len(hardware) > 1:  # otherwise the caption names the one
        heads.append("hardware")
    return plain(caption, heads, rows)


def configuration(comparison: Comparison) -> Table | None:
    """Return the table of the fields that are not the same in all groups, or None where all are."""
    names = [group.name for group in comparison.groups]
    rows: list[list[Cell | str]] = [
        [Cell(field.replace("_", "-"), kind="code"), *(shown(values.get(name)) for name in names)]
        for field, values in comparison.differences.items()
    ]
    return plain("configuration", ["field", *names], rows, sides=tuple(names)) if rows else None


def metrics(comparison: Comparison) -> Table:
    """Return the table of all metrics, one column a group, in the sections of a card."""
    names = tuple(group.name for group in comparison.groups)
    rows: dict[str, list[Row]] = {}
    for row in comparison.metrics:
        means = [Cell(_mean(row, name), kind="number") for name in names]
        cells = (Cell(_name(row, comparison)), *means, Cell(row.unit))
        rows.setdefault(row.section, []).append(Row(cells))
    sections = tuple(Section(tuple(of_section), section_label(name)) for name, of_section in rows.items())
    sizes = {len(group.runs) for group in comparison.groups}
    size = f", n = {sizes.pop()}" if len(sizes) == 1 else ""
    caption = "metrics" if size == ", n = 1" else f"metrics: mean ± standard error over seeds{size}"
    return Table(caption, ("metric", *names, "unit"), sections, _notes(comparison), whole=None, sides=names)


def paired(comparison: Comparison) -> list[Table]:
    """Return one table for each group but the baseline: its differences, each with both intervals."""
    tables = []
    over_images = any(one.over_images for one in comparison.paired)
    notes: tuple[str, ...] = (OVER_IMAGES, NO_INTERVAL) if over_images else ()
    notes += (OVER_SEEDS,) if any(one.over_seeds for one in comparison.paired) else ()
    for group in comparison.groups[1:]:
        rows = [_difference(one, comparison) for one in comparison.paired if one.group == group.name]
        sides = f"{group.name} - {comparison.baseline}"
        heads = ["metric", sides, "95 % over images", "95 % over seeds", "note"]
        if rows:
            tables.append(plain(f"{sides}: {group.label}", heads, rows, whole=4, notes=notes))
            notes = ()  # under the first table only
    return tables


def _name(row: MetricRow, comparison: Comparison) -> str:
    """Return a metric's label, with K where the number is importance-weighted."""
    name = label(row.name)
    return f"{name} (K = {comparison.samples or 'differs'})" if row.section == "importance" else name


def _mean(row: MetricRow, group: str) -> str:
    """Return a group's mean, with the decimals that its whole row needs, and its marks."""
    cell = row.cells.get(group)
    if cell is None:
        return NONE
    if cell.mean is None:
        return cell.missing or NONE
    errors = [other.standard_error for other in row.cells.values() if other.standard_error]
    number = rounded(cell.mean)
    if errors:  # two digits of the largest error, at least one of the smallest
        digits = max(decimals(max(errors)), decimals(min(errors)) - 1)
        error = "" if cell.standard_error is None else f" ± {cell.standard_error:.{digits}f}"
        number = f"{cell.mean:.{digits}f}{error}"
    return f"{number}{'' if cell.comparable else ' †'}{STARS[row.best_of if row.best == group else '']}"


def _difference(one: Difference, comparison: Comparison) -> list[Cell | str]:
    widths = [interval.high - interval.low for interval in (one.over_images, one.over_seeds) if interval]
    digits = decimals(min(widths) / 2) if widths else None  # two digits of the half of the narrower interval
    number = rounded(one.value) if digits is None else f"{one.value:.{digits}f}"
    row = next(row for row in comparison.metrics if row.name == one.metric)
    better = f"{row.better} is better" if row.better else ""
    note = "" if one.note == "no mean over images" else one.note  # NO_INTERVAL says that below the table
    return [
        _name(row, comparison),
        Cell(f"{'+' if one.value > 0 else ''}{number}", kind="number"),
        Cell(_interval(one.over_images, digits), kind="number"),
        Cell(_interval(one.over_seeds, digits), kind="number"),
        "; ".join(filter(None, [better, note])),
    ]


def _interval(interval: Interval | None, digits: int | None) -> str:
    return NONE if interval is None else f"[{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def _seconds(values: Sequence[float]) -> str:
    mean, error = mean_and_error(values)
    if error is None:
        return f"{mean:.3g}"
    digits = min(2, decimals(error)) if error > 0 else 2
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def _notes(comparison: Comparison) -> tuple[str, ...]:
    """Return the explanations of the numbers and marks that there are."""
    groups_of: dict[str, list[str]] = {}
    for group in comparison.groups:
        if group.log_px:
            groups_of.setdefault(group.log_px, []).append(group.name)
    notes = [f"log p(x | z) in {listed(names)}: {kind}" for kind, names in groups_of.items()]
    single = [group.name for group in comparison.groups if len(group.runs) == 1]
    if single:
        notes.append(f"one run in {listed(single)}: no spread over seeds, nothing is known of another seed")
    marks = {row.best_of for row in comparison.metrics}
    if "seeds" in marks:
        notes.append(
            "*: better than every other comparable group: neither interval between them contains zero"
        )
    if "images" in marks:
        notes.append("(*): these weights are better on such images; another seed may not be")
    cells = [cell for row in comparison.metrics for cell in row.cells.values()]
    if any(not cell.comparable and cell.mean is not None for cell in cells):
        notes.append(f"†: not comparable with {comparison.baseline}; the warnings say why")
    return tuple(notes)
