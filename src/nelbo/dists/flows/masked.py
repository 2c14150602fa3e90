"""The masked autoregressive flow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nelbo.dists.flows.base import Flow
from nelbo.dists.flows.coupling import limited
from nelbo.dists.flows.networks import MADE


class MaskedAutoregressive(Flow):
    """y_j = z_j exp(a_j) + m_j, where m_j and a_j depend on y_1 ... y_(j-1). Papamakarios et al. 2017, eq. 3-5.

    Backwards all latents at once, log |det dz/dy| = - sum_j a_j: densities are fast. Forwards one after another, with
    a pass of the network for each: samples are slow. a = 5 tanh(. / 5): a layer stretches by e^5 at most.
    """

    def __init__(self, latents: int, hidden: Sequence[int] = (64, 64), context: int = 0) -> None:
        super().__init__()
        self.made = MADE(latents, 2, hidden, context)

    def _numbers(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return m and a of every latent."""
        m, raw = self.made(y, context).unbind(-1)
        return m, limited(raw)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = torch.zeros_like(z), z.new_zeros(z.shape[:-1])
        for place in range(z.shape[-1]):
            m, a = self._numbers(y, context)  # the masks let entry `place` see the latents before it alone
            moved = z * a.exp() + m
            y = torch.cat([y[..., :place], moved[..., place : place + 1], y[..., place + 1 :]], dim=-1)
            log_det = log_det + a[..., place]
        return y, log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        m, a = self._numbers(y, context)
        return (y - m) * (-a).exp(), -a.sum(-1)  # eq. 4 and 5
