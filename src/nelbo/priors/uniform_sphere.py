"""The uniform distribution on the unit sphere, and what is true of the sphere itself."""

from typing import ClassVar

from nelbo.dists.base import Space
from nelbo.dists.sphere import UniformSphereModule
from nelbo.priors.base import Prior


class UniformSphere(Prior):
    """p(z) = 1 / area of the unit sphere in R^Z, 2 pi^(Z/2) / Gamma(Z/2). Davidson et al. 2018."""

    space: ClassVar[Space] = "sphere"

    def build(self, latent_dim: int) -> UniformSphereModule:
        return UniformSphereModule(latent_dim)
