"""The axis of priors: each spec builds a module with a density."""

import abc
from typing import ClassVar

from nelbo.core.distributions import PriorModule
from nelbo.core.spec import Spec
from nelbo.dists.base import Space


class Prior(Spec, abc.ABC):
    """p(z): `build(latent_dim)` returns a `PriorModule`, with `log_prob(z)` in nats and `sample(n)` -> z_NZ.

    space   where latents live; the posterior must live there too
    """

    axis: ClassVar[str] = "prior"
    space: ClassVar[Space] = "real"

    def check(self, latent_dim: int) -> None:
        """Raise ValueError for a number of latent dimensions that there cannot be."""
        self.blocks(latent_dim)

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        """Return the sizes of the one-hot vectors that the last latents are; the posterior's must be the same."""
        return ()

    @abc.abstractmethod
    def build(self, latent_dim: int) -> PriorModule:
        """Return the prior as a module."""
