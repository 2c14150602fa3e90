"""The unit sphere: its area, unit vectors, and the uniform distribution on it."""

import math

import torch
from torch import Tensor

from nelbo.core.distributions import PriorModule


class UniformSphereModule(PriorModule):
    """The uniform distribution on the unit sphere, as a module."""

    origin: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)  # knows the device

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p by surface, nats: the same everywhere."""
        return torch.full_like(z[..., 0], -log_area(len(self.origin)))

    def sample(self, n: int) -> Tensor:
        return unit(torch.randn(n, len(self.origin), device=self.origin.device, dtype=self.origin.dtype))


def log_area(dimensions: int) -> float:
    """Return the log of the area of the unit sphere in R^dimensions; in R^1 that is two points."""
    return math.log(2.0) + 0.5 * dimensions * math.log(math.pi) - math.lgamma(0.5 * dimensions)


def unit(vector: Tensor) -> Tensor:
    """Return the vector divided by its length."""
    length: Tensor = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return vector / length.clamp_min(1e-30)
