"""Arrays as images: which axis is which, which numbers are pixels; .npy and .npz files."""

from collections.abc import Mapping
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import IO

import numpy as np
import torch

from nelbo.data import ondisk
from nelbo.data.images import Images
from nelbo.data.ondisk import ArrayFile, OnDisk, check_memory
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

CHANNELS = (1, 3, 4)  # grey, colour, colour with transparency
_BYTES = (np.dtype(np.uint8), np.dtype(np.bool_))  # read from the file as they lie, without a conversion

IMAGE_KEYS = {
    "train": ("images", "x_train", "train_images", "train", "imgs"),
    "validation": ("x_val", "x_valid", "val_images", "validation_images", "validation"),
    "test": ("x_test", "test_images", "test"),
}
LABEL_KEYS = {
    "train": ("labels", "y_train", "train_labels"),
    "validation": ("y_val", "y_valid", "val_labels", "validation_labels"),
    "test": ("y_test", "test_labels"),
}
FACTOR_KEYS = {
    "train": ("factors", "latents_classes", "train_factors", "factors_train"),
    "validation": ("validation_factors", "val_factors", "factors_validation", "factors_val"),
    "test": ("test_factors", "factors_test"),
}


def images_from_array(
    array: np.ndarray, labels: object = None, source: str = "array", *, channels_first: bool = False
) -> Images:
    """Return an array (N, H, W), (N, H, W, C) or (N, C, H, W) as images; raise DataError naming `source`.

    Whole numbers are 0..255, or 0 and 1 (then 1 is white); floats are kept as float32. The axis of
    length 1, 3 or 4 is the channels; where both or neither are, `channels_first` decides. A large memory map of
    whole bytes stays in its file.
    """
    if isinstance(array, np.memmap) and array.filename and array.nbytes > ondisk.THRESHOLD:
        # A part of a map is elsewhere in the file, and what was written to a map of mode "c" is not in it at all.
        whole = isinstance(array.base, mmap) and array.flags.c_contiguous and array.mode != "c"
        if whole and array.dtype in _BYTES:
            file = ArrayFile(Path(array.filename), array.shape, array.offset)
            return _in_file(file, labels, source, channels_first)
    array = np.asarray(array)
    pixels_NCHW = _pixels(_channels_first(array, source, channels_first), source)
    labels_N, classes = _labels(labels, len(array), source)
    return Images(torch.from_numpy(np.ascontiguousarray(pixels_NCHW)), labels_N, classes)


def load_array_file(path: Path) -> Loaded:
    """Read a .npy or .npz file (never pickled objects); raise DataError naming the file.

    A .npy of uint8 or bool above `ondisk.THRESHOLD` stays in its file. Other numbers are read whole, since each batch
    would have to be converted anew in every epoch; so is an .npz, whose rows have no place in the file of their own.
    """
    try:
        with path.open("rb") as file:  # numpy leaves a handle of its own open where the archive is damaged
            if (size := path.stat().st_size) > ondisk.THRESHOLD:
                if path.suffix.lower() == ".npy":
                    shape, columns_first, dtype = _header(file)
                    if dtype in _BYTES and not columns_first and len(shape) > 1 and 0 not in shape:
                        return Loaded(_in_file(ArrayFile(path, shape, file.tell()), None, str(path), False))
                instead = "only .npy files of uint8, row by row, are read from the disk as they are needed"
                check_memory(size, str(path), f"{instead}: save them as that")
                file.seek(0)  # behind the header
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return Loaded(images_from_array(content, source=str(path)))
            arrays = {}
            for key in content.files:
                name = key if key in content.zip.namelist() else f"{key}.npy"
                with content.zip.open(name) as member:
                    unpickled = _header(member)[2].hasobject  # read from the header alone
                if not unpickled:
                    arrays[key] = content[key]
            if content.files and not arrays:
                raise DataError(f"{path}: holds nothing but Python objects, which are never unpickled")
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and the header's parser each raise their own
        raise DataError(
            f"{path}: not readable as an array ({error}); expected what numpy.save or numpy.savez writes, "
            "without objects"
        ) from None
    return loaded_from_mapping(arrays, str(path))


