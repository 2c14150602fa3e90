"""Autoregressive flows: each latent is moved by what a masked network says of those before it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nelbo.dists.flows.base import Flow
from nelbo.dists.flows.coupling import limited
from nelbo.dists.flows.networks import MADE

KEPT = 2.0  # logit of the share of a latent that is kept at first, 88 %: as the paper advises
SMALLEST = 1e-3  # share: what is inverted is divided by it


class Autoregressive(Flow):
    """Two numbers of each latent, which depend on the latents before it and the context."""

    def __init__(self, latents: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__()
        self.made = MADE(latents, 2, hidden, context)


class InverseAutoregressive(Autoregressive):
    """y = s z + (1 - s) m, where m_j and s_j depend on z_1 ... z_{j-1} and the context. Kingma et al. 2016, alg. 1.

    log |det| = sum_j log s_j, with s = 0.001 + 0.999 sigmoid(.). All latents at once forwards; backwards one after
    another, with a pass of the network for each.
    """

    def _shares(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return s_j and (1 - s_j) m_j."""
        m, raw = self.made(z, context).unbind(-1)
        share = SMALLEST + (1.0 - SMALLEST) * (raw + KEPT).sigmoid()
        return share, (1.0 - share) * m  # the numerically stable form of algorithm 1: it forgets or keeps

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        share, added = self._shares(z, context)
        return share * z + added, share.log().sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        solved: list[Tensor] = []
        # The first latent depends on the context alone: one row of zeros does for all y.
        z = y.new_zeros(*(() if context is None else context.shape[:-1]), y.shape[-1])
        log_det = y.new_zeros(())
        for place in range(y.shape[-1]):
            share, added = self._shares(z, context)
            solved.append((y[..., place] - added[..., place]) / share[..., place])
            log_det = log_det - share[..., place].log()
            later = [torch.zeros_like(solved[0])] * (y.shape[-1] - len(solved))
            z = torch.stack([*solved, *later], dim=-1)  # not in place: the network keeps its input
        return z, log_det.expand_as(z[..., 0])


class MaskedAutoregressive(Autoregressive):
    """y_j = z_j exp(a_j) + m_j, where m_j and a_j depend on y_1 ... y_(j-1). Papamakarios et al. 2017, eq. 3-5.

    Backwards all latents at once, log |det dz/dy| = - sum_j a_j: densities are fast. Forwards one after another, with
    a pass of the network for each: samples are slow. a = 5 tanh(. / 5): a layer stretches by e^5 at most.
    """

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
