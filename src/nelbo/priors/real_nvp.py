"""The real-NVP prior."""

from pydantic import Field

from nelbo.dists.flows import AffineCoupling, flipping
from nelbo.nets.base import Width
from nelbo.priors.base import Prior
from nelbo.priors.flow import FlowPrior


class RealNVP(Prior):
    """z = f(u), u ~ N(0, I), f a chain of affine couplings. Dinh, Sohl-Dickstein & Bengio 2017, eq. 4-8.

    Each layer scales and shifts half of the latents by networks of the other half; the order of the latents is
    reversed between layers, so that the halves take turns (their alternating masks). Densities and samples are equally
    fast, and both exact. Begins close to N(0, I).

    layers  couplings; two move every latent once
    hidden  units of the hidden layers of each coupling's network
    """

    layers: int = Field(default=6, ge=1)
    hidden: tuple[Width, ...] = Field(default=(64, 64), min_length=1)

    def build(self, latent_dim: int) -> FlowPrior:
        return FlowPrior(flipping(lambda: AffineCoupling(latent_dim, self.hidden), self.layers), latent_dim)
