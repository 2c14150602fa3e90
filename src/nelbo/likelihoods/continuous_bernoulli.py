"""Continuous Bernoulli pixels: a density on [0, 1] where the Bernoulli's cross-entropy of grey pixels is none."""

from typing import ClassVar

import torch
from torch import Tensor

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full
from nelbo.likelihoods.base import Likelihood, LikelihoodModule, sum_pixels

SERIES_BELOW = 0.25
# log(sinh h / h) = sum_n B_2n (2 h)^2n / (2n (2n)!), by powers of h^2; eight terms are exact to 1e-17 below 1/4.
SERIES = (
    1 / 6,
    -1 / 180,
    1 / 2835,
    -1 / 37800,
    1 / 467775,
    -691 / 3831077250,
    2 / 127702575,
    -3617 / 2605132530000,
)


def log_sinhc(h: Tensor) -> Tensor:
    """Return log(sinh h / h), even in h; to rounding in value and gradient everywhere, 0 at 0."""
    size = h.abs()
    # Each branch gets harmless numbers where the other is taken: 0 times an infinite slope would be NaN.
    far = size.clamp_min(SERIES_BELOW)
    direct = far + (-(-2.0 * far).exp()).log1p() - (2.0 * far).log()
    square = size.clamp_max(SERIES_BELOW).square()
    near = torch.zeros_like(square)
    for coefficient in reversed(SERIES):
        near = (near + coefficient) * square
    return torch.where(size < SERIES_BELOW, near, direct)


def langevin(h: Tensor) -> Tensor:
    """Return coth h - 1/h, the derivative of log(sinh h / h): odd, between -1 and 1."""
    size = h.abs()
    far = size.clamp_min(SERIES_BELOW)
    direct = 1.0 / far.tanh() - 1.0 / far  # below 1/4 two large numbers would cancel
    near_h = h.clamp(-SERIES_BELOW, SERIES_BELOW)
    square, near = near_h.square(), torch.zeros_like(h)
    for n in range(len(SERIES), 0, -1):
        near = near * square + 2 * n * SERIES[n - 1]
    return torch.where(size < SERIES_BELOW, near * near_h, direct * h.sign())


class ContinuousBernoulliImage(LikelihoodValue):
    """The value prod_D C(lambda) lambda^x (1 - lambda)^(1 - x) on [0, 1], lambda = sigmoid(logits).

    In the logit l the log-density is (x - 1/2) l - log(sinh(l/2) / (l/2)): one even function, smooth at l = 0, where
    the usual C = 2 atanh(1 - 2 lambda) / (1 - 2 lambda) is 0/0. The mean is 1/2 + 1/2 (coth(l/2) - 2/l), not lambda.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return 0.5 + 0.5 * langevin(0.5 * self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        return sum_pixels((x - 0.5) * self.logits - log_sinhc(0.5 * self.logits))

    def sample(self) -> Tensor:
        """Invert F(x) = expm1(x l) / expm1(l), taken for -|l|, where nothing overflows, and mirrored."""
        falling = -self.logits.abs().clamp_min(1e-6)  # 0 / 0 at 0; below 1e-6 the law is uniform to 1e-6
        x = (torch.rand_like(falling) * falling.expm1()).log1p() / falling
        return torch.where(self.logits > 0, 1.0 - x, x)


class ContinuousBernoulli(Likelihood):
    """Continuous Bernoulli pixels on logits: a density on [0, 1] (Loaiza-Ganem & Cunningham 2019)."""

    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def build(self, shape: Shape) -> LikelihoodModule:
        return ContinuousBernoulliModule()


class ContinuousBernoulliModule(LikelihoodModule):
    def forward(self, logits: Tensor) -> ContinuousBernoulliImage:
        return ContinuousBernoulliImage(full(logits))
