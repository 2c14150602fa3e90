"""The hierarchical variational autoencoder: a latent vector above the latent vector."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, PriorModule, Sample, TrainingImages
from nelbo.core.vocabulary import Shape
from nelbo.dists.normal import DiagonalNormal
from nelbo.likelihoods import Bernoulli, Likelihood
from nelbo.models.base import Autoencoder, Model, living, must_be
from nelbo.nets import MLP, Net
from nelbo.posteriors import DiagonalGaussian
from nelbo.priors import Prior, StandardNormal


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
        """Return the dimensions of z2."""
        return self.top_dim or self.latent_dim // 2

    def build(self, shape: Shape) -> HierarchicalVAEModule:
        return HierarchicalVAEModule(self, shape)


class Conditional(nn.Module):
    """Inputs (..., I), joined, -> a diagonal Gaussian over (..., Z)."""

    def __init__(self, net: MLP, inputs: int, latents: int) -> None:
        super().__init__()
        self.latents = latents
        self.net = net.encoder((inputs, 1, 1))
        self.head = DiagonalGaussian().build(self.net.features, latents)

    def forward(self, *inputs: Tensor) -> DiagonalNormal:
        joined = torch.cat(inputs, dim=-1)
        normal: DiagonalNormal = self.head(self.net(joined.reshape(-1, joined.shape[-1])))
        shape = (*joined.shape[:-1], -1)
        return DiagonalNormal(normal.mean.view(shape), normal.std.view(shape), normal.log_var.view(shape))


class TwoLevelPrior(PriorModule):
    """p(z) = p(z2) p(z1 | z2) over z = (z2, z1)."""

    def __init__(self, spec: HierarchicalVAE) -> None:
        super().__init__()
        bottom = spec.latent_dim - spec.top
        self.top_dim = spec.top
        self.top = spec.prior.build(spec.top)
        must_be(self.top, PriorModule, f"prior {spec.prior.name}")
        self.given = Conditional(spec.between, spec.top, bottom)

    def log_prob(self, z: Tensor) -> Tensor:
        z2, z1 = z[..., : self.top_dim], z[..., self.top_dim :]
        log_prob: Tensor = self.top.log_prob(z2) + self.given(z2).log_prob(z1)
        return log_prob

    def sample(self, n: int) -> Tensor:
        z2_NZ = self.top.sample(n)
        return torch.cat([z2_NZ, self.given(z2_NZ).rsample(1)[0]], dim=-1)

    def observe_training_images(self, images: TrainingImages) -> None:
        self.top.observe_training_images(images)

    def refresh(self) -> None:
        self.top.refresh()


class TwoLevels(PosteriorValue):
    """The value q(z2 | x) q(z1 | x, z2) over z = (z2, z1)."""

    kl_needs_samples: ClassVar[bool] = True
    mean_is = "mean of z2, and mean of z1 given it"

    def __init__(self, features_BF: Tensor, top: DiagonalNormal, lower: Conditional) -> None:
        self.features_BF, self.top, self.lower = features_BF, top, lower
        self.top_dim = top.mean.shape[-1]

    def given(self, z2: Tensor) -> DiagonalNormal:
        """Return q(z1 | x, z2), z2 of shape (..., B, Z2)."""
        q1: DiagonalNormal = self.lower(self.features_BF.expand(*z2.shape[:-1], -1), z2)
        return q1

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return torch.cat([self.top.mean, self.given(self.top.mean).mean], dim=-1)

    def rsample(self, k: int = 1) -> Tensor:
        return self.rsample_and_log_prob(k).z_KBZ

    def rsample_and_log_prob(self, k: int = 1) -> TwoLevelSample:
        z2_KBZ = self.top.rsample(k)
        q1 = self.given(z2_KBZ)
        return TwoLevelSample(torch.cat([z2_KBZ, q1.rsample(1)[0]], dim=-1), self, z2_KBZ, q1)

    def log_prob(self, z: Tensor) -> Tensor:
        z2, z1 = z[..., : self.top_dim], z[..., self.top_dim :]
        return self.top.log_prob(z2) + self.given(z2).log_prob(z1)

    def kl_is(self, prior: object) -> str:
        if not isinstance(prior, TwoLevelPrior):
            return ""
        if self.top.kl_to(prior.top) is None:
            return "by one sample of z2 an image"
        return "of z1 given one sample of z2 an image"

    @property
    def kl_groups(self) -> dict[str, slice]:
        """The groups of the KL that belong to each level."""
        bottom = self.lower.latents
        return {"kl_z2": slice(None, -bottom), "kl_z1": slice(-bottom, None)}


class TwoLevelSample(Sample):
    """Samples of both levels, with the conditional q(z1 | x, z2) of the very z2 that were drawn."""

    def __init__(self, z_KBZ: Tensor, q: TwoLevels, z2_KBZ: Tensor, q1: DiagonalNormal) -> None:
        super().__init__(z_KBZ, q)
        self.top, self.z2_KBZ, self.q1 = q.top, z2_KBZ, q1

    def log_prob(self) -> Tensor:
        # Of z_KBZ, not of z2_KBZ: an objective may ask for the derivative by the samples of both levels.
        top_dim = self.z2_KBZ.shape[-1]
        return self.top.log_prob(self.z_KBZ[..., :top_dim]) + self.q1.log_prob(self.z_KBZ[..., top_dim:])

    def kl_to(self, prior: object) -> Tensor | None:
        """Return the KL of each dimension, (B, Z), nats: that of z1 is a mean over the samples of z2.

        Both conditionals are Gaussians, so that only z2 is sampled: unbiased, with less noise than samples of z1
        would have. Where KL(q(z2|x) || p(z2)) has no closed form it is one number by these samples: (B, 1 + Z1).
        """
        if not isinstance(prior, TwoLevelPrior):
            return None
        top_BG = self.top.kl_to(prior.top)
        if top_BG is None:
            top_BG = (self.top.log_prob(self.z2_KBZ) - prior.top.log_prob(self.z2_KBZ)).mean(0)[:, None]
        lower_KBZ = self.q1.kl_to(prior.given(self.z2_KBZ))  # KL( q(z1|x,z2) || p(z1|z2) )
        assert lower_KBZ is not None
        return torch.cat([top_BG, lower_KBZ.mean(0)], dim=-1)


class HierarchicalVAEModule(Autoencoder):
    """A built two-level VAE for images of `shape` (C, H, W)."""

    prior: TwoLevelPrior

    def build_latents(self, spec: HierarchicalVAE) -> None:
        features = self.encoder.features
        self.top_posterior = DiagonalGaussian().build(features, spec.top)
        self.lower_posterior = Conditional(spec.between, features + spec.top, spec.latent_dim - spec.top)
        self.prior = TwoLevelPrior(spec)
        self.prior.top.attach(self.encode_top, self.shape)

    def encode_top(self, x_BCHW: Tensor) -> DiagonalNormal:
        """Return q(z2 | x), which a prior of the upper level may be made of."""
        return self.top_posterior(self.encoder(x_BCHW))  # type: ignore[no-any-return]

    def encode(self, x_BCHW: Tensor) -> TwoLevels:
        features_BF = self.encoder(x_BCHW)
        return TwoLevels(features_BF, self.top_posterior(features_BF), self.lower_posterior)
