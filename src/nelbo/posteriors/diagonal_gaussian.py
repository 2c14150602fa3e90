"""The Gaussian posterior with a diagonal covariance, in four parametrisations."""

from functools import partial
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.dists.normal import DiagonalNormal
from nelbo.posteriors.base import LinearHead, Posterior

Parametrisation = Literal["log-variance", "positive", "raw-sigma", "tanh"]
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

    parametrisation: Parametrisation = "log-variance"
    noise: Literal["independent", "shared"] = "independent"

    def build(self, features: int, latent_dim: int) -> nn.Module:
        value = partial(normal, parametrisation=self.parametrisation, shared_noise=self.noise == "shared")
        return LinearHead(features, 2 * latent_dim, value)


def normal(outputs: Tensor, parametrisation: Parametrisation, shared_noise: bool) -> DiagonalNormal:
    """Return the normal of the outputs of a head: half of them are the mean's, half the deviation's."""
    mean, raw = outputs.chunk(2, dim=-1)
    match parametrisation:
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
    return DiagonalNormal(mean, std, log_var, shared_noise)
