"""The variational autoencoder: one encoder, one latent vector, one decoder."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from nelbo.core import Draw
from nelbo.dists import Bernoulli, DiagonalGaussian, Likelihood, Posterior, Prior, StandardNormal
from nelbo.models.base import BuiltModel, Model, Shape
from nelbo.nets import MLP, Net


class VAE(Model):
    """Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014."""

    latent_dim: int = Field(default=16, ge=1)
    encoder: Net = MLP()
    decoder: Net = MLP(hidden=(256, 512))
    posterior: Posterior = DiagonalGaussian()
    prior: Prior = StandardNormal()
    likelihood: Likelihood = Bernoulli()

    def build(self, shape: Shape) -> VAEModule:
        return VAEModule(self, shape)


class VAEModule(BuiltModel):
    """A built VAE for images of `shape` (C, H, W)."""

    def __init__(self, spec: VAE, shape: Shape) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = shape
        self.latent_dim = spec.latent_dim
        self.likelihood_of = spec.likelihood.of
        self.outputs = spec.likelihood.channels
        self.encoder = spec.encoder.encoder(shape)
        self.posterior = spec.posterior.build(self.encoder.features, spec.latent_dim)
        self.prior = spec.prior.build(spec.latent_dim)
        self.decoder = spec.decoder.decoder(
            spec.latent_dim, (channels * spec.likelihood.channels, height, width)
        )
        self.likelihood = spec.likelihood.build(shape)

    def encode(self, x_BCHW: Tensor) -> Any:
        return self.posterior(self.encoder(x_BCHW))

    def decode(self, z: Tensor) -> Any:
        outputs = self.decoder(z.reshape(-1, z.shape[-1]))
        return self.likelihood(outputs.view(*z.shape[:-1], *outputs.shape[1:]))

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw:
        posterior = self.encode(x_BCHW)
        z_KBZ = posterior.rsample(k)
        log_px_KB = self.decode(z_KBZ).log_prob(x_BCHW)
        return Draw(z_KBZ=z_KBZ, log_px_KB=log_px_KB, posterior=posterior, prior=self.prior)
