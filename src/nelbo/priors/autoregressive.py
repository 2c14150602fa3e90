"""The autoregressive prior over one-hot vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from nelbo.core.distributions import PriorModule
from nelbo.dists.flows import MADE
from nelbo.dists.onehot import OneHotSpec
from nelbo.nets.base import Width
from nelbo.priors.base import Prior


class AutoregressivePrior(OneHotSpec, Prior):
    """p(z) = prod_v p(z_v | z_1 ... z_(v-1)) of one-hot variables z_v. Germain et al. 2015: MADE in blocks.

    What van den Oord et al. 2017, section 3.3, fit to the codes of a VQ-VAE (there by a PixelCNN, after training):
    here it is trained beside the rest, by the log p(z) in the bound. One pass of a masked network gives the
    probabilities of all variables, V passes draw a sample.

    categories   of each variable, as the posterior's (of a VQ-VAE: its codes, and need not be given)
    hidden       widths of the masked layers
    """

    name: ClassVar[str] = "autoregressive"
    hidden: tuple[Width, ...] = (128,)

    def build(self, latent_dim: int) -> AutoregressivePriorModule:
        return AutoregressivePriorModule(len(self.blocks(latent_dim)), self.categories, self.hidden)


class AutoregressivePriorModule(PriorModule):
    """The prior as a module, which begins close to uniform."""

    def __init__(self, variables: int, categories: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.variables, self.categories = variables, categories
        self.made = MADE(variables, categories, hidden, width=categories)

    def log_prob_each(self, z: Tensor) -> Tensor:
        """Return log p of every variable given those before it: (..., V), nats."""
        log_p: Tensor = self.made(z).log_softmax(-1)
        return (z.reshape(*z.shape[:-1], self.variables, self.categories) * log_p).sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_prob_each(z).sum(-1)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        weight = self.made.first.weight
        z_NVC = torch.zeros(n, self.variables, self.categories, dtype=weight.dtype, device=weight.device)
        for variable in range(self.variables):
            logits_NC: Tensor = self.made(z_NVC.flatten(1))[:, variable]
            chosen_N1 = torch.multinomial(logits_NC.softmax(-1), 1)
            z_NVC[:, variable].scatter_(-1, chosen_N1, 1.0)
        return z_NVC.flatten(1)
