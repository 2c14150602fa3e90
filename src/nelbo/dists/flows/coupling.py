"""Couplings: half of the latents stays, and says how the other half is moved."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nelbo.dists.flows.base import Flow
from nelbo.dists.flows.networks import Perceptron

STEEPEST = 5.0  # logarithm of the largest scale of one layer; the smallest is its inverse


class Coupling(Flow):
    """The first half of the latents stays; `numbers` outputs of a network of it move each of the second half."""

    def __init__(self, latents: int, numbers: int, hidden: Sequence[int], context: int) -> None:
        super().__init__()
        self.staying = latents // 2
        self.network = Perceptron(max(1, self.staying), (latents - self.staying) * numbers, hidden, context)

    def bend(self, bent: Tensor, raw: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        """Return the second half moved by raw numbers (..., bent, numbers), and the logarithm of the slope of each."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def forward(
        self, z: Tensor, context: Tensor | None = None, backwards: bool = False
    ) -> tuple[Tensor, Tensor]:
        inputs, bent = z[..., : self.staying], z[..., self.staying :]
        if not self.staying:  # one latent alone has no other half: what moves it depends on the context only
            inputs = z.new_ones(*(() if context is None else context.shape[:-1]), 1)
        raw = self.network(inputs, context)
        bent, log_slope = self.bend(bent, raw.view(*raw.shape[:-1], bent.shape[-1], -1), backwards)
        stays = z[..., : self.staying].expand(*bent.shape[:-1], -1)
        # The Jacobian is triangular: its determinant is the product of the slopes (Dinh et al. 2017, eq. 6).
        return torch.cat([stays, bent], dim=-1), log_slope.expand_as(bent).sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(y, context, backwards=True)


class AffineCoupling(Coupling):
    """y = z exp(s) + t for the second half, s and t of the first. Dinh et al. 2017, eq. 4 and 5 (inverse: eq. 8).

    s = 5 tanh(. / 5): a layer stretches by e^5 at most.
    """

    def __init__(self, latents: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__(latents, 2, hidden, context)

    def bend(self, bent: Tensor, raw: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        log_scale, shift = limited(raw[..., 0]), raw[..., 1]
        if backwards:
            return (bent - shift) * (-log_scale).exp(), -log_scale  # eq. 8
        return bent * log_scale.exp() + shift, log_scale  # eq. 5


def limited(log_scale: Tensor) -> Tensor:
    """Bend any number into (-5, 5); small ones stay what they are."""
    return STEEPEST * (log_scale / STEEPEST).tanh()
