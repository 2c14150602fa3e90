"""Posteriors through radial flows."""

from nelbo.dists.flows import Chain, RadialFlow
from nelbo.posteriors.flow import FlowPosterior


class Radial(FlowPosterior):
    """Through radial flows: f(z) = z + beta (z - c) / (alpha + |z - c|). Rezende & Mohamed 2015, eq. 14.

    log q(y) = log q_0(z) - sum over layers of (Z - 1) log(1 + beta h) + log(1 + alpha beta h^2), h = 1 / (alpha + r).
    alpha, beta and c of each layer are linear in the encoder's features (amortised), alpha and beta bent into range.
    """

    def chain(self, latent_dim: int, context: int) -> Chain:
        return Chain(RadialFlow(latent_dim, context) for _ in range(self.layers))
