"""Gaussian pixels: what `mean squared error` is, in nats."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import LOG_2PI, full
from nelbo.likelihoods.base import Likelihood, LikelihoodModule, sum_pixels
from nelbo.likelihoods.spread import Fixed, Spread

Squash = Literal["identity", "tanh", "sigmoid"]


class GaussianImage(LikelihoodValue):
    """The value prod_D N(x | mean, sigma^2); `log_sigma` is a scalar tensor, or one for each pixel."""

    def __init__(self, mean: Tensor, log_sigma: Tensor) -> None:
        self.mean = mean
        self.log_sigma = log_sigma

    def log_prob(self, x: Tensor) -> Tensor:
        squared = ((x - self.mean) * (-self.log_sigma).exp()).square()
        if self.log_sigma.dim():
            return -sum_pixels(0.5 * squared + self.log_sigma + 0.5 * LOG_2PI)
        pixels = math.prod(self.mean.shape[-3:])  # one sigma: its logarithm is added once, not to every pixel
        return -0.5 * sum_pixels(squared) - pixels * (self.log_sigma + 0.5 * LOG_2PI)

    def sample(self) -> Tensor:
        return self.mean + self.log_sigma.exp() * torch.randn_like(self.mean)


class Gaussian(Likelihood):
    """Gaussian pixels with a sigma that is fixed, learned, optimal, or each pixel's own.

    -log p = sum_D (x - mean)^2 / (2 sigma^2) + log(sigma sqrt(2 pi)). A mean squared error is this with
    a fixed sigma: `averaged MSE + w * averaged KL` is 1/c times the negative ELBO with
    sigma^2 = D / (2 c) and beta = w c / Z, for any c > 0 (D pixels, Z latents).

    sigma   a number, or learned, per-pixel, optimal (`nelbo list spread`; Rybkin et al. 2021)
    mean    what is applied to the decoder's output: identity, tanh for [-1, 1], sigmoid for [0, 1]
    """

    sigma: Spread = Fixed()
    mean: Squash = "identity"

    @classmethod
    def from_earlier(cls, table: dict[str, Any]) -> dict[str, Any]:
        """Read `learned = true`, which is `sigma = "learned"` since 0.1; `sigma` was then where learning started."""
        if isinstance(learned := table.get("learned"), bool):
            table = {key: value for key, value in table.items() if key != "learned"}
            if learned:
                table["sigma"] = {"name": "learned", "start": table.get("sigma", 1.0)}
        return table

    @property
    def channels(self) -> int:
        return 1 + self.sigma.outputs

    def build(self, shape: Shape) -> LikelihoodModule:
        return GaussianModule(self)


class GaussianModule(LikelihoodModule):
    def __init__(self, spec: Gaussian) -> None:
        super().__init__()
        self.squash = spec.mean
        self.sigma = spec.sigma.build(power=2)

    def forward(self, outputs: Tensor) -> GaussianImage:
        mean, log_sigma = self.sigma.split(full(outputs))
        return GaussianImage(squashed(mean, self.squash), log_sigma)

    def after_step(self, x_BCHW: Tensor, value: LikelihoodValue) -> None:
        self.sigma.observe(x_BCHW, value.mean)


def squashed(mean: Tensor, squash: Squash) -> Tensor:
    """Return the decoder's output bent into the range of the pixels."""
    match squash:
        case "tanh":
            return mean.tanh()
        case "sigmoid":
            return mean.sigmoid()
    return mean
