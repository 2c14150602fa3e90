"""The Gaussian posterior with a diagonal covariance, in four parametrisations."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.dists.base import full
from nelbo.dists.normal import DiagonalNormal
from nelbo.posteriors.base import Posterior

SMALLEST_STD = 1e-5  # keeps log(std) finite when softplus underflows


class DiagonalGaussian(Posterior):
    """A Gaussian with diagonal covariance from one linear head (Kingma & Welling 2014, eq. 9).

    log-variance  std = exp(h / 2): the usual one, positive and well scaled
    positive      std = softplus(h)
    raw-sigma     std = h, unconstrained: as one tutorial publishes it. log(std^2) is -inf at 0
    tanh          mean = tanh(g), std = tanh(h), as another publishes it: |mean| < 1, std may be negative

    noise = "shared" draws one number an image for all dimensions, as published by the last one: the
    samples do not come from the density, and no bound is reported.
    """

    factorises: ClassVar[bool] = True

    parametrisation: Literal["log-variance", "positive", "raw-sigma", "tanh"] = "log-variance"
    noise: Literal["independent", "shared"] = "independent"

    def build(self, features: int, latent_dim: int) -> nn.Module:
        return DiagonalGaussianHead(self, features, latent_dim)


class DiagonalGaussianHead(nn.Module):
    """features_BF -> DiagonalNormal over z_BZ."""

    def __init__(self, spec: DiagonalGaussian, features: int, latent_dim: int) -> None:
        super().__init__()
        self.parametrisation = spec.parametrisation
        self.shared_noise = spec.noise == "shared"
        self.linear = nn.Linear(
            features, 2 * latent_dim
        )  # one matrix for both parameters: one product, not two

    def forward(self, features_BF: Tensor) -> DiagonalNormal:
        mean, raw = full(self.linear(features_BF)).chunk(2, dim=-1)
        match self.parametrisation:
            case "log-variance":
                std, log_var = (0.5 * raw).exp(), raw  # no logarithm is taken
            case "positive":
                std = F.softplus(raw) + SMALLEST_STD
                log_var = 2.0 * std.log()
            case "raw-sigma":
                std, log_var = raw, raw.square().log()
            case "tanh":
                mean, std = mean.tanh(), raw.tanh()
                log_var = std.square().log()
        return DiagonalNormal(mean, std, log_var, self.shared_noise)
