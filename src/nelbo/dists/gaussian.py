"""Gaussian pixels: what `mean squared error` is, in nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from nelbo.dists.base import LOG_2PI, Likelihood, Shape, full, sum_pixels
from nelbo.dists.spread import Fixed, Spread

Squash = Literal["identity", "tanh", "sigmoid"]


class GaussianImage:
    """The value prod_D N(x | mean, sigma^2); `log_sigma` is a scalar tensor, or one for each pixel.

    observe   sees the squared errors of the images that are scored, or None
    """

    def __init__(
        self, mean: Tensor, log_sigma: Tensor, observe: Callable[[Tensor], None] | None = None
    ) -> None:
        self.mean = mean
        self.log_sigma = log_sigma
        self.observe = observe

    def log_prob(self, x: Tensor) -> Tensor:
        if self.observe:
            self.observe((x - self.mean.detach()).square())
        squared = ((x - self.mean) * (-self.log_sigma).exp()).square()
        if self.log_sigma.dim():
            return -sum_pixels(0.5 * squared + self.log_sigma + 0.5 * LOG_2PI)
        pixels = math.prod(self.mean.shape[-3:])
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

    @property
    def channels(self) -> int:
        return 1 + self.sigma.outputs

    def build(self, shape: Shape) -> nn.Module:
        return GaussianModule(self)


class GaussianModule(nn.Module):
    def __init__(self, spec: Gaussian) -> None:
        super().__init__()
        self.squash = spec.mean
        self.sigma = spec.sigma.build(power=2)

    def forward(self, outputs: Tensor) -> GaussianImage:
        mean, log_sigma = self.sigma.split(full(outputs))
        return GaussianImage(squashed(mean, self.squash), log_sigma, self.sigma.observer())


def squashed(mean: Tensor, how: Squash) -> Tensor:
    match how:
        case "tanh":
            return mean.tanh()
        case "sigmoid":
            return mean.sigmoid()
    return mean
