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
    """Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014."""

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
        if self.posterior.space != self.prior.space:
            raise ValueError(
                f"{_lives(self.posterior)}, and {_lives(self.prior)}; "
                f"with this posterior use one of these priors: {living('prior', self.posterior.space)}; "
                f"with this prior one of these posteriors: {living('posterior', self.prior.space)}"
            )
        theirs = [part.blocks(self.latent_dim) for part in (self.posterior, self.prior)]
        if theirs[0] != theirs[1]:
            raise ValueError(
                f"one-hot vectors of the posterior {self.posterior.name} have the sizes {_sizes(theirs[0])}, and those "
                f"of the prior {self.prior.name} {_sizes(theirs[1])}; give both parts the same numbers, as in "
                "--posterior.categories 10 --prior.categories 10"
            )
        return self

    def build(self, shape: Shape) -> VAEModule:
        return VAEModule(self, shape)


def _lives(part: Posterior | Prior) -> str:
    return f"latents of the {part.axis} {part.name} are {IN_WORDS[part.space]}"


def _sizes(blocks: tuple[int, ...]) -> str:
    return " + ".join(map(str, blocks))


class VAEModule(Autoencoder):
    """A built VAE for images of `shape` (C, H, W)."""

    def build_latents(self, spec: VAE) -> None:
        self.latent_space = LatentSpace(spec.prior.space, spec.prior.blocks(spec.latent_dim))
        self.posterior = spec.posterior.build(self.encoder.features, spec.latent_dim)
        self.prior = spec.prior.build(spec.latent_dim)
        must_be(self.prior, PriorModule, f"prior {spec.prior.name}")
        self.prior.attach(self.encode, self.shape)

    def encode(self, x_BCHW: Tensor) -> PosteriorValue:
        return self.posterior(self.encoder(x_BCHW))  # type: ignore[no-any-return]
