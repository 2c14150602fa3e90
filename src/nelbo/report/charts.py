"""Small charts as inline SVG: text stays text, colours follow the page, nothing is a picture of a number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from nelbo.report.markup import Markup, tag

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 320.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 12.0, 8.0, 36.0
NAMED_BARS = 10  # more names than that would touch
FEW = 25  # values that are also marked by dots
COLOURS = 8  # classes c0 to c7 of style.css


@dataclasses.dataclass(frozen=True)
class Frame:
    """The axes of a chart: from values to places in the drawing."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    log_x: bool = False

    def x(self, value: float) -> float:
        low, high = self._scaled(self.low_x), self._scaled(self.high_x)
        return LEFT + (WIDTH - LEFT - RIGHT) * (self._scaled(value) - low) / (high - low)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low_y) / (self.high_y - self.low_y)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log_x else value

    def axes(self, x: str, *, ticks_x: bool = True, whole: bool = False) -> list[Markup]:
        """Grid, ticks and the name of the x axis; `whole` keeps the y ticks to whole numbers."""
        right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
        drawn = []
        for value in _ticks(self.low_y, self.high_y, whole):
            drawn.append(_line(LEFT, self.y(value), right, self.y(value), "grid"))
            drawn.append(_text(LEFT - 6, self.y(value) + 4, f"{value:g}", "end"))
        found = _powers(self.low_x, self.high_x) if self.log_x else _ticks(self.low_x, self.high_x)
        for value in found if ticks_x else ():
            drawn.append(_line(self.x(value), floor, self.x(value), floor + 4, "axis"))
            drawn.append(_text(self.x(value), floor + 16, f"{value:g}", "middle"))
        drawn.append(_line(LEFT, floor, right, floor, "axis"))
        return [*drawn, _text((LEFT + right) / 2, HEIGHT - 4, x, "middle")]

    @staticmethod
    def inside(drawn: Sequence[Markup]) -> Markup:
        """What is drawn within the axes and cut off at them."""
        wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        box = f"{LEFT - 4:g} {TOP:g} {wide + 8:g} {high:g}"
        return tag("svg", list(drawn), x=LEFT - 4, y=TOP, width=wide + 8, height=high, viewBox=box)


