"""The categorical posterior with Gumbel-softmax gradients."""

from functools import partial
from typing import ClassVar, Self

from pydantic import Field
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, register_kl
from nelbo.dists.onehot import CategoricalPriorModule, OneHot, OneHotSpec, by_variable
from nelbo.posteriors.base import LinearHead, Posterior


class CategoricalValue(PosteriorValue):
    """The value: independent one-hot variables; z has shape (..., V * C)."""

    mean_is = "mode of the posterior, the most probable category of each variable"

    def __init__(self, logits_BVC: Tensor, temperature: float) -> None:
        self.each = OneHot(logits_BVC, temperature)

    @classmethod
    def of(cls, logits_BZ: Tensor, blocks: tuple[int, ...], temperature: float) -> Self:
        return cls(by_variable(logits_BZ, blocks), temperature)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.each.mode

    @property
    def probabilities(self) -> Tensor:
        """q of every category, E[z]: (B, V * C)."""
        return self.each.log_p.exp().flatten(-2)

    def rsample(self, k: int = 1) -> Tensor:
        """Return k exact one-hot samples z_KBZ, with the gradient of `relaxed` (Jang et al. 2017, 2.2)."""
        return self.each.rsample(k)

    def relaxed(self, k: int = 1) -> Tensor:
        """Return the relaxed samples whose gradient `rsample` has (Jang et al. 2017, eq. 2; Maddison et al. 2017)."""
        return self.each.relaxed(k).flatten(-2)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.each.log_prob_each(z).sum(-1)


@register_kl(CategoricalValue, CategoricalPriorModule)
def kl_to_categorical(q: CategoricalValue, prior: CategoricalPriorModule) -> Tensor:
    """Return sum_c q_c (log q_c - log p_c) of each variable, (B, V)."""
    return q.each.kl_to(prior.log_p)


class GumbelSoftmax(OneHotSpec, Posterior):
    """Independent categorical variables as one-hot vectors, with Gumbel-softmax gradients. Jang et al. 2017, eq. 2.

    latent_dim = variables x categories. Samples are exact one-hot vectors, in training too, so that log q, the KL and
    the bound are exact; only the gradient through a sample is that of a relaxed one, and biased.

    categories    of each variable
    temperature   of the relaxation: lower is less biased and has more variance (2/3: Maddison et al. 2017)
    """

    reparametrised: ClassVar[bool] = False
    temperature: float = Field(default=2.0 / 3.0, gt=0.0)

    def build(self, features: int, latent_dim: int) -> nn.Module:
        value = partial(CategoricalValue.of, blocks=self.blocks(latent_dim), temperature=self.temperature)
        return LinearHead(features, latent_dim, value)
