"""Arrays as images: which axis is which, which numbers are pixels, decided for all splits of a source together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nelbo.data import labels as classes
from nelbo.data import levels, ondisk
from nelbo.data.imagefile import Alpha
from nelbo.data.images import Images
from nelbo.data.levels import Numbers, Span
from nelbo.data.ondisk import ArrayFile, OnDisk
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

CHANNELS = (1, 3, 4)  # grey, colour, colour with transparency
BYTES = (np.dtype(np.uint8), np.dtype(np.bool_))  # read from the file as they lie, without a conversion
Arrange = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Reading:
    """The settings of `[data]` that say what numbers and axes mean; see `Data`."""

    span: Span | None = None
    channels_last: bool | None = None
    size: tuple[int, int] | None = None
    alpha: Alpha = "white"


@dataclass(frozen=True, slots=True)
class Part:
    """One split as its source has it. All splits together decide what its numbers mean: `images_of`.

    array        (N, H, W), (N, H, W, C) or (N, C, H, W), in memory or a memory map, or rows in a file
    tensor       True where channels come first by convention
    class_names  of labels that are numbers
    mapped       True where the range was applied already
    """

    array: np.ndarray | ArrayFile
    source: str
    labels: object = None
    tensor: bool = False
    class_names: tuple[str, ...] | None = None
    factors_NF: Tensor | None = None
    factor_names: tuple[str, ...] | None = None
    mapped: bool = False


def images_of(parts: Mapping[str, Part], reading: Reading | None = None) -> Loaded:
    """Return the splits as images; raise DataError naming the part that is none.

    Whole numbers are 0..255, or 0 and 1 in all splits (then 1 is white), or what a range makes of them; floats are kept
    as float32. The axis of length 1, 3 or 4 is the channels, where nothing else was said. A large memory map of whole
    bytes stays in its file.
    """
    reading = reading or Reading()
    span, notes = reading.span, list[str]()
    arrays = {split: _arranged(part, reading.channels_last, notes) for split, part in parts.items()}
    numbers = {split: _measured(arrays[split], part) for split, part in parts.items()}
    sources = {split: part.source for split, part in parts.items()}
    if span is None:
        notes += _one_rule(arrays, numbers, sources)
    # A range is applied here where it cannot wait, and then in all splits; else once the images are split.
    here = span is not None and any(
        part.mapped or levels.too_fine(numbers[split], span) for split, part in parts.items()
    )
    mask = levels.is_mask(numbers.values())
    columns = {split: _column(part, len(arrays[split]), notes) for split, part in parts.items()}
    labels, names = classes.numbered(columns)
    if line := classes.like_numbers(labels):
        notes.append(line)
    splits = {}
    for split, part in parts.items():
        array, held = arrays[split], numbers[split]
        white = span is None and (held.dtype.kind == "b" or (mask and held.whole))
        if isinstance(array, OnDisk):
            pixels: Tensor | OnDisk = array.then(_white_one) if white else array
        elif span is not None and here and not part.mapped:
            pixels = torch.from_numpy(levels.spread(array, held, span, part.source))
        else:
            raw = levels.to_pixels(array, held, part.source, one_is_white=white)
            pixels = torch.from_numpy(np.ascontiguousarray(raw))
        class_names = (names or part.class_names) if split in labels else None
        images = Images(pixels, labels.get(split), class_names, part.factors_NF, part.factor_names)
        if span is not None and here and isinstance(array, OnDisk):
            images = levels.ranged(images, span, part.source)
        splits[split] = images
    return Loaded.of(splits, notes=tuple(dict.fromkeys(notes)), ranged=here)


# --- one split --------------------------------------------------------------------------------


def _column(part: Part, n: int, notes: list[str]) -> classes.Column | None:
    """Return the labels of a part as one column; add a note where they cannot be classes."""
    if part.labels is None:
        return None
    column, note = classes.as_column(part.labels, n, part.source)
    notes += [note] if note else []
    return column


def _arranged(part: Part, last: bool | None, notes: list[str]) -> np.ndarray | OnDisk:
    """Return the pixels of a part as (N, C, H, W), unconverted; large ones stay in their file."""
    array = part.array
    if isinstance(array, np.memmap) and array.filename and array.nbytes > ondisk.THRESHOLD:
        # A part of a map is elsewhere in the file, and what was written to a map of mode "c" is not in it at all.
        whole = isinstance(array.base, mmap) and array.flags.c_contiguous and array.mode != "c"
        if whole and array.dtype in BYTES:
            array = ArrayFile(Path(array.filename), array.shape, array.offset)
    if not isinstance(array, ArrayFile):
        array = np.asarray(array)
        channels_first, note = _axes(array.shape, part.source, part.tensor, last)
        notes += [note] if note else []
        return channels_first(array)
    # A wrong shape is refused before anything is read.
    to_first, note = _axes(array.shape, part.source, part.tensor, last)
    notes += [note] if note else []

    def step(rows: Tensor, _: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(to_first(rows.numpy())))

    return OnDisk(array, step=step)


def _axes(shape: tuple[int, ...], source: str, tensor: bool, last: bool | None) -> tuple[Arrange, str]:
    """Return what brings an array of this shape to (N, C, H, W), and a note where people may have meant another axis.

    tensor  True where channels come first by convention
    last    True or False where it was said that channels come last or first
    """
    if len(shape) not in (3, 4):
        hint = "; reshape the rows to (N, height, width)" if len(shape) == 2 else ""
        raise DataError(f"{source}: shape {shape} is not (N, H, W), (N, H, W, C) or (N, C, H, W){hint}")
    if 0 in shape:
        raise DataError(f"{source}: shape {shape} holds no pixels")
    if len(shape) == 3:
        flat = shape[2] in CHANNELS[1:] and shape[1] > max(CHANNELS)
        note = f"{source}: shape {shape} is read as {shape[0]} grey images of {shape[1]} x {shape[2]} pixels"
        return _grey, f"{note}; one colour image is array[None]" if flat else ""
    first, final = shape[1] in CHANNELS, shape[3] in CHANNELS
    as_first = f"{shape[1]} channels of {shape[2]} x {shape[3]} pixels"
    as_last = f"{shape[3]} channels of {shape[1]} x {shape[2]} pixels"
    square = (
        shape[1] == shape[2] != shape[3] and not first and not final
    )  # as of images whose channels come last
    note = ""
    if last is None and first != final:
        last = final
    elif last is None and tensor and not square:
        last = False
        if not first and shape[1] > max(shape[2:]):
            note = f"{source}: shape {shape} is read as {as_first}; --data.channels-last true reads {as_last}"
    if last is None:
        why = (
            "both axis 1 and axis 3 could be"
            if first
            else "neither axis 1 nor axis 3 has 1, 3 or 4 entries to be"
        )
        raise DataError(
            f"{source}: in shape {shape} {why} the channels; say which: --data.channels-last true for {as_last}, "
            f"--data.channels-last false for {as_first}"
        )
    return _channels_to_front if last else _as_it_is, note


def _grey(array: np.ndarray) -> np.ndarray:
    return array[:, None]


def _channels_to_front(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 3, 1, 2)


def _as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def _measured(array: np.ndarray | OnDisk, part: Part) -> Numbers:
    """Return the facts that decide what numbers mean; of a file only as far as it has to be read for them."""
    if isinstance(array, np.ndarray):
        return levels.measure(array, part.source)
    high = 0
    for chunk in array.chunks():
        high = max(high, int(chunk.max()))
        if high > 1:  # in most files in the first few MiB; a mask is read to its end
            break
    dtype = part.array.dtype if isinstance(part.array, np.ndarray) else np.dtype(np.uint8)
    return Numbers(dtype, 0, high)


def _white_one(pixels: Tensor, _: Tensor) -> Tensor:
    return pixels.mul(255)


def _one_rule(
    arrays: Mapping[str, np.ndarray | OnDisk], numbers: Mapping[str, Numbers], sources: Mapping[str, str]
) -> list[str]:
    """Return notes on splits whose numbers would mean something else alone; raise DataError where no rule fits all."""
    low, high = min(held.low for held in numbers.values()), max(held.high for held in numbers.values())
    floats = [split for split, held in numbers.items() if held.dtype.kind == "f"]
    wide = [split for split in floats if numbers[split].low < 0 or numbers[split].high > 1]
    whole = [split for split in numbers if split not in floats]
    if wide and whole:
        a, b = wide[0], whole[0]
        raise DataError(
            f"{sources[a]} holds floating-point numbers from {numbers[a].low:g} to {numbers[a].high:g} and "
            f"{sources[b]} whole numbers or bool; say what is black and white in both: {levels.range_flag(low, high)}"
        )
    for split, held in numbers.items():
        if held.too_wide and isinstance(array := arrays[split], np.ndarray):
            levels.refuse_wide(array, held, sources[split], (low, high))
    coarse = [
        f"{sources[split]}: float32 has few steps between {held.low:.10g} and {held.high:.10g}, and rounds; "
        f"{levels.range_flag(held.low, held.high)} is applied before that"
        for split, held in numbers.items()
        if held.low < held.high and levels.too_fine(held, (held.low, held.high))
    ]
    if high <= 1 or levels.is_mask(numbers.values()):
        return coarse
    return coarse + [
        f"{sources[split]} holds only 0 and 1, and other splits go further: 1 is a level like others there, not white"
        for split, held in numbers.items()
        if held.whole and held.high == 1
    ]
