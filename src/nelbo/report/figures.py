"""The pictures of a run, encoded to lie inside a page."""

from __future__ import annotations

import base64
import dataclasses
import io
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nelbo.core.catalogue import docline
from nelbo.core.registry import lookup, names
from nelbo.errors import NelboError
from nelbo.pictures import GROUPS, Picture, heading
from nelbo.training.events import PictureBegun, Tell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nelbo.pictures.view import View

DPI = 130  # one and a third dots of a figure's own size: sharp on most screens, small in the page
PALETTE_ERROR = 1.5  # grey levels, root mean square: above it a picture has more colours than a palette holds


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One encoded figure: its bytes, its size in CSS pixels, its file name, its picture and what that shows."""

    kind: str
    data: bytes
    width: int
    height: int
    stem: str = ""
    picture: str = ""
    words: str = ""
    group: str = ""

    @property
    def uri(self) -> str:
        """The image as an address that needs no file."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


def draw(view: View, chosen: Sequence[str], budget: int, tell: Tell) -> tuple[list[Drawing], dict[str, str]]:
    """Draw the chosen pictures, group by group, as long as `budget` bytes last; return also why others are left out.

    A picture that fails is left out like one that does not apply: a report has to say so, not to break.
    """
    drawings: list[Drawing] = []
    left_out: dict[str, str] = {}
    groups = list(GROUPS)

    def position(picture: Picture) -> tuple[int, str, int]:
        # A user's own group comes last.
        place = groups.index(picture.group) if picture.group in groups else len(groups)
        return place, picture.group, picture.order

    for name in sorted(chosen, key=lambda name: (*position(lookup("picture", name)), name)):
        tell(PictureBegun(name))
        picture: Picture = lookup("picture", name)
        try:
            encoded = [
                dataclasses.replace(
                    encode(drawn), stem=stem, picture=name, words=docline(picture), group=picture.group
                )
                for stem, drawn in picture(view)
                if not isinstance(drawn, bytes)  # an animation, which also has its still picture
                and (picture.in_report == "picture" or stem != name)  # the page has a chart of it
            ]
        except NelboError as error:
            left_out[name] = str(error)
            continue
        except Exception as error:  # a plugin's picture, or a library under it
            left_out[name] = f"failed: {type(error).__name__}: {error}"
            continue
        for drawing in encoded:
            budget -= len(drawing.data)  # a smaller picture that follows may still find room
            if budget < 0:
                run = shlex.quote(view.run.name)
                left_out[drawing.stem] = f"the page is full; draw it with: nelbo plot {run} {name}"
            else:
                drawings.append(drawing)
    return drawings, left_out


def all_names() -> list[str]:
    """Return the names of all pictures of which a report does not show a chart instead."""
    return [name for name in names("picture") if lookup("picture", name).in_report != "chart"]


def grouped(drawings: Sequence[Drawing]) -> dict[str, list[tuple[Drawing, bool]]]:
    """Return {heading: drawings}, each with True where it is the first file of its picture, which is explained."""
    groups: dict[str, list[tuple[Drawing, bool]]] = {}
    explained: set[str] = set()
    for drawing in drawings:
        first = drawing.picture not in explained
        explained.add(drawing.picture)
        groups.setdefault(heading(drawing.group), []).append((drawing, first))
    return groups


def encode(figure: Figure) -> Drawing:
    """Encode a figure as png with a palette, or as jpeg where 256 colours are too few."""
    import numpy as np
    from PIL import Image

    raw, small = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", dpi=DPI)
    with Image.open(raw) as opened:
        image = opened.convert("RGB")
    width, height = (round(float(inches) * 96) for inches in figure.get_size_inches())  # CSS pixels
    few = image.quantize(256, dither=Image.Dither.NONE)  # a dithered picture compresses badly
    difference = np.asarray(few.convert("RGB"), dtype=float) - np.asarray(image, dtype=float)
    if float(np.sqrt(np.square(difference).mean())) > PALETTE_ERROR:
        image.save(small, "JPEG", quality=88, subsampling=0, optimize=True)
        return Drawing("jpeg", small.getvalue(), width, height)
    few.save(small, "PNG", optimize=True)
    return Drawing("png", small.getvalue(), width, height)
