"""A prior that is a flow of the standard normal."""

from torch import Tensor

from nelbo.core.distributions import PriorModule
from nelbo.dists.flows.base import Flow
from nelbo.dists.normal import StandardNormalModule


class FlowPrior(PriorModule):
    """z = f(u), u ~ N(0, I): log p(z) = log N(f^-1(z); 0, I) + log |det df^-1/dz|."""

    def __init__(self, flow: Flow, latent_dim: int) -> None:
        super().__init__()
        self.flow = flow
        self.base = StandardNormalModule(latent_dim)

    def log_prob(self, z: Tensor) -> Tensor:
        u, log_det = self.flow.inverse(z)
        return self.base.log_prob(u) + log_det  # change of variables

    def sample(self, n: int) -> Tensor:
        z_NZ: Tensor = self.flow(self.base.sample(n))[0]
        return z_NZ
