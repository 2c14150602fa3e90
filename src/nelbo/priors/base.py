"""The axis of priors: each spec builds a module with a density."""

import abc
from typing import ClassVar

from nelbo.core.distributions import PriorModule
from nelbo.dists.base import LatentSpec


class Prior(LatentSpec):
    """p(z): `build(latent_dim)` returns a `PriorModule`, with `log_prob(z)` in nats and `sample(n)` -> z_NZ."""

    axis: ClassVar[str] = "prior"

    @abc.abstractmethod
    def build(self, latent_dim: int) -> PriorModule:
        """Return the prior as a module."""
