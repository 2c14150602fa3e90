"""The variational autoencoder: one encoder, one latent vector, one decoder."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from nelbo.core.distributions import PosteriorValue, PriorModule
from nelbo.core.vocabulary import Shape
from nelbo.dists.spaces import IN_WORDS, LatentSpace
from nelbo.likelihoods import Bernoulli, Likelihood
from nelbo.models.base import Autoencoder, Model, living, must_be
from nelbo.nets import MLP, Net
from nelbo.posteriors import DiagonalGaussian, Posterior
from nelbo.priors import Prior, StandardNormal


class VAE(Model):
    """The variational autoencoder of Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014."""

    latent_dim: int = Field(default=16, ge=1)
    encoder: Net = MLP()
    decoder: Net = MLP(hidden=(256, 512))
    posterior: Posterior = DiagonalGaussian()
    prior: Prior = StandardNormal()
    likelihood: Likelihood = Bernoulli()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self.posterior.check(self.latent_dim)
        self.prior.check(self.latent_dim)
        parts = (self.posterior, self.prior)
        if self.posterior.space != self.prior.space:
            posterior_is, prior_is = (
                f"latents of the {part.axis} {part.name} are {IN_WORDS[part.space]}" for part in parts
            )
            raise ValueError(
                f"{posterior_is}, and {prior_is}; "
                f"with this posterior use one of these priors: {living('prior', self.posterior.space)}; "
                f"with this prior one of these posteriors: {living('posterior', self.prior.space)}"
            )
        if self.posterior.blocks(self.latent_dim) != self.prior.blocks(self.latent_dim):
            sizes, prior_sizes = (" + ".join(map(str, part.blocks(self.latent_dim))) for part in parts)
            raise ValueError(
                f"one-hot vectors of the posterior {self.posterior.name} have the sizes {sizes}, and those "
                f"of the prior {self.prior.name} {prior_sizes}; give both parts the same numbers, as in "
                "--posterior.categories 10 --prior.categories 10"
            )
        return self

    def build(self, shape: Shape) -> VAEModule:
        return VAEModule(self, shape)


class VAEModule(Autoencoder):
    """A built VAE for images of `shape` (C, H, W)."""

    def build_latents(self, spec: VAE) -> None:
        self.latent_space = LatentSpace(spec.prior.space, spec.prior.blocks(spec.latent_dim))
        self.posterior = spec.posterior.build(self.encoder.features, spec.latent_dim)
        self.prior = spec.prior.build(spec.latent_dim)
        must_be(self.prior, PriorModule, f"prior {spec.prior.name}")
        self.prior.attach(self.encode, self.shape)  # by which a prior of posteriors encodes inputs

    def encode(self, x_BCHW: Tensor) -> PosteriorValue:
        return self.posterior(self.encoder(x_BCHW))  # type: ignore[no-any-return]
