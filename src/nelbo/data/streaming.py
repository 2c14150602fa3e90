"""Pixels for a device: all of them at once where they fit, else read ahead while steps run."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nelbo.data.decode import in_order
from nelbo.data.images import Images
from nelbo.data.ondisk import OnDisk, filled

MARGIN = 0.25  # of a device's memory that stays free of pixels, for weights, activations and their gradients,
LEAST_MARGIN = 2 << 30  # and at least this many bytes,
FEW = 16  # unless the pixels are no more than this part of what is free
READERS = 4  # threads: a page that is not in memory is waited for, and others can be waited for meanwhile
TASK = 1 << 20  # bytes at least that a reader fetches at a time
AHEAD, AHEAD_BYTES = 2 * READERS, 64 << 20  # tasks done before they are needed; of large ones fewer


def resident(images: Images, device: torch.device, *, repeated: bool) -> Tensor | None:
    """Return the pixels on the device, shape (N, D), or None where they are better streamed.

    Pixels in a file go to a device whose free memory holds them, if they are read there more than once; on the CPU
    they stay where they are. Pixels in memory go to any device whose free memory holds them.
    """
    if device.type == "cuda" and not fits(images.nbytes, *_memory(device)):
        return None
    if not isinstance(images.pixels, OnDisk):
        return images.pixels.reshape(len(images), -1).contiguous().to(device)
    if device.type != "cuda" or not repeated:
        return None
    with contextlib.suppress(torch.cuda.OutOfMemoryError):  # memory that is free may be in pieces
        pixels_ND = torch.empty(len(images), math.prod(images.shape), dtype=images.dtype, device=device)
        return filled(pixels_ND, (part.view(len(part), -1) for part in images.chunks()))
    return None


def fits(nbytes: int, free: int, total: int) -> bool:
    """Return True if so many bytes of pixels may stay on a device with `free` of `total` bytes of memory."""
    return nbytes <= max(free // FEW, free - max(LEAST_MARGIN, int(MARGIN * total)))


def _memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes that are free, or held by torch for later use, and all."""
    free, total = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total


def streamed(
    images: Images, order_N: Tensor | None, first: int, size: int, device: torch.device
) -> Iterator[Tensor]:
    """Yield rows (n, D) on the device of `size` images after `size` images, from position `first` of the order on.

    They are read by threads while the caller works on earlier ones; on CUDA from pinned memory, without a wait.
    No more than `AHEAD_BYTES` wait to be taken, or one batch where a single one is larger.
    """
    row = max(1, images.pixels[:1].nbytes if isinstance(images.pixels, Tensor) else images.pixels.row_bytes)
    task = size * max(1, -(-TASK // (size * row)))
    ahead = max(1, min(AHEAD, AHEAD_BYTES // (task * row)))

    def read(start: int) -> Tensor:
        stop = min(start + task, len(images))
        index = torch.arange(start, stop) if order_N is None else order_N[start:stop]
        rows_BD = images.rows(index).view(len(index), -1)
        return rows_BD.pin_memory() if device.type == "cuda" else rows_BD

    def begin() -> None:
        torch.set_num_threads(1)  # the others belong to the step
        if device.type == "cuda":  # else pinning would wake the first device
            torch.cuda.set_device(device)

    blocks = in_order(read, range(first, len(images), task), threads=READERS, ahead=ahead + 1, begin=begin)
    with contextlib.closing(blocks):  # the threads end at once where the caller stops in mid-epoch
        for rows_MD in blocks:
            yield from torch.split(rows_MD.to(device, non_blocking=True), size)
