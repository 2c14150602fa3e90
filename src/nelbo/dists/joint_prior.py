"""Continuous latents beside categorical ones: the joint prior."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.dists.base import Prior, Space
from nelbo.dists.categorical_prior import CategoricalPriorModule
from nelbo.dists.normal import StandardNormalModule


class JointPrior(Prior):
    """p(z): a standard normal beside uniform categorical variables. Dupont 2018 (JointVAE).

    variables    how many categorical variables, as the posterior's
    categories   of each, as the posterior's
    """

    name: ClassVar[str] = "joint"
    space: ClassVar[Space] = "mixed"
    variables: int = Field(default=1, ge=1)
    categories: int = Field(default=2, ge=2)

    def check(self, latent_dim: int) -> None:
        discrete_blocks(latent_dim, self.variables, self.categories)

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        return discrete_blocks(latent_dim, self.variables, self.categories)

    def build(self, latent_dim: int) -> nn.Module:
        return JointPriorModule(latent_dim, self.variables, self.categories)


class JointPriorModule(nn.Module):
    """The value, as a module of two."""

    def __init__(self, latent_dim: int, variables: int, categories: int) -> None:
        super().__init__()
        self.reals = latent_dim - variables * categories
        self.continuous = StandardNormalModule(self.reals)
        self.discrete = CategoricalPriorModule((variables, categories))

    def log_prob(self, z: Tensor) -> Tensor:
        discrete: Tensor = self.discrete.log_prob(z[..., self.reals :])
        return self.continuous.log_prob(z[..., : self.reals]) + discrete

    def sample(self, n: int) -> Tensor:
        return torch.cat([self.continuous.sample(n), self.discrete.sample(n)], -1)


def discrete_blocks(latent_dim: int, variables: int, categories: int) -> tuple[int, ...]:
    """The sizes of the one-hot blocks; raises ValueError where no continuous dimension is left."""
    blocks = (categories,) * variables
    if latent_dim <= sum(blocks):
        raise ValueError(
            f"{latent_dim} latent dimensions leave no continuous one beside {variables} x {categories} for categories; "
            f"use --latent-dim {sum(blocks) + 1} or more, or fewer categories"
        )
    return blocks
