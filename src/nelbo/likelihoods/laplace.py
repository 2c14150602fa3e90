"""Laplace pixels: what `mean absolute error` is, in nats."""

import math

import torch
from torch import Tensor

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full
from nelbo.likelihoods.base import Likelihood, LikelihoodModule, sum_pixels
from nelbo.likelihoods.gaussian import Squash, squashed
from nelbo.likelihoods.spread import Fixed, Spread


class LaplaceImage(LikelihoodValue):
    """The value prod_D exp(-|x - mean| / b) / (2 b); `log_scale` = log b is a scalar, or one for each pixel."""

    def __init__(self, mean: Tensor, log_scale: Tensor) -> None:
        self.mean = mean
        self.log_scale = log_scale

    def log_prob(self, x: Tensor) -> Tensor:
        scaled = (x - self.mean).abs() * (-self.log_scale).exp()
        return -sum_pixels(scaled + self.log_scale + math.log(2.0))

    def sample(self) -> Tensor:
        exponential, sign = torch.empty_like(self.mean).exponential_(), torch.randn_like(self.mean).sign()
        return self.mean + self.log_scale.exp() * sign * exponential


class Laplace(Likelihood):
    """Laplace pixels with a scale b that is fixed, learned, optimal, or each pixel's own.

    -log p = sum_D |x - mean| / b + log(2 b): a mean absolute error with a fixed b, less sensitive to single wrong
    pixels than a Gaussian. The standard deviation is sqrt(2) b.

    scale   a number, or learned, per-pixel, optimal (`nelbo list spread`)
    mean    what is applied to the decoder's output: identity, tanh for [-1, 1], sigmoid for [0, 1]
    """

    scale: Spread = Fixed()
    mean: Squash = "identity"

    @property
    def channels(self) -> int:
        return 1 + self.scale.outputs

    def build(self, shape: Shape) -> LikelihoodModule:
        return LaplaceModule(self)


class LaplaceModule(LikelihoodModule):
    def __init__(self, spec: Laplace) -> None:
        super().__init__()
        self.squash = spec.mean
        self.scale = spec.scale.build()

    def forward(self, outputs: Tensor) -> LaplaceImage:
        mean, log_scale = self.scale.split(full(outputs))
        return LaplaceImage(squashed(mean, self.squash), log_scale)

    def after_step(self, x_BCHW: Tensor, value: LikelihoodValue) -> None:
        self.scale.observe(x_BCHW, value.mean)
