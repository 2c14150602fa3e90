"""matplotlib's figures as inline SVG: text stays text, and colours follow the light and the dark page."""

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.text import Text

from nelbo import plots
from nelbo.plots.style import CURVES, GREY, GRID, INK, SOFT

SIZE = (2.85, 1.75)  # inches: at the width of a phone a label of 7.5 points is 12 pixels high
Points = Sequence[tuple[float, float]]
# The page's names of the plots' colours, in style.css; each has a light and a dark value.
VARIABLES = {INK: "ink", SOFT: "soft", GRID: "rule", GREY: "pale", "#ffffff": "paper"} | {
    colour: f"c{place}" for place, colour in enumerate(CURVES)
}
PAGE = (
    # A style in one drawing would be that of the whole page.
    (r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|</svg>", ""),
    (r">\s+<", "><"),
    (r'\sid="(?![mp][0-9a-f]{6,})[^"]*"', ""),  # names of groups; only markers and clips are referred to
    ("xlink:href", "href"),
    (r"(\.\d\d)\d+(?=[^<>]*>)", r"\1"),  # in tags, where hundredths of a point are enough
    (r' transform="rotate\(-0 [^"]*"', ""),
    (r'font-family: [^;"]*;? ?', ""),  # the page's own
    (r'font: [^;"]*?([\d.]+px)[^;"]*', r"font-size: \1"),
)
"""Patterns of matplotlib's SVG and their replacements on a page."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """A drawing for a page. `words` describe it to those who do not see it; "" as drawing: no finite value."""

    title: str
    words: str = ""
    box: str = ""
    drawing: str = ""


def curves(key: str, title: str, series: Mapping[str, Points], best: int | None = None) -> Chart:
    """Draw lines by epoch, one a name. `key` is unique on the page."""
    drawable = [name for name, points in series.items() if any(abs(y) < float("inf") for _, y in points)]
    finite = {name: series[name] for name in drawable}
    if not finite:
        return Chart(title)
    epochs = sorted({int(x) for points in finite.values() for x, _ in points})
    values = {name: [dict(points).get(float(epoch)) for epoch in epochs] for name, points in finite.items()}
    figure = plots.epoch_curves(
        epochs, {"": values}, title="", best_epoch=best, units={"": ""}, size=SIZE, key=False
    )
    return _inline(figure, key, title, described(finite))


def estimate(key: str, title: str, points: Points, bound: tuple[str, float] | None) -> Chart:
    """Draw the importance-weighted estimate over K, under the bound as (name, value)."""
    name, level = bound or ("", None)
    k, nll = zip(*points, strict=True)
    figure = plots.estimate_curve(k, nll, title="", nelbo=level, name=name, size=SIZE, key=False)
    return _inline(figure, key, title, described({"estimate": points}))


def bars(key: str, title: str, kl_Z: Sequence[float], least: float) -> Chart:
    """Draw the KL of each dimension as bars; those below `least` are pale."""
    active = [kl >= least for kl in kl_Z]
    figure = plots.kl_per_dimension(kl_Z, title="", active=active, size=SIZE, key=False, named=10)
    words = f"{len(kl_Z)} bars, from {max(kl_Z):.3g} to {min(kl_Z):.3g}"
    return _inline(figure, key, title, words)


def described(series: Mapping[str, Points]) -> str:
    """Return the first and the last value of each line in words."""
    return "; ".join(
        f"{name}: {points[0][1]:.4g} at {points[0][0]:g}"
        + (f" to {points[-1][1]:.4g} at {points[-1][0]:g}" if len(points) > 1 else "")
        for name, points in series.items()
        if points
    )


def _inline(figure: Figure, key: str, title: str, words: str) -> Chart:
    """Write a figure as the inside of an <svg> element whose ids no other chart of the page has."""
    for text in figure.findobj(Text):
        text.set_path_effects([])  # a halo would turn text into outlines; style.css draws it
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nelbo"}):  # the same ids every time
        figure.savefig(buffer, format="svg", transparent=True)
    _, box, inside = re.split(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', buffer.getvalue())
    for pattern, replacement in PAGE:
        inside = re.sub(pattern, replacement, inside, flags=re.DOTALL)
    inside = re.sub(r'(\sid="|href="#|url\(#)', rf"\1{key}-", inside)
    for colour, name in VARIABLES.items():
        inside = inside.replace(colour.lower(), f"var(--{name})")
    return Chart(title, words, box, Markup(inside.strip()))
