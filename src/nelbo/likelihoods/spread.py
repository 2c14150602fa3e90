"""The width of a likelihood around its mean: sigma of a Gaussian, b of a Laplace, s of a logistic distribution.

A bare number is fixed: `sigma = 0.1` in a file, `--model.likelihood.sigma 0.1` on the command line; the others are
`--model.likelihood.sigma learned`, `per-pixel` or `optimal`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nelbo.core.spec import Spec

FLOOR = 2.5e-4  # a sixteenth of an 8-bit level on [0, 1]: narrower than anything such pixels can show
RANGE = 1e6  # of a spread for each pixel: from the floor to a million times the floor
DECAY = 0.95  # of the running mean of errors: some twenty batches


class Spread(Spec):
    """The width of p(x | z): `build(power)` gives a `Width`.

    outputs   decoder outputs for each image channel that it takes beside those of the mean
    """

    axis: ClassVar[str] = "spread"
    outputs: ClassVar[int] = 0

    @classmethod
    def from_scalar(cls, value: object) -> dict[str, object] | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"name": "fixed", "value": value} if cls.is_abstract() else None
        return super().from_scalar(value)

    def build(self, power: int = 1) -> Width:
        raise TypeError(f"{type(self).__name__} is abstract: use a number, learned, per-pixel or optimal")


class Width(nn.Module):
    """The logarithm of a spread, as a scalar or for each pixel."""

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder outputs that are left for the mean, and the log-spread."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def observe(self, x_BCHW: Tensor, mean: Tensor) -> None:
        """Update what follows the errors of a training step's images."""


class Fixed(Spread):
    """One number that stays."""

    scalar: ClassVar[str] = "value"
    value: float = Field(default=1.0, gt=0.0)

    def build(self, power: int = 1) -> Width:
        return FixedWidth(self)


class FixedWidth(Width):
    log: Tensor

    def __init__(self, spec: Fixed) -> None:
        super().__init__()
        self.register_buffer("log", torch.tensor(math.log(spec.value)))

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return outputs, self.log


class Bounded(Spread):
    """The base of `learned` and `per-pixel`: a start, and a floor that they cannot go through.

    start   the spread before training
    floor   the smallest spread: log spread = log floor + softplus(free), never below. Where pixels are predicted
            exactly (black corners) a density without one grows for ever, and with one it says what the floor is
    """

    axis: ClassVar[str] = "spread"
    start: float = Field(default=0.25, gt=0.0)
    floor: float = Field(default=FLOOR, gt=0.0)

    @model_validator(mode="after")
    def _room(self) -> Self:
        if not self.floor < self.start < RANGE * self.floor:
            raise ValueError(
                f"start must lie above the floor and below {RANGE:g} times it, "
                f"not at {self.start:g} with a floor of {self.floor:g}"
            )
        return self

    @property
    def free(self) -> float:
        """The unbounded number at which the spread is `start`."""
        return math.log(self.start / self.floor - 1.0)  # softplus of it is log(start / floor)


class Learned(Bounded):
    """One number learned with the weights (Rybkin et al. 2021)."""

    def build(self, power: int = 1) -> Width:
        return LearnedWidth(self)


class LearnedWidth(Width):
    def __init__(self, spec: Learned) -> None:
        super().__init__()
        self.log_floor = math.log(spec.floor)
        self.free = nn.Parameter(torch.tensor(spec.free))

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return outputs, self.log_floor + F.softplus(self.free)


class PerPixel(Bounded):
    """A number for each pixel from the decoder, between the floor and a million times the floor."""

    outputs: ClassVar[int] = 1

    def build(self, power: int = 1) -> Width:
        return PerPixelWidth(self)

    def log_spread(self, raw: Tensor) -> Tensor:
        """Return the log spread of decoder outputs: about raw + log start, bent smoothly into its two bounds."""
        highest = math.log(RANGE)  # above the floor
        free = highest - F.softplus(highest - self.free - raw)  # never above `highest`
        return math.log(self.floor) + F.softplus(free)  # never below the floor


class PerPixelWidth(Width):
    def __init__(self, spec: PerPixel) -> None:
        super().__init__()
        self.spec = spec

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = outputs.chunk(2, dim=-3)
        return mean, self.spec.log_spread(raw)


class Optimal(Spread):
    """The closed form: sigma* = root of the mean squared error, b* = mean absolute error (Rybkin et al. 2021).

    The paper takes the error of the very batch that is scored. A density must not depend on the image it scores,
    so here it is a running mean over the training batches before (some twenty of them), kept with the weights: in
    training and in evaluation `log_prob` is the logarithm of a density. The fixed point is the paper's.

    floor   the smallest spread, for images that are reconstructed exactly
    """

    floor: float = Field(default=FLOOR, gt=0.0)

    def build(self, power: int = 1) -> Width:
        return OptimalWidth(self, power)


class OptimalWidth(Width):
    """A running mean that starts at 1, which the first training batch replaces. In evaluation mode it stays."""

    mean_error: Tensor
    batches: Tensor

    def __init__(self, spec: Optimal, power: int) -> None:
        super().__init__()
        self.power = power
        self.floor = spec.floor
        self.register_buffer("mean_error", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0))

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return outputs, self.mean_error.clamp_min(self.floor**self.power).log() / self.power

    @torch.no_grad()
    def observe(self, x_BCHW: Tensor, mean: Tensor) -> None:
        off = x_BCHW - mean.detach()
        errors = off.square() if self.power == 2 else off.abs()
        self.batches += 1
        # The plain mean of the first batches, then a running one: the start at 1 leaves no trace.
        weight = (1.0 / self.batches).clamp_min(1.0 - DECAY).to(self.mean_error.dtype)
        self.mean_error.lerp_(errors.mean().to(self.mean_error.dtype), weight)
