"""A folder of image files, decoded once into one array that later runs read from the cache.

Above `ondisk.THRESHOLD` bytes of pixels the array is never in memory: it is decoded into its file and read from there.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nelbo.data import ondisk
from nelbo.data.cache import cache_path, from_cache, keep, written
from nelbo.data.decode import Header, decode_folder, in_order, read_header
from nelbo.data.download import data_root
from nelbo.data.images import Images
from nelbo.data.ondisk import OnDisk, filled
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def load_folder(folder: Path, *, size: tuple[int, int] | None = None, data_dir: Path | None = None) -> Loaded:
    """Load the images in a folder; class = first sub-folder. Raises DataError naming folder or file.

    Sub-folders that are all called train, val(id|idation) or test are splits, each with its own classes.
    Grey where every file is grey, else RGB. All images have one size unless `size` (height, width) is given.
    """
    parts = _splits(folder)
    if "train" not in parts:
        return Loaded(_load_split(folder, size, data_dir))
    loaded = {split: _load_split(path, size, data_dir) for split, path in parts.items()}
    if len({images.class_names for images in loaded.values()}) > 1:
        raise DataError(f"{folder}: {', '.join(parts)} do not have the same classes as sub-folders")
    return Loaded.of(loaded)


def list_images(folder: Path) -> list[str]:
    """Return image files below the folder, relative to it, sorted; hidden files and folders are left out."""
    return sorted(_walk(folder), key=lambda file: file.split(os.sep))  # by folder: "a b/1" after "a/1"


def _walk(folder: Path) -> Iterator[str]:
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # a link back to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        relative = os.path.relpath(parent, folder)
        for file in files:
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                yield file if relative == os.curdir else os.path.join(relative, file)


def _splits(folder: Path) -> dict[str, Path]:
    folders, loose = [], False
    with os.scandir(folder) as inside:  # of a million files no list is made
        for entry in inside:
            if not entry.name.startswith((".", "__MACOSX")):
                loose = loose or entry.name.lower().endswith(EXTENSIONS)
                if entry.is_dir() and any(True for _ in _walk(Path(entry))):  # ends at the first image
                    folders.append(folder / entry.name)
    named = [path for path in folders if path.name.lower() in SPLITS]
    parts = {SPLITS[path.name.lower()]: path for path in named}
    if "train" not in parts or len(named) < 2:
        return {}
    # Test images must never join the training ones because of one folder too many.
    if loose or len(named) < len(folders) or len(parts) < len(named):
        others = [path.name for path in folders if path not in named] or [path.name for path in named]
        raise DataError(
            f"{folder}: holds split folders ({', '.join(sorted(path.name for path in named))}) beside other images or "
            f"folders ({', '.join(sorted(others))}); keep one folder a split "
            "and nothing else, or name the classes otherwise"
        )
    return parts


def _load_split(folder: Path, size: tuple[int, int] | None, data_dir: Path | None) -> Images:
    files = list_images(folder)
    if not files:
        types = " ".join(extension[1:] for extension in EXTENSIONS)
        raise DataError(f"{folder}: holds no image files; expected {types}, in it or in its sub-folders")
    cache = cache_path(folder, files, size, data_root(data_dir) / "folders")
    pixels = from_cache(cache, len(files))
    if pixels is None:
        pixels = _decode(folder, files, size, cache)
    names = tuple(file.replace(os.sep, "/") for file in files)
    if any(os.sep not in file for file in files):  # one image outside of all sub-folders would have no class
        return Images(pixels, names=names)
    classes = sorted({file.partition(os.sep)[0] for file in files})
    number = {name: i for i, name in enumerate(classes)}
    labels_N = torch.tensor([number[file.partition(os.sep)[0]] for file in files])
    return Images(pixels, labels_N, tuple(classes), names=names)


def _decode(folder: Path, files: Sequence[str], size: tuple[int, int] | None, cache: Path) -> Tensor | OnDisk:
    """Return the pixels of all files, and leave them in the cache."""
    shape = _shape(folder, files, size)
    everything = (len(files), *shape)
    if math.prod(everything) > ondisk.THRESHOLD:
        return written(cache, everything, lambda first: decode_folder(folder, files[first:], shape, size))
    pixels = filled(np.empty(everything, np.uint8), decode_folder(folder, files, shape, size))
    keep(cache, pixels)
    return torch.from_numpy(pixels)


def _shape(folder: Path, files: Sequence[str], size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Return (C, H, W) of all files, from their headers; raise DataError where they differ and no size is given."""
    first: Header | None = None
    grey = True  # one file in colour makes all of them colour
    for file, header in zip(files, in_order(lambda file: read_header(folder / file), files), strict=True):
        first, grey = first or header, grey and header.grey
        if size is None and (header.height, header.width) != (first.height, first.width):
            raise DataError(
                f"images have different sizes: {folder / files[0]} is {first.height} x {first.width} and "
                f"{folder / file} is {header.height} x {header.width} (height x width); choose one with --data.size 64 "
                "(--size 64 of nelbo data and nelbo doctor)"
            )
    assert first is not None
    height, width = size or (first.height, first.width)
    return 1 if grey else 3, height, width
