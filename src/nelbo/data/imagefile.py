"""Image files one at a time: their headers, and their pixels as arrays of one mode and size.

Numbers of 8 bits are pixels as they are. Of 12 or 16 bits, or of 32, they are mapped to 0 .. 255 and rounded once: from
the range that is given, else from 0 and what is white in the file. Floating-point numbers stay, as float32, whatever
the range is: it is applied to them later, as to those of arrays.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from nelbo.data.levels import check_inside, range_flag
from nelbo.data.resize import fit_box
from nelbo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageFile import ImageFile

Alpha = Literal["white", "black", "keep"]
Numbers = Literal["8-bit", "16-bit", "32-bit", "floating-point", "16-bit colour"]
Pixels = np.ndarray  # (C, H, W), uint8 or float32

GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")  # Pillow's, of 1 to 32 bits
_ORIENTATION = 0x0112  # EXIF tag; values from 5 on turn the picture by 90 degrees
_SUBFILE, _BITS, _FORMAT = 254, 258, 339  # TIFF tags
_SIGNED = 2
DEEP = 65535  # white of numbers that are more than 8 bits, where the file does not say
CONVERT = (
    "save them as .npy with all bits: "
    "numpy.save('images.npy', numpy.stack([imageio.v3.imread(f) for f in files]))"
)


@dataclass(frozen=True, slots=True)
class Decoding:
    """The choices that decide which pixels a file becomes.

    size   height and width that images are fitted to; None keeps theirs
    range  the numbers that become black and white; None for those that the file's type has
    alpha  what transparency becomes: white, black, or a channel of its own
    """

    size: tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    alpha: Alpha = "white"


@dataclass(frozen=True, slots=True)
class Header:
    """The facts of an image that need no decoding; height and width are those on a screen.

    white    the number that is white where no range is given
    certain  whether the file says so: 16 bits may hold 12
    page     its place in the file
    more     whether the file holds further pictures that are not read: frames, previews
    reduced  whether it is a smaller copy of another page
    """

    grey: bool
    height: int
    width: int
    alpha: bool = False
    numbers: Numbers = "8-bit"
    white: float = 255
    certain: bool = True
    page: int = 0
    more: bool = False
    reduced: bool = False


class Unreadable(DataError):
    """An image file that cannot be read."""

    def __init__(self, path: Path, reason: object) -> None:
        hint = "; AVIF needs Pillow 11.3 or newer" if path.suffix.lower() == ".avif" else ""
        self.reason = (
            str(reason).partition(f" '{path}'")[0] + hint
        )  # Pillow names the file only here and there
        super().__init__(
            f"{path}: cannot be read as an image ({self.reason}); repair the file or take it out of the folder"
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageFile]:
    """Open an image file; raise Unreadable where it cannot be read, here or in the block."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise Unreadable(path, error) from None


def read_headers(path: Path) -> list[Header]:
    """Return the header of each page of a TIFF, of the first picture of any other file; raise Unreadable."""
    with opened(path) as image:
        if image.format != "TIFF":
            return [replace(_header(image), more=_has_more(image))]
        headers: list[Header] = []
        with contextlib.suppress(EOFError):  # behind the last page
            for page in itertools.count():
                image.seek(page)
                headers.append(replace(_header(image), page=page))
        return headers


def _has_more(image: ImageFile) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _header(image: ImageFile) -> Header:
    width, height = image.size
    # Behind the pixels of a PNG Pillow could look only by decoding all of them.
    ahead = image.format != "PNG" or "exif" in image.info
    if ahead and image.getexif().get(_ORIENTATION, 1) >= 5:
        height, width = width, height
    numbers, white, certain = _numbers(image)
    grey = image.mode in GREY_MODES or (image.format == "GIF" and image.mode == "P" and _grey_palette(image))
    reduced = bool(int(_tag(image, _SUBFILE)) & 1)
    return Header(grey, height, width, has_alpha(image), numbers, white, certain, reduced=reduced)


def _grey_palette(image: PILImage) -> bool:
    """Return True if a palette holds nothing but shades of grey; every GIF has a palette."""
    colours = np.array(image.getpalette("RGB") or (0, 0, 0)).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def has_alpha(image: PILImage) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (
        "transparency" in image.info and not image.mode.startswith("I")
    )


