"""Numbers that change while training: beta warm-up, learning rates. A schedule maps progress to a number.

A bare number is a constant: `beta = 4` in a file and `--objective.beta 4` on the command line.
"""

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from nelbo.core import Progress
from nelbo.core.spec import Spec


class Schedule(Spec):
    """A number for every moment of training."""

    axis: ClassVar[str] = "schedule"

    @classmethod
    def from_scalar(cls, value: Any) -> dict[str, Any] | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"name": "constant", "value": value} if cls.is_abstract() else None
        return super().from_scalar(value)

    def __call__(self, progress: Progress) -> float:
        raise TypeError(f"{type(self).__name__} is abstract: use constant, linear, sigmoid, cyclic or cosine")


class Constant(Schedule):
    """The same number throughout."""

    scalar: ClassVar[str] = "value"
    value: float

    def __call__(self, progress: Progress) -> float:
        return self.value


class Ramp(Schedule):
    """From `start` to `end` over `epochs` or `steps`, then flat; a subclass gives the way between, `shape`.

    Epochs and steps count from 1, so that the share of the ramp in epoch e is min(1, e / epochs), constant within an
    epoch.
    """

    axis: ClassVar[str] = "schedule"  # abstract: it registers nothing
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
        return self.start + (self.end - self.start) * self.shape(min(1.0, share))

    def shape(self, share: float) -> float:
        """Return the share of the way, 0 to 1, that is done when this share of the time has passed."""
        raise TypeError(f"{type(self).__name__} is abstract: use linear or sigmoid")


class Linear(Ramp):
    """From `start` to `end` in a straight line over `epochs` or `steps`, then flat.

    Epochs and steps count from 1, so that `Linear(epochs=25)` is min(1, epoch / 25), constant
    within an epoch: the warm-up of Bowman et al. 2016 and Soenderby et al. 2016.
    """

    def shape(self, share: float) -> float:
        return share


class Sigmoid(Ramp):
    """From `start` to `end` along a sigmoid over `epochs` or `steps`, then flat. Bowman et al. 2016, figure 2.

    Half of the way is done after half of the time. The logistic function is cut where the ramp ends and stretched to
    reach both ends: (s(t) - s(0)) / (s(1) - s(0)) with s(t) = 1 / (1 + exp(-steepness (t - 1/2))).

    steepness   0 would be a straight line; the larger, the more sudden
    """

    steepness: float = Field(default=10.0, gt=0.0, le=500.0)

    def shape(self, share: float) -> float:
        # With tanh, s(t) - 1/2 = tanh(steepness (t - 1/2) / 2) / 2: symmetric, and no exponential overflows.
        return 0.5 + 0.5 * math.tanh(0.5 * self.steepness * (share - 0.5)) / math.tanh(0.25 * self.steepness)


class Cyclic(Schedule):
    """Again and again from `start` to `end`: a ramp in each period, then flat. Fu et al. 2019.

    With T steps in M cycles the paper's period is T / M, and it has 4 cycles with a ramp of a half. Epochs and steps
    count from 1 as in `linear`: a ramp of five epochs is 1/5, 2/5 ... 1; the paper's begins at exactly `start`.

    period   length of a cycle
    unit     what the period is counted in: epochs (constant within one) or steps
    ramp     share of the period in which the number rises
    """

    start: float = 0.0
    end: float = 1.0
    period: int = Field(default=10, ge=1)
    unit: Literal["epochs", "steps"] = "epochs"
    ramp: float = Field(default=0.5, gt=0.0, le=1.0)

    def __call__(self, progress: Progress) -> float:
        passed = progress.epoch - 1 if self.unit == "epochs" else progress.step
        share = (passed % self.period + 1) / self.period
        return self.start + (self.end - self.start) * min(1.0, share / self.ramp)


class Cosine(Schedule):
    """From `start` to `end` along half a cosine over the whole of training (Loshchilov & Hutter 2017)."""

    start: float
    end: float = 0.0

    def __call__(self, progress: Progress) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress.fraction))
