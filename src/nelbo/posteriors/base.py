"""The axis of posteriors: each spec builds a module from features to a value."""

import abc
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue
from nelbo.dists.base import LatentSpec, full

SMALL = 0.01  # of their usual size: the weights of outputs that begin close to zero


class Posterior(LatentSpec):
    """q(z | x): `build(features, latent_dim)` returns a module from features_BF to a `PosteriorValue` over z_BZ.

    has_density     False for a point: no KL, no importance weights
    factorises      dimensions are independent given x, and the value has `log_prob_each`
    reparametrised  samples have the gradient of their parameters, and log_prob(z) one by z. False: that of
                    `relaxed(k)` instead, the value's relaxed samples from the same noise; it is biased
    """

    axis: ClassVar[str] = "posterior"
    has_density: ClassVar[bool] = True
    factorises: ClassVar[bool] = False
    reparametrised: ClassVar[bool] = True

    @abc.abstractmethod
    def build(self, features: int, latent_dim: int) -> nn.Module:
        """Return a module: features_BF -> PosteriorValue."""


class LinearHead(nn.Module):
    """features_BF -> the value made of the outputs of one linear layer: one product for all parameters.

    `value` makes it, of outputs in float32 at least. Outputs from number `small` on begin close to zero.
    """

    def __init__(
        self, features: int, outputs: int, value: Callable[[Tensor], PosteriorValue], small: int | None = None
    ) -> None:
        super().__init__()
        self.value = value
        self.linear = nn.Linear(features, outputs)
        with torch.no_grad():
            for weight in (self.linear.weight, self.linear.bias):
                weight[outputs if small is None else small :] *= SMALL

    def forward(self, features_BF: Tensor) -> PosteriorValue:
        return self.value(full(self.linear(features_BF)))
