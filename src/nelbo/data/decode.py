"""The decoding of image files to arrays of one mode and size: one file, a block of them, a folder on all cores."""

from __future__ import annotations

import contextlib
import math
import os
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from nelbo.data.resize import fit_box
from nelbo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageFile import ImageFile

T = TypeVar("T")
A = TypeVar("A")
BLOCK, BLOCK_BYTES = 32, 4 << 20  # files to a task, and of large ones fewer
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")  # Pillow's, of 1 to 32 bits
_ORIENTATION = 0x0112  # EXIF tag; values from 5 on turn the picture by 90 degrees


@dataclass(frozen=True, slots=True)
class Header:
    """The facts of an image file that need no decoding; height and width are those on a screen."""

    grey: bool
    height: int
    width: int


def read_header(path: Path) -> Header:
    """Return mode and size; raise DataError naming the file."""
    with _opened(path) as image:
        width, height = image.size
        # Behind the pixels of a PNG Pillow could look only by decoding all of them.
        ahead = image.format != "PNG" or "exif" in image.info
        if ahead and image.getexif().get(_ORIENTATION, 1) >= 5:
            height, width = width, height
        return Header(image.mode in GREY_MODES, height, width)


def decode_file(path: Path, *, grey: bool, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return uint8 (C, H, W), fitted to `size` (height, width) unless None; raise DataError naming the file."""
    from PIL import ImageOps

    with _opened(path) as image:
        if size is not None:  # lets a JPEG decoder skip detail; twice the size keeps the filter's quality
            image.draft("L" if grey else "RGB", (2 * max(size), 2 * max(size)))
        image.load()
        upright = ImageOps.exif_transpose(image)
        return to_array(fitted(eight_bit(upright), size), grey=grey)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """Open an image file; raise DataError naming it where it cannot be read, here or in the block."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: cannot be read as an image ({error}); repair the file or take it out of the folder"
        ) from None


def eight_bit(image: PILImage) -> PILImage:
    """Return the image, 16-bit grey scaled to 8 bits; raise ValueError for floating point, which has no fixed range."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("a floating-point image has no fixed range; save the pixels as .npy")
    if not image.mode.startswith("I"):
        return image
    values = np.clip(np.asarray(image, dtype=np.float64), 0, 65535)
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


def to_array(image: PILImage, *, grey: bool) -> NDArray[np.uint8]:
    """Return uint8 (C, H, W): 1 channel, or 3. Transparency becomes white."""
    from PIL import Image

    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        image = Image.alpha_composite(white, picture)
    array: NDArray[np.uint8] = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    return array[None] if grey else array.transpose(2, 0, 1)


# --- many files ---------------------------------------------------------------------------


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[A], T],
    items: Sequence[A],
    *,
    threads: int | None = None,
    ahead: int | None = None,
    begin: Callable[[], object] | None = None,
) -> Generator[T, None, None]:
    """Yield the results in order, from one thread a core unless told otherwise; at the first error give up the rest.

    ahead  results that are under way, or wait to be taken, at most
    begin  is called in each thread before anything else
    """
    threads = threads or cores()
    with ThreadPoolExecutor(threads, "reader", begin) as pool:
        remaining = iter(items)
        # Not `pool.map`: it would start all at once, and a million results would wait in memory.
        waiting = deque(pool.submit(function, item) for item in islice(remaining, ahead or 4 * threads))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
        finally:  # also where the caller stops before the end
            for future in waiting:
                future.cancel()


def decode_folder(
    folder: Path, files: Sequence[str], shape: tuple[int, int, int], size: tuple[int, int] | None
) -> Iterator[NDArray[np.uint8]]:
    """Yield uint8 (n, C, H, W) of successive files; raise DataError naming the first that cannot be read.

    shape  (C, H, W) that every image has, or is brought to where `size` (height, width) is given
    """
    # Threads, for Pillow decodes without Python's lock. JPEG files of 256 x 256 kept two cores 87 % busy; processes
    # kept them 99 % busy and cost a protocol (docs/log.md, 2026-11-27).
    # Blocks bound the memory: a few wait for the caller, of BLOCK files or BLOCK_BYTES each.
    n = max(1, min(BLOCK, BLOCK_BYTES // math.prod(shape)))

    def block(start: int) -> NDArray[np.uint8]:
        return decode_block([folder / file for file in files[start : start + n]], shape, size)

    return in_order(block, range(0, len(files), n))


def decode_block(
    paths: Sequence[Path], shape: tuple[int, int, int], size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Return uint8 (n, C, H, W) of some files; raise DataError naming the first that cannot be read."""
    out = np.empty((len(paths), *shape), np.uint8)
    for pixels, path in zip(out, paths, strict=True):
        image = decode_file(path, grey=shape[0] == 1, size=size)
        if image.shape != shape:
            raise DataError(f"{path}: decodes to {image.shape} (C, H, W), but its header says {shape}")
        pixels[:] = image
    return out
