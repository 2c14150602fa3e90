"""Raw numbers as pixels: one rule for arrays and for files, and one for all splits of a source.

bool             black and white
whole numbers    0..255 as they are; where all splits together hold only 0 and 1, 1 is white; others need a range
floating point   kept, as float32
range (low, high)  black and white: whole numbers become 256 levels, rounded once; of floats low is 0 and high is 1
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from nelbo.data.images import LEVELS, Images
from nelbo.data.ondisk import CHUNK
from nelbo.errors import DataError

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Numbers:
    """The type of an array's numbers, its smallest and its largest."""

    dtype: np.dtype
    low: float
    high: float

    @property
    def whole(self) -> bool:
        """True for integers; bool is not one of them."""
        return self.dtype.kind in "iu"

    @property
    def too_wide(self) -> bool:
        """True for whole numbers that 8 bits do not hold."""
        return self.whole and (self.low < 0 or self.high >= LEVELS)


def measure(array: np.ndarray, source: str) -> Numbers:
    """Return what an array holds; raise DataError naming `source` for numbers that are no pixels, or not finite."""
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{source}: dtype {array.dtype} is not pixels; expected whole numbers, bool or floating point"
        )
    if array.dtype.kind == "f":
        _check_finite(array, source)
    return Numbers(array.dtype, array.min().item(), array.max().item())


def is_mask(splits: Iterable[Numbers]) -> bool:
    """Return True where the whole numbers of all splits together are 0 and 1: not two shades of black."""
    highs = [numbers.high for numbers in splits if numbers.whole]
    return bool(highs) and max(highs) == 1


def too_fine(numbers: Numbers, span: Span) -> bool:
    """Return True for numbers that neither uint8 nor float32 can hold until a range is applied to them.

    Those are whole numbers beyond 0..255, and float64 where float32 would have fewer than 2^14 steps in the range.
    """
    narrow = max(map(abs, span)) > (span[1] - span[0]) * 2**10
    return numbers.too_wide or (numbers.dtype.kind == "f" and numbers.dtype.itemsize > 4 and narrow)


def to_pixels(array: np.ndarray, numbers: Numbers, source: str, *, one_is_white: bool) -> np.ndarray:
    """Return an array's numbers as uint8 or float32 without a range; raise DataError naming `source`.

    one_is_white  True where 0 and 1 are black and white
    """
    if numbers.dtype.kind == "f":
        return array.astype(np.float32, order="C")
    if numbers.too_wide:
        refuse_wide(array, numbers, source, (numbers.low, numbers.high))
    levels = array.astype(np.uint8, order="C")  # a copy: whoever passed the array may go on writing to it
    return levels * np.uint8(LEVELS - 1) if one_is_white else levels


def refuse_wide(array: np.ndarray, numbers: Numbers, source: str, everywhere: Span) -> NoReturn:
    """Raise DataError for whole numbers beyond 0..255, with the range that holds those `everywhere`."""
    outside = (array < 0) | (array >= LEVELS)
    first = int(np.argwhere(outside)[0][0])
    raise DataError(
        f"{source}: {int(outside.sum())} whole numbers lie outside 0..255 (from {numbers.low} to {numbers.high}), "
        f"the first in image {first}; say which are black and white: {range_flag(*everywhere)}"
    )


def spread(array: np.ndarray, numbers: Numbers, span: Span, source: str) -> np.ndarray:
    """Map the range to pixels: whole numbers and bool to uint8 levels, rounded once; floats to float32, [0, 1].

    Whole numbers outside of the range raise DataError naming `source`; floats outside stay outside of [0, 1].
    """
    low, high = span
    floating = numbers.dtype.kind == "f"
    if not floating:
        check_inside(numbers.low, numbers.high, span, source)
    scale = 1.0 if floating else LEVELS - 1
    pixels = np.empty(array.shape, np.float32 if floating else np.uint8)
    for start, part in _parts(
        array
    ):  # float64 of all at once would take eight times the memory of the result
        mapped = (part.astype(np.float64) - low) * (scale / (high - low))
        pixels[start : start + len(part)] = mapped if floating else np.rint(mapped)
    return pixels


