"""The standard normal prior."""

from nelbo.dists.normal import StandardNormalModule
from nelbo.priors.base import Prior


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def build(self, latent_dim: int) -> StandardNormalModule:
        return StandardNormalModule(latent_dim)
