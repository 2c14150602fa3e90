"""The axis of likelihoods: each spec builds a module from decoder outputs to a value over images."""

import abc
from typing import ClassVar, Literal

from torch import Tensor, nn

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.spec import Spec
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full

TOP_LEVEL = 255  # of an 8-bit pixel: x = level / 255
ObservationKind = Literal["binary", "levels", "density"]


class LikelihoodModule(nn.Module, abc.ABC):
    """A module from decoder outputs to a `LikelihoodValue`."""

    @abc.abstractmethod
    def forward(self, outputs: Tensor) -> LikelihoodValue:
        """Return the value for decoder outputs (..., channels * C, H, W)."""

    def after_step(self, x_BCHW: Tensor, value: LikelihoodValue) -> None:
        """Update what follows the data (a running spread), from one step's images and the value that scored them."""


class Likelihood(Spec, abc.ABC):
    """p(x | z): `build(shape)` returns a module from decoder outputs to a distribution over images.

    Given z the pixels are independent, so that one pixel, `build((1, 1, 1))`, tells whether it is a distribution:

    observation_kind   the set that `exp(log_prob)` is a probability on
                       binary    x in {0, 1}: it sums to one over the two
                       levels    x in {0, 1/255, ..., 1}, 8-bit pixels: it sums to one over the 256
                       density   x real: it integrates to one over `support`
    support            the closed interval a pixel must lie in, or None for the real line
    channels           decoder outputs for each image channel; outputs (..., channels * C, H, W) are ordered by
                       parameter, then by image channel
    """

    axis: ClassVar[str] = "likelihood"
    observation_kind: ClassVar[ObservationKind] = "density"
    support: ClassVar[tuple[float, float] | None] = None

    @property
    def channels(self) -> int:
        return 1

    @abc.abstractmethod
    def build(self, shape: Shape) -> LikelihoodModule:
        """Return the module for images of this shape."""


def sum_pixels(value: Tensor) -> Tensor:
    """Return the sum over the pixels: (..., C, H, W) -> (...)."""
    return value.flatten(-3).sum(-1)


def parameters_of(outputs: Tensor, count: int) -> Tensor:
    """Return decoder outputs (..., P C, H, W) as the parameters of each pixel: (..., P, C, H, W), P = count."""
    *others, _, height, width = outputs.shape
    return full(outputs).view(*others, count, -1, height, width)
