"""Several runs beside each other: their fields, their numbers, and the intervals of the differences."""

from collections.abc import Sequence

from markupsafe import Markup

from nelbo.errors import NelboError
from nelbo.evaluation import comparison
from nelbo.evaluation.comparison import tables
from nelbo.plots.style import CURVES
from nelbo.report import charts, figures
from nelbo.report.gathered import Facts
from nelbo.report.rendering import macros
from nelbo.report.training import quantities


def side_by_side(
    runs: Sequence[Facts], titles: Sequence[str]
) -> tuple[Markup, list[tuple[str, str, Markup]]]:
    """Write the chapter that compares the runs: its opening, and its sections as (slug, title, HTML)."""
    request, write = runs[0].request, macros("compared")
    curves = ("histories", "Validation by epoch", histories(runs, titles))
    try:
        compared = comparison.compare(
            [facts.run for facts in runs], split=request.split, checkpoint=request.checkpoint, samples=request.samples,
            device=request.device, data_dir=request.data_dir,
        )  # fmt: skip
    except NelboError as error:
        return write.failed(str(error)), [curves]
    # A run's name within the comparison is not its title on the page, so links go by its path.
    places = {str(facts.run.path): f"#run-{place}" for place, facts in enumerate(runs, start=1)}
    links = {run.name: places[run.path] for group in compared.groups for run in group.runs}
    figure, why_not = comparison.draw(compared)
    plane = figures.encode(figure) if figure else None
    return write.groups(compared, tables.groups(compared), links), [
        ("differences", "Differing fields", write.configuration(tables.configuration(compared))),
        ("metrics", "Metrics", write.metrics(tables.metrics(compared))),
        ("paired", f"Differences from {compared.baseline}", write.differences(tables.paired(compared))),
        ("plane", "Rate and distortion", write.plane(plane, why_not)),
        curves,
    ]


def histories(runs: Sequence[Facts], titles: Sequence[str]) -> Markup:
    """Draw validation by epoch, one line a run; at most as many runs as there are colours."""
    named = dict(list(zip(titles, map(quantities, runs), strict=True))[: len(CURVES)])
    drawn: list[charts.Chart] = []
    for name in dict.fromkeys(name for logged in named.values() for name in logged):
        series = {title: logged.get(name, {}).get("validation", []) for title, logged in named.items()}
        if any(series.values()):
            drawn.append(charts.curves(f"history{len(drawn)}", f"{name}, nats an image", series))
    written: Markup = macros("compared").histories(list(named), drawn, len(runs) - len(named))
    return written
