"""Decoded folders on disk: `<data folder>/folders/<folder and size>-<its files>.npy`, uint8 (N, C, H, W).

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
from numpy.typing import NDArray
from torch import Tensor

from nelbo.data import ondisk
from nelbo.data.ondisk import ArrayFile, OnDisk
from nelbo.errors import DataError

try:
    import fcntl
except ImportError:  # Windows: two decodings of one folder at once are on their own
    fcntl = None  # type: ignore[assignment]

_VERSION = 1  # of the decoding; raised when the same files would give other pixels


def cache_path(folder: Path, files: Sequence[str], size: tuple[int, int] | None, cache: Path) -> Path:
    """Return one file for a folder and size; its second part changes with any path, time or length of a file."""
    source = hashlib.sha256(json.dumps([str(folder.resolve()), size]).encode())
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
            good = version == (1, 0) and dtype == np.uint8 and not columns_first
            if not good or len(shape) != 4 or shape[0] != n:
                return None
            rows = ArrayFile(path, shape, file.tell(), f"{note} {path}")
    except (OSError, ValueError, EOFError, DataError):  # a damaged file is decoded again, not reported
        return None
    pixels = OnDisk(rows)
    return pixels if pixels.nbytes > ondisk.THRESHOLD else pixels.rows(torch.arange(n))


def keep(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write pixels that are in memory. Without a cache everything works, only slower: no error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                np.save(stream, pixels, allow_pickle=False)
            os.replace(part, path)  # in one step: no other run can see half a file
        finally:
            Path(part).unlink(missing_ok=True)
        _forget_others(path)


Blocks = Callable[[int], Iterator[NDArray[np.uint8]]]  # position of the first image -> blocks (n, C, H, W)


def written(path: Path, shape: tuple[int, ...], blocks: Blocks) -> OnDisk:
    """Write images that are too large for memory, as they come; raise DataError where there is no room for them."""
    part = path.with_name(f".{path.stem}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab+") as stream:
            # Another process that decodes the same folder is waited for, until it closes the file or ends.
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_EX)
            if not isinstance(from_cache(path, shape[0]), OnDisk):  # else the process before has written it
                _append(stream, path, shape, blocks)
                os.replace(part, path)
        part.unlink(missing_ok=True)
    except DataError:  # a file of the folder has to change first, and then this is of no use
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise DataError(
            f"{path.parent}: the decoded images, {int(np.prod(shape)) / 1e9:,.1f} GB, cannot be written there "
            f"({error.strerror or error}); name a folder with room for them with --data-dir, or a smaller --data.size"
        ) from None
    _forget_others(path)
    pixels = from_cache(path, shape[0], "decoded, once for all runs, into")
    if not isinstance(pixels, OnDisk):
        raise DataError(f"{path}: is not what was written there a moment ago; run again")
    return pixels


def _append(stream: BinaryIO, path: Path, shape: tuple[int, ...], blocks: Blocks) -> None:
    """Write the rows that the file does not have yet."""
    description = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(description, about)
    header, row = description.getvalue(), int(np.prod(shape[1:]))
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
    """Remove what the same folder and size decoded to before a file of it changed."""
    key = path.name.partition("-")[0]
    for old in [*path.parent.glob(f"{key}-*.npy"), *path.parent.glob(f".{key}-*.part")]:
        if old != path:
            with contextlib.suppress(OSError):  # on Windows another run may have it open
                old.unlink(missing_ok=True)
