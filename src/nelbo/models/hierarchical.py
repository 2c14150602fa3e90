"""The hierarchical variational autoencoder: a latent vector above the latent vector."""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nelbo.dists import Bernoulli, DiagonalGaussian, Likelihood, Prior, StandardNormal
from nelbo.dists.base import offer
from nelbo.dists.normal import DiagonalNormal
from nelbo.models.base import Autoencoder, Model, Shape, living
from nelbo.nets import MLP, Net


class HierarchicalVAE(Model):
    """Two levels of latents, z2 above z1: p(z2) p(z1|z2) p(x|z1,z2). Tomczak & Welling 2018 (HVAE).

        q(z1, z2 | x) = q(z2 | x) q(z1 | x, z2)
        ELBO = E_q[ log p(x|z1,z2) ] - KL( q(z2|x) || p(z2) ) - E_q(z2|x)[ KL( q(z1|x,z2) || p(z1|z2) ) ]

    Two stochastic layers: Burda et al. 2016, section 5.1; with the prior's path into the posterior Kingma et al. 2016,
    appendix C (bidirectional inference). All but p(z2) are diagonal Gaussians.

    latent_dim   dimensions of both levels together: z = (z2, z1), the upper level first
    top_dim      those of z2; half of them (rounded down) where it is none
    between      the network in front of q(z1 | x, z2), which sees the encoder's features beside z2, and of p(z1 | z2)
    prior        p(z2)
    """

    latent_dim: int = Field(default=16, ge=2)
    top_dim: int | None = Field(default=None, ge=1)
    encoder: Net = MLP()
    between: MLP = MLP(hidden=(256,))
    decoder: Net = MLP(hidden=(256, 512))
    prior: Prior = StandardNormal()
    likelihood: Likelihood = Bernoulli()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.top >= self.latent_dim:
            raise ValueError(
                f"top-dim is {self.top} of {self.latent_dim} latent dimensions, and none is left for the lower level; "
                f"use a --model.top-dim below {self.latent_dim}, or a larger --model.latent-dim"
            )
        if self.prior.space != "real":
            raise ValueError(
                f"the upper level of a {self.name} is any real numbers, and the prior {self.prior.name} is not over "
                f"such; use one of these: {living('prior', 'real')}"
            )
        self.prior.check(self.top)
        return self

    @property
    def top(self) -> int:
        """Dimensions of z2."""
        return self.top_dim or self.latent_dim // 2

    def build(self, shape: Shape) -> HierarchicalVAEModule:
        return HierarchicalVAEModule(self, shape)


class ConditionalNormal(DiagonalNormal):
    """A diagonal Gaussian that may stand for a prior, too: `kl_to` reads these two."""

    @property
    def mean_Z(self) -> Tensor:
        return self.mean

    @property
    def log_var_Z(self) -> Tensor:
        return self.log_var


class Conditional(nn.Module):
    """Inputs (..., I), joined, -> a diagonal Gaussian over (..., Z)."""

    def __init__(self, net: MLP, inputs: int, latents: int) -> None:
        super().__init__()
        self.latents = latents
        self.net = net.encoder((inputs, 1, 1))
        self.head = DiagonalGaussian().build(self.net.features, latents)

    def forward(self, *inputs: Tensor) -> ConditionalNormal:
        joined = torch.cat(inputs, dim=-1)
        found: DiagonalNormal = self.head(self.net(joined.reshape(-1, joined.shape[-1])))
        mean, std, log_var = (
            each.view(*joined.shape[:-1], -1) for each in (found.mean, found.std, found.log_var)
        )
        return ConditionalNormal(mean, std, log_var)


class TwoLevelPrior(nn.Module):
    """p(z) = p(z2) p(z1 | z2) over z = (z2, z1)."""

    def __init__(self, spec: HierarchicalVAE) -> None:
        super().__init__()
        bottom = spec.latent_dim - spec.top
        self.top_dim = spec.top
        self.top = spec.prior.build(spec.top)
        self.given = Conditional(spec.between, spec.top, bottom)

    def log_prob(self, z: Tensor) -> Tensor:
        z2, z1 = z[..., : self.top_dim], z[..., self.top_dim :]
        log_prob: Any = self.top.log_prob
        return torch.as_tensor(log_prob(z2) + self.given(z2).log_prob(z1))

    def sample(self, n: int) -> Tensor:
        draw: Any = self.top.sample
        z2_NZ: Tensor = draw(n)
        return torch.cat([z2_NZ, self.given(z2_NZ).rsample(1)[0]], dim=-1)

    def see(self, images: Any) -> None:
        offer(self.top, "see", images)

    def refresh(self) -> None:
        offer(self.top, "refresh")


