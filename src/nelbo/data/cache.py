"""Decoded folders on disk: `<data folder>/folders/<folder and choices>-<its files>.npy`, uint8 or float32 (N, C, H, W).

What was noticed on the way (pages, files left out) lies beside it as `.json`, where there is anything to say.
A file is there whole or not at all. One too large for memory is written block by block into a hidden `.part`, which is
only ever appended to: a decoding that was killed goes on where it stopped.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from nelbo.core.files import atomic
from nelbo.data import ondisk
from nelbo.data.imagefile import Decoding, Pixels
from nelbo.data.ondisk import ArrayFile, OnDisk
from nelbo.errors import DataError

try:
    import fcntl
except ImportError:  # Windows: two decodings of one folder at once are on their own
    fcntl = None  # type: ignore[assignment]

_VERSION = 2  # of the decoding; raised when the same files would give other pixels


def cache_path(
    folder: Path, files: Sequence[str], how: Decoding, cache: Path, *, skip_unreadable: bool = False
) -> Path:
    """Return one file for a folder and the choices; its second part changes with any path, time or length of a file."""
    choices: list[object] = [str(folder.resolve()), how.size]
    others = {"range": how.range, "alpha": how.alpha, "skip_unreadable": skip_unreadable}
    if others != {"range": None, "alpha": "white", "skip_unreadable": False}:
        choices.append(others)
    source = hashlib.sha256(json.dumps(choices).encode())
    # Piece by piece the bytes of one JSON list of all files; the list itself, of a million, would fill memory.
    listing = hashlib.sha256(f"[{_VERSION}, [".encode())
    for i, file in enumerate(files):
        stat = os.stat(os.path.join(folder, file))
        about = json.dumps([file.replace(os.sep, "/"), stat.st_mtime_ns, stat.st_size])
        listing.update(f"{', ' if i else ''}{about}".encode())
    listing.update(b"]]")
    return cache / f"{source.hexdigest()[:16]}-{listing.hexdigest()[:16]}.npy"


def from_cache(path: Path, n: int, note: str = "decoded earlier into") -> Tensor | OnDisk | None:
    """Return the images that were decoded before, in memory or, if large, in their file; None if absent or damaged."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
            good = version == (1, 0) and dtype in (np.uint8, np.float32) and not columns_first
            if not good or len(shape) != 4 or shape[0] != n:
                return None
            in_bytes = (*shape[:-1], shape[-1] * dtype.itemsize)  # rows of a file are bytes
            rows = ArrayFile(path, in_bytes, file.tell(), f"{note} {path}")
    except (OSError, ValueError, EOFError, DataError):  # a damaged file is decoded again, not reported
        return None
    floats = dtype == np.float32
    pixels = OnDisk(rows, step=(lambda part, _: part.view(torch.float32)) if floats else None)
    return pixels if pixels.nbytes > ondisk.THRESHOLD else pixels.rows(torch.arange(n))


def facts_from_cache(path: Path) -> str:
    """Return what was noticed when the images were decoded; an empty text where there was nothing to say."""
    try:
        return path.with_suffix(".json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _keep_facts(path: Path, facts: str) -> None:
    """Write what was noticed, before the images: with them all of it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    if facts:
        with atomic(path.with_suffix(".json")) as temporary:
            temporary.write_text(facts, encoding="utf-8")


def keep(path: Path, pixels: Pixels, facts: str = "") -> None:
    """Write pixels that are in memory. Without a cache everything works, only slower: no error."""
    with contextlib.suppress(OSError):
        _keep_facts(path, facts)
        handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                np.save(stream, pixels, allow_pickle=False)
            os.replace(part, path)  # in one step: no other run can see half a file
        finally:
            Path(part).unlink(missing_ok=True)
        _forget_others(path)


Blocks = Callable[[int], Iterator[Pixels]]  # position of the first image -> blocks (n, C, H, W)


def written(
    path: Path, shape: tuple[int, ...], blocks: Blocks, dtype: type[np.generic] = np.uint8, facts: str = ""
) -> OnDisk:
    """Write images that are too large for memory, as they come; raise DataError where there is no room for them."""
    part = path.with_name(f".{path.stem}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab+") as stream:
            # Another process that decodes the same folder is waited for, until it closes the file or ends.
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_EX)
            if not isinstance(from_cache(path, shape[0]), OnDisk):  # else the process before has written it
                _keep_facts(path, facts)
                _append(stream, path, shape, blocks, np.dtype(dtype))
                os.replace(part, path)
        part.unlink(missing_ok=True)
    except DataError:  # a file of the folder has to change first, and then this is of no use
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        size = f"{int(np.prod(shape)) * np.dtype(dtype).itemsize / 1e9:,.1f} GB"
        raise DataError(
            f"{path.parent}: the decoded images, {size}, cannot be written there "
            f"({error.strerror or error}); name a folder with room for them with --data-dir, or a smaller --data.size"
        ) from None
    _forget_others(path)
    pixels = from_cache(path, shape[0], "decoded, once for all runs, into")
    if not isinstance(pixels, OnDisk):
        raise DataError(f"{path}: is not what was written there a moment ago; run again")
    return pixels


def _append(
    stream: BinaryIO, path: Path, shape: tuple[int, ...], blocks: Blocks, dtype: np.dtype[np.generic]
) -> None:
    """Write the rows that the file does not have yet."""
    description = io.BytesIO()
    about = {"descr": dtype.str, "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(description, about)
    header, row = description.getvalue(), int(np.prod(shape[1:])) * dtype.itemsize
    stream.seek(0)
    if stream.read(len(header)) != header:
        stream.truncate(0)
        stream.write(header)
        stream.flush()
    have = stream.seek(0, io.SEEK_END)
    done = (have - len(header)) // row
    stream.truncate(len(header) + done * row)  # a row that was cut off is written anew
    free, needed = shutil.disk_usage(path.parent).free, (shape[0] - done) * row
    if needed > free:
        raise OSError(f"{free / 1e9:,.1f} GB are free")
    for block in blocks(done):
        stream.write(block.data)
        stream.flush()  # a process that is killed from now on leaves it
    os.fsync(stream.fileno())  # before the file gets the name under which it counts as whole


def _forget_others(path: Path) -> None:
    """Remove what the same folder and choices decoded to before a file of it changed."""
    key = path.name.partition("-")[0]
    for old in [*path.parent.glob(f"{key}-*.*"), *path.parent.glob(f".{key}-*.part")]:
        if old not in (path, path.with_suffix(".json")):
            with contextlib.suppress(OSError):  # on Windows another run may have it open
                old.unlink(missing_ok=True)
