"""The rate-distortion plane: the cost of the latent against what it leaves unexplained."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nelbo.plots.style import HALO, SMALL, SOFT, PlotError, chart, class_colours, footnotes, legend, name_axes

Floats = NDArray[np.float64]
ISO = "#c4c4c4"


def rate_distortion(
    groups: Mapping[str, Sequence[tuple[float, float]]], *, title: str, notes: Sequence[str] = ()
) -> Figure:
    """Draw groups of runs as points (rate, distortion), with lines of equal NELBO (Alemi et al. 2018, figure 1).

    groups  {"A: beta 4": [(KL, -E log p(x | z)) of each run], ...} in nats an image. A run is a small dot; of
            several runs their mean is a large one, with what stands before the colon in it
    Along a dashed line rate + distortion is the same NELBO; towards the lower left it is smaller. Along it a model
    trades one for the other.
    """
    points = {name: np.asarray(runs, dtype=float) for name, runs in groups.items()}
    for name, array in points.items():
        if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
            raise PlotError(f"{name}: expected (rate, distortion) of each run, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise PlotError(f"{name}: a rate or a distortion is not finite")
    if not points:
        raise PlotError("a rate-distortion plane needs at least one run")
    figure, (ax,) = chart(1, 1, title=title, size=(7.4, 4.4))
    ax.grid(False)
    marks, colours = [], class_colours(len(points))
    for i, (name, array) in enumerate(points.items()):
        colour, above = colours[i], 4 + i  # over a mark, its letter and no other
        if len(array) > 1:
            ax.scatter(array[:, 0], array[:, 1], s=14, color=colour, alpha=0.6, linewidths=0, zorder=3)
        x, y = (float(mean) for mean in array.mean(0))
        ax.scatter([x], [y], s=130, color=colour, edgecolors="white", linewidths=0.8, zorder=above)
        ax.text(
            x, y, name.partition(":")[0], fontsize=SMALL, fontweight="bold", color="white", ha="center",
            va="center_baseline", zorder=above, parse_math=False,
        )  # fmt: skip
        marks.append(Line2D([], [], linestyle="", marker="o", markersize=7, color=colour))
    every = np.concatenate(list(points.values()))
    # Room around the points; the two axes have their own scales, for rates are small beside distortions.
    low, high = every.min(0), every.max(0)
    room = np.maximum(0.15 * (high - low), 0.01 * np.abs(high) + 1e-3)
    left = -0.3 * room[0] if 0 <= low[0] < room[0] else low[0] - room[0]  # no KL is below zero
    ax.set(xlim=(left, high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
    _iso_lines(ax, every)
    name_axes(ax, "rate: KL to the prior, nats an image", "distortion: -E log p(x | z), nats an image")
    names = [
        f"{name} ({len(runs)}\N{NO-BREAK SPACE}runs)" if len(runs) > 1 else name
        for name, runs in points.items()
    ]
    legend(figure, marks, ["\n".join(wrap(name, 30)) for name in names], loc="outside right upper")
    footnotes(figure, notes)
    return figure


def _iso_lines(ax: Axes, every: Floats) -> None:
    """Draw lines of equal rate + distortion, each named at its place farthest from the points."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    origin, span = np.array([left, bottom]), np.array([right - left, top - bottom])
    for nelbo in MaxNLocator(nbins=7).tick_values(left + bottom, right + top):
        start, end = max(left, nelbo - top), min(right, nelbo - bottom)
        if end <= start:  # outside of the axes
            continue
        ends, dashes = [start, end], (0, (5, 3))
        ax.plot(ends, [nelbo - rate for rate in ends], color=ISO, linewidth=0.9, linestyle=dashes, zorder=1)
        rates = start + (end - start) * np.linspace(0.08, 0.92, 15)
        places = np.stack([rates, nelbo - rates], axis=1)
        edge = ((places - origin) / span).clip(0, 1)
        inside = places[((edge > 0.06) & (edge < 0.94)).all(1)]
        if not len(inside):
            continue
        distance = np.linalg.norm((inside[:, None] - every[None]) / span, axis=-1).min(1)
        x, y = (float(place) for place in inside[distance.argmax()])
        ax.text(
            x, y, f"{nelbo:g}", fontsize=SMALL, color=SOFT, rotation=-45, zorder=2,
            rotation_mode="anchor", transform_rotates_text=True, va="center", ha="center", path_effects=[HALO],
        )  # fmt: skip