def lines(
    series: Mapping[str, Points],
    *,
    title: str,
    x: str,
    log_x: bool = False,
    level: tuple[str, float] | None = None,
    mark: float | None = None,
) -> Markup:
    """One line a name. `level` is a named horizontal line, `mark` a place on the x axis."""
    kept = {name: [point for point in points if _finite(point)] for name, points in series.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return figure(title, tag("p", "no finite value to draw", class_="soft"))
    low, high, cut = _focus(list(kept.values()), [] if level is None else [level[1]])
    at = [point[0] for point in every]
    frame = Frame(*_apart(min(at), max(at), log_x), low, high, log_x)
    drawn = frame.axes(x, whole=all(value.is_integer() for _, value in every))
    if mark is not None:
        drawn.append(_line(frame.x(mark), TOP, frame.x(mark), HEIGHT - BOTTOM, "mark"))
    if level is not None:
        drawn.append(_line(LEFT, frame.y(level[1]), WIDTH - RIGHT, frame.y(level[1]), "level"))
        drawn.append(_text(WIDTH - RIGHT, frame.y(level[1]) - 5, f"{level[0]} {level[1]:.4g}", "end"))
    drawn.append(frame.inside([_path(frame, points, place) for place, points in enumerate(kept.values())]))
    if cut:
        drawn.append(_text(WIDTH - RIGHT, TOP + 12, cut, "end"))
    return figure(title, svg(drawn, f"{title}. {_said(kept)}"))


def bars(values: Mapping[str, float], pale: Collection[str], *, title: str, x: str) -> Markup:
    """One bar a name, in this order, each under its name while there is room; `pale` ones stand back."""
    high = max([*values.values(), 0.0]) or 1.0
    frame = Frame(0.0, float(len(values)), min([*values.values(), 0.0]), 1.06 * high)
    wide = (WIDTH - LEFT - RIGHT) / len(values)
    drawn = frame.axes(x, ticks_x=False)
    for place, (name, value) in enumerate(values.items()):
        top, floor = sorted((frame.y(value), frame.y(0.0)))
        size = {"width": _px(0.76 * wide), "height": _px(floor - top)}
        left = LEFT + (place + 0.12) * wide
        drawn.append(
            tag("rect", x=_px(left), y=_px(top), **size, class_="bar pale" if name in pale else "bar")
        )
        if len(values) <= NAMED_BARS:
            drawn.append(_text(left + 0.38 * wide, HEIGHT - BOTTOM + 16, name, "middle"))
    said = f"{len(values)} bars, from {max(values.values()):.3g} to {min(values.values()):.3g}"
    return figure(title, svg(drawn, f"{title}. {said}"))


def legend(names: Sequence[str]) -> Markup:
    """Which colour is which."""
    keys = [tag("li", tag("span", class_=f"key {_colour(i)}"), name) for i, name in enumerate(names)]
    return tag("ul", keys, class_="legend")


def figure(title: str, inside: Markup) -> Markup:
    return tag("figure", tag("figcaption", title), inside, class_="chart")


def svg(drawn: Sequence[Markup], said: str) -> Markup:
    """A drawing of this module's size; `said` is what it shows, for those who do not see it."""
    return tag("svg", list(drawn), viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=said)


# --- pieces -----------------------------------------------------------------------------------


def _path(frame: Frame, points: Points, place: int) -> Markup:
    """A line, with a dot at each value while there are few."""
    at = [(_px(frame.x(a)), _px(frame.y(b))) for a, b in points]
    line = tag("polyline", points=" ".join(f"{a},{b}" for a, b in at), class_="line")
    dots = [tag("circle", cx=a, cy=b, r="2.2", class_="dot") for a, b in at if len(at) <= FEW]
    return tag("g", line, dots, class_=_colour(place))


def _focus(series: Sequence[Points], levels: Sequence[float]) -> tuple[float, float, str]:
    """Limits of the y axis. Where the first tenth of a line dwarfs the rest it is cut off, and said so."""
    every = [y for points in series for _, y in points]
    late = [y for points in series for _, y in points[max(1, len(points) // 10) :]] + list(levels)
    low, high, cut = min([*every, *levels]), max([*every, *levels]), ""
    if len(every) >= 10 and late and (usual := max(late) - min(late)) > 0 and high - low > 3 * usual:
        least, most = min(late) - 0.25 * usual, max(late) + 0.25 * usual
        beyond = [y for y in every if not least <= y <= most]
        low, high = max(low, least), min(high, most)
        cut = f"begins at {beyond[0]:.4g}" if beyond else ""
    low, high = _apart(low, high)
    room = 0.06 * (high - low)
    return low - room, high + room, cut


def _apart(low: float, high: float, log: bool = False) -> tuple[float, float]:
    """Two limits that differ."""
    if high > low:
        return low, high
    return (low / 2, high * 2) if log else (low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round values within the limits, about five."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [float(f"{value:.10g}") for value in found if low <= value <= high]


def _powers(low: float, high: float) -> list[float]:
    """Both limits, and the powers of ten between them that stand clear of both."""
    between = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return [low, *(value for value in between if 1.7 * low < value < high / 1.7), high]


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _said(series: Mapping[str, Points]) -> str:
    """First and last value of each line, in words."""
    return "; ".join(
        f"{name}: {points[0][1]:.4g} at {points[0][0]:g}"
        + (f" to {points[-1][1]:.4g} at {points[-1][0]:g}" if len(points) > 1 else "")
        for name, points in series.items()
        if points
    )


def _colour(place: int) -> str:
    return f"c{place % COLOURS}"


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), class_=class_)


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return tag("text", words, x=_px(x), y=_px(y), text_anchor=anchor)
