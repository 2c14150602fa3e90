"""Image files decoded on all cores, in blocks, in their order.

Threads where there is little to do: they need no start, and a large photograph is decoded without Python's lock. Small
files spend most of their time under it, so that many of them are given to processes of their own.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import local
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nelbo.data.decode import decode_file
from nelbo.errors import DataError

T = TypeVar("T")
A = TypeVar("A")
BLOCK, BLOCK_BYTES = 32, 4 << 20  # files to a task, and of large ones fewer
# Not multiprocessing: it would run the caller's script a second time where that has no `if __name__ == ...`.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from nelbo.data.workers import serve; serve()"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[A], T], items: Sequence[A], begin: Callable[[], None] = lambda: None
) -> Iterator[T]:
    """The results in order, from one thread a core that each `begin`; at the first error the rest is given up.

    No more than a few results wait to be taken, however many items there are.
    """
    with ThreadPoolExecutor(cores(), initializer=begin) as pool:
        remaining = iter(items)
        waiting: deque[Future[T]] = deque(
            pool.submit(function, item) for item in islice(remaining, 4 * cores())
        )
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
        finally:
            for future in waiting:
                future.cancel()


def decoded(
    folder: Path,
    files: Sequence[str],
    shape: tuple[int, int, int],
    size: tuple[int, int] | None,
    *,
    processes: bool,
) -> Iterator[NDArray[np.uint8]]:
    """uint8 (n, C, H, W) of successive files; raises DataError naming the first that cannot be read.

    ChildProcessError where a process ended before it was asked to.

    shape  (C, H, W) that every image has, or is brought to where `size` (height, width) is given
    """
    n = max(1, min(BLOCK, BLOCK_BYTES // math.prod(shape)))
    starts = range(0, len(files), n)

    def block(start: int) -> list[Path]:
        return [folder / file for file in files[start : start + n]]

    if not processes:
        yield from in_order(lambda start: decode_block(block(start), shape, size), starts)
        return
    started: list[subprocess.Popen[bytes]] = []
    mine = local()

    def begin() -> None:
        mine.process = _start()
        started.append(mine.process)

    try:
        yield from in_order(lambda start: _ask(mine.process, block(start), shape, size), starts, begin)
    finally:
        for process in started:
            process.kill()  # none of them has anything to put away
            process.communicate()


def decode_block(
    paths: Sequence[Path], shape: tuple[int, int, int], size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """uint8 (n, C, H, W); raises DataError naming the file."""
    out = np.empty((len(paths), *shape), np.uint8)
    for pixels, path in zip(out, paths, strict=True):
        image = decode_file(path, grey=shape[0] == 1, size=size)
        if image.shape != shape:
            raise DataError(f"{path}: decodes to {image.shape} (C, H, W), but its header says {shape}")
        pixels[:] = image
    return out


# --- one process ------------------------------------------------------------------------------


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM.format(path=sys.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # In a session of its own: Ctrl-C is for us, and ends the process with its input.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )


def _ask(
    process: subprocess.Popen[bytes],
    paths: Sequence[Path],
    shape: tuple[int, int, int],
    size: tuple[int, int] | None,
) -> NDArray[np.uint8]:
    assert process.stdin is not None
    assert process.stdout is not None
    request = json.dumps({"paths": [os.fspath(path) for path in paths], "shape": shape, "size": size})
    try:
        process.stdin.write(request.encode() + b"\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        if "error" in answer:
            raise DataError(answer["error"])
        content = process.stdout.read(answer["bytes"])
        return np.frombuffer(content, np.uint8).reshape(len(paths), *shape)
    except (OSError, ValueError):
        raise ChildProcessError(
            f"{paths[0]}: the process that decodes it and the next {len(paths) - 1} files ended; is there enough "
            "memory? The same command goes on from here"
        ) from None


def serve() -> None:
    """The other end of `_ask`, until the input ends."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        paths = [Path(path) for path in request["paths"]]
        size = tuple(request["size"]) if request["size"] else None
        try:
            pixels = decode_block(paths, tuple(request["shape"]), size)
            header: dict[str, Any] = {"bytes": pixels.nbytes}
            content = pixels.tobytes()
        except DataError as error:
            header, content = {"error": str(error)}, b""
        sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + content)
        sys.stdout.buffer.flush()
