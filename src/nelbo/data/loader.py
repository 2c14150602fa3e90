"""The loader: one tensor on the device, and a batch is an index into it; what does not fit there is streamed."""

import hashlib
import struct
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from nelbo.data.images import Images
from nelbo.data.streaming import resident, streamed
from nelbo.data.transforms import Transform, frozen
from nelbo.errors import ConfigError


def materialise(images: Images, transforms: Sequence[Transform], *, indices: Tensor | None = None) -> Tensor:
    """Return a split of `Splits` as evaluation sees it, float32 (N, C, H, W) on the CPU; all, or those at `indices`."""
    images = frozen(images, transforms)  # before indexing: an image looks the same in every subset
    x_NCHW = _to_float(images.pixels_NCHW if indices is None else images.rows(indices))
    for transform in _of_batches(transforms, training=False):
        x_NCHW = transform.batch(x_NCHW, None)
    return x_NCHW


class Batches:
    """Batches of one split, float32 on `device`; the last short one is kept.

    n, shape   number of images, and (C, H, W)
    len()      batches an epoch

    With `shuffle_seed` an epoch's order depends only on the seed and the epoch, without it images come
    in their order. With `training` random transforms draw from a generator that depends only on seed,
    epoch and batch, so that a run resumed in mid-epoch sees identical batches (on the same kind of
    device); otherwise their frozen outcome is used and every epoch is identical.

    An order is a permutation of all images, wherever they are: pixels in a file are read one image here and one there.
    A solid-state disk is fast enough for that (and memory that holds the file is); a spinning disk is not.
    """

    def __init__(
        self,
        images: Images,
        transforms: Sequence[Transform],
        batch_size: int,
        *,
        device: torch.device,
        shuffle_seed: int | None = None,
        training: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch size must be at least 1, not {batch_size}")
        self.n = len(images)
        self.shape = images.shape
        self.batch_size = batch_size
        self.device = device
        self._images = images if training else frozen(images, transforms)
        self._pixels_ND = resident(self._images, device, repeated=training)
        self._transforms = _of_batches(transforms, training=training)
        self._seed = shuffle_seed
        noisy = any(transform.random for transform in self._transforms)
        self._generator = Generator(device) if noisy else None

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def epoch(self, epoch: int = 1, start: int = 0) -> Iterator[Tensor]:
        """Yield x_BCHW of each batch of this epoch, from batch `start` (counted from 0) on."""
        for rows in self.rows(epoch, start):
            yield self.finish(rows)

    def rows(self, epoch: int = 1, start: int = 0, at_once: int = 1) -> Iterator[Tensor]:
        """Yield the raw pixels that `finish` turns into x_BCHW: several batches in a row, then the rest.

        Pixels as they are kept, shape (n, D); where a transform draws random numbers, already finished.
        """
        batches = range(start, len(self), at_once)
        for first, rows in zip(batches, self._taken(epoch, start, at_once), strict=True):
            if self._generator is None:
                yield rows
                continue
            finished = []
            for index, batch in enumerate(torch.split(rows, self.batch_size), first):
                self._generator.manual_seed(_mix(self._seed or 0, epoch, index))
                finished.append(self._transform(batch, self._generator))
            yield torch.cat(finished) if len(finished) > 1 else finished[0]

    def _taken(self, epoch: int, start: int, at_once: int) -> Iterator[Tensor]:
        size, order_N = at_once * self.batch_size, None
        if self._seed is not None:  # drawn on the CPU, so that the order is the same on every device
            order_N = torch.randperm(self.n, generator=Generator().manual_seed(_mix(self._seed, epoch)))
        if self._pixels_ND is None:
            yield from streamed(self._images, order_N, start * self.batch_size, size, self.device)
            return
        order_N = None if order_N is None else order_N.to(self.device)
        for first in range(start * self.batch_size, self.n, size):
            here = slice(first, first + size)
            yield self._pixels_ND[here] if order_N is None else self._pixels_ND.index_select(0, order_N[here])

    def take(self, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Return x_BCHW of the images at these positions (int64, on the device), with repetitions.

        Random transforms draw from the generator, or without one from torch's own stream, as a compiled step may.
        Pixels that stay in a file or in the host's memory are read there, for which the device is waited.
        """
        if self._pixels_ND is not None:
            return self._transform(self._pixels_ND.index_select(0, index), generator)
        rows = self._images.rows(index.cpu()).to(self.device)
        return self._transform(rows.flatten(1), generator)

    def finish(self, rows: Tensor) -> Tensor:
        """Return x_BCHW, float32, of the rows of a batch."""
        return rows if self._generator is not None else self._transform(rows, None)

    def _transform(self, rows: Tensor, generator: Generator | None) -> Tensor:
        x_BCHW = _to_float(rows).view(-1, *self.shape)
        for transform in self._transforms:
            x_BCHW = transform.batch(x_BCHW, generator)
        return x_BCHW


def _to_float(pixels: Tensor) -> Tensor:
    # Never a view of the resident pixels: whoever gets a batch may change it in place.
    if pixels.dtype == torch.uint8:
        return torch.div(pixels, 255)  # float32, in one kernel
    return pixels.to(torch.float32, copy=True)


def _of_batches(transforms: Sequence[Transform], *, training: bool) -> list[Transform]:
    acting = [t for t in transforms if type(t).batch is not Transform.batch]
    return [t for t in acting if training or not t.random]  # evaluation's random ones are frozen already


def _mix(*numbers: int) -> int:
    """Return a well-spread seed below 2^63 from several small numbers."""
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    # Not Python's `hash`, which may change with its version: a resumed run needs the same seeds.
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1
