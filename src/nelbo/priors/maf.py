"""The masked autoregressive prior."""

from pydantic import Field

from nelbo.dists.flows import MaskedAutoregressive, flipping
from nelbo.nets.base import Width
from nelbo.priors.base import Prior
from nelbo.priors.flow import FlowPrior


class MAF(Prior):
    """z = f(u), u ~ N(0, I), each latent scaled and shifted by those before it. Papamakarios et al. 2017, eq. 2-5.

    Every layer is an autoregressive density of normals p(z_j | z_1 ... z_(j-1)), by one masked network (MADE); the
    order of the latents is reversed between layers. Densities take one pass a layer; samples one for each latent and
    layer. A posterior wants the opposite: see `iaf`. Begins close to N(0, I).

    layers  autoregressive maps
    hidden  units of the hidden layers of each masked network
    """

    layers: int = Field(default=4, ge=1)
    hidden: tuple[Width, ...] = Field(default=(64, 64), min_length=1)

    def build(self, latent_dim: int) -> FlowPrior:
        flow = flipping(lambda: MaskedAutoregressive(latent_dim, self.hidden), self.layers)
        return FlowPrior(flow, latent_dim)
