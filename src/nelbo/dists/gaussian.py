"""Gaussian pixels with a fixed or learned sigma: what `mean squared error` is, in nats."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.dists.base import LOG_2PI, Likelihood, Shape, full, sum_pixels


class GaussianImage:
    """The value prod_D N(x | mean, sigma^2); `log_sigma` is a scalar tensor."""

    def __init__(self, mean: Tensor, log_sigma: Tensor) -> None:
        self.mean = mean
        self.log_sigma = log_sigma

    def log_prob(self, x: Tensor) -> Tensor:
        scaled = (x - self.mean) * (-self.log_sigma).exp()
        pixels = math.prod(self.mean.shape[-3:])
        return -0.5 * sum_pixels(scaled.square()) - pixels * (self.log_sigma + 0.5 * LOG_2PI)

    def sample(self) -> Tensor:
        return self.mean + self.log_sigma.exp() * torch.randn_like(self.mean)


class Gaussian(Likelihood):
    """Gaussian pixels, one sigma for all of them.

    -log p = sum_D (x - mean)^2 / (2 sigma^2) + D log(sigma sqrt(2 pi)). A mean squared error is this with
    a fixed sigma: `averaged MSE + w * averaged KL` is 1/c times the negative ELBO with
    sigma^2 = D / (2 c) and beta = w c / Z, for any c > 0 (D pixels, Z latents).

    sigma    its value, or where learning starts
    learned  one sigma learned with the weights (Rybkin et al. 2021, section 3)
    mean     what is applied to the decoder's output: identity, tanh for [-1, 1], sigmoid for [0, 1]
    """

    sigma: float = Field(default=1.0, gt=0.0)
    learned: bool = False
    mean: Literal["identity", "tanh", "sigmoid"] = "identity"

    def build(self, shape: Shape) -> nn.Module:
        return GaussianModule(self)


class GaussianModule(nn.Module):
    log_sigma: Tensor

    def __init__(self, spec: Gaussian) -> None:
        super().__init__()
        self.squash = spec.mean
        log_sigma = torch.tensor(math.log(spec.sigma))
        if spec.learned:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    def forward(self, outputs: Tensor) -> GaussianImage:
        outputs = full(outputs)
        if self.squash == "tanh":
            outputs = outputs.tanh()
        elif self.squash == "sigmoid":
            outputs = outputs.sigmoid()
        return GaussianImage(outputs, self.log_sigma)
