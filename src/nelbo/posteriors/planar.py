"""Posteriors through planar flows."""

from nelbo.dists.flows import Chain, PlanarFlow
from nelbo.posteriors.flow import FlowPosterior


class Planar(FlowPosterior):
    """Through planar flows: f(z) = z + u tanh(w.z + b). Rezende & Mohamed 2015, eq. 10-12 and appendix A.1.

    log q(y) = log q_0(z) - sum over layers of log |1 + w.u (1 - tanh^2)|. u, w and b of each layer are linear in the
    encoder's features, as in the paper (amortised); w.u > -0.99 where the paper has -1, so that slopes stay finite.
    """

    def chain(self, latent_dim: int, context: int) -> Chain:
        return Chain(PlanarFlow(latent_dim, context) for _ in range(self.layers))
