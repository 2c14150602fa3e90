"""The information in each latent dimension: KL by dimension and by epoch, posterior statistics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from nelbo.plots.style import (
    BLUE,
    GREY,
    GRID,
    INK,
    ORANGE,
    SMALL,
    SOFT,
    TEXT,
    PlotError,
    chart,
    footnotes,
    legend,
    name_axes,
    panel_title,
)

NAMED = 40  # up to this many dimensions each has its name on the axis


def kl_per_dimension(
    kl_Z: ArrayLike,
    *,
    title: str,
    active: ArrayLike,
    size: tuple[float, float] | None = None,
    key: bool = True,
    named: int = NAMED,
) -> Figure:
    """Draw sorted bars: the KL of each latent dimension in nats, averaged over images.

    active  True for each dimension (Z,) that counts as active by the caller's measure
    key     whether the figure has a legend
    named   up to this many dimensions each has its name on the axis
    """
    kl = np.asarray(kl_Z, dtype=float).reshape(-1)
    if kl.size == 0:
        raise PlotError("KL by dimension needs at least one dimension")
    finite = np.isfinite(kl)
    on = np.asarray(active, dtype=bool).reshape(-1)
    if on.size != kl.size:
        raise PlotError(f"{kl.size} dimensions need {kl.size} flags in `active`, got {on.size}")
    few = kl.size <= named
    order = np.argsort(-np.where(finite, kl, -np.inf), kind="stable")
    figure, (ax,) = chart(1, 1, title=title, size=size or (min(8.5, max(4.8, 0.17 * kl.size + 3.0)), 3.2))
    heights = np.where(finite, kl, 0.0)[order]
    ax.bar(
        np.arange(kl.size),
        heights,
        width=0.8 if few else 1.0,
        color=[BLUE if flag else GREY for flag in on[order]],
        edgecolor="none" if few else "white",
        linewidth=0.3,
    )
    handles = [Patch(color=BLUE), Patch(color=GREY)]
    names = [f"active: {int(on.sum())}", f"inactive: {int((~on).sum())}"]
    ax.grid(False, axis="x")
    ax.set_xlim(-0.8, kl.size - 0.2)
    if few:
        turn = 0 if kl.size <= 16 else 90
        ax.set_xticks(range(kl.size), [f"z{i}" for i in order], rotation=turn, fontsize=SMALL)
        ax.tick_params(axis="x", length=0, colors=GRID, labelcolor=INK)
    else:
        ax.tick_params(axis="x", length=2)
    across = "latent dimension, by KL" if few else "rank of latent dimension"
    name_axes(ax, across, "KL, nats" if key else "")
    if key:
        look = {"title_fontsize": TEXT, "alignment": "left"}
        total = f"sum {heights.sum():.2f} nats"
        box = legend(figure, handles, names, loc="outside right upper", title=total, **look)
        box.get_title().set_color(INK)
    ax.margins(y=0.12)
    if not finite.all():
        footnotes(figure, [f"{int((~finite).sum())} of {kl.size} dimensions have a KL that is not finite."])
    return figure


def kl_heatmap(kl_EZ: ArrayLike, epochs: Sequence[int], *, title: str) -> Figure:
    """Draw KL in nats by epoch (across) and latent dimension (down, largest at the end of training first).

    kl_EZ   one row for each of `epochs`, which need not be evenly spaced; NaN is left white
    """
    kl = np.asarray(kl_EZ, dtype=float)
    if kl.ndim != 2 or kl.shape[0] != len(epochs) or kl.size == 0:
        raise PlotError(f"a KL heat map needs shape ({len(epochs)} epochs, Z), got {kl.shape}")
    order = np.argsort(-np.nan_to_num(kl[-1], nan=-np.inf), kind="stable")
    count = order.size
    height = min(5.4, max(2.2, 0.14 * count + 1.0))
    figure, (ax,) = chart(1, 1, title=title, size=(6.4, height))
    colours = colormaps["cividis"].with_extremes(bad="white")
    top = float(np.nanmax(kl)) if np.isfinite(kl).any() else 1.0
    grid = np.ma.masked_invalid(kl[:, order].T)
    mesh = ax.imshow(
        grid, aspect="auto", interpolation="nearest", cmap=colours, vmin=min(0.0, float(grid.min() or 0.0)),
        vmax=max(top, 1e-3),
    )  # fmt: skip
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, aspect=30)
    bar.set_label("KL, nats", fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=SOFT, labelcolor=INK)
    bar.outline.set_visible(False)
    ax.grid(False)
    step = max(1, -(-len(epochs) // 12))  # at most twelve ticks
    at = list(range(0, len(epochs), step))
    ax.set_xticks(at, [str(epochs[i]) for i in at])
    if count <= NAMED:
        ax.set_yticks(range(count), [f"z{i}" for i in order], fontsize=SMALL if count <= 24 else 6)
    name_axes(ax, "epoch", "latent dimension" if count <= NAMED else "rank of latent dimension")
    return figure


def posterior_statistics(mean_NZ: ArrayLike, std_NZ: ArrayLike, *, title: str) -> Figure:
    """Draw q(z|x) over a data set of N images in Z dimensions.

    Left, all posterior means against the density of a standard normal; middle, all posterior
    standard deviations; right, each dimension's spread of means against its typical standard
    deviation. Collapsed dimensions sit at (0, 1); on the arc the aggregate has the prior's variance.
    """
    mean, std = np.asarray(mean_NZ, dtype=float), np.asarray(std_NZ, dtype=float)
    if mean.ndim != 2 or mean.shape != std.shape or mean.size == 0:
        raise PlotError(f"posterior statistics need two arrays (N, Z), got {mean.shape} and {std.shape}")
    finite = np.isfinite(mean) & np.isfinite(std)
    if not finite.any():
        raise PlotError("posterior statistics: no value is finite")
    figure, (first, second, third) = chart(1, 3, title=title, size=(3.1, 2.9))
    # A few outliers are put into the outermost bins: they would make all other bins thin.
    edge = max(3.5, float(np.quantile(np.abs(mean[finite]), 0.999)))
    first.hist(
        mean[finite].clip(-edge, edge), bins=60, range=(-edge, edge), density=True, color=BLUE, alpha=0.75
    )
    z = np.linspace(-edge, edge, 200)
    (prior,) = first.plot(z, np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1.2)
    legend(first, [prior], ["N(0, 1)"], loc="upper right", handlelength=1.2)
    panel_title(first, "posterior means")
    name_axes(first, "mean of q(z|x)", "density")
    high = max(1.2, float(np.quantile(std[finite], 0.999)) * 1.05)
    second.hist(std[finite].clip(0, high), bins=60, range=(0, high), density=True, color=BLUE, alpha=0.75)
    second.axvline(1.0, color=INK, linewidth=1.2, linestyle="--")
    panel_title(second, "posterior standard deviations")
    name_axes(second, "σ of q(z|x); dashed: that of N(0, 1)", "density")
    keep = finite.any(axis=0)
    spread = np.nanstd(np.where(finite, mean, np.nan)[:, keep], axis=0)
    typical = np.sqrt(np.nanmean(np.where(finite, std, np.nan)[:, keep] ** 2, axis=0))
    angle = np.linspace(0, np.pi / 2, 100)
    third.plot(np.sin(angle), np.cos(angle), color=SOFT, linewidth=1, linestyle="--", zorder=1)
    dots: dict[str, Any] = {"s": 22, "color": ORANGE, "alpha": 0.75, "linewidths": 0.4, "edgecolors": "white"}
    third.scatter(spread, typical, **dots, zorder=3)
    for at, names in _grouped(np.stack([spread, typical], axis=1), np.flatnonzero(keep)):
        # Away from the panel's edges and from the arc.
        offset, side, v = ((4, 3), "left", "bottom") if at[0] < 0.5 else ((-5, -2), "right", "top")
        third.annotate(
            names, at, xytext=offset, textcoords="offset points", ha=side, va=v, fontsize=SMALL, color=INK
        )
    end = 1.15 * max(1.0, float(spread.max()), float(typical.max()))
    third.set(xlim=(-0.04 * end, end), ylim=(-0.04 * end, end))
    panel_title(third, "one dot a dimension")
    name_axes(third, "spread of means over images", "σ of q(z|x), root mean square")
    if not finite.all():
        footnotes(figure, [f"{int((~finite).sum())} of {mean.size} values are not finite and left out."])
    return figure


def _grouped(dots: np.ndarray, dimensions: np.ndarray) -> list[tuple[tuple[float, float], str]]:
    """Return the names of dots, one text for those too close for a text each; none where there are too many dots."""
    groups: list[tuple[tuple[float, float], str]] = []
    if len(dots) > 12:
        return groups
    for (x, y), i in zip(dots, dimensions, strict=True):
        near = next((k for k, (at, _) in enumerate(groups) if np.hypot(x - at[0], y - at[1]) < 0.1), None)
        if near is None:
            groups.append(((float(x), float(y)), f"z{i}"))
        else:
            at, names = groups[near]
            lines = names.split("\n")
            lines[-1:] = [lines[-1] + f", z{i}"] if len(lines[-1]) < 6 else [lines[-1] + ",", f"z{i}"]
            groups[near] = (at, "\n".join(lines))
    return groups
