"""One image file, or one Pillow image, as an array of a given mode and size."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nelbo.data.resize import fit_box
from nelbo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_ORIENTATION = 0x0112  # EXIF tag; values from 5 on turn the picture by 90 degrees


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image file without decoding it; height and width are as it is shown."""

    grey: bool
    height: int
    width: int


def read_header(path: Path) -> Header:
    """Mode and size; raises DataError naming the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            # Of a PNG Pillow would decode all pixels to look behind them.
            ahead = image.format != "PNG" or "exif" in image.info
            if ahead and image.getexif().get(_ORIENTATION, 1) >= 5:
                height, width = width, height
            return Header(image.mode in GREY_MODES, height, width)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def decode_file(path: Path, *, grey: bool, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """uint8 (C, H, W), fitted to `size` (height, width) where given; raises DataError naming the file."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if size is not None:  # lets a JPEG decoder skip detail; twice the size keeps the filter's quality
                image.draft("L" if grey else "RGB", (2 * max(size), 2 * max(size)))
            image.load()
            upright = ImageOps.exif_transpose(image)
            return to_array(fitted(eight_bit(upright), size), grey=grey)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def eight_bit(image: PILImage) -> PILImage:
    """The image, 16-bit grey scaled to 8 bits; ValueError for floating point, which has no fixed range."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("a floating-point image has no fixed range; save the pixels as .npy")
    if not image.mode.startswith("I"):
        return image
    values = np.clip(np.asarray(image, dtype=np.float64), 0, 65535)
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def fitted(image: PILImage, size: tuple[int, int] | None) -> PILImage:
    """The centred part with the target's aspect ratio, resized; as it is where no size is given."""
    if size is None or (image.height, image.width) == size:
        return image
    from PIL import Image

    if image.mode in ("1", "P", "PA"):  # Pillow would resize these without a filter
        image = image.convert("L" if image.mode == "1" else "RGBA")
    box = fit_box(image.height, image.width, *size)
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box)


def to_array(image: PILImage, *, grey: bool) -> NDArray[np.uint8]:
    """uint8 (C, H, W): 1 channel, or 3. Transparency shows white."""
    from PIL import Image

    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        image = Image.alpha_composite(white, picture)
    array: NDArray[Any] = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    return array[None] if grey else array.transpose(2, 0, 1)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read as an image ({error}); repair the file or take it out of the folder"
    )
