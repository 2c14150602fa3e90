"""The wrapped normal posterior on the Poincare ball."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue
from nelbo.dists.base import Space
from nelbo.dists.hyperbolic import from_origin, log_wrapped_normal, move, square
from nelbo.posteriors.base import LinearHead, Posterior

FARTHEST_MEAN = 10.0  # from the origin, where float32 still tells places 1e-3 apart


class WrappedNormal(PosteriorValue):
    """The value: z = exp_mean(v / lambda), v ~ N(0, diag(scale^2)), in the open unit ball; density by volume.

    Reflecting v to -v is an isometry of the ball that keeps the mean and the distribution: the mean is the point of
    least expected squared distance, which is unique.
    """

    mean_is = "Fréchet mean of the posterior: least squared hyperbolic distance"

    def __init__(self, mean_BZ: Tensor, log_scale_BZ: Tensor) -> None:
        self.mean = mean_BZ
        self.log_scale = log_scale_BZ

    @classmethod
    def of(cls, outputs: Tensor) -> Self:
        toward, log_var = outputs.chunk(2, dim=-1)
        shorter = (1.0 + square(toward) / FARTHEST_MEAN**2).rsqrt()  # any length -> one below FARTHEST_MEAN
        return cls(from_origin(toward * shorter), 0.5 * log_var)

    def rsample(self, k: int = 1) -> Tensor:
        """Return k reparametrised samples z_KBZ (Mathieu et al. 2019, sec. 3; Nagano et al. 2019, algorithm 1)."""
        noise_KBZ = torch.randn(k, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return move(self.mean, self.log_scale.exp() * noise_KBZ)

    def log_prob(self, z: Tensor) -> Tensor:
        return log_wrapped_normal(z, self.mean, self.log_scale)


class Poincare(Posterior):
    """A wrapped normal on the Poincare ball, q(z | x) = N_W(mean(x), diag(scale(x)^2)). Mathieu et al. 2019, sec. 3.

    Hyperbolic space has room that grows exponentially with the distance from the origin, as a tree does. The head
    gives the vector from the origin to the mean, of any length up to 10 (longer ones approach it smoothly), and
    log-variances. The KL is by samples.
    """

    space: ClassVar[Space] = "ball"

    def build(self, features: int, latent_dim: int) -> nn.Module:
        return LinearHead(features, 2 * latent_dim, WrappedNormal.of)
