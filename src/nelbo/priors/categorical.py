"""The categorical prior over one-hot vectors."""

from typing import ClassVar, Literal

from nelbo.dists.onehot import CategoricalPriorModule, OneHotSpec
from nelbo.priors.base import Prior


class CategoricalPrior(OneHotSpec, Prior):
    """p(z) of independent one-hot variables: 1 / categories each, or learned (Jang et al. 2017, sec. 4.2).

    categories   of each variable, as the posterior's
    logits       uniform, or learned with the model
    """

    name: ClassVar[str] = "categorical"
    logits: Literal["uniform", "learned"] = "uniform"

    def build(self, latent_dim: int) -> CategoricalPriorModule:
        shape = (len(self.blocks(latent_dim)), self.categories)
        return CategoricalPriorModule(shape, learned=self.logits == "learned")
