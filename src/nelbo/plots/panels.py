"""The layout of figures of images.

Every image pixel is a whole number of screen pixels, and a figure is as large as its pictures and
labels need: the layout is measured. A layout engine would resample pictures and leave margins.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nelbo.plots.images import to_uint8
from nelbo.plots.style import DPI, INK, SMALL, TEXT, TITLE, new_figure, renderer_of, text_size, wrapped

TILE, WIDE, HIGH = 0.62, 9.6, 11.5  # inches: a tile where there is room, a figure's pictures at most
MARGIN, GAP = 0.1, 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture (H, W, C) and the texts around it, at pixel coordinates of the picture."""

    picture: np.ndarray
    title: str = ""
    left: Sequence[tuple[float, str]] = ()
    top: Sequence[tuple[float, str]] = ()
    under: Sequence[tuple[float, float, str]] = ()
    tile: tuple[int, int] = (28, 28)


def panel_figure(panels: Sequence[Panel], *, title: str, inches: float = TILE) -> Figure:
    """Draw panels side by side under a title."""
    figure = new_figure(4, 4, constrained=False)
    scale = scale_of(panels, inches)
    axes = [figure.add_axes((0, 0, 1, 1), label=f"panel {i}") for i in range(len(panels))]
    for ax, panel in zip(axes, panels, strict=True):
        _draw(figure, ax, panel, scale)
    place(figure, axes, [pixel_size(panel.picture, scale) for panel in panels], title)
    return figure


def _draw(figure: Figure, ax: Axes, panel: Panel, scale: float) -> None:
    high, wide = panel.picture.shape[:2]
    show(ax, panel.picture, (0, wide, high, 0), scale)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    type_size = min(TEXT, max(5.0, panel.tile[0] * scale / DPI * 72 * 0.8))  # no higher than a row
    plain: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    plain |= {"parse_math": False, "color": INK}
    for y, name in panel.left:
        ax.annotate(
            name, (0, y), xytext=(-4, 0), ha="right", va="center_baseline", fontsize=type_size, **plain
        )
    room = panel.tile[1] * scale / DPI
    sizes = [text_size(figure, name, SMALL) for _, name in panel.top]
    turn = 90 if max((width for width, _ in sizes), default=0.0) > room * 1.05 else 0
    for x, name in panel.top:
        ax.annotate(
            name, (x, 0), xytext=(0, 3), ha="center", va="bottom", fontsize=SMALL, rotation=turn, **plain
        )
    widest = max((text_size(figure, name, SMALL)[0] for *_, name in panel.under), default=0.0)
    small = max(5.0, min(SMALL, SMALL * room / max(widest, 1e-6)))
    for x, y, name in panel.under:
        text, end = name, len(name)
        while end > 1 and text_size(figure, text, small)[0] > room * 1.05:
            end -= 1
            text = name[:end].rstrip() + "…"
        ax.annotate(text, (x, y), xytext=(0, -1.5), ha="center", va="top", fontsize=small, **plain)
    if panel.title:
        tallest = max((width if turn else height for width, height in sizes), default=0.0)
        above = 16 + ((float(tallest) - 0.1) * 72 if panel.top else -12)
        ax.annotate(panel.title, (0, 0), xytext=(0, above), ha="left", va="bottom", fontsize=TEXT, **plain)


def place(figure: Figure, axes: Sequence[Axes], sizes: Sequence[tuple[int, int]], title: str) -> None:
    """Give each axes its width and height in screen pixels, side by side, and the figure the size that this takes."""
    total_w, total_h = sum(w for w, _ in sizes) / DPI + 4, max(h for _, h in sizes) / DPI + 4
    figure.set_size_inches(total_w, total_h)  # larger than needed: labels are measured before they are placed
    sides = []
    for ax, (w, h) in zip(axes, sizes, strict=True):
        ax.set_position((2 / total_w, 2 / total_h, w / DPI / total_w, h / DPI / total_h))
        box, tight = ax.get_window_extent(), ax.get_tightbbox(renderer_of(figure))
        assert tight is not None
        sides.append((box.x0 - tight.x0, tight.x1 - box.x1, box.y0 - tight.y0, tight.y1 - box.y1))
    left, right, under, over = (np.ceil(np.maximum(side, 0)) for side in np.array(sides).T)
    margin, gap = MARGIN * DPI, GAP * DPI
    inner = float(sum(w for w, _ in sizes) + (left + right).sum() + gap * (len(axes) - 1))
    heading = wrapped(figure, title, max(inner / DPI, 3.2))
    title_w, title_h = (side * DPI for side in text_size(figure, heading)) if title else (0.0, -0.08 * DPI)
    width = np.ceil(max(inner, title_w) + 2 * margin)
    tallest = max(h for _, h in sizes)
    height = np.ceil(tallest + under.max() + over.max() + title_h + 0.08 * DPI + 2 * margin)
    figure.set_size_inches(width / DPI, height / DPI)
    x, bottom = margin, margin + under.max()
    for i, (ax, (w, h)) in enumerate(zip(axes, sizes, strict=True)):
        x += left[i]
        y = bottom + tallest - h
        ax.set_position((x / width, y / height, w / width, h / height))
        x += w + right[i] + gap
    x, y = margin / width, 1 - margin / height
    figure.suptitle(heading, x=x, y=y, ha="left", va="top", fontsize=TITLE, color=INK, parse_math=False)


def scale_of(panels: Sequence[Panel], inches: float, limits: tuple[float, float] = (WIDE, HIGH)) -> float:
    """Return the screen pixels for an image pixel: whole, unless the picture is too large for any page."""
    wide = sum(int(panel.picture.shape[1]) for panel in panels)
    high = max(int(panel.picture.shape[0]) for panel in panels)
    tile = panels[0].tile
    across = max(wide / tile[1], high / tile[0])
    inches = max(inches, min(1.4, 2.6 / across))  # a few tiles may be larger
    usual = inches * DPI / min(tile)
    largest = min(limits[0] * DPI / wide, limits[1] * DPI / high)
    if min(usual, largest) >= 1:
        return float(round(usual) if usual <= largest else int(largest))
    return min(1.0, 40 * DPI / max(wide, high))


def pixel_size(picture: np.ndarray, scale: float) -> tuple[int, int]:
    """Return the width and the height of a picture in screen pixels."""
    return max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))


def show(ax: Axes, picture: np.ndarray, edges: tuple[float, float, float, float], scale: float) -> None:
    """Draw the picture with its edges at (left, right, bottom, top) in data units, pixels kept sharp."""
    array = to_uint8(picture)
    ax.imshow(
        array[..., 0] if array.shape[-1] == 1 else array,
        extent=edges,
        aspect="auto",
        interpolation="nearest" if scale >= 1 else "antialiased",  # a pixel stays a square of one colour
        cmap="gray",
        vmin=0,
        vmax=255,
    )
