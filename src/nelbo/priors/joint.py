"""Continuous latents beside categorical ones: the joint prior."""

from typing import ClassVar

from pydantic import Field

from nelbo.dists.base import Space
from nelbo.dists.onehot import JointPriorModule, discrete_blocks
from nelbo.priors.base import Prior


class JointPrior(Prior):
    """p(z): a standard normal beside uniform categorical variables. Dupont 2018 (JointVAE).

    variables    how many categorical variables, as the posterior's
    categories   of each, as the posterior's
    """

    name: ClassVar[str] = "joint"
    space: ClassVar[Space] = "mixed"
    variables: int = Field(default=1, ge=1)
    categories: int = Field(default=2, ge=2)

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        return discrete_blocks(latent_dim, self.variables, self.categories)

    def build(self, latent_dim: int) -> JointPriorModule:
        return JointPriorModule(latent_dim, self.variables, self.categories)
