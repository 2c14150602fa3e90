"""The networks that say how a latent is transformed: from the latents before it, or from half of them."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.dists.base import full
from nelbo.dists.flows.base import SMALL


class Linear(nn.Linear):
    """Linear, with weights that are always zero where a mask is."""

    mask: Tensor | None

    def __init__(self, inputs: int, outputs: int, mask: Tensor | None = None) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight if self.mask is None else self.weight * self.mask, self.bias)


class Perceptron(nn.Module):
    """(z, context) -> outputs through hidden layers with ReLU; the context enters the first of them.

    `degrees` of the inputs, of each hidden layer and of the outputs: a unit sees those of the layer before whose
    degree is not above its own, and an output those below it. Without, everything is seen. Outputs begin close to 0.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int], context: int, degrees: Sequence[Tensor] = ()
    ) -> None:
        super().__init__()
        sizes = list(itertools.pairwise((inputs, *hidden, outputs)))
        masks: list[Tensor | None] = [None] * len(sizes)
        for place, (before, after) in enumerate(itertools.pairwise(degrees)):
            # A hidden unit sees degrees up to its own, an output those below: it may not see its own latent.
            sees = after[:, None] - int(place == len(hidden)) >= before
            masks[place] = sees.to(torch.get_default_dtype())
        layers = [Linear(*size, mask) for size, mask in zip(sizes, masks, strict=True)]
        self.first, last = layers[0], layers[-1]
        self.rest = nn.Sequential(*(part for layer in layers[1:] for part in (nn.ReLU(), layer)))
        self.context = nn.Linear(context, sizes[0][1], bias=False) if context else None
        with torch.no_grad():
            last.weight.mul_(SMALL)
            last.bias.zero_()

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return outputs (..., outputs) for inputs (..., inputs) and context_BF."""
        h = self.first(z.to(self.first.weight.dtype))
        if self.context is not None:
            assert context is not None, "this network was built with a context"
            h = h + self.context(context.to(self.context.weight.dtype))
        return full(self.rest(h))


class MADE(Perceptron):
    """Parameters of each latent from the latents before it. Germain et al. 2015.

    (..., Z) -> (..., Z, P): entry j depends on z_1 ... z_{j-1} and the context only, so that those of the first
    latent depend on the context alone. The degrees of hidden units go round, from 0 where there is a context to see.
    With a `width` each latent is as many inputs side by side (a one-hot vector).
    """

    def __init__(
        self, latents: int, parameters: int, hidden: Sequence[int], context: int = 0, width: int = 1
    ) -> None:
        lowest = min(1, latents - 1) if not context else 0  # a unit of degree 0 sees the context alone
        degrees = [lowest + torch.arange(units) % (latents - lowest or 1) for units in hidden]
        first, last = (torch.arange(1, latents + 1).repeat_interleave(size) for size in (width, parameters))
        super().__init__(latents * width, latents * parameters, hidden, context, (first, *degrees, last))
        self.parameters_each = parameters

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        outputs = super().forward(z, context)
        return outputs.view(*outputs.shape[:-1], -1, self.parameters_each)