def _tag(image: PILImage, number: int) -> float:
    """Return a tag of a TIFF, the first of several values; 0 where there is none."""
    from PIL.TiffImagePlugin import TiffImageFile

    value = image.tag_v2.get(number, 0) if isinstance(image, TiffImageFile) else 0
    return value[0] if isinstance(value, tuple) else value


def _coding(image: ImageFile) -> tuple[str, int | None]:
    """Return how Pillow reads the pixels, and the largest value that a PNM file declares; before they are loaded."""
    arguments = image.tile[0][3] if image.tile else ""
    maximum = arguments[1] if image.format == "PPM" and isinstance(arguments, tuple) else None
    return str(arguments), maximum if isinstance(maximum, int) and maximum > 1 else None


def _numbers(image: ImageFile) -> tuple[Numbers, float, bool]:
    """Return the kind of numbers, the one that is white, and whether the file says so."""
    coding, maximum = _coding(image)
    if image.mode == "F":
        return "floating-point", 1, True
    if image.mode.startswith("I"):
        if maximum:
            return "16-bit", maximum, True
        if (bits := _tag(image, _BITS)) in (12, 14):
            return "16-bit", 2**bits - 1, True
        return "32-bit" if bits == 32 else "16-bit", DEEP, False
    if ";16" in coding or (maximum or 0) > 255:
        return "16-bit colour", 255, False
    return ("16-bit", 127, False) if _tag(image, _FORMAT) == _SIGNED else ("8-bit", 255, True)


# --- pixels -----------------------------------------------------------------------------------


def decode_file(path: Path, channels: int, how: Decoding, page: int = 0) -> Pixels:
    """Return (C, H, W), uint8 or float32; raise DataError naming the file."""
    return next(decode_pages(path, [page], channels, how))


def decode_pages(path: Path, pages: list[int], channels: int, how: Decoding) -> Iterator[Pixels]:
    """Yield (C, H, W), uint8 or float32, of some pages of a file, which is opened once; raise DataError naming it.

    channels  1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha
    """
    with opened(path) as image:
        for page in pages:
            if page:
                image.seek(page)
            yield _decoded(image, channels, how, f"{path}[{page}]" if page else str(path))


def read_numbers(path: Path, page: int) -> NDArray[np.float64]:
    """Return all numbers of a page as they are in the file: for the smallest and the largest."""
    with opened(path) as image:
        if page:
            image.seek(page)
        signed, maximum = _tag(image, _FORMAT) == _SIGNED, _coding(image)[1]
        image.load()
        return _as_they_are(image, signed=signed, maximum=maximum)


def _as_they_are(image: PILImage, *, signed: bool, maximum: int | None) -> NDArray[np.float64]:
    """Return the numbers (H, W) or (H, W, C) that are in the file; `maximum` undoes what Pillow did to those of PNM."""
    array = np.asarray(image)
    values = (array.view(np.int8) if signed and array.dtype == np.uint8 else array).astype(np.float64)
    if maximum is not None:  # Pillow maps 0 .. maximum to all 8 or 16 bits
        values = np.rint(values * maximum / (DEEP if image.mode.startswith("I") else 255))
    return values