def loaded_from_mapping(arrays: Mapping[str, object], source: str) -> Loaded:
    """Return splits from arrays under conventional names, or from a single array of any name."""
    if len(arrays) == 1:
        arrays = {"images": next(iter(arrays.values()))}
    splits: dict[str, Images] = {}
    for split, keys in IMAGE_KEYS.items():
        key = next((key for key in keys if key in arrays), None)
        if key is not None:
            labels = next((arrays[name] for name in LABEL_KEYS[split] if name in arrays), None)
            images = images_from_array(np.asanyarray(arrays[key]), labels, f"{source}[{key}]")
            splits[split] = _with_factors(images, arrays, split, source)
    if "train" not in splits:
        raise DataError(
            f"{source}: has no training images under any of {', '.join(IMAGE_KEYS['train'][:3])}; "
            f"it has {', '.join(sorted(arrays)) or 'nothing'}"
        )
    return Loaded.of(splits)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether columns come first, and dtype of a .npy; leave the stream at its numbers."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _in_file(file: ArrayFile, labels: object, source: str, prefer_first: bool) -> Images:
    """Return images whose pixels stay in their file, arranged as they are read."""
    # An array of the whole shape that takes one byte: a wrong shape is refused before anything is read.
    _channels_first(np.broadcast_to(np.uint8(0), file.shape), source, prefer_first)

    def arranged(rows: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        pixels_BCHW = _channels_first(rows.numpy(), source, prefer_first)
        return torch.from_numpy(np.ascontiguousarray(pixels_BCHW))

    pixels = OnDisk(file, step=arranged)
    high = 0
    for part in pixels.chunks():
        high = max(high, int(part.max()))
        if high > 1:  # in most files in the first few MiB; a mask is read to its end
            break
    if high == 1:  # a mask, as in `_pixels`
        pixels = pixels.then(lambda part, _: part * 255)
    return Images(pixels, *_labels(labels, len(file), source))


def _with_factors(images: Images, arrays: Mapping[str, object], split: str, source: str) -> Images:
    """Return the images with the factors of variation that are stored beside them: whole numbers (N, F)."""
    key = next((key for key in FACTOR_KEYS[split] if key in arrays), None)
    if key is None:
        return images
    array = np.asarray(arrays[key])
    if array.shape[:1] != (len(images),) or array.ndim != 2 or array.dtype.kind not in "iub":
        raise DataError(
            f"{source}[{key}]: {array.dtype} of shape {array.shape} for {len(images)} images; expected whole numbers "
            f"({len(images)}, F), the index of each factor's value: numpy.unique(column, return_inverse=True)[1]"
        )
    default = [f"factor {i}" for i in range(array.shape[1])]
    names = np.asarray(arrays.get("factor_names", default)).ravel()
    try:
        factors_NF = torch.from_numpy(array.astype(np.int64))
        return replace(images, factors_NF=factors_NF, factor_names=tuple(map(str, names)))
    except DataError as error:
        raise DataError(f"{source}[factor_names]: {error}") from None


def _channels_first(array: np.ndarray, source: str, prefer_first: bool) -> np.ndarray:
    if array.ndim not in (3, 4):
        hint = "; reshape the rows to (N, height, width)" if array.ndim == 2 else ""
        raise DataError(f"{source}: shape {array.shape} is not (N, H, W), (N, H, W, C) or (N, C, H, W){hint}")
    if 0 in array.shape:
        raise DataError(f"{source}: shape {array.shape} holds no pixels")
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
    if first != last:
        return array if first else array.transpose(0, 3, 1, 2)
    if prefer_first:
        return array
    why = (
        "both axis 1 and axis 3 could be"
        if first
        else "neither axis 1 nor axis 3 has 1, 3 or 4 entries to be"
    )
    raise DataError(
        f"{source}: in shape {array.shape} {why} the channels; give (N, C, H, W) as a torch tensor"
    )


def _pixels(array: np.ndarray, source: str) -> np.ndarray:
    """Return uint8 or float32; raise DataError for numbers that are no pixels."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # a float64 too large for float32 is caught as infinite below
            pixels = array.astype(np.float32)
        bad = ~np.isfinite(pixels)
        if bad.any():
            raise DataError(
                f"{source}: {int(bad.sum())} values are not finite, the first in image "
                f"{int(np.argwhere(bad)[0][0])} (NaN or infinite); remove or replace them"
            )
        return pixels
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{source}: dtype {array.dtype} is not pixels; expected uint8, bool or floating point"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        outside = (array < 0) | (array > 255)
        raise DataError(
            f"{source}: {int(outside.sum())} whole numbers lie outside 0..255 (from {low} to {high}), the first "
            f"in image {int(np.argwhere(outside)[0][0])}; scale them to uint8, or give floats in [0, 1]"
        )
    levels = array.astype(np.uint8)
    # A mask stored as 0 and 1 is black and white, not two shades of black.
    return levels * np.uint8(255) if high == 1 else levels


def _labels(labels: object, n: int, source: str) -> tuple[torch.Tensor | None, tuple[str, ...] | None]:
    """Return int64 labels, and the names of the classes where the labels are names."""
    if labels is None:
        return None, None
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:  # a column of a table
        array = array[:, 0]
    if array.shape != (n,):
        raise DataError(f"{source}: labels of shape {array.shape} for {n} images; expected ({n},)")
    if array.dtype.kind in "US":
        classes, index = np.unique(array.astype(str), return_inverse=True)
        return torch.from_numpy(index.astype(np.int64)), tuple(str(name) for name in classes)
    whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and bool((array == np.rint(array)).all()))
    if not whole:
        raise DataError(f"{source}: labels of dtype {array.dtype} are not whole numbers or names")
    return torch.from_numpy(array.astype(np.int64)), None
