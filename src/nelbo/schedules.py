"""Numbers that change while training: beta warm-up, learning rates. A schedule maps progress to a number.

A bare number is a constant: `beta = 4` in a file and `--objective.beta 4` on the command line.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from nelbo.config import Spec
from nelbo.core import Progress


class Schedule(Spec):
    """A number for every moment of training."""

    axis: ClassVar[str] = "schedule"

    @classmethod
    def from_scalar(cls, value: Any) -> dict[str, Any] | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"name": "constant", "value": value} if cls.is_abstract() else None
        return super().from_scalar(value)

    def __call__(self, progress: Progress) -> float:
        raise TypeError(f"{type(self).__name__} is abstract: use constant, linear or cosine")


class Constant(Schedule):
    """The same number throughout."""

    scalar: ClassVar[str] = "value"
    value: float

    def __call__(self, progress: Progress) -> float:
        return self.value


class Linear(Schedule):
    """From `start` to `end` in a straight line over `epochs` or `steps`, then flat.

    Epochs and steps count from 1, so that `Linear(epochs=25)` is min(1, epoch / 25), constant
    within an epoch: the warm-up of Bowman et al. 2016 and Soenderby et al. 2016.
    """

    start: float = 0.0
    end: float = 1.0
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, the length of the ramp")
        return self

    def __call__(self, progress: Progress) -> float:
        if self.epochs is not None:
            share = progress.epoch / self.epochs
        else:
            share = (progress.step + 1) / (self.steps or 1)
        return self.start + (self.end - self.start) * min(1.0, share)


class Cosine(Schedule):
    """From `start` to `end` along half a cosine over the whole of training (Loshchilov & Hutter 2017)."""

    start: float
    end: float = 0.0

    def __call__(self, progress: Progress) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress.fraction))