def ranged(images: Images, span: Span, source: str = "the pixels") -> Images:
    """Map the range to pixels of images that are uint8 or float32 already: as `spread`, and of a file as it is read."""
    low, high = span
    if images.dtype != torch.uint8:
        return images.each(lambda pixels: _at_the_ends((pixels - low) / (high - low), span))
    least, most = images.extremes()
    check_inside(least, most, span, source)
    scale = (LEVELS - 1.0) / (high - low)
    return images.each(lambda pixels: pixels.float().sub_(low).mul_(scale).round_().to(torch.uint8))


def _at_the_ends(pixels: Tensor, span: Span) -> Tensor:
    """Return pixels with those that the rounding of float32 left just outside of [0, 1] at 0 and 1."""
    rounding = 2.0**-22 * max(1.0, max(map(abs, span)) / (span[1] - span[0]))
    pixels[(pixels < 0) & (pixels >= -rounding)] = 0
    pixels[(pixels > 1) & (pixels <= 1 + rounding)] = 1
    return pixels


def check_inside(least: float, most: float, span: Span, source: str) -> None:
    """Raise DataError where whole numbers lie outside of the range: rounding cannot bring them back."""
    low, high = span
    if least < low or most > high:
        wider = range_flag(min(least, low), max(most, high))
        raise DataError(
            f"data.range {low:g},{high:g}: {source} are whole numbers from {least:g} to {most:g}; "
            f"a range that holds all of them: {wider}"
        )


# --- ranges in messages -----------------------------------------------------------------------


def range_flag(low: float, high: float) -> str:
    """Return `--data.range LOW,HIGH` for pixels between these: few digits, and none of the pixels outside."""
    return "--data.range {},{}".format(*outward(low, high))


def outward(low: float, high: float) -> tuple[str, str]:
    """Return two decimal numbers that enclose both, also after they were rounded to float32, and differ."""
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = 1.0
    step = Decimal(10) ** (math.floor(math.log10(high - low)) - 3)
    # Room for the rounding of a float32 itself, and of its distance from the lower end.
    margin = max((high - low) * 1e-6, max(abs(low), abs(high)) * 2.0**-22)
    ends = [f"{low:.6g}", f"{high:.6g}"]
    # Zero and short numbers stay as they are; the upper one only if the lower is exact, for its distance counts.
    if float(ends[0]) != low:
        below = (Decimal(low - margin) / step).to_integral_value(ROUND_FLOOR) * step
        above = (Decimal(high + margin) / step).to_integral_value(ROUND_CEILING) * step
        ends = [f"{below.normalize():f}", f"{above.normalize():f}"]
    elif float(ends[1]) != high:
        ends[1] = f"{((Decimal(high + margin) / step).to_integral_value(ROUND_CEILING) * step).normalize():f}"
    return ends[0], ends[1]


# --- parts ------------------------------------------------------------------------------------


def _parts(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the position of its first image and some images, a few MiB at a time."""
    images = max(1, CHUNK // max(1, array[:1].nbytes))
    for start in range(0, len(array), images):
        yield start, array[start : start + images]


def _check_finite(array: np.ndarray, source: str) -> None:
    bad, first = 0, -1
    for start, part in _parts(array):
        with np.errstate(over="ignore"):  # a float64 too large for float32 counts as infinite
            wrong = ~np.isfinite(part.astype(np.float32, copy=False))
        if wrong.any():
            first = start + int(np.argwhere(wrong)[0][0]) if bad == 0 else first
            bad += int(wrong.sum())
    if bad:
        raise DataError(
            f"{source}: {bad} values are not finite, the first in image {first} (NaN or infinite); "
            "remove or replace them"
        )
