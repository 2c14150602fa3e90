"""The parts that all figures share: colours, type sizes, and figures outside matplotlib's global state."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.text import Text

from nelbo.errors import NelboError

DPI = 200
INK, SOFT, GRID = "#222222", "#666666", "#e4e4e4"  # text, what is less important, lines behind everything
TITLE, TEXT, SMALL = 10.0, 8.5, 7.5  # sizes of type, in points
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#B8B8B8"
HALO = patheffects.withStroke(linewidth=2.6, foreground="white")  # text over points and lines stays readable

# Okabe & Ito's eight, which people with any colour vision tell apart (their yellow darkened, for
# white paper), then a purple and a grey. https://jfly.uni-koeln.de/color/
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9",
    "#D55E00", "#B5A400", "#000000", "#6A3D9A", "#8C8C8C",
)  # fmt: skip

CURVES = (BLUE, ORANGE, *(PALETTE[place] for place in (2, 3, 8, 6, 9, 4)))  # lines of one panel, in order


class PlotError(NelboError, ValueError):
    """An error for values that cannot be drawn: a wrong shape, numbers that are not finite, too few points."""

    exit_code = 2


class ShownFigure(Figure):
    """A figure that a notebook shows, though pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        """Return the figure as PNG; a notebook with its own way to show figures takes that instead."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def class_colours(n: int) -> list[str]:
    """Return n colours: the colour-blind-safe ten, or evenly spaced hues where there are more classes."""
    if n <= len(PALETTE):
        return list(PALETTE[:n])
    hues = np.linspace(0.03, 0.95, n)  # without the ends, which are dark
    return [to_hex(colormaps["turbo"](float(x))) for x in hues]


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """Return an Agg figure of this size in inches, on white, unknown to pyplot."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08) if constrained else None
    figure = ShownFigure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)  # else a figure outside of pyplot has no renderer, and no text a size
    return figure


def chart(rows: int, columns: int, *, title: str, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Return a figure with rows x columns plain axes, each of `size` inches, in reading order, under its title."""
    figure = new_figure(size[0] * columns, size[1] * rows + (0.3 if title else 0.0))
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(SOFT)
        ax.tick_params(labelsize=SMALL, colors=SOFT, labelcolor=INK, length=3)
        ax.grid(True, color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)  # the grid behind the data
    if title:
        heading(figure, title)
    return figure, axes


def heading(figure: Figure, title: str, beside: float = 0.0) -> None:
    """Write the figure's title at the left, in lines that leave `beside` inches free at their right."""
    width = figure.get_figwidth()
    title = wrapped(figure, title, width - 0.2 - beside)
    figure.suptitle(title, x=0.1 / width, ha="left", fontsize=TITLE, color=INK, parse_math=False)


def name_axes(ax: Axes, x: str, y: str) -> None:
    """Name both axes, with names drawn as they are written (no mathematical type)."""
    ax.set_xlabel(x, fontsize=TEXT, color=INK, parse_math=False)
    ax.set_ylabel(y, fontsize=TEXT, color=INK, parse_math=False)


def panel_title(ax: Axes, text: str) -> None:
    """Write a heading over one of several axes."""
    ax.set_title(text, fontsize=TEXT, color=INK, loc="left", parse_math=False)


def footnotes(figure: Figure, notes: Sequence[str]) -> None:
    """Write small lines under everything, at the left."""
    width = figure.get_figwidth()
    lines = [wrapped(figure, note, width - 0.2, SMALL) for note in notes if note]
    if lines:
        figure.supxlabel(
            "\n".join(lines), x=0.1 / width, ha="left", fontsize=SMALL, color=SOFT, parse_math=False
        )


def legend(owner: Axes | Figure, handles: Sequence[Any], names: Sequence[str], **options: Any) -> Legend:
    """Add a frameless legend whose names are drawn as they are written."""
    # A label that begins with an underscore would be left out of a legend.
    labels = [f" {name}" if name.startswith("_") else name for name in names]
    look: dict[str, Any] = {"fontsize": SMALL, "frameon": False, "labelcolor": INK}
    box: Legend = owner.legend(list(handles), labels, **look, **options)
    for text in box.get_texts():
        text.set_parse_math(False)
    if isinstance(owner, Figure):  # it begins as high as the title does
        width = box.get_window_extent(renderer_of(owner)).width / owner.dpi
        heading(owner, owner.get_suptitle().replace("\n", " "), beside=width + 0.3)
    return box


def text_size(figure: Figure, text: str, size: float = TITLE) -> tuple[float, float]:
    """Return width and height of a text, in inches."""
    probe = Text(0, 0, text, fontsize=size, figure=figure, parse_math=False)
    box = probe.get_window_extent(renderer_of(figure))
    return box.width / figure.dpi, box.height / figure.dpi


def wrapped(figure: Figure, text: str, width: float, size: float = TITLE) -> str:
    """Break a text into lines no wider than `width` inches."""
    wide, _ = text_size(figure, text, size)
    if wide <= width:
        return text
    # Letters differ in width: the estimate by the mean letter is tried first, then fewer until all lines fit.
    for columns in range(max(8, int(len(text) * width / wide)), 7, -1):
        lines = "\n".join(textwrap.wrap(text, columns, break_on_hyphens=False))
        if text_size(figure, lines, size)[0] <= width:
            return lines
    return "\n".join(textwrap.wrap(text, 8))


def renderer_of(figure: Figure) -> RendererAgg:
    """Return the Agg renderer that measures this figure's texts."""
    canvas = figure.canvas  # another one where the figure was saved as PDF, say
    agg = canvas if isinstance(canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    renderer: RendererAgg = agg.get_renderer()  # type: ignore[no-untyped-call]
    return renderer
