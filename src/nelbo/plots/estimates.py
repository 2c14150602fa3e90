"""The importance-weighted estimate, which falls as samples are added."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nelbo.plots.style import BLUE, HALO, INK, SMALL, SOFT, PlotError, chart, footnotes, legend, name_axes


def estimate_curve(
    at: Sequence[int],
    nll: Sequence[float],
    *,
    title: str,
    nelbo: float | None = None,
    name: str = "NELBO",
    notes: Sequence[str] = (),
    size: tuple[float, float] = (6.0, 3.2),
    key: bool = True,
) -> Figure:
    """Draw -log p(x) estimated with K samples, over K on a logarithmic axis; the NELBO as a dashed line above it.

    at, nll  K and the mean estimate in nats an image, as long as each other
    name     of the dashed line
    key      whether the figure has a legend; without one the dashed line has its name and number on it
    """
    if not at or len(at) != len(nll):
        raise PlotError(f"an estimate curve needs as many values as K ({len(nll)} for {len(at)})")
    figure, (ax,) = chart(1, 1, title=title, size=size)
    x, y = np.asarray(at, dtype=float), np.asarray(nll, dtype=float)
    (line,) = ax.plot(x, y, color=BLUE, linewidth=1.4, marker="o", markersize=3.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    handles, names = [line], ["importance-weighted estimate"]
    if nelbo is not None:
        ax.axhline(nelbo, color=SOFT, linewidth=1, linestyle="--")
        handles.append(Line2D([], [], color=SOFT, linewidth=1, linestyle="--"))
        names.append(name)
    for k, value, side in ((x[0], y[0], "left"), (x[-1], y[-1], "right"))[: len(x)]:
        ax.annotate(
            f"{value:.2f}", (k, value), xytext=(0, 6), textcoords="offset points", ha=side, fontsize=SMALL,
            color=INK, path_effects=[HALO],
        )  # fmt: skip
    name_axes(ax, "samples K", "nats an image" if key else "")
    if key:
        legend(figure, handles, names, loc="outside upper right", ncols=len(handles))
    elif nelbo is not None:
        ax.annotate(
            f"{name} {nelbo:.4g}", (1.0, nelbo), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", ha="right", fontsize=SMALL, color=SOFT, parse_math=False,
        )  # fmt: skip
    footnotes(figure, notes)
    return figure
