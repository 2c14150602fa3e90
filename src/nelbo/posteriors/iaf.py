"""Posteriors through inverse autoregressive flows."""

from pydantic import Field

from nelbo.dists.flows import Chain, InverseAutoregressive, flipping
from nelbo.posteriors.flow import FlowPosterior


class IAF(FlowPosterior):
    """Through inverse autoregressive flows: y = s z + (1 - s) m. Kingma et al. 2016, algorithm 1.

    m_j and s_j of each layer come from z_1 ... z_{j-1} and the encoder's features, by a masked network (MADE) with two
    hidden layers; the order of the latents is reversed from layer to layer. log q(y) = log q_0(z) - sum log s_j.

    hidden   units in each of the two hidden layers
    """

    layers: int = Field(default=2, ge=0)
    hidden: int = Field(default=32, ge=1)

    def chain(self, latent_dim: int, context: int) -> Chain:
        return flipping(lambda: InverseAutoregressive(latent_dim, (self.hidden,) * 2, context), self.layers)
