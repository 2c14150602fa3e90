"""The categorical prior over one-hot vectors."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.dists.base import Prior, Space
from nelbo.dists.onehot import OneHot, sample_one_hot, variables_in


class CategoricalPrior(Prior):
    """p(z) of independent one-hot variables: 1 / categories each, or learned (Jang et al. 2017, sec. 4.2).

    categories   of each variable, as the posterior's
    logits       uniform, or learned with the model
    """

    name: ClassVar[str] = "categorical"
    space: ClassVar[Space] = "one-hot"
    categories: int = Field(default=2, ge=2)
    logits: Literal["uniform", "learned"] = "uniform"

    def check(self, latent_dim: int) -> None:
        variables_in(latent_dim, self.categories)

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        return (self.categories,) * variables_in(latent_dim, self.categories)

    def build(self, latent_dim: int) -> nn.Module:
        shape = (variables_in(latent_dim, self.categories), self.categories)
        return CategoricalPriorModule(shape, learned=self.logits == "learned")


class CategoricalPriorModule(nn.Module):
    """The value, as a module; logits_VC begin uniform."""

    logits_VC: Tensor

    def __init__(self, shape: tuple[int, int], learned: bool = False) -> None:
        super().__init__()
        if learned:
            self.logits_VC = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("logits_VC", torch.zeros(shape), persistent=False)

    @property
    def log_p(self) -> Tensor:
        return self.logits_VC.log_softmax(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        return OneHot(self.logits_VC, 1.0).log_prob_each(z).sum(-1)

    def sample(self, n: int) -> Tensor:
        with torch.no_grad():
            return sample_one_hot(self.logits_VC, n)
