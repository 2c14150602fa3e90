"""The images of one split, in memory or in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nelbo.data.ondisk import CHUNK, OnDisk
from nelbo.errors import DataError

LEVELS = 256  # of 8-bit pixels


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One split, on the CPU.

    pixels       uint8 0..255, or float32 when the source was floating point: a tensor (N, C, H, W), or `OnDisk` where
                 the source is large and stays in its file
    labels_N     int64, below 0 where an image has none, or None where the source has none
    class_names  the name of each label, or None
    factors_NF   int64, the index of each factor's value where the factors of variation are known, or None
    factor_names the name of each factor; None where factors_NF is
    names        the file of each image, relative to its folder and with "/", or None where images have no files
    positions_N  int64, the place of each image in the source's own order, before any split; None until it is loaded
    """

    pixels: Tensor | OnDisk
    labels_N: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    factors_NF: Tensor | None = None
    factor_names: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    positions_N: Tensor | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        if len(pixels.shape) != 4 or pixels.dtype not in (torch.uint8, torch.float32):
            raise DataError(
                "images must be uint8 or float32 of shape (N, C, H, W), "
                f"not {pixels.dtype} {tuple(pixels.shape)}"
            )
        if self.labels_N is not None and len(self.labels_N) != len(pixels):
            raise DataError(f"{len(pixels)} images but {len(self.labels_N)} labels; give one label an image")
        for about, values in (("names", self.names), ("positions", self.positions_N)):
            if values is not None and len(values) != len(pixels):
                raise DataError(f"{len(pixels)} images but {len(values)} {about}; give one an image, or none")
        factors, names = self.factors_NF, self.factor_names
        if factors is None and names is None:
            return
        if factors is None or names is None:
            raise DataError("factors and their names belong together; give both, or neither")
        if factors.dtype != torch.int64 or factors.ndim != 2 or len(factors) != len(self):
            raise DataError(
                f"factors must be int64 of shape ({len(self)}, F), the index of each factor's value, "
                f"not {factors.dtype} {tuple(factors.shape)}"
            )
        if not len(names) == len(set(names)) == factors.shape[1] > 0:
            raise DataError(
                f"{factors.shape[1]} factors need as many different names, not {', '.join(names) or 'none'}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def dtype(self) -> torch.dtype:
        """uint8 or float32."""
        return self.pixels.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return self.pixels.nbytes

    @property
    def pixels_NCHW(self) -> Tensor:
        """All pixels, in memory: for few images. `rows` and `chunks` take no more memory than they are asked for."""
        return self.pixels.read() if isinstance(self.pixels, OnDisk) else self.pixels

    def rows(self, index: Tensor) -> Tensor:
        """Return the pixels of the images at these positions, in this order: a tensor of its own."""
        return self.pixels.rows(index) if isinstance(self.pixels, OnDisk) else self.pixels[index]

    def chunks(self) -> Iterator[Tensor]:
        """Yield all pixels in the images' order, a few MiB at a time."""
        if isinstance(self.pixels, OnDisk):
            return self.pixels.chunks()
        return iter(torch.split(self.pixels, max(1, CHUNK // max(1, self.pixels[:1].nbytes))))  # views

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest value of any pixel."""
        pairs = [(float(part.min()), float(part.max())) for part in self.chunks()]
        lows, highs = zip(*pairs, strict=True)
        return min(lows), max(highs)

    @property
    def eight_bit(self) -> bool:
        """True if every pixel is level / 255 for a whole level from 0 to 255, stored as uint8 or not."""
        return self.dtype == torch.uint8 or all(map(_on_levels, self.chunks()))

    def same_pixels(self, other: Images) -> bool:
        """Return True if the other images are these, pixel by pixel and in this order."""
        if (len(self), self.shape, self.dtype) != (len(other), other.shape, other.dtype):
            return False
        return all(torch.equal(a, b) for a, b in zip(self.chunks(), other.chunks(), strict=True))

    def labelled(self) -> Tensor:
        """Return the positions of the images that have a label, in order."""
        if self.labels_N is None:
            return torch.zeros(0, dtype=torch.int64)
        return torch.nonzero(self.labels_N >= 0).flatten()

    def select(self, index: Tensor) -> Images:
        """Return the images at these positions, in this order; of a file they are read only where they are few."""
        pixels = self.pixels.select(index) if isinstance(self.pixels, OnDisk) else self.pixels[index]
        labels = None if self.labels_N is None else self.labels_N[index]
        factors = None if self.factors_NF is None else self.factors_NF[index]
        names = None if self.names is None else tuple(self.names[i] for i in index.tolist())
        positions = None if self.positions_N is None else self.positions_N[index]
        return replace(
            self, pixels=pixels, labels_N=labels, factors_NF=factors, names=names, positions_N=positions
        )

    def numbered(self) -> Images:
        """Return the same images with their positions, counted from 0 where they have none yet."""
        return self if self.positions_N is not None else replace(self, positions_N=torch.arange(len(self)))

    def with_pixels(self, pixels: Tensor | OnDisk) -> Images:
        """Return the same labels, factors, names and positions with other pixels."""
        return replace(self, pixels=pixels)

    def each(self, function: Callable[[Tensor], Tensor]) -> Images:
        """Apply a function of each image alone to the pixels: now, or of a file whenever they are read."""
        if isinstance(self.pixels, OnDisk):
            return self.with_pixels(self.pixels.then(lambda pixels, _: function(pixels)))
        return self.with_pixels(function(self.pixels))

    def hash(self) -> str:
        """Return the SHA-256 (hex) of shape, dtype, pixel bytes, labels and factors, without names and positions."""
        header = [list(self.pixels.shape), str(self.dtype), self.labels_N is not None]
        digest = hashlib.sha256(json.dumps(header).encode())
        for part in self.chunks():  # the same bytes one after the other, however they are cut
            digest.update(part.contiguous().numpy().data)
        if self.labels_N is not None:
            digest.update(self.labels_N.to(torch.int64).contiguous().numpy().data)
        if self.factors_NF is not None:  # not in the header: sets without factors keep their hashes
            digest.update(f"factors {list(self.factors_NF.shape)}".encode())
            digest.update(self.factors_NF.contiguous().numpy().data)
        return digest.hexdigest()


def _on_levels(pixels: Tensor) -> bool:
    levels = pixels * (LEVELS - 1)
    whole = (levels - levels.round()).abs().max() < 1e-3  # float32 holds level / 255 to 1e-5 levels
    return bool(whole & (pixels.min() >= 0) & (pixels.max() <= 1))
