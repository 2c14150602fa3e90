"""The wrapped normal prior at the origin of the Poincare ball."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from nelbo.core.distributions import PriorModule
from nelbo.dists.base import Space
from nelbo.dists.hyperbolic import from_origin, inside, log_wrapped_normal
from nelbo.priors.base import Prior


class WrappedNormalPrior(Prior):
    """p(z): z = exp_0(v), v ~ N(0, scale^2 I), on the Poincare ball of curvature -1. Mathieu et al. 2019, sec. 3.

    scale   of v, whose length is the hyperbolic distance from the origin. A ball of curvature -c with scale s is this
            one with scale s sqrt(c): there is no curvature to choose beside it
    """

    name: ClassVar[str] = "wrapped-normal"
    space: ClassVar[Space] = "ball"
    scale: float = Field(default=1.0, gt=0.0)

    def build(self, latent_dim: int) -> WrappedNormalModule:
        return WrappedNormalModule(latent_dim, self.scale)


class WrappedNormalModule(PriorModule):
    """The wrapped normal at the origin, as a module."""

    log_scale: Tensor

    def __init__(self, latent_dim: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("log_scale", torch.full((latent_dim,), math.log(scale)), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p by volume (Lebesgue) of the ball, nats."""
        return log_wrapped_normal(z, torch.zeros_like(self.log_scale), self.log_scale)

    def sample(self, n: int) -> Tensor:
        scale_Z = self.log_scale.exp()
        noise_NZ = torch.randn(n, len(scale_Z), dtype=scale_Z.dtype, device=scale_Z.device)
        return inside(from_origin(scale_Z * noise_NZ))
