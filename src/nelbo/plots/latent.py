"""The latent space as points: scatters by class, and projections to the plane."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray

from nelbo.plots.style import (
    BLUE,
    HALO,
    INK,
    SMALL,
    TEXT,
    PlotError,
    chart,
    class_colours,
    legend,
    name_axes,
    panel_title,
    text_size,
)

Floats = NDArray[np.float64]
AxisLabels = tuple[str, str] | None
LEGEND_UP_TO = 26
MOST_NAMES = 0.25  # of the box: names that take more of it are heaps, and are left out
MANY_POINTS = 1000
NO_CLASS = "#c8c8c8"  # points without a label
SAME = 1e-9  # points no farther apart are one: there are no limits to find


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes that occur in the labels: value, name and colour, the same in every panel."""

    values: list[int]
    names: list[str]
    colours: list[str]


def scatter(
    points_N2: ArrayLike,
    labels_N: ArrayLike | None,
    *,
    title: str,
    class_names: Sequence[str] | None = None,
    axis_labels: AxisLabels = ("z0", "z1"),
    prior_circles: bool = False,
) -> Figure:
    """Draw points (N, 2) by class, with a legend and each class's name at its median.

    labels_N       integers (N,), which index `class_names`; below 0 a point has no class and is grey
    axis_labels    None hides the scales, for axes without a unit (t-SNE)
    prior_circles  adds the standard-normal prior's 1 and 2 sigma
    """
    points, labels = _checked(points_N2, labels_N, "points")
    across, up = np.ptp(points, axis=0)
    height = 5.2 * float(np.clip(up / (across or 1.0), 0.55, 1.05)) if not prior_circles else 5.4
    figure, (ax,) = chart(1, 1, title=title, size=(6.6, height))
    classes = _classes(labels, class_names)
    _points(ax, points, labels, classes, axis_labels, inches=4.4)
    for sigma in (1, 2) if prior_circles else ():
        ax.add_patch(Circle((0, 0), sigma, fill=False, color=INK, linewidth=1, linestyle="--", zorder=4))
        ax.annotate(
            f"{sigma}σ", (-sigma * 0.707, sigma * 0.707), ha="center", va="center",
            fontsize=SMALL, color=INK, zorder=4, path_effects=[HALO],
        )  # fmt: skip
    _key(figure, classes)
    return figure


def two_scatters(
    left_N2: ArrayLike,
    right_N2: ArrayLike,
    labels: ArrayLike | None,
    *,
    titles: tuple[str, str],
    title: str,
    class_names: Sequence[str] | None = None,
    axis_labels: tuple[AxisLabels, AxisLabels] = (("z0", "z1"), ("z0", "z1")),
) -> Figure:
    """Draw two scatters of the same labels with one legend: PCA beside t-SNE, the first checkpoint beside the best."""
    figure, axes = chart(1, 2, title=title, size=(5.0, 4.5))
    sides = [_checked(left_N2, labels, "left points"), _checked(right_N2, labels, "right points")]
    classes = _classes(sides[0][1], class_names)
    for ax, (points, side_labels), names, name in zip(axes, sides, axis_labels, titles, strict=True):
        _points(ax, points, side_labels, classes, names, inches=3.5)
        panel_title(ax, name)
    _key(figure, classes)
    return figure


def project(
    points_NZ: ArrayLike, method: Literal["pca", "tsne"], *, seed: int = 0, max_points: int | None = 2000
) -> tuple[Floats, NDArray[np.int64]]:
    """Project points (N, Z) to the plane: (M, 2), and the indices (M,) of the points that are in it.

    More than `max_points` are thinned at random by `seed`; equal arguments give equal results.
    t-SNE starts from the principal components (Kobak & Berens 2019), perplexity 30 or (M - 1) / 3; of many points
    in half of the usual steps, larger ones (Belkina et al. 2019).
    """
    points = np.asarray(points_NZ, dtype=float)
    if points.ndim != 2 or points.shape[1] == 0:
        raise PlotError(f"a projection needs points (N, Z), got shape {points.shape}")
    if len(points) < 5:
        raise PlotError(f"a projection needs at least 5 points, got {len(points)}")
    if not np.isfinite(points).all():
        raise PlotError("a projection needs finite points; the latents hold NaN or infinity")
    if method not in ("pca", "tsne"):
        raise PlotError(f"unknown projection {method!r}; known: pca, tsne")
    index = np.arange(len(points))
    if max_points is not None and len(points) > max_points:
        index = np.sort(np.random.default_rng(seed).choice(len(points), max(5, max_points), replace=False))
    points = points[index]
    if not np.ptp(points, axis=0).any():  # everything collapsed to one point, which is also its picture
        return np.zeros((len(points), 2)), index
    if points.shape[1] == 1:
        points = np.pad(points, ((0, 0), (0, 1)))
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == "pca":
        return np.asarray(PCA(2, svd_solver="full").fit_transform(points), dtype=float), index
    perplexity = min(30.0, (len(points) - 1) / 3)
    # 500 steps of M / 6 keep as many neighbours as 1000 of scikit-learn's M / 48, in half the time. Few points are
    # quick as they are, and large steps scatter them.
    many = len(points) >= MANY_POINTS
    rate, steps = (len(points) / 6, 500) if many else ("auto", 1000)
    model = TSNE(2, init="pca", perplexity=perplexity, learning_rate=rate, max_iter=steps, random_state=seed)
    return np.asarray(model.fit_transform(points.astype(np.float32)), dtype=float), index


