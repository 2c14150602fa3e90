"""The transforms of pixels between the source and the model.

A transform acts at one of three moments: `once` when the data are loaded, `batch` on every batch,
and, where `batch` is random, `frozen` gives the one fixed outcome that evaluation uses instead.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Generator, Tensor

from nelbo.core.spec import Spec
from nelbo.data.images import LEVELS, Images
from nelbo.data.ondisk import OnDisk
from nelbo.data.resize import resize_pixels
from nelbo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nelbo.data.splits import Pixels


class Transform(Spec):
    """A step from source pixels to model input. Subclasses override what they need."""

    axis: ClassVar[str] = "transform"
    random: ClassVar[bool] = False  # `batch` draws random numbers; evaluation gets `frozen` instead
    binary: ClassVar[bool] = False  # leaves only two values
    dequantises: ClassVar[bool] = False  # leaves 8-bit levels with uniform noise of a level's width
    by_image: ClassVar[bool] = False  # `once` makes each image of it alone, so it can happen at each reading
    same_kind: ClassVar[bool] = False  # `batch` only shifts, scales or moves pixels: what kind they are stays

    def check(self, shape: tuple[int, int, int], kind: "Pixels") -> None:
        """Raise DataError where images (C, H, W) with pixels of that kind, before any `batch`, cannot get this."""

    def once(self, pixels_NCHW: Tensor) -> Tensor:
        """Return the pixels, uint8 or float32, after what happens once, when the data are loaded."""
        return pixels_NCHW

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        """Return a batch, float32 on its device, after the transform. `generator` is None outside of training; a
        random transform then draws from torch's own stream, by what can be compiled."""
        return x_BCHW

    def frozen(self, pixels_NCHW: Tensor) -> Tensor:
        """Return the pixels of evaluation, in place of a random `batch`: the same on every call and machine."""
        return pixels_NCHW

    def frozen_at(self, pixels_BCHW: Tensor, at_B: Tensor) -> Tensor:
        """Return `frozen` of some images of a split too large to be in memory; `at_B` are their positions in it.

        What an image becomes depends on its position, and not on which others it is read with.
        """
        if type(self).frozen is Transform.frozen:
            return pixels_BCHW
        raise DataError(
            f"{self.name}: the split is too large to be in memory, and this transform has no `frozen_at`, which "
            "freezes some images at a time; write one, or take fewer images: --data.validation 10000 --data.test 10000"
        )

    def range(self, low: float, high: float) -> tuple[float, float]:
        """Return the smallest and the largest value after this transform, from those before it."""
        return low, high


class Scale(Transform):
    """A map of [0, 1] to [low, high]. Models of [0, 1] data need none; tanh-shaped ones want -1, 1."""

    same_kind: ClassVar[bool] = True
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")
        return self

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        if (self.low, self.high) == (0.0, 1.0):
            return x_BCHW
        return x_BCHW * (self.high - self.low) + self.low

    def range(self, low: float, high: float) -> tuple[float, float]:
        span = self.high - self.low
        return low * span + self.low, high * span + self.low


class Resize(Transform):
    """Height and width in pixels (one number: a square), by Pillow's antialiased bilinear filter."""

    by_image: ClassVar[bool] = True
    height: int = Field(ge=1)
    width: int | None = Field(default=None, ge=1)

    @classmethod
    def from_scalar(cls, value: object) -> dict[str, Any] | None:
        return {"height": value} if isinstance(value, int) else super().from_scalar(value)

    def once(self, pixels_NCHW: Tensor) -> Tensor:
        return resize_pixels(pixels_NCHW, self.height, self.width or self.height)


class Binarise(Transform):
    """White where a pixel is above the threshold (0..255), black elsewhere."""

    binary: ClassVar[bool] = True
    by_image: ClassVar[bool] = True
    threshold: int = Field(default=128, ge=0, le=254)

    def once(self, pixels_NCHW: Tensor) -> Tensor:
        threshold = self.threshold if pixels_NCHW.dtype == torch.uint8 else self.threshold / 255
        return (pixels_NCHW > threshold).to(torch.uint8) * 255


