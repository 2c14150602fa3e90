"""Continuous latents beside categorical ones: the joint prior."""

from typing import ClassVar

from nelbo.dists.onehot import JointPriorModule, MixedSpec
from nelbo.priors.base import Prior


class JointPrior(MixedSpec, Prior):
    """p(z): a standard normal beside uniform categorical variables. Dupont 2018 (JointVAE).

    variables    how many categorical variables, as the posterior's
    categories   of each, as the posterior's
    """

    name: ClassVar[str] = "joint"

    def build(self, latent_dim: int) -> JointPriorModule:
        return JointPriorModule(latent_dim, self.variables, self.categories)
