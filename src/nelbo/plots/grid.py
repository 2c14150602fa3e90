"""Figures made of images: grids, labelled rows, two side by side, the decoded latent plane."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from nelbo.plots.images import as_images, default_columns, tiled
from nelbo.plots.panels import TILE, Panel, panel_figure, pixel_size, place, scale_of, show
from nelbo.plots.style import DPI, INK, SMALL, SOFT, PlotError, name_axes, new_figure

Apart = Literal["none", "first", "ends"]
Side = np.ndarray | Sequence[ArrayLike]


def image_grid(
    images_NHWC: ArrayLike, *, title: str, labels: Sequence[str] | None = None, columns: int | None = None
) -> Figure:
    """Draw images (N, H, W, C) in reading order; with labels, each above its label."""
    images = as_images(images_NHWC)
    n, height, width, _ = images.shape
    if labels is not None and len(labels) != n:
        raise PlotError(f"{n} images need {n} labels, got {len(labels)}")
    columns = max(1, min(columns or default_columns(n, height, width), n))
    gap = gap_of(width)
    if labels is None:
        return panel_figure([_tiled_panel(images, columns)], title=title)
    # Larger tiles for longer names, and under each the room for a line of type, in image pixels.
    inches = TILE * max(1.0, min(1.6, max(len(text) for text in labels) / 9))
    below = gap
    for _ in range(3):  # the room depends on the scale, and the scale a little on the room
        roomy = np.pad(images, ((0, 0), (0, below), (0, 0), (0, 0)), constant_values=1.0)
        panel = Panel(picture=tiled(roomy, columns, (0, gap)), tile=(height, width))
        below = max(gap, round(0.17 * DPI / scale_of([panel], inches)))
    under = [
        ((i % columns) * (width + gap) + width / 2, i // columns * roomy.shape[1] + height, str(text))
        for i, text in enumerate(labels)
    ]
    return panel_figure([dataclasses.replace(panel, under=under)], title=title, inches=inches)


def rows(
    rows_NHWC: Sequence[ArrayLike],
    *,
    title: str,
    row_labels: Sequence[str],
    column_labels: Sequence[str] | None = None,
    apart: Apart = "none",
) -> Figure:
    """Draw one labelled row for each array of images (N, H, W, C): input over reconstruction, a row a class
    or a traversed dimension. Rows may differ in length.

    apart  sets the first column apart ("first": the input of a resampling), or the first and the
           last ("ends": the two images of an interpolation)
    """
    panel = _rows_panel(rows_NHWC, row_labels=row_labels, column_labels=column_labels, apart=apart)
    return panel_figure([panel], title=title)


def side_by_side(
    left: Side,
    right: Side,
    *,
    titles: tuple[str, str],
    title: str,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    apart: Apart = "none",
) -> Figure:
    """Draw two pictures beside each other, such as the first and the best checkpoint.

    Each side is images (N, H, W, C) to tile, or a list of rows as in `rows`; row labels are written once, at the left.
    """
    panels = []
    for side, name, names in ((left, titles[0], row_labels), (right, titles[1], None)):
        if isinstance(side, np.ndarray):
            panel = _tiled_panel(as_images(side), None)
        else:
            names = names or [""] * len(side)
            panel = _rows_panel(side, row_labels=names, column_labels=column_labels, apart=apart)
        panels.append(dataclasses.replace(panel, title=name))
    return panel_figure(panels, title=title)


def manifold(
    images_GGHWC: ArrayLike,
    *,
    title: str,
    extent: tuple[float, float, float, float],
    axis_labels: tuple[str, str] = ("z0", "z1"),
) -> Figure:
    """Draw the decoded latent plane as one seamless picture, z1 upwards.

    images_GGHWC  images[i, j] is decoded at the i-th value of z1 and the j-th value of z0, both
                  rising in even steps: (G1, G0, H, W, C)
    extent        (z0 first, z0 last, z1 first, z1 last), the values at the middle of the outer tiles
    """
    array = np.asarray(images_GGHWC)
    if array.ndim != 5:
        raise PlotError(f"a manifold needs images (G, G, H, W, C), got shape {array.shape}")
    up, across, height, width = array.shape[:4]
    picture = tiled(as_images(array[::-1]), across, (0, 0))
    x0, x1, y0, y1 = extent
    # The extent is of the tiles' middles: the outer edges are half a tile farther.
    half_x = (x1 - x0) / (across - 1) / 2 if across > 1 else 0.5
    half_y = (y1 - y0) / (up - 1) / 2 if up > 1 else 0.5
    panel = Panel(picture=picture, tile=(height, width))
    scale = scale_of([panel], TILE, limits=(6.2, 6.2))
    figure = new_figure(4, 4, constrained=False)
    ax = figure.add_axes((0, 0, 1, 1))
    edges = (x0 - half_x, x1 + half_x, y0 - half_y, y1 + half_y)
    show(ax, picture, edges, scale)
    ax.tick_params(labelsize=SMALL, colors=SOFT, labelcolor=INK, length=3)
    ax.spines[:].set_color(SOFT)
    name_axes(ax, *axis_labels)
    place(figure, [ax], [pixel_size(picture, scale)], title)
    return figure


def gap_of(width: int) -> int:
    """Return the pixels between tiles: a hairline at any image size."""
    return max(1, round(width / 28))


def _tiled_panel(images_NHWC: np.ndarray, columns: int | None) -> Panel:
    _, height, width, _ = images_NHWC.shape
    gap = gap_of(width)
    return Panel(picture=tiled(images_NHWC, columns, (gap, gap)), tile=(height, width))


def _rows_panel(
    rows_NHWC: Sequence[ArrayLike],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str] | None,
    apart: Apart,
) -> Panel:
    groups = [as_images(row, f"row {i}") for i, row in enumerate(rows_NHWC)]
    if not groups or len(row_labels) != len(groups):
        raise PlotError(f"{len(groups)} rows of images need as many row labels, got {len(row_labels)}")
    most = max(group.shape[-1] for group in groups)  # grey rows among rows in colour become colour
    groups = [np.repeat(group, most // group.shape[-1], axis=-1) for group in groups]
    shapes = {group.shape[1:] for group in groups}
    if len(shapes) > 1:
        raise PlotError(f"all rows need images of one size, got {sorted(shapes)}")
    height, width, channels = groups[0].shape[1:]
    count = max(len(group) for group in groups)
    if column_labels is not None and len(column_labels) != count:
        raise PlotError(f"{count} columns need {count} labels, got {len(column_labels)}")
    gap, wider = gap_of(width), max(3, width // 4)
    lefts = np.arange(count) * (width + gap)
    lefts[1:] += wider * (apart != "none")  # all columns after the first move
    if apart == "ends" and count > 2:
        lefts[-1] += wider
    tops = np.arange(len(groups)) * (height + gap)
    picture = np.ones((int(tops[-1]) + height, int(lefts[-1]) + width, channels), np.float32)
    for top, group in zip(tops, groups, strict=True):
        for x, image in zip(lefts[: len(group)], group, strict=True):
            picture[top : top + height, x : x + width] = image
    return Panel(
        picture=picture,
        left=[(float(y) + height / 2, str(name)) for y, name in zip(tops, row_labels, strict=True)],
        top=[(float(x) + width / 2, str(name)) for x, name in zip(lefts, column_labels or (), strict=False)],
        tile=(height, width),
    )
