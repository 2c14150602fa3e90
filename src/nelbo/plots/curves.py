"""Training by epoch and by step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from nelbo.plots.style import (
    BLUE,
    CURVES,
    HALO,
    INK,
    ORANGE,
    SMALL,
    SOFT,
    PlotError,
    chart,
    footnotes,
    legend,
    name_axes,
    panel_title,
)

Floats = NDArray[np.float64]
Series = Mapping[str, Sequence[float | None]]

# Colour, dashes and marker of a split; lines of other names take the colours in order.
LOOKS = {"train": (BLUE, "-", "o"), "validation": (ORANGE, "--", "s"), "test": (CURVES[2], ":", "^")}


def epoch_curves(
    epochs: Sequence[int],
    series: Mapping[str, Series],
    *,
    title: str,
    best_epoch: int | None = None,
    notes: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    size: tuple[float, float] | None = None,
    key: bool = True,
) -> Figure:
    """Draw small multiples by epoch: one panel a quantity, one line a split.

    series      {"reconstruction": {"train": [...], "validation": [...]}, "kl": {...}, ...}, each as
                long as `epochs`; None (or NaN) leaves a gap
    best_epoch  is marked in every panel
    notes       small print below ("grey cross-entropy: not a likelihood")
    units       of a quantity, where it is not nats an image
    size        inches of a panel
    key         whether the figure has a legend
    """
    if not series or not len(epochs):
        raise PlotError("epoch curves need at least one epoch and one quantity")
    columns = len(series) if len(series) <= 3 else 2 if len(series) == 4 else 3
    rows = math.ceil(len(series) / columns)
    size = size or (6.4 if len(series) == 1 else 3.7, 2.5)
    figure, axes = chart(rows, columns, title=title, size=size)
    x = np.asarray(epochs, dtype=float)
    best: dict[str, Any] = {"color": SOFT, "linewidth": 1, "linestyle": (0, (1, 1.5))}
    handles: dict[str, Line2D] = {}
    for ax, (quantity, splits) in zip(axes, series.items(), strict=False):
        lines: dict[str, Floats] = {}
        for i, (split, values) in enumerate(splits.items()):
            if len(values) != len(x):
                needed = f"{quantity}, {split}: {len(x)} epochs need {len(x)} values"
                raise PlotError(f"{needed}, got {len(values)}")
            y = np.array(values, dtype=float)  # None is NaN
            lines[split] = np.where(np.isfinite(y), y, np.nan)
            handles.setdefault(split, _line(ax, x, lines[split], split, i))
        if best_epoch is not None:
            ax.axvline(best_epoch, **best, zorder=1)
            chosen = next((split for split in ("validation", "test", "train") if split in lines), None)
            if chosen is not None and best_epoch in x:
                y, colour = lines[chosen][x == best_epoch][:1], LOOKS[chosen][0]
                ax.plot([best_epoch], y, "o", color=colour, markersize=6, markeredgecolor="white")
        _focus(ax, x, list(lines.values()))
        _epoch_axis(ax, x)
        if all(float(value).is_integer() for y in lines.values() for value in y[np.isfinite(y)]):
            ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        panel_title(ax, quantity)
        unit = (units or {}).get(quantity)
        if unit is not None or ax in axes[::columns]:
            ax.set_ylabel("nats an image" if unit is None else unit, fontsize=SMALL, color=INK)
    for ax in axes[len(series) :]:
        ax.set_visible(False)
    if best_epoch is not None:
        handles[f"best: epoch {best_epoch}"] = Line2D([], [], **best)
    if key:
        legend(figure, list(handles.values()), list(handles), loc="outside upper right", ncols=len(handles))
    footnotes(figure, notes)
    return figure


def step_curve(losses: ArrayLike, *, title: str) -> Figure:
    """Draw every step's loss, faint, and its running median over a hundredth of the steps.

    The axis leaves out isolated spikes and says how many; it is logarithmic where the losses span
    more than a factor of 30. Losses that are not finite are counted and marked.
    """
    y = np.asarray(losses, dtype=float).reshape(-1)
    if y.size == 0:
        raise PlotError("a step curve needs at least one loss")
    window = max(1, y.size // 100)  # a median, which a few spikes do not move as they would a mean
    figure, (ax,) = chart(1, 1, title=title, size=(7.2, 3.4))
    steps = np.arange(1, y.size + 1)
    finite = np.isfinite(y)
    drawn = np.where(finite, y, np.nan)
    few = y.size <= 40
    ax.plot(steps, drawn, color=BLUE, alpha=0.3, linewidth=0.6, marker="o" if few else None, markersize=3)
    handles = [Line2D([], [], color=BLUE, alpha=0.4, linewidth=1)]  # short, so thicker than the curve
    names = ["each step"]
    if window > 1:
        centres, medians = running_median(drawn, window)
        handles += ax.plot(centres + 1, medians, color=INK, linewidth=1.4)
        names.append(f"running median of {window} steps")
    notes = []
    if finite.any():
        notes += _robust_axis(ax, y, finite)
    if not finite.all():
        bad = steps[~finite]
        notes.append(f"{bad.size} of {y.size} losses are not finite (the first at step {bad[0]}).")
        handles += ax.plot(
            bad, np.zeros(bad.size), "|", color=ORANGE, transform=ax.get_xaxis_transform(), clip_on=False
        )
        names.append("not finite")
    _epoch_axis(ax, steps, "step")
    name_axes(ax, "step", "loss, nats an image")
    legend(ax, handles, names, loc="upper right")
    footnotes(figure, notes)
    return figure


def running_median(values: Floats, window: int, points: int = 1000) -> tuple[Floats, Floats]:
    """Return centres (counted from 0) and medians of up to `points` windows; NaN is left out."""
    last = values.size - window
    starts = np.unique(np.linspace(0, last, min(points, last + 1)).astype(int))
    # A view of all windows costs no memory; only those that begin at `starts` are copied.
    windows = np.lib.stride_tricks.sliding_window_view(values, window)[starts]
    finite = np.isfinite(windows).any(axis=1)
    medians = np.full(starts.size, np.nan)
    medians[finite] = np.nanmedian(windows[finite], axis=1)
    return starts + (window - 1) / 2, medians


def _line(ax: Axes, x: Floats, y: Floats, split: str, i: int) -> Line2D:
    colour, dashes, marker = LOOKS.get(split, (CURVES[i % len(CURVES)], "--" if i == 1 else "-", "D"))
    # A value between two gaps would be invisible without its marker.
    walls = np.isnan(np.concatenate([[np.nan], y, [np.nan]]))
    marked = np.flatnonzero((walls[:-2] & walls[2:]) | (x.size <= 15)).tolist()
    (line,) = ax.plot(x, y, color=colour, linestyle=dashes, linewidth=1.4, markersize=3.5)
    if marked:
        line.set_marker(marker)
        line.set_markevery(marked)
    return line


def _focus(ax: Axes, x: Floats, lines: Sequence[Floats]) -> None:
    """Show the later epochs and write down what is cut, where the first tenth of them dwarfs the rest."""
    every = np.stack(lines) if lines else np.full((1, x.size), np.nan)
    if np.isnan(every).all():
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", fontsize=SMALL, color=SOFT)
        return
    late = every[:, max(1, x.size // 10) :]
    if x.size < 10 or not np.isfinite(late).any():
        return
    low, high = float(np.nanmin(late)), float(np.nanmax(late))
    least, most = float(np.nanmin(every)), float(np.nanmax(every))
    if most - least <= 3 * (high - low) or high == low:  # a third of the height is enough to see
        return
    room = 0.08 * (high - low)
    bottom, top = max(least, low - 0.5 * (high - low)), min(most, high + 0.5 * (high - low))
    ax.set_ylim(bottom - room, top + room)
    for far, cut in ((most, most > top), (least, least < bottom)):
        if cut:
            epoch = x[np.argwhere(every == far)[0][1]]
            arrow, y, va = ("↑", 0.98, "top") if far == most else ("↓", 0.02, "bottom")
            text = f"{arrow} {far:.4g} in epoch {epoch:.0f}"
            ax.text(
                0.2, y, text, transform=ax.transAxes, va=va, fontsize=SMALL, color=SOFT, path_effects=[HALO]
            )


def _epoch_axis(ax: Axes, x: np.ndarray, name: str = "epoch") -> None:
    ax.set_xlabel(name, fontsize=SMALL, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    first, last = float(x.min()), float(x.max())
    room = 0.04 * (last - first) or 1.0
    ax.set_xlim(first - room, last + room)
    if first == last:
        ax.set_xticks([first])


def _robust_axis(ax: Axes, y: Floats, finite: NDArray[np.bool_]) -> list[str]:
    """Leave out spikes but no long descent, in a logarithm of a wide range; return notes on what is beyond."""
    values = y[finite]
    low, high = np.quantile(values, [0.005, 0.995])
    # The first steps of a run are few and far above the others, and no spikes: a median of nine keeps them.
    _, usual = running_median(np.where(finite, y, np.nan), min(9, y.size), y.size)
    low, high = min(low, float(np.nanmin(usual))), max(high, float(np.nanmax(usual)))
    if values.min() > 0 and high > 30 * low:
        ax.set_yscale("log")
        ratio = (high / low) ** 0.08
        bottom, top = low / ratio, high * ratio
    else:
        room = 0.08 * (high - low) or 0.05 * max(abs(high), 1.0)
        bottom, top = low - room, high + room
    # Cut only what would flatten the rest.
    if ax.get_yscale() == "linear" and np.ptp(values) <= 2 * (high - low):
        return []
    ax.set_ylim(bottom, top)
    beyond = finite & ((y > top) | (y < bottom))
    if not beyond.any():
        return []
    middle = np.median(values)
    worst = int(np.nanargmax(np.where(beyond, np.abs(y - middle), np.nan)))
    n = int(beyond.sum())
    return [f"{n} of {y.size} steps lie beyond the axis (farthest: {y[worst]:.4g} at step {worst + 1})."]
