"""Pixels that stay in a file, and are read row by row.

Rows are read (pread) into memory of their own, and not through a memory map: a page that is touched in a map counts as
resident memory, with all of its neighbours that the system keeps in one piece, up to 2 MiB an image. Reading takes no
longer (0.7 us for an image of 784 bytes that the system has in its cache), and leaves nothing behind.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nelbo.errors import DataError

THRESHOLD = 256 << 20  # bytes of pixels from which on a source stays on the disk; smaller ones are resident
RESIDENT = 64 << 20  # a selection of fewer bytes is read at once and resident from then on
CHUNK = 4 << 20  # bytes of a sequential scan at a time
_DENSE = 4  # where rows lie among fewer than this many times as many, they are read together

R = TypeVar("R", Tensor, np.ndarray)
# (pixels of some images, their positions) -> pixels; each image's from that image and its position alone.
Step = Callable[[Tensor, Tensor], Tensor]


class ArrayFile:
    """Rows of uint8 in a file, behind a header of `offset` bytes; `shape` is that of the whole array.

    note  where they came from, for people

    Raises DataError where the file is shorter than that, or becomes so. Threads may read at the same time.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], offset: int, note: str = "") -> None:
        self.path, self.shape, self.dtype = path, shape, torch.uint8
        self.note = note or f"in {path}"
        self._row, self._offset = math.prod(shape[1:]), offset
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # else Windows changes line ends
        weakref.finalize(self, os.close, self._file)
        self._one_at_a_time = threading.Lock()
        if os.fstat(self._file).st_size < offset + shape[0] * self._row:
            raise self._cut_off()

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows at these positions, in this order."""
        at = index.numpy()
        out = np.empty((len(at), self._row), np.uint8)
        if len(at):
            low, high = int(at.min()), int(at.max())
            if low < 0 or high >= len(self):
                raise IndexError(f"positions from {low} to {high} of {len(self)} images")
            if high - low < _DENSE * len(at):
                block = np.empty((high - low + 1, self._row), np.uint8)
                self._read(block.reshape(-1), low)
                np.take(block, at - low, axis=0, out=out, mode="clip")  # the default mode would copy `out`
            else:
                for row, position in zip(out, at.tolist(), strict=True):
                    self._read(row, position)
        return torch.from_numpy(out).view(len(at), *self.shape[1:])

    def _read(self, into: NDArray[np.uint8], position: int) -> None:
        start, done = self._offset + position * self._row, 0
        while done < len(into):  # the system may give less than is asked for
            part = into[done:] if done else into
            if hasattr(os, "preadv"):
                n = os.preadv(self._file, (part,), start + done)  # type: ignore[arg-type]
            else:
                with self._one_at_a_time:  # Windows has one position a file, and no read that leaves it
                    os.lseek(self._file, start + done, os.SEEK_SET)
                    content = os.read(self._file, len(part))
                n = len(content)
                part[:n] = np.frombuffer(content, np.uint8)
            if n == 0:
                raise self._cut_off()
            done += n

    def _cut_off(self) -> DataError:
        needed = self._offset + len(self) * self._row
        there = os.fstat(self._file).st_size
        return DataError(
            f"{self.path}: is cut off: {there:,} bytes, and {self.shape} of uint8 take {needed:,}; write it again"
        )


class OnDisk:
    """Images (N, C, H, W) in a file: some of its rows, in some order, each through a step. Nothing is copied.

    shape, dtype  as of a tensor
    index         positions in `source`, or None for all of them as they lie; 4 bytes an image
    step          what happens to pixels when they are read
    """

    def __init__(
        self, source: ArrayFile | OnDisk, index: Tensor | None = None, step: Step | None = None
    ) -> None:
        self._source, self._step = source, step
        # int32 where it can hold the positions: the order of ten million images is 40 MB and not 80.
        self._index = index if index is None or len(source) >= 2**31 else index.to(torch.int32)
        n = len(source) if index is None else len(index)
        blank = torch.zeros(1, *source.shape[1:], dtype=source.dtype)
        if step is not None:
            blank = step(blank, torch.zeros(1, dtype=torch.int64))  # one image shows shape and dtype of all
        self.shape: tuple[int, ...] = (n, *blank.shape[1:])
        self.dtype: torch.dtype = blank.dtype

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def note(self) -> str:
        """The place of the pixels, in words: `in images.npy`."""
        return self._source.note

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return len(self) * self.row_bytes

    def rows(self, index: Tensor) -> Tensor:
        """Return the images at these positions (int64), in this order: a tensor of its own, in memory."""
        at = index if self._index is None else self._index[index].to(torch.int64)
        pixels = self._source.rows(at)
        return pixels if self._step is None else self._step(pixels, index)

    def chunks(self) -> Iterator[Tensor]:
        """Yield all images in their order, a few MiB at a time."""
        size = max(1, CHUNK // self.row_bytes)
        for start in range(0, len(self), size):
            yield self.rows(torch.arange(start, min(start + size, len(self))))

    def select(self, index: Tensor) -> Tensor | OnDisk:
        """Return the images at these positions: read, where they are few; else positions in the same file."""
        if len(index) * self.row_bytes <= RESIDENT:
            return self.rows(index)
        return OnDisk(self, index)

    def then(self, step: Step) -> OnDisk:
        """Return the same images with a further step."""
        return OnDisk(self, step=step)

    def read(self) -> Tensor:
        """Read all images into memory; raise DataError where they do not fit into it."""
        free = available_memory()
        if free is not None and self.nbytes > free:
            raise DataError(
                f"{len(self):,} images ({_gigabytes(self.nbytes)}) are asked for at once, and {_gigabytes(free)} of "
                "memory are available; take fewer, as with --data.validation 10000 or --data.test 10000"
            )
        return filled(torch.empty(self.shape, dtype=self.dtype), self.chunks())


def filled(rows: R, parts: Iterable[R]) -> R:
    """Copy successive parts into the rows of an array or tensor, and return it: no two copies at a time."""
    done = 0
    for part in parts:
        rows[done : done + len(part)] = part
        done += len(part)
    return rows


def check_memory(nbytes: int, source: str, instead: str) -> None:
    """Raise DataError where an array that has to be read whole is larger than the memory that is available."""
    free = available_memory()
    if free is not None and nbytes > free:
        raise DataError(
            f"{source}: takes {_gigabytes(nbytes)} of memory and {_gigabytes(free)} are available; {instead}"
        )


def available_memory() -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return None


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB"