def _checked(points: ArrayLike, labels: ArrayLike | None, name: str) -> tuple[Floats, np.ndarray | None]:
    array = np.asarray(points, dtype=float)
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise PlotError(f"{name}: expected shape (N, 2), got {array.shape}")
    if not np.isfinite(array).all():
        raise PlotError(f"{name}: {int((~np.isfinite(array)).any(axis=1).sum())} are not finite")
    flat = None if labels is None else np.asarray(labels).reshape(-1)
    if flat is not None and len(flat) != len(array):
        raise PlotError(f"{name}: {len(array)} points need {len(array)} labels, got {len(flat)}")
    # One class of points without a label, whatever number below 0 says so.
    return array, flat if flat is None else np.maximum(flat, -1)


def _classes(labels: np.ndarray | None, names: Sequence[str] | None) -> Classes | None:
    if labels is None:
        return None
    values = [int(value) for value in np.unique(labels) if value >= 0]
    texts = [str(names[v]) if names is not None and 0 <= v < len(names) else str(v) for v in values]
    # A class keeps its colour where others are missing from the sample.
    largest = max(values, default=0)
    every = max(len(names or ()), largest + 1 if largest < 100 else len(values))
    palette = class_colours(every)
    picked = [palette[v] for v in values] if largest < every else palette[: len(values)]
    if (labels < 0).any():
        return Classes([-1, *values], ["no label", *texts], [NO_CLASS, *picked])
    return Classes(values, texts, picked)


def _points(
    ax: Axes,
    points: Floats,
    labels: np.ndarray | None,
    classes: Classes | None,
    axis_labels: AxisLabels,
    inches: float,
) -> None:
    """Draw all points in a random order, so that no class hides the others."""
    n = len(points)
    order = np.random.default_rng(0).permutation(n)
    x, y = points[order, 0], points[order, 1]
    size, alpha = float(np.clip(12000 / n, 3.5, 26)), float(np.clip(45 / np.sqrt(n), 0.55, 0.9))
    # Many points are an image in a PDF too: as shapes they would make it large and slow to show.
    look: dict[str, Any] = {"s": size, "alpha": alpha, "linewidths": 0, "rasterized": n > 2000}
    if labels is None or classes is None or classes.values == [-1]:
        ax.scatter(x, y, color=BLUE, **look)
    else:
        colours = np.array(classes.colours)[np.searchsorted(classes.values, labels[order])]
        ax.scatter(x, y, c=colours, **look)
        figure = ax.get_figure(root=True)
        assert isinstance(figure, Figure)
        unit = float(np.ptp(points, axis=0).max()) / inches or 1.0  # of the data, in an inch
        first = 1 if classes.values[0] < 0 else 0  # points without a label have no name
        with_names = Classes(classes.values[first:], classes.names[first:], classes.colours[first:])
        centres = np.array([np.median(points[labels == value], axis=0) for value in with_names.values])
        measured = np.array([text_size(figure, name, TEXT) for name in with_names.names])
        # Bold type is a little wider than measured, and "9" beside "0" must not read as 90.
        boxes = measured * [1.1, 1] + [0.09, 0]
        crowded = float(boxes.prod(1).sum()) > MOST_NAMES * inches**2
        if crowded and len(with_names.values) > LEGEND_UP_TO:
            _corner(ax, f"{len(with_names.values)} classes by colour: too many for their names")
        else:
            _name(ax, with_names, _spread(centres, boxes * unit))
    # The box keeps its shape and the limits widen: equal units without blank margins.
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.04)
    if float(np.ptp(points, axis=0).max()) < SAME:
        ax.update_datalim(points[0] + np.array([[-1.0, -1.0], [1.0, 1.0]]))
    if axis_labels is None:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[["left", "bottom"]].set_color("#c8c8c8")
    else:
        name_axes(ax, *axis_labels)


def _name(ax: Axes, classes: Classes, places: Floats) -> None:
    """Write the name of each class at its place."""
    for name, colour, place in zip(classes.names, classes.colours, places, strict=True):
        ax.text(
            place[0], place[1], name, color=colour, fontsize=TEXT, fontweight="bold",
            ha="center", va="center", path_effects=[HALO], zorder=5, parse_math=False,
        )  # fmt: skip


def _corner(ax: Axes, text: str) -> None:
    """Write a line into the upper left corner of the box."""
    ax.annotate(
        text, (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=SMALL, color=INK, path_effects=[HALO]
    )


def _spread(centres: Floats, sizes: Floats) -> Floats:
    """Move text boxes (centre, width and height) apart, each time the shorter way, until none overlap."""
    at = centres.copy()
    for _ in range(60):  # where there is no room for all, some stay on top of each other
        gap = at[:, None] - at[None]
        overlap = (sizes[:, None] + sizes[None]) / 2 * 1.08 - np.abs(gap)
        hit = (overlap > 0).all(axis=-1) & ~np.eye(len(at), dtype=bool)
        if not hit.any():
            break
        for i, j in np.argwhere(np.triu(hit)):
            axis = int(np.argmin(overlap[i, j]))
            push = overlap[i, j, axis] / 2 * (1.0 if gap[i, j, axis] >= 0 else -1.0)
            at[i, axis] += push
            at[j, axis] -= push
    return at


def _key(figure: Figure, classes: Classes | None) -> None:
    """Draw one legend at the right, unless the names in the picture have to do."""
    if classes is None or len(classes.values) > LEGEND_UP_TO:
        return
    marks = [Line2D([], [], linestyle="", marker="o", markersize=5, color=c) for c in classes.colours]
    legend(figure, marks, classes.names, loc="outside right upper", handletextpad=0.2)
