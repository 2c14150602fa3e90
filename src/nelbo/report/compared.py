"""Several runs beside each other: what differs, what was measured, how sure the differences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nelbo import comparison
from nelbo.comparison import Caution, Comparison, Difference, Group, Interval, MetricRow
from nelbo.comparison.words import shown
from nelbo.errors import NelboError
from nelbo.report import charts, figures, numbers
from nelbo.report.facts import Facts
from nelbo.report.markup import Markup, scrolling, section_rows, table, tag
from nelbo.report.training import quantities
from nelbo.wording import label, spread

MARKS = {
    "seeds": "* better than every other comparable group: neither interval between them contains zero.",
    "images": "(*) these weights are better on such images; another seed may not be.",
    "apart": "† not comparable with the baseline; the cautions say why.",
}
OVER = {
    "images": "Over images: with other test images, for these very weights; it says nothing about another seed.",
    "seeds": "Over seeds: with other seeds, on these very images (Welch's t).",
}


def side_by_side(
    runs: Sequence[Facts], titles: Sequence[str]
) -> tuple[Markup, list[tuple[str, str, Markup]]]:
    """The chapter that comes before the single runs: what opens it, and its sections as (place, title, inside)."""
    asked = runs[0].asked
    curves = ("histories", "Validation by epoch", histories(runs, titles))
    try:
        found = comparison.compare(
            [facts.run for facts in runs], split=asked.split, checkpoint=asked.checkpoint, samples=asked.samples,
            device=asked.device, data_dir=asked.data_dir,
        )  # fmt: skip
    except NelboError as error:
        return tag("p", "The runs could not be compared: ", str(error), class_="warning"), [curves]
    return groups(found, runs), [
        ("differences", "What differs", configuration(found)),
        ("metrics", "Metrics", metrics(found)),
        ("paired", f"Differences from {found.baseline}", differences(found)),
        ("plane", "Rate and distortion", plane(found)),
        curves,
    ]


# --- who is compared --------------------------------------------------------------------------


def groups(found: Comparison, runs: Sequence[Facts]) -> Markup:
    """What has to be known first, then the groups with their runs, which lead to what is said of each."""
    places = {str(facts.run.path): f"#run-{place}" for place, facts in enumerate(runs, start=1)}
    size = "" if found.n is None else f", n = {found.n:,}"
    heads = ["Group", "What", "Runs", "Seeds", "Epochs", "Training", "Speed", "Weights", "Trained on"]
    left_out = [tag("li", tag("strong", name), " ", why) for name, why in found.left_out.items()]
    return tag(
        "div",
        tag("p", f"{found.split} split{size}, {found.checkpoint} checkpoint. Runs whose configuration differs only in "
            f"the seed are one group; {found.baseline} is the baseline."),
        [_caution(one) for one in found.warnings],
        [tag("p", "Left out of the comparison:"), tag("ul", left_out, class_="left-out")] if left_out else None,
        table(heads, [_group(one, places) for one in found.groups], caption="Groups and their runs", class_="numbers"),
    )  # fmt: skip


def _caution(one: Caution) -> Markup:
    return tag("p", tag("strong", "Caution. "), one.message, class_="warning")


def _group(group: Group, places: Mapping[str, str]) -> list[object]:
    runs = group.runs
    links = [tag("a", run.name, href=places[run.path]) for run in runs]
    seconds = sum(run.train_seconds for run in runs) / len(runs)
    speed = sum(run.images_per_second for run in runs) / len(runs)
    return [
        group.name,
        group.label,
        [tag("div", link) for link in links],
        ", ".join(str(run.seed) for run in runs),
        _span([run.epochs for run in runs]),
        f"{numbers.rounded(seconds)} s",
        f"{speed:,.0f} images/s",
        f"{runs[0].weights:,}",
        "; ".join(dict.fromkeys(run.hardware for run in runs)),
    ]


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def configuration(found: Comparison) -> Markup:
    """The fields that are not the same in all groups."""
    if not found.differences:
        return tag("p", "The configurations agree in every field but the seed.")
    names = [group.name for group in found.groups]
    rows = [
        [tag("code", field.replace("_", "-")), *(shown(values.get(name)) for name in names)]
        for field, values in found.differences.items()
    ]
    return table(["Field", *names], rows, caption="Fields that differ; all others are the same")


# --- numbers ----------------------------------------------------------------------------------


def metrics(found: Comparison) -> Markup:
    """One row a metric, one column a group, in the sections of the card."""
    names = [group.name for group in found.groups]
    sizes = {len(group.runs) for group in found.groups}
    errors = (
        "± is the standard error over seeds"
        if sizes != {1}
        else "One run a group: nothing is known of another seed"
    )
    head = tag("tr", [tag("th", words, scope="col") for words in ("Metric", *names, "Unit")])
    bodies = []
    for section in dict.fromkeys(row.section for row in found.metrics):
        rows = [
            tag("tr", tag("th", label(row.name), scope="row"), [tag("td", _cell(row, name)) for name in names],
                tag("td", row.unit))
            for row in found.metrics if row.section == section
        ]  # fmt: skip
        bodies.append(section_rows(label(section), None, rows, columns=len(names) + 2))
    caption = "Metrics by group"
    cells = [cell for row in found.metrics for cell in row.cells.values()]
    marks: set[str] = {row.best_of for row in found.metrics if row.best}
    if any(not cell.comparable and cell.mean is not None for cell in cells):
        marks.add("apart")
    return tag(
        "div",
        tag("p", f"{errors}."),
        scrolling(
            tag("table", tag("caption", caption), tag("thead", head), bodies, class_="card many"), caption
        ),
        [tag("p", words, class_="soft") for mark, words in MARKS.items() if mark in marks],
    )


def _cell(row: MetricRow, group: str) -> str:
    cell = row.cells.get(group)
    if cell is None:
        return "–"
    if cell.mean is None:
        return cell.note.partition(": ")[0] or "–"
    star = {"seeds": " *", "images": " (*)", "": ""}[row.best_of if row.best == group else ""]
    value = numbers.rounded(cell.mean, cell.standard_error)
    return f"{value} {spread(cell.standard_error)}".strip() + ("" if cell.comparable else " †") + star


def differences(found: Comparison) -> Markup:
    """Each group minus the baseline, with both intervals."""
    tables = []
    for group in found.groups[1:]:
        rows = [_difference(one, found) for one in found.paired if one.group == group.name]
        caption = f"{group.name} − {found.baseline}: {group.label}"
        if rows:
            heads = ["Metric", "Difference", "95 % over images", "95 % over seeds", "Note"]
            tables.append(table(heads, rows, caption=caption, class_="numbers"))
        else:
            tables.append(tag("p", f"{caption}: no metric can be compared."))
    said = [words for over, words in OVER.items() if any(_interval_of(one, over) for one in found.paired)]
    return tag("div", [tag("p", words) for words in said], tables or tag("p", "There is only one group."))


def _interval_of(one: Difference, over: str) -> Interval | None:
    return one.over_images if over == "images" else one.over_seeds


def _difference(one: Difference, found: Comparison) -> list[object]:
    half = [(interval.high - interval.low) / 2 for interval in (one.over_images, one.over_seeds) if interval]
    error = min(half) if half else None
    row = found.metric(one.metric)
    better = f"{row.better} is better" if row is not None and row.better else ""
    sign = "+" if one.value > 0 else ""
    return [
        label(one.metric),
        tag("strong", sign + numbers.rounded(one.value, error)),
        _interval(one.over_images, error),
        _interval(one.over_seeds, error),
        "; ".join(filter(None, [better, one.note if one.over_images is None else ""])),
    ]


def _interval(interval: Interval | None, error: float | None) -> str:
    if interval is None:
        return "–"
    return f"{numbers.rounded(interval.low, error)} to {numbers.rounded(interval.high, error)}"


# --- drawings ---------------------------------------------------------------------------------


def plane(found: Comparison) -> Markup:
    """The rate-distortion plane, or why there is none."""
    drawn, why_not = comparison.draw(found)
    if drawn is None:
        return tag("p", why_not, class_="soft")
    kind, data, (width, height) = figures.encode(drawn)
    words = (
        "What the latent costs (rate, the KL) against what it leaves unexplained (distortion) of every run."
    )
    image = tag(
        "img",
        src=figures.data_uri(kind, data),
        alt=f"Rate-distortion plane. {words}",
        width=width,
        height=height,
    )
    return tag("div", tag("figure", image, tag("figcaption", words)), class_="pictures")


def histories(runs: Sequence[Facts], titles: Sequence[str]) -> Markup:
    """What validation said epoch by epoch, one line a run; at most as many runs as there are colours."""
    kept = list(zip(titles, runs, strict=True))[: charts.COLOURS]
    panels = []
    for name in dict.fromkeys(name for _, facts in kept for name in quantities(facts)):
        series = {title: quantities(facts).get(name, {}).get("validation", []) for title, facts in kept}
        if any(series.values()):
            panels.append(charts.lines(series, title=f"{name}, nats an image", x="epoch"))
    more = len(runs) - len(kept)
    return tag(
        "div",
        charts.legend([title for title, _ in kept]) if panels else None,
        tag("div", panels, class_="charts")
        if panels
        else tag("p", "No run has a validation split.", class_="soft"),
        tag("p", f"{more} more run{'s' * (more > 1)} not drawn: there are {charts.COLOURS} colours.")
        if more
        else None,
    )