class DynamicBinarise(Transform):
    """Each pixel is 1 with probability x, drawn anew in every training batch (Salakhutdinov & Murray 2008).

    Validation and test get one fixed draw from `seed`, so that their numbers can be compared.
    """

    random: ClassVar[bool] = True
    binary: ClassVar[bool] = True
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        if x_BCHW.device.type != "cpu":
            noise = torch.rand(x_BCHW.shape, generator=generator, device=x_BCHW.device)
            return (noise < x_BCHW).to(torch.float32)
        # A pixel of 0 is never set and one of 1 always; in between the probability is right to 2^-16.
        noise = _sixteen_bits(x_BCHW, generator)
        return (noise < x_BCHW.mul(65536).sub_(32768)).to(torch.float32)

    def frozen(self, pixels_NCHW: Tensor) -> Tensor:
        """Return one fixed draw, as uint8 0 or 255; image i's bits depend on its position in the split."""
        # RandomState, because NumPy promises never to change its stream.
        stream = np.random.RandomState(self.seed)
        shape = tuple(pixels_NCHW.shape)
        if pixels_NCHW.dtype == torch.uint8:
            # r is uniform over 0..254, so P(r < x) is x / 255 exactly.
            bits = stream.randint(0, 255, size=shape, dtype=np.uint8) < pixels_NCHW.numpy()
        else:
            bits = stream.random_sample(shape) < pixels_NCHW.numpy()
        return torch.from_numpy(bits.astype(np.uint8) * np.uint8(255))

    def frozen_at(self, pixels_BCHW: Tensor, at_B: Tensor) -> Tensor:
        # As in `batch`: never set at 0, always at 1, in between the probability is right to 2^-16.
        noise = _noise_at(self.seed, at_B, pixels_BCHW.shape)
        if pixels_BCHW.dtype == torch.uint8:
            bits = noise.astype(np.uint32) * 255 < pixels_BCHW.numpy().astype(np.uint32) * 65536
        else:
            bits = noise < pixels_BCHW.numpy() * np.float32(65536)
        return torch.from_numpy(bits.astype(np.uint8) * np.uint8(255))


class Dequantise(Transform):
    """x = (level + u) / 256 for 8-bit levels, u uniform on (0, 1), drawn anew in every training batch.

    A density of such pixels bounds the probability of the levels (Uria et al. 2013; Theis et al. 2016), and gives
    bits/dim; a density of the bare levels can grow without limit. Validation and test get one fixed draw from `seed`.
    u has 2^15 values, the centres of equal bins: then level + u fits into float32, and no sum is rounded into the
    next level.
    """

    random: ClassVar[bool] = True
    dequantises: ClassVar[bool] = True
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        noise = _sixteen_bits(x_BCHW, generator).bitwise_and_(2**15 - 1)
        return _dequantised(x_BCHW.mul(LEVELS - 1).round_(), noise)

    def frozen(self, pixels_NCHW: Tensor) -> Tensor:
        """Return one fixed draw, as float32 in (0, 1); image i's noise depends on its position in the split."""
        stream = np.random.RandomState(self.seed)
        noise = torch.from_numpy(stream.randint(0, 2**15, size=tuple(pixels_NCHW.shape), dtype=np.int16))
        return _dequantised(_levels(pixels_NCHW), noise)

    def frozen_at(self, pixels_BCHW: Tensor, at_B: Tensor) -> Tensor:
        noise = _noise_at(self.seed, at_B, pixels_BCHW.shape) & np.uint16(2**15 - 1)
        return _dequantised(_levels(pixels_BCHW), torch.from_numpy(noise.astype(np.int16)))


def _levels(pixels: Tensor) -> Tensor:
    """Return 0 .. 255 in float32."""
    return pixels.float() if pixels.dtype == torch.uint8 else pixels.mul(LEVELS - 1).round_()


def _dequantised(levels: Tensor, noise: Tensor) -> Tensor:
    """Return (level + (noise + 1/2) / 2^15) / 256; noise is 0 .. 2^15 - 1."""
    # Every step is exact in float32: 8 bits of the level, 15 of the noise and the half are its 24.
    return levels.add_(noise.float().add_(0.5), alpha=2.0**-15).div_(LEVELS)