class TwoLevels:
    """The value q(z2 | x) q(z1 | x, z2) over z = (z2, z1).

    It keeps its last samples, so that the KL is that of the very z2 that were decoded.
    """

    not_a_bound: str | None = None
    mean_is = "mean of z2, and mean of z1 given it"

    def __init__(self, features_BF: Tensor, top: DiagonalNormal, lower: Conditional) -> None:
        self.features_BF, self.top, self.lower = features_BF, top, lower
        self.top_dim = top.mean.shape[-1]
        self.kl_is = "of z1 given one sample of z2 an image"
        self._drawn: tuple[Tensor, Tensor, DiagonalNormal] | None = None

    def given(self, z2: Tensor) -> DiagonalNormal:
        """q(z1 | x, z2), z2 of shape (..., B, Z2)."""
        found: DiagonalNormal = self.lower(self.features_BF.expand(*z2.shape[:-1], -1), z2)
        return found

    @property
    def mean(self) -> Tensor:
        return torch.cat([self.top.mean, self.given(self.top.mean).mean], dim=-1)

    def rsample(self, k: int = 1) -> Tensor:
        z2_KBZ = self.top.rsample(k)
        q1 = self.given(z2_KBZ)
        z_KBZ = torch.cat([z2_KBZ, q1.rsample(1)[0]], dim=-1)
        self._drawn = z_KBZ, z2_KBZ, q1
        return z_KBZ

    def log_prob(self, z: Tensor) -> Tensor:
        z2, z1 = z[..., : self.top_dim], z[..., self.top_dim :]
        q1 = self._drawn[2] if self._drawn and self._drawn[0] is z else self.given(z2)
        return self.top.log_prob(z2) + q1.log_prob(z1)

    def kl_to(self, prior: Any) -> Tensor | None:
        """KL of each dimension, (B, Z), nats: that of z1 is a mean over the samples of z2 drawn last, else over one.

        Both conditionals are Gaussians, so that only z2 is sampled: unbiased, with less noise than samples of z1
        would have. Where KL(q(z2|x) || p(z2)) has no closed form it is one number by these samples: (B, 1 + Z1).
        """
        if not isinstance(prior, TwoLevelPrior):
            return None
        if self._drawn is None:
            self.rsample(1)
        assert self._drawn is not None
        _, z2_KBZ, q1 = self._drawn
        top_BG = self.top.kl_to(prior.top)
        if top_BG is None:
            self.kl_is = "by one sample of z2 an image"
            log_prob: Any = prior.top.log_prob
            top_BG = (self.top.log_prob(z2_KBZ) - log_prob(z2_KBZ)).mean(0)[:, None]
        lower_KBZ = q1.kl_to(prior.given(z2_KBZ))
        assert lower_KBZ is not None
        return torch.cat([top_BG, lower_KBZ.mean(0)], dim=-1)

    @property
    def parts_of_kl(self) -> dict[str, slice]:
        """Which groups of `kl_to` are those of each level."""
        bottom = self.lower.latents
        return {"kl_z2": slice(None, -bottom), "kl_z1": slice(-bottom, None)}


class HierarchicalVAEModule(Autoencoder):
    """A built two-level VAE for images of `shape` (C, H, W)."""

    prior: TwoLevelPrior

    def build_latents(self, spec: HierarchicalVAE) -> None:
        features = self.encoder.features
        self.top_posterior = DiagonalGaussian().build(features, spec.top)
        self.lower_posterior = Conditional(spec.between, features + spec.top, spec.latent_dim - spec.top)
        self.prior = TwoLevelPrior(spec)
        offer(self.prior.top, "attach", self.encode_top, self.shape)

    def encode_top(self, x_BCHW: Tensor) -> DiagonalNormal:
        """q(z2 | x), which a prior of the upper level may be made of."""
        found: DiagonalNormal = self.top_posterior(self.encoder(x_BCHW))
        return found

    def encode(self, x_BCHW: Tensor) -> TwoLevels:
        features_BF = self.encoder(x_BCHW)
        return TwoLevels(features_BF, self.top_posterior(features_BF), self.lower_posterior)
