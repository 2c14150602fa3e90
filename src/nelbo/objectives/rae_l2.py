"""The regularised autoencoder whose decoder's weights decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from nelbo.core import Draw, Progress, Terms
from nelbo.errors import ConfigError
from nelbo.objectives.rae import RAE

if TYPE_CHECKING:
    from nelbo.models import Model

NO_DECODER = "this model has no decoder whose weights it tells; use --model vae, or --objective rae or rae-gp"


class RAEL2(RAE):
    """-log p(x|z) + latent_weight * 1/2 |z|^2 + decoder_weight * |theta|^2. Ghosh et al. 2020, section 3.1, L2.

    theta are all weights of the decoder, offsets too: their squared norm is one number for all images, and a part of
    every image's loss. Under Adam it is a weight decay of 2 decoder_weight, of the decoder alone.
    """

    name: ClassVar[str] = "rae-l2"

    decoder_weight: float = Field(default=1e-3, ge=0.0)

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        if draw.decoder_weights is None:
            raise ConfigError(f"objective {self.name}: {NO_DECODER}")
        squares = [weight.square().sum() for weight in draw.decoder_weights()]
        return self.regularised(draw, self.decoder_weight, decoder_l2=torch.stack(squares).sum())

    def check(self, model: Model) -> None:
        super().check(model)
        if "decoder" not in type(model).model_fields:
            raise ValueError(f"objective {self.name}: {NO_DECODER}")
