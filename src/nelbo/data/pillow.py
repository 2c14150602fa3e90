"""Images of Pillow that are in memory already, of a data set or a table, as arrays: by the rules of image files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nelbo.data.arrays import Reading
from nelbo.data.imagefile import DEEP, GREY_MODES, eight_bit, fitted, has_alpha, no_white, to_array
from nelbo.data.levels import Span, measure, spread
from nelbo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

TWELVE_BITS = 4096  # numbers of 16 bits that stay below use the 12 bits of a camera or a scanner


def arrays_of(
    pictures: Sequence[Picture], source: str, reading: Reading, notes: list[str]
) -> tuple[list[np.ndarray], bool]:
    """Return arrays (C, H, W), and True where the range was applied; raise DataError naming the picture.

    Numbers of more than 8 bits are mapped to 0..255 by the range, and then those of 8 bits are too; without a range
    65,535 is white. Pictures of floating-point numbers stay what they are.
    """
    if all(picture.mode == "F" for picture in pictures):
        return [np.asarray(picture)[None] for picture in pictures], False
    deep = [_is_deep(picture) for picture in pictures]
    span = reading.span if any(deep) else None
    if any(deep) and span is None:
        _check_white([picture for picture, is_deep in zip(pictures, deep, strict=True) if is_deep], source)
    clear = sum(map(has_alpha, pictures))
    grey = all(picture.mode in GREY_MODES for picture in pictures)
    keep = clear > 0 and reading.alpha == "keep" and span is None
    if clear and not keep:
        lost = "white" if reading.alpha == "keep" else reading.alpha
        notes.append(f"{source}: {clear} of {len(pictures)} images have transparency, which becomes {lost}")
    arrays: list[np.ndarray] = []
    for i, picture in enumerate(pictures):
        about = f"{source}: item {i}"
        try:
            eight = eight_bit(picture) if span is None else _ranged(picture, grey, span, about)
            channels = (1 if grey else 3) + keep
            arrays.append(to_array(fitted(eight, reading.size), channels=channels, alpha=reading.alpha))
        except (OSError, ValueError) as error:
            raise DataError(f"{about} cannot be read as an image ({error})") from None
    return arrays, span is not None


def _is_deep(picture: Picture) -> bool:
    """Return True for whole numbers of more than 8 bits."""
    return picture.mode.startswith("I")


def _ranged(picture: Picture, grey: bool, span: Span, source: str) -> Picture:
    """Return the picture in 8 bits, with the range as black and white."""
    from PIL import Image

    plain = picture if _is_deep(picture) else picture.convert("L" if grey else "RGB")
    raw = np.asarray(plain)
    return Image.fromarray(spread(raw, measure(raw, source), span, source))


def _check_white(pictures: Sequence[Picture], source: str) -> None:
    """Raise DataError where it is not known which of the numbers is white."""
    low, high = np.inf, -np.inf
    for picture in pictures:
        values = np.asarray(picture)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    # Below 4,096 of 65,535 all would be nearly black, in 17 levels.
    if low < 0 or high > DEEP or high < TWELVE_BITS:
        raise no_white(source, min(low, 0.0), high)
