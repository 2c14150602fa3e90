"""A folder of image files, decoded once into one array that later runs read from the cache.

Above `ondisk.THRESHOLD` bytes of pixels the array is never in memory: it is decoded into its file and read from there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nelbo.data import ondisk
from nelbo.data.cache import cache_path, from_cache, keep, written
from nelbo.data.decode import Header, read_header
from nelbo.data.download import data_root
from nelbo.data.images import Images, Loaded
from nelbo.data.ondisk import OnDisk
from nelbo.data.workers import decoded, in_order
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
    """The images in a folder; class = first sub-folder. Raises DataError naming folder or file.

    Sub-folders that are all called train, val(id|idation) or test are splits, each with its own classes.
    Grey where every file is grey, else RGB. All images have one size unless `size` (height, width) is given.
    """
    parts = _splits(folder)
    if "train" not in parts:
        return Loaded(_load_split(folder, size, data_dir))
    loaded = {split: _load_split(path, size, data_dir) for split, path in parts.items()}
    classes = {images.class_names for images in loaded.values()}
    if len(classes) > 1:
        raise DataError(f"{folder}: {', '.join(parts)} do not have the same classes as sub-folders")
    return Loaded(loaded["train"], loaded.get("validation"), loaded.get("test"))


def list_images(folder: Path) -> list[Path]:
    """Image files below the folder, relative to it, sorted; hidden files and folders are left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link back to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        here = Path(where).relative_to(folder)
        found += [here / f for f in files if f.lower().endswith(EXTENSIONS) and not f.startswith(".")]
    return sorted(found)


def _splits(folder: Path) -> dict[str, Path]:
    inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    folders = [path for path in inside if path.is_dir() and list_images(path)]
    named = [path for path in folders if path.name.lower() in SPLITS]
    parts = {SPLITS[path.name.lower()]: path for path in named}
    if "train" not in parts or len(named) < 2:
        return {}
    # Test images must never join the training ones because of one folder too many.
    loose = any(path.suffix.lower() in EXTENSIONS for path in inside)
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
        known = " ".join(extension[1:] for extension in EXTENSIONS)
        raise DataError(f"{folder}: holds no image files; expected {known}, in it or in its sub-folders")
    cache = cache_path(folder, files, size, data_root(data_dir) / "folders")
    pixels = from_cache(cache, len(files))
    if pixels is None:
        pixels = _decode([folder / file for file in files], size, cache)
    labels, classes = _classes(files)
    return Images(pixels, labels, classes)


def _classes(files: Sequence[Path]) -> tuple[torch.Tensor | None, tuple[str, ...] | None]:
    if any(len(file.parts) == 1 for file in files):
        return None, None
    classes = sorted({file.parts[0] for file in files})
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[file.parts[0]] for file in files]), tuple(classes)


def _decode(paths: Sequence[Path], size: tuple[int, int] | None, cache: Path) -> Tensor | OnDisk:
    headers = list(in_order(read_header, paths))
    channels = 1 if all(header.grey for header in headers) else 3
    shape = (channels, *(size or _one_size(paths, headers)))
    if len(paths) * math.prod(shape) > ondisk.THRESHOLD:
        return written(
            cache, (len(paths), *shape), lambda first: decoded(paths[first:], shape, size, processes=True)
        )
    pixels, done = np.empty((len(paths), *shape), np.uint8), 0
    for block in decoded(paths, shape, size, processes=False):
        pixels[done : done + len(block)] = block
        done += len(block)
    keep(cache, pixels)
    return torch.from_numpy(pixels)


def _one_size(paths: Sequence[Path], headers: Sequence[Header]) -> tuple[int, int]:
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        if (header.height, header.width) != (first.height, first.width):
            raise DataError(
                f"images have different sizes: {paths[0]} is {first.height} x {first.width} and {path} is "
                f"{header.height} x {header.width} (height x width); choose one with --data.size 64 "
                "(--size 64 of nelbo data and nelbo doctor)"
            )
    return first.height, first.width
