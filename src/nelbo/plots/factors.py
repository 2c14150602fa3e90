"""A coloured table of the information that each latent dimension has on each factor."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from nelbo.plots.style import INK, SMALL, TEXT, PlotError, chart, footnotes, name_axes

WRITTEN = 24  # up to this many dimensions each cell has its number in it


def factor_table(
    share_ZF: ArrayLike,
    *,
    title: str,
    dimensions: Sequence[str],
    factors: Sequence[str],
    notes: Sequence[str] = (),
) -> Figure:
    """Draw a row for each dimension, a column for each factor, and in every cell a share from 0 (white) to 1 (dark)."""
    share = np.asarray(share_ZF, dtype=float)
    if share.shape != (len(dimensions), len(factors)) or not share.size:
        raise PlotError(
            f"a table of {len(dimensions)} dimensions and {len(factors)} factors, got shape {share.shape}"
        )
    if not np.isfinite(share).all():
        raise PlotError("shares of factors must be finite")
    rows, columns = share.shape
    height = max(1.6, (0.24 if rows <= WRITTEN else 0.12) * rows + 0.9)
    figure, (ax,) = chart(1, 1, title=title, size=(max(4.2, 0.75 * columns + 1.3), height))
    colours = colormaps["Blues"]
    ax.imshow(share, cmap=colours, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_xticks(range(columns), factors, fontsize=TEXT, color=INK)
    if rows <= WRITTEN:
        ax.set_yticks(range(rows), dimensions)
        for (row, column), value in np.ndenumerate(share):
            ink = "white" if value > 0.55 else INK
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=SMALL, color=ink)
    else:
        ax.set_yticks([])
        name_axes(ax, "", f"{rows} dimensions")
    footnotes(figure, notes)
    return figure
