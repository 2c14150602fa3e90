"""The model's own prior."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from nelbo.dists.base import Space
from nelbo.dists.spaces import LatentSpace
from nelbo.models import BuiltModel
from nelbo.samplers.base import SPACES, Fitted, Latents, Sampler

WITH_AN_ORIGIN: tuple[Space, ...] = ("real", "ball", "mixed")


class Prior(Sampler):
    """z = temperature * z', z' ~ p(z): what a VAE was trained for (Kingma & Welling 2014, section 2.1).

    Fitted to nothing. A temperature below one keeps to the middle of the prior: fewer odd images, less variety. It
    scales the distance from the origin, which a sphere and one-hot vectors do not have.
    """

    follows: ClassVar[bool] = False
    temperature: float = Field(default=1.0, ge=0.0)

    @property
    def spaces(self) -> tuple[Space, ...]:
        return SPACES if self.temperature == 1.0 else WITH_AN_ORIGIN

    def check(self, space: Space) -> None:
        if space not in self.spaces:  # says what a temperature needs
            LatentSpace(space).tempered(torch.zeros(1, 1), self.temperature)

    def fewest(self, latent_dim: int) -> int:
        return 0

    def fitted(self, model: BuiltModel, train: Latents, validation: Latents | None) -> Fitted:
        return FromPrior(model, self.temperature)


class FromPrior:
    """Latents from the model's prior, scaled."""

    def __init__(self, model: BuiltModel, temperature: float) -> None:
        self.model, self.temperature = model, temperature

    def sample(self, n: int) -> Tensor:
        return self.model.latent_space.tempered(self.model.sample_prior(n), self.temperature)

    def log_prob(self, z_BZ: Tensor) -> Tensor:
        """Return log p(z / T) - Z log T, of real latents; at T = 0 all are one, and there is no density."""
        if self.temperature == 1.0:
            return self.model.prior.log_prob(z_BZ)
        log_p_B = self.model.prior.log_prob(z_BZ / self.temperature)
        return log_p_B - z_BZ.shape[-1] * math.log(self.temperature)
