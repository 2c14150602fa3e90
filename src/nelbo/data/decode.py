"""The decoding of many image files, on all cores, block by block."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from nelbo.data.imagefile import Decoding, Pixels, Unreadable, decode_pages, opened, read_headers
from nelbo.errors import DataError

T = TypeVar("T")
A = TypeVar("A")
BLOCK, BLOCK_BYTES = 32, 4 << 20  # files to a task, and of large ones fewer


class Entry(NamedTuple):
    """One image: a file, and the page of it that is the image."""

    file: str
    page: int = 0


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
    folder: Path,
    entries: Sequence[Entry],
    shape: tuple[int, int, int],
    how: Decoding,
    dtype: type[np.generic] = np.uint8,
) -> Iterator[Pixels]:
    """Yield (n, C, H, W) of successive images; raise Unreadable at the first that cannot be read.

    shape  (C, H, W) that every image has, or is brought to where `how.size` is given
    dtype  np.uint8, or np.float32 where the files hold floating-point numbers
    """
    # Threads, for Pillow decodes without Python's lock. JPEG files of 256 x 256 kept two cores 87 % busy; processes
    # kept them 99 % busy and cost a protocol (docs/log.md, 2026-11-27).
    # Blocks bound the memory: a few wait for the caller, of BLOCK files or BLOCK_BYTES each.
    n = max(1, min(BLOCK, BLOCK_BYTES // math.prod(shape)))

    def block(start: int) -> Pixels:
        return decode_block(folder, entries[start : start + n], shape, how, dtype)

    return in_order(block, range(0, len(entries), n))


def decode_block(
    folder: Path,
    entries: Sequence[Entry],
    shape: tuple[int, int, int],
    how: Decoding,
    dtype: type[np.generic] = np.uint8,
) -> Pixels:
    """Return (n, C, H, W) of some images; raise DataError naming the first that cannot be read."""
    out: Pixels = np.empty((len(entries), *shape), dtype)
    done = 0
    for file, pages in groupby(entries, lambda entry: entry.file):  # a file of many pages is opened once
        for image in decode_pages(folder / file, [entry.page for entry in pages], shape[0], how):
            if image.shape != shape:
                raise DataError(
                    f"{folder / file}: decodes to {image.shape} (C, H, W), but its header says {shape}"
                )
            out[done] = image
            done += 1
    return out


def unreadable(folder: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the files that cannot be read to their end, each with the reason."""

    def reason(file: str) -> str | None:
        try:
            pages = [header.page for header in read_headers(folder / file)]
            with opened(folder / file) as image:
                for page in pages:
                    if page:
                        image.seek(page)
                    image.load()
        except Unreadable as error:
            return error.reason
        return None

    reasons = zip(files, in_order(reason, files), strict=True)
    return {file: why for file, why in reasons if why is not None}