def _decoded(image: ImageFile, channels: int, how: Decoding, name: str) -> Pixels:
    from PIL import Image, ImageOps

    numbers, white, _ = _numbers(image)
    signed, maximum = _tag(image, _FORMAT) == _SIGNED, _coding(image)[1]
    if numbers == "16-bit colour" and how.range is not None:
        raise DataError(
            f"{name}: holds colours of 16 bits, of which only 8 are read, before any range; {CONVERT}"
        )
    plain = how.range is None and numbers in ("8-bit", "16-bit colour")
    if plain and how.size is not None:
        # Lets a JPEG decoder skip detail; twice the size keeps the filter's quality.
        image.draft("L" if channels == 1 else "RGB", (2 * max(how.size), 2 * max(how.size)))
    image.load()
    upright = ImageOps.exif_transpose(image)
    if plain:
        return to_array(fitted(upright, how.size), channels=channels, alpha=how.alpha)
    if numbers == "8-bit":
        values = to_array(upright, channels=channels, alpha=how.alpha).astype(np.float64)
        values *= (maximum or 255) / 255
    else:
        values = _as_they_are(upright, signed=signed, maximum=maximum)[None]
    if numbers == "floating-point":
        planes = [_resized(plane, how.size) for plane in _finite(values, name)]
        return _widened(np.stack(planes).astype(np.float32), channels)
    low, high = how.range or (0.0, white)
    opaque = len(values) - (len(values) in (2, 4))  # alpha is no brightness
    least, most = float(values[:opaque].min()), float(values[:opaque].max())
    if how.range is None and (least < low or most > high):
        raise no_white(name, least, most)
    check_inside(least, most, (low, high), f"the pixels of {name}")
    values[:opaque] = (values[:opaque] - low) * (255.0 / (high - low))
    if how.range is None:  # rounded first, as in every version
        levels = Image.fromarray(np.rint(values[0]).astype(np.uint8))
        return to_array(fitted(levels, how.size), channels=channels)
    levels_CHW = np.stack([_resized(plane, how.size) for plane in values])
    return _widened(np.rint(levels_CHW).clip(0, 255).astype(np.uint8), channels)


def _finite(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if bad := int((~np.isfinite(values)).sum()):
        raise DataError(f"{name}: {bad} values are not finite (NaN or infinite); remove or replace them")
    return values


def no_white(name: str, low: float, high: float) -> DataError:
    """Return the error for whole numbers of which none is known to be white, with the range to use."""
    return DataError(
        f"{name}: the pixels are whole numbers from {low:g} to {high:g}, of which none is known to be white; "
        f"say which numbers are black and white: {range_flag(low, high)}"
    )


def _resized(plane: NDArray[np.float64], size: tuple[int, int] | None) -> NDArray[np.float64]:
    """Return the centred part with the target's aspect ratio, resized, without rounding."""
    if size is None or plane.shape == size:
        return plane
    from PIL import Image

    box = fit_box(plane.shape[0], plane.shape[1], *size)
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box), np.float64)


def _widened(array: Pixels, channels: int) -> Pixels:
    """Return grey as colour, and what has no alpha as opaque, where other files make that necessary."""
    if len(array) == channels:
        return array
    alpha = np.full_like(array[:1], 255 if array.dtype == np.uint8 else 1)
    colours = array if channels < 3 or len(array) == 3 else np.repeat(array[:1], 3, axis=0)
    return np.concatenate([colours, alpha]) if channels in (2, 4) else colours


def eight_bit(image: PILImage) -> PILImage:
    """Return the image, 16-bit grey scaled to 8 bits; raise ValueError for floating point, which has no fixed range."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("a floating-point image has no fixed range; save the pixels as .npy")
    if not image.mode.startswith("I"):
        return image
    values = np.clip(np.asarray(image, dtype=np.float64), 0, DEEP)
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))  # 65535 / 257 = 255


def fitted(image: PILImage, size: tuple[int, int] | None) -> PILImage:
    """Return the centred part with the target's aspect ratio, resized; the image itself without a size."""
    if size is None or (image.height, image.width) == size:
        return image
    from PIL import Image

    if image.mode in ("1", "P", "PA"):  # Pillow would resize these without a filter
        image = image.convert("L" if image.mode == "1" else "RGBA")
    box = fit_box(image.height, image.width, *size)
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box)


def to_array(image: PILImage, *, channels: int, alpha: Alpha = "white") -> NDArray[np.uint8]:
    """Return uint8 (C, H, W). With 2 or 4 channels the last is alpha; else transparency becomes white, or black."""
    from PIL import Image

    if channels in (2, 4):
        kept = np.asarray(image.convert("RGBA").convert("LA" if channels == 2 else "RGBA"), dtype=np.uint8)
        return kept.transpose(2, 0, 1)
    if has_alpha(image):
        picture = image.convert("RGBA")
        under = Image.new("RGBA", picture.size, "black" if alpha == "black" else "white")
        image = Image.alpha_composite(under, picture)
    array: NDArray[np.uint8] = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
