"""The categorical prior over one-hot vectors."""

from typing import ClassVar, Literal

from pydantic import Field

from nelbo.dists.base import Space
from nelbo.dists.onehot import CategoricalPriorModule, variables_in
from nelbo.priors.base import Prior


class CategoricalPrior(Prior):
    """p(z) of independent one-hot variables: 1 / categories each, or learned (Jang et al. 2017, sec. 4.2).

    categories   of each variable, as the posterior's
    logits       uniform, or learned with the model
    """

    name: ClassVar[str] = "categorical"
    space: ClassVar[Space] = "one-hot"
    categories: int = Field(default=2, ge=2)
    logits: Literal["uniform", "learned"] = "uniform"

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        return (self.categories,) * variables_in(latent_dim, self.categories)

    def build(self, latent_dim: int) -> CategoricalPriorModule:
        shape = (len(self.blocks(latent_dim)), self.categories)
        return CategoricalPriorModule(shape, learned=self.logits == "learned")
