"""Continuous latents beside categorical ones: the joint posterior."""

from functools import partial
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, register_kl
from nelbo.dists.normal import DiagonalNormal
from nelbo.dists.onehot import JointPriorModule, MixedSpec, OneHot, by_variable
from nelbo.posteriors.base import LinearHead, Posterior


class JointValue(PosteriorValue):
    """The value: a diagonal normal beside one-hot variables, independent given x; z is both side by side."""

    mean_is = "mean of the continuous latents, mode of the categorical ones"

    def __init__(self, continuous: DiagonalNormal, discrete: OneHot) -> None:
        self.continuous = continuous
        self.discrete = discrete

    @classmethod
    def of(cls, outputs: Tensor, blocks: tuple[int, ...], temperature: float) -> Self:
        reals = (outputs.shape[-1] - sum(blocks)) // 2
        mean, log_var, logits = torch.split(outputs, [reals, reals, sum(blocks)], dim=-1)
        normal = DiagonalNormal(mean, (0.5 * log_var).exp(), log_var)
        return cls(normal, OneHot(by_variable(logits, blocks), temperature))

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return torch.cat([self.continuous.mean, self.discrete.mode], -1)

    def rsample(self, k: int = 1) -> Tensor:
        """Return z_KBZ: reparametrised reals beside exact one-hot vectors with relaxed gradients."""
        return torch.cat([self.continuous.rsample(k), self.discrete.rsample(k)], -1)

    def relaxed(self, k: int = 1) -> Tensor:
        return torch.cat([self.continuous.rsample(k), self.discrete.relaxed(k).flatten(-2)], -1)

    def log_prob(self, z: Tensor) -> Tensor:
        reals = self.continuous.mean.shape[-1]
        discrete = self.discrete.log_prob_each(z[..., reals:]).sum(-1)
        return self.continuous.log_prob(z[..., :reals]) + discrete


@register_kl(JointValue, JointPriorModule)
def kl_to_joint(q: JointValue, prior: JointPriorModule) -> Tensor:
    """Return the KL of each continuous dimension, then of each categorical variable, nats."""
    continuous_BZ = q.continuous.kl_to(prior.continuous)
    assert continuous_BZ is not None
    return torch.cat([continuous_BZ, q.discrete.kl_to(prior.discrete.log_p)], -1)


class Joint(MixedSpec, Posterior):
    """Continuous latents beside categorical ones, independent given x. Dupont 2018 (JointVAE).

    The last variables x categories of the latents are one-hot vectors (`gumbel-softmax`), those before them a
    diagonal Gaussian. So that a variable can take the class, and the continuous latents the style within it.

    variables     how many categorical variables
    categories    of each
    temperature   of the relaxation whose gradient the categorical samples have
    """

    reparametrised: ClassVar[bool] = False
    temperature: float = Field(default=2.0 / 3.0, gt=0.0)

    def build(self, features: int, latent_dim: int) -> nn.Module:
        blocks = self.blocks(latent_dim)
        value = partial(JointValue.of, blocks=blocks, temperature=self.temperature)
        return LinearHead(features, 2 * latent_dim - sum(blocks), value)
