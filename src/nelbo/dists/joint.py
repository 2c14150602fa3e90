"""The prior module of continuous latents beside categorical ones, and the sizes of its blocks."""

import torch
from torch import Tensor

from nelbo.core.distributions import PriorModule
from nelbo.dists.normal import StandardNormalModule
from nelbo.dists.onehot import CategoricalPriorModule


class JointPriorModule(PriorModule):
    """The prior as a module of two: a standard normal beside uniform categories."""

    def __init__(self, latent_dim: int, variables: int, categories: int) -> None:
        super().__init__()
        self.reals = latent_dim - variables * categories
        self.continuous = StandardNormalModule(self.reals)
        self.discrete = CategoricalPriorModule((variables, categories))

    def log_prob(self, z: Tensor) -> Tensor:
        return self.continuous.log_prob(z[..., : self.reals]) + self.discrete.log_prob(z[..., self.reals :])

    def sample(self, n: int) -> Tensor:
        return torch.cat([self.continuous.sample(n), self.discrete.sample(n)], -1)


def discrete_blocks(latent_dim: int, variables: int, categories: int) -> tuple[int, ...]:
    """Return the sizes of the one-hot blocks; raise ValueError where no continuous dimension is left."""
    blocks = (categories,) * variables
    if latent_dim <= sum(blocks):
        raise ValueError(
            f"{latent_dim} latent dimensions leave no continuous one beside {variables} x {categories} for categories; "
            f"use --latent-dim {sum(blocks) + 1} or more, or fewer categories"
        )
    return blocks