def _sixteen_bits(like: Tensor, generator: Generator | None) -> Tensor:
    """Draw int16 of the same shape, uniform over all its values."""
    if like.device.type != "cpu" or generator is None:  # in a compiled step there is no random_
        shape, device = like.shape, like.device
        return torch.randint(-(2**15), 2**15, shape, dtype=torch.int16, device=device, generator=generator)
    # One 64-bit draw serves four pixels: twice as fast as torch.rand.
    n = like.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:n].view(like.shape)


def _noise_at(seed: int, at_B: Tensor, shape: Sequence[int]) -> NDArray[np.uint16]:
    """Draw uniform uint16 of this shape; image i's depend on the seed and on its position `at_B[i]` alone."""
    # SplitMix64 (Steele et al. 2014) of a counter: the n-th number without the ones before it.
    numbers = math.prod(shape[1:])
    words = -(-numbers // 4)  # a word of 64 bits is noise for four pixels
    first = at_B.numpy().astype(np.uint64) * np.uint64(words)
    z: NDArray[np.uint64] = np.add.outer(first, np.arange(words, dtype=np.uint64))
    z *= np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, made odd
    z += _avalanche(np.array([seed + 1], np.uint64))
    return _avalanche(z).view(np.uint16)[:, :numbers].reshape(tuple(shape))


def _avalanche(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64 bits so that each bit of the result depends on all: the finalizer of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def decisive(transforms: Sequence[Transform]) -> Transform | None:
    """Return the last transform of batches that makes another kind of pixels of them, or None."""
    acting = [t for t in transforms if type(t).batch is not Transform.batch and not t.same_kind]
    return acting[-1] if acting else None


def augments(transform: Transform) -> bool:
    """Return True for a random change of training batches alone: evaluation sees images of the same kind without it."""
    return transform.random and transform.same_kind and type(transform).frozen is Transform.frozen


def apply_once(pixels_NCHW: Tensor, transforms: Sequence[Transform]) -> Tensor:
    """Return the pixels after every transform's `once`."""
    for transform in transforms:
        pixels_NCHW = transform.once(pixels_NCHW)
    return pixels_NCHW


def prepared(images: Images, transforms: Sequence[Transform]) -> Images:
    """Return the images after every transform's `once`; of a file whenever they are read."""
    if isinstance(images.pixels, OnDisk):
        for transform in transforms:
            if type(transform).once is not Transform.once and not transform.by_image:
                raise DataError(
                    f"{transform.name}: happens once to all images together, and these are too large to be in memory; "
                    "where it makes each image of that image alone, its class may say so: by_image = True"
                )
    return images.each(lambda pixels: apply_once(pixels, transforms))


def frozen(images: Images, transforms: Sequence[Transform]) -> Images:
    """Return the images that evaluation starts from: every random transform replaced by its fixed outcome."""
    if isinstance(pixels := images.pixels, Tensor):
        for transform in transforms:
            pixels = transform.frozen(pixels)
        return images.with_pixels(pixels)
    if all(type(transform).frozen is Transform.frozen for transform in transforms):
        return images

    def step(pixels_BCHW: Tensor, at_B: Tensor) -> Tensor:
        for transform in transforms:  # noise by the position in the file: the same however images are batched
            pixels_BCHW = transform.frozen_at(pixels_BCHW, at_B)
        return pixels_BCHW

    return images.with_pixels(pixels.then(step))


def check_order(transforms: Sequence[Transform]) -> None:
    """Raise ConfigError where the written order is not the order in which things would happen."""
    names = [transform.name for transform in transforms]
    for i, transform in enumerate(transforms):
        before = transforms[:i]
        late = next((other.name for other in before if other.random), None)
        if late and type(transform).once is not Transform.once:
            raise ConfigError(
                f"data.transforms {names}: {transform.name} happens when data are loaded, so it cannot "
                f"follow {late}, which happens in every batch; write {transform.name} first"
            )
        early = (other for other in before if not augments(other))
        if transform.random and any(type(other).batch is not Transform.batch for other in early):
            raise ConfigError(
                f"data.transforms {names}: {transform.name} needs the pixels as they were loaded; write it "
                "before every other transform of batches"
            )
