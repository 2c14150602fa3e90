"""One-hot vectors, alone or beside reals: their distribution, relaxed samples with a gradient, and priors over them."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.core.distributions import PriorModule
from nelbo.dists.base import LatentSpec, Space
from nelbo.dists.normal import StandardNormalModule

# `rand` may be 0, whose Gumbel noise is infinite.
SMALLEST_UNIFORM = {torch.float32: 1e-10, torch.float64: 1e-30}


class OneHot:
    """V independent variables of C categories each: log-probabilities log_p of shape (..., V, C).

    A latent is the V one-hot vectors side by side: (..., V * C).
    """

    def __init__(self, logits: Tensor, temperature: float) -> None:
        self.log_p = logits.log_softmax(-1)
        self.temperature = temperature

    @property
    def mode(self) -> Tensor:
        """The most probable vector, exactly one-hot: (..., V * C)."""
        return one_hot(self.log_p).flatten(-2)

    def log_prob_each(self, z: Tensor) -> Tensor:
        """Return log p of every variable: (..., V)."""
        return (z.reshape(*z.shape[:-1], *self.log_p.shape[-2:]) * self.log_p).sum(-1)

    def relaxed(self, k: int) -> Tensor:
        """Return k relaxed samples softmax((log p + Gumbel noise) / temperature): (k, ..., V, C)."""
        uniform = torch.rand(k, *self.log_p.shape, dtype=self.log_p.dtype, device=self.log_p.device)
        gumbel = -(-uniform.clamp_min(SMALLEST_UNIFORM[uniform.dtype]).log()).log()
        return ((self.log_p + gumbel) / self.temperature).softmax(-1)  # Jang et al. 2017, eq. 2

    def rsample(self, k: int) -> Tensor:
        """Return k exact one-hot samples (k, ..., V * C) that have the gradient of the relaxed ones."""
        soft = self.relaxed(k)
        return (one_hot(soft.detach()) + (soft - soft.detach())).flatten(-2)  # straight through: section 2.2

    def kl_to(self, log_p: Tensor) -> Tensor:
        """Return the KL to log-probabilities of shape (V, C), each variable by itself: (..., V), nats."""
        return (self.log_p.exp() * (self.log_p - log_p)).sum(-1)


def by_variable(logits: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Return (..., V * C) as (..., V, C), for V blocks of one size."""
    return logits.reshape(*logits.shape[:-1], len(blocks), blocks[0])


def one_hot(scores: Tensor) -> Tensor:
    """Return one where the last axis is largest, zero elsewhere."""
    return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)


def sample_one_hot(log_p: Tensor, n: int) -> Tensor:
    """Return n exact samples of log-probabilities (V, C): (n, V * C)."""
    return OneHot(log_p, 1.0).rsample(n)


class OneHotSpec(LatentSpec):
    """A distribution over latents that are one-hot vectors of as many categories each."""

    space: ClassVar[Space] = "one-hot"
    categories: int = Field(default=2, ge=2)

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        categories = self.categories
        variables, remainder = divmod(latent_dim, categories)
        if variables < 1 or remainder:
            raise ValueError(
                f"{latent_dim} latent dimensions are no whole number of variables of {categories} categories; use "
                f"--latent-dim {categories}, {2 * categories}, {3 * categories}, ... or other categories"
            )
        return (categories,) * variables


class MixedSpec(LatentSpec):
    """A distribution over latents that are reals, then one-hot vectors."""

    space: ClassVar[Space] = "mixed"
    variables: int = Field(default=1, ge=1)
    categories: int = Field(default=2, ge=2)

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        blocks = (self.categories,) * self.variables
        if latent_dim <= sum(blocks):
            raise ValueError(
                f"{latent_dim} latent dimensions leave no continuous one beside {self.variables} x {self.categories} "
                f"for categories; use --latent-dim {sum(blocks) + 1} or more, or fewer categories"
            )
        return blocks


class CategoricalPriorModule(PriorModule):
    """The prior p(z) of one-hot vectors as a module; logits_VC begin uniform."""

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


class JointPriorModule(PriorModule):
    """A standard normal beside uniform categories, as a module."""

    def __init__(self, latent_dim: int, variables: int, categories: int) -> None:
        super().__init__()
        self.reals = latent_dim - variables * categories
        self.continuous = StandardNormalModule(self.reals)
        self.discrete = CategoricalPriorModule((variables, categories))

    def log_prob(self, z: Tensor) -> Tensor:
        return self.continuous.log_prob(z[..., : self.reals]) + self.discrete.log_prob(z[..., self.reals :])

    def sample(self, n: int) -> Tensor:
        return torch.cat([self.continuous.sample(n), self.discrete.sample(n)], -1)
