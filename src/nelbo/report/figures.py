"""The pictures of a run, encoded to lie inside a page."""

from __future__ import annotations

import base64
import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nelbo.core import lookup, names
from nelbo.errors import NelboError
from nelbo.loop import Tell
from nelbo.registering import docline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nelbo.view import View

DPI = 130  # one and a third dots of a figure's own size: sharp on most screens, small in the page
DRAWN_HERE = ("curves", "kl", "iw-curve")  # the page draws these itself, with text that a phone can show
GROUPS = ("images", "latents", "lines", "checkpoints")
PALETTE_ERROR = 1.5  # grey levels, root mean square: above it a picture has more colours than a palette holds


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One encoded figure: of which picture, what it shows, its group, its bytes, its size in CSS pixels."""

    stem: str
    picture: str
    words: str
    group: str
    kind: str
    data: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        return data_uri(self.kind, self.data)


def draw(view: View, chosen: Sequence[str], budget: int, tell: Tell) -> tuple[list[Drawing], dict[str, str]]:
    """The chosen pictures, group by group, as long as `budget` bytes last, and why others are left out.

    A picture that fails is left out like one that does not apply: a report has to say so, not to break.
    """
    drawings: list[Drawing] = []
    left_out: dict[str, str] = {}
    for name in sorted(chosen, key=_position):
        tell("picture", {"name": name})
        try:
            made = _encoded(name, view)
        except NelboError as error:
            left_out[name] = str(error)
            continue
        except Exception as error:  # a plugin's picture, or a library under it
            left_out[name] = f"failed: {type(error).__name__}: {error}"
            continue
        for drawing in made:
            budget -= len(drawing.data)
            if budget < 0:
                left_out[drawing.stem] = f"the page is full; draw it with: nelbo plot {view.run.name} {name}"
            else:
                drawings.append(drawing)
    return drawings, left_out


def all_names() -> list[str]:
    return [name for name in names("picture") if name not in DRAWN_HERE or name == "kl"]


def grouped(drawings: Sequence[Drawing]) -> Mapping[str, list[Drawing]]:
    """By heading: the first line of the module that a picture is written in."""
    found: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        found.setdefault(drawing.group, []).append(drawing)
    return found


def data_uri(kind: str, data: bytes) -> str:
    """An image as an address that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _position(name: str) -> tuple[int, str, int]:
    """Group by group, in each as its file has them."""
    function = lookup("picture", name)
    home = function.__module__.rpartition(".")[2]
    return (GROUPS.index(home) if home in GROUPS else len(GROUPS), home, function.__code__.co_firstlineno)


def _heading(function: Any) -> str:
    written = sys.modules.get(function.__module__)
    return ((written and written.__doc__) or "Other pictures").strip().splitlines()[0].rstrip(".")


def _encoded(name: str, view: View) -> list[Drawing]:
    function = lookup("picture", name)
    made = []
    for stem, drawn in function(view):
        if isinstance(drawn, bytes) or stem in DRAWN_HERE:  # an animation also has its still picture
            continue
        kind, data, size = encode(drawn)
        made.append(Drawing(stem, name, docline(function), _heading(function), kind, data, *size))
    return made


def encode(drawn: Figure) -> tuple[str, bytes, tuple[int, int]]:
    """A figure as png with a palette, or as jpeg where 256 colours are too few; and its size in CSS pixels."""
    import numpy as np
    from PIL import Image

    raw, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(raw, format="png", dpi=DPI)
    with Image.open(raw) as opened:
        image = opened.convert("RGB")
    inches = [float(side) for side in drawn.get_size_inches()]
    size = round(inches[0] * 96), round(inches[1] * 96)
    few = image.quantize(256, dither=Image.Dither.NONE)
    difference = np.asarray(few.convert("RGB"), dtype=float) - np.asarray(image, dtype=float)
    if float(np.sqrt(np.square(difference).mean())) > PALETTE_ERROR:
        image.save(small, "JPEG", quality=88, subsampling=0, optimize=True)
        return "jpeg", small.getvalue(), size
    few.save(small, "PNG", optimize=True)
    return "png", small.getvalue(), size
