"""The mixture of Gaussians, and what every prior that is a mixture shares."""

from __future__ import annotations

import abc

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.core.distributions import PriorModule
from nelbo.dists.base import LOG_2PI, exact
from nelbo.priors.base import Prior

AT_ONCE = 2**23  # pairs of latent and component whose log densities are held at a time: 64 MB


class Mixture(Prior):
    """p(z) = sum_c w_c N(z; m_c, diag(v_c)), all of them weights. Dilokthanakul et al. 2016; Tomczak & Welling
    2018 ("MoG").

    The component is summed out, which needs no posterior over it: the bound is that of the mixture itself. There is
    no closed-form KL to it.

    components  C
    start       deviation of the means from 0 at first; variances begin at 1 and weights equal
    """

    components: int = Field(default=10, ge=1)
    start: float = Field(default=1.0, ge=0.0)

    def build(self, latent_dim: int) -> MixtureModule:
        return MixtureModule(self, latent_dim)


class GaussianComponents(PriorModule, abc.ABC):
    """A mixture of diagonal normals, from its `parts`."""

    @abc.abstractmethod
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean_CZ, log_var_CZ (or with one row for all components) and log_weight_C, which sums to one."""

    def log_prob(self, z: Tensor) -> Tensor:
        return log_mixture(z, *self.parts())

    def sample(self, n: int) -> Tensor:
        mean_CZ, log_var_CZ, log_weight_C = self.parts()
        component_N = torch.multinomial(log_weight_C.exp(), n, replacement=True)
        mean_NZ, std_NZ = mean_CZ[component_N], (0.5 * log_var_CZ.expand_as(mean_CZ)[component_N]).exp()
        return torch.addcmul(mean_NZ, std_NZ, torch.randn_like(mean_NZ))


class MixtureModule(GaussianComponents):
    """A mixture whose parts are weights."""

    def __init__(self, spec: Mixture, latent_dim: int) -> None:
        super().__init__()
        self.means_CZ = nn.Parameter(spec.start * torch.randn(spec.components, latent_dim))
        self.log_vars_CZ = nn.Parameter(torch.zeros(spec.components, latent_dim))
        self.logits_C = nn.Parameter(torch.zeros(spec.components))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.means_CZ, self.log_vars_CZ, self.logits_C.log_softmax(0)


def log_mixture(z: Tensor, mean_CZ: Tensor, log_var_CZ: Tensor, log_weight_C: Tensor) -> Tensor:
    """Return log sum_c w_c N(z; m_c, diag(v_c)), nats: (..., Z) -> (...). Weights may be a row for each z: (..., C).

    (z - m)^2 / v is multiplied out, so that all pairs are matrix products and memory does not grow with Z; in float64
    (never autocast), as its terms cancel. Without gradients a bounded number of pairs is held, whatever their number.
    """
    mean_CZ, log_var_CZ, log_weight = exact(mean_CZ), exact(log_var_CZ), exact(log_weight_C)
    precision_CZ = (-log_var_CZ).exp()
    pulled_CZ = mean_CZ * precision_CZ
    constant_C = -0.5 * ((mean_CZ * pulled_CZ).sum(-1) + (log_var_CZ + LOG_2PI).sum(-1))
    rows, offsets = exact(z).reshape(-1, z.shape[-1]), constant_C + log_weight
    offsets = offsets.expand(*z.shape[:-1], -1).reshape(len(rows), -1) if offsets.dim() > 1 else offsets
    size = max(1, AT_ONCE // len(mean_CZ))
    pieces = []
    for start in range(0, max(1, len(rows)), size):
        some = rows[start : start + size]
        offset = offsets[start : start + size] if offsets.dim() > 1 else offsets
        pairs = torch.addmm(offset, some, pulled_CZ.T)
        pieces.append((pairs - 0.5 * some.square() @ precision_CZ.T).logsumexp(-1))
    log_p = torch.cat(pieces) if len(pieces) > 1 else pieces[0]  # of one piece `cat` makes a copy
    return log_p.view(z.shape[:-1]).to(z)
