"""A folder of image files, decoded once into one array that later runs read from the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nelbo.data.decode import Header, decode_file, read_header
from nelbo.data.download import data_root
from nelbo.data.images import Images, Loaded
from nelbo.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_VERSION = 1  # of the decoding; raised when the same files would give other pixels


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
    cache = _cache_path(folder, files, size, data_root(data_dir) / "folders")
    pixels = _from_cache(cache, len(files))
    if pixels is None:
        pixels = _decode(folder, files, size)
        _to_cache(cache, pixels)
    labels, classes = _classes(files)
    return Images(torch.from_numpy(pixels), labels, classes)


def _classes(files: Sequence[Path]) -> tuple[torch.Tensor | None, tuple[str, ...] | None]:
    if any(len(file.parts) == 1 for file in files):
        return None, None
    classes = sorted({file.parts[0] for file in files})
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[file.parts[0]] for file in files]), tuple(classes)


def _decode(folder: Path, files: Sequence[Path], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    paths = [folder / file for file in files]
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        headers = list(_in_order(pool, read_header, paths))
        grey = all(header.grey for header in headers)
        height, width = size or _one_size(paths, headers)
        pixels = np.empty((len(paths), 1 if grey else 3, height, width), np.uint8)

        def decode(i: int) -> None:
            pixels[i] = decode_file(paths[i], grey=grey, size=size)

        for _ in _in_order(pool, decode, range(len(paths))):
            pass
    return pixels


def _in_order(pool: ThreadPoolExecutor, function: Any, items: Sequence[Any]) -> Iterator[Any]:
    """The results in order; at the first error what has not begun is given up."""
    futures = [pool.submit(function, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


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


# --- cache ------------------------------------------------------------------------------------


def _cache_path(folder: Path, files: Sequence[Path], size: tuple[int, int] | None, cache: Path) -> Path:
    """One file a folder and size; its second part changes with any path, time or length of a file."""
    stats = [(folder / file).stat() for file in files]
    listing = [(f.as_posix(), stat.st_mtime_ns, stat.st_size) for f, stat in zip(files, stats, strict=True)]
    return cache / f"{_short([str(folder.resolve()), size])}-{_short([_VERSION, listing])}.npy"


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _from_cache(path: Path, n: int) -> NDArray[np.uint8] | None:
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # absent or damaged: decode again
    good = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 4
    return pixels if good and len(pixels) == n else None


def _to_cache(path: Path, pixels: NDArray[np.uint8]) -> None:
    # Without a cache everything works, only slower: a folder that cannot be written to is no error.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                np.save(stream, pixels, allow_pickle=False)
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
        for old in path.parent.glob(f"{path.name.partition('-')[0]}-*.npy"):
            if old != path:
                old.unlink(missing_ok=True)
