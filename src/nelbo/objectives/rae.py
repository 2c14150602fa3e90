"""The regularised autoencoder without a penalty on its decoder."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.objectives.base import Objective, halves


class RAE(Objective):
    """-log p(x|z) + latent_weight * 1/2 |z|^2. Ghosh et al. 2020, section 3.

    For a posterior that is a point (`dirac`): nothing then makes the decoder smooth but what is added to the loss
    (`rae-l2`, `rae-gp`), or built into the decoder (`--model.decoder.spectral-norm true`, the paper's RAE-SN). What
    the latents look like is found out afterwards, by a sampler that is fitted to them. There is no bound; where the
    posterior has a density the ELBO is reported, which is not what was trained.

    latent_weight  beta of the paper, beside nats of the reconstruction: keeps the latents from growing
    """

    needs_density: ClassVar[bool] = False
    loss_is_bound: ClassVar[bool] = False

    latent_weight: float = Field(default=0.1, ge=0.0)

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        return self.regularised(draw)

    def regularised(self, draw: Draw, weight: float = 0.0, **penalty: Tensor) -> Terms:
        """Return the terms with weight times a penalty, which is logged under its name."""
        parts, bound_B = halves(draw)
        latent_l2_B = 0.5 * draw.z_KBZ.square().sum(-1).mean(0)  # what a point has of the KL to N(0, I)
        loss_B = parts["reconstruction"] + self.latent_weight * latent_l2_B
        for value in penalty.values():
            loss_B = loss_B + weight * value
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts | {"latent_l2": latent_l2_B} | penalty)
