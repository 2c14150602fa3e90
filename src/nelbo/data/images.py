"""Images in memory: one split, and the splits of one data set."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nelbo.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from nelbo.data.transforms import Transform

Pixels = Literal["binary", "dequantised", "grey", "real"]
LEVELS = 256  # of 8-bit pixels


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One split, in memory, on the CPU.

    pixels_NCHW  uint8 0..255, or float32 when the source was floating point
    labels_N     int64, or None where the source has none
    class_names  the name of each label, or None
    factors_NF   int64, the index of each factor's value where the factors of variation are known, or None
    factor_names the name of each factor; None where factors_NF is
    """

    pixels_NCHW: Tensor
    labels_N: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    factors_NF: Tensor | None = None
    factor_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels_NCHW
        if pixels.ndim != 4 or pixels.dtype not in (torch.uint8, torch.float32):
            raise DataError(
                "images must be uint8 or float32 of shape (N, C, H, W), "
                f"not {pixels.dtype} {tuple(pixels.shape)}"
            )
        if self.labels_N is not None and len(self.labels_N) != len(pixels):
            raise DataError(f"{len(pixels)} images but {len(self.labels_N)} labels; give one label an image")
        self._check_factors()

    def _check_factors(self) -> None:
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
        return len(self.pixels_NCHW)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.pixels_NCHW.shape
        return channels, height, width

    @property
    def eight_bit(self) -> bool:
        """Whether every pixel is level / 255 for a whole level from 0 to 255, stored as uint8 or not."""
        pixels = self.pixels_NCHW
        if pixels.dtype == torch.uint8:
            return True
        levels = pixels * (LEVELS - 1)
        whole = (levels - levels.round()).abs().max() < 1e-3  # float32 holds level / 255 to 1e-5 levels
        return bool(whole & (pixels.min() >= 0) & (pixels.max() <= 1))

    def select(self, index: Tensor) -> Images:
        """The images at these positions, in this order."""
        labels = None if self.labels_N is None else self.labels_N[index]
        factors = None if self.factors_NF is None else self.factors_NF[index]
        return replace(self, pixels_NCHW=self.pixels_NCHW[index], labels_N=labels, factors_NF=factors)

    def with_pixels(self, pixels_NCHW: Tensor) -> Images:
        """The same labels and factors with other pixels."""
        return replace(self, pixels_NCHW=pixels_NCHW)

    def hash(self) -> str:
        """SHA-256 (hex) of shape, dtype, pixel bytes, labels and factors; names of classes and factors do not enter."""
        header = [list(self.pixels_NCHW.shape), str(self.pixels_NCHW.dtype), self.labels_N is not None]
        digest = hashlib.sha256(json.dumps(header).encode())
        digest.update(self.pixels_NCHW.contiguous().numpy().data)
        if self.labels_N is not None:
            digest.update(self.labels_N.to(torch.int64).contiguous().numpy().data)
        if self.factors_NF is not None:
            digest.update(f"factors {list(self.factors_NF.shape)}".encode())
            digest.update(self.factors_NF.contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What a source holds, before validation is split off and transforms are applied."""

    train: Images
    validation: Images | None = None
    test: Images | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The splits of one data set, after the transforms that apply once.

    hash        16 hex digits over the source's bytes in split order, the split seed and the transforms
    pixels      "binary": only 0 and 1; "dequantised": 8-bit levels with uniform noise of a level's width, on any
                scale; "grey": other values inside [0, 1]; "real": anything else
    eight_bit   whether every value that a model sees is a level / 255: then a probability of levels is one of them
    range       (low, high) of the values that a model sees
    transforms  what `Batches` and `materialise` still have to apply to each batch
    """

    name: str
    train: Images
    validation: Images | None
    test: Images
    hash: str
    pixels: Pixels
    range: tuple[float, float]
    transforms: tuple[Transform, ...] = ()
    eight_bit: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every split."""
        return self.train.shape

    def split(self, name: str) -> Images:
        """The split called train, validation or test; raises ConfigError for another or an absent one."""
        known = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in known:
            raise ConfigError(f"no split is called {name!r}; {did_you_mean(name, known)}")
        images = known[name]
        if images is None:
            raise ConfigError(
                f"{self.name} has no {name} split; take one from the training images with "
                "--data.validation 0.1 (a share) or --data.validation 5000 (a count)"
            )
        return images
