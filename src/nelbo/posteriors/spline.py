"""Posteriors through neural spline flows."""

from pydantic import Field

from nelbo.dists.flows import Chain, SplineCoupling, flipping
from nelbo.posteriors.flow import FlowPosterior


class Spline(FlowPosterior):
    """Through coupling layers of monotonic rational-quadratic splines. Durkan et al. 2019, eq. 4-8 and sec. 3.

    In each layer one half of the latents and the encoder's features say by which splines on [-5, 5] the other half is
    bent; the halves change places from layer to layer. log q(y) = log q_0(z) - sum of the logarithms of the slopes.

    bins     pieces of each spline
    hidden   units in each of the two hidden layers
    """

    layers: int = Field(default=2, ge=0)
    bins: int = Field(default=8, ge=2, le=200)
    hidden: int = Field(default=32, ge=1)

    def chain(self, latent_dim: int, context: int) -> Chain:
        return flipping(lambda: SplineCoupling(latent_dim, self.bins, self.hidden, context), self.layers)
