"""The Laplace posterior."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, register_kl
from nelbo.dists.normal import NormalPrior
from nelbo.posteriors.base import LinearHead, Posterior


class LaplaceValue(PosteriorValue):
    """The value prod_j Laplace(mean_j, scale_j), event over the last axis."""

    def __init__(self, mean_BZ: Tensor, log_scale_BZ: Tensor) -> None:
        self.mean = mean_BZ
        self.log_scale = log_scale_BZ

    @classmethod
    def of(cls, outputs: Tensor) -> Self:
        mean, raw = outputs.chunk(2, dim=-1)
        return cls(mean, 0.5 * raw)

    @property
    def std(self) -> Tensor:  # type: ignore[override]
        return math.sqrt(2.0) * self.log_scale.exp()

    def rsample(self, k: int = 1) -> Tensor:
        """Return mean + scale * (e - f), e and f exponential: z_KBZ."""
        noise = torch.empty(2, k, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        first, second = noise.exponential_().unbind(0)  # no logarithm of a uniform number, which may be 0
        return torch.addcmul(self.mean, self.log_scale.exp(), first - second)

    def log_prob_each(self, z: Tensor) -> Tensor:
        return -((z - self.mean).abs() * (-self.log_scale).exp() + self.log_scale + math.log(2.0))

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_prob_each(z).sum(-1)

    def detached(self) -> LaplaceValue:
        return LaplaceValue(self.mean.detach(), self.log_scale.detach())


@register_kl(LaplaceValue, NormalPrior)
def kl_to_normal_prior(q: LaplaceValue, prior: NormalPrior) -> Tensor:
    """Return the cross-entropy less the entropy 1 + log 2 scale of each dimension, nats."""
    crossed_BZ = prior.cross_entropy(q.mean, 2.0 * (2.0 * q.log_scale).exp())  # the variance is 2 scale^2
    return crossed_BZ - (1.0 + math.log(2.0) + q.log_scale)


class LaplacePosterior(Posterior):
    """prod_j Laplace(mean_j, b_j): a peak and heavy tails. Kingma & Welling 2014, sec. 2.4 (location-scale families).

    log q(z) = -sum_j |z_j - mean_j| / b_j + log 2 b_j, mean and 2 log b linear in the features.
    KL(q || N(0, I)) = sum_j b_j^2 + mean_j^2 / 2 - log b_j - 1 + log(pi / 2) / 2: at least 0.07 nats a dimension.
    """

    name: ClassVar[str] = "laplace"
    factorises: ClassVar[bool] = True

    def build(self, features: int, latent_dim: int) -> nn.Module:
        return LinearHead(features, 2 * latent_dim, LaplaceValue.of)
