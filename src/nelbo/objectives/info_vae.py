"""InfoVAE with a maximum mean discrepancy; MMD-VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from nelbo.core import Draw, Progress, Terms
from nelbo.objectives.base import Objective, facts_of, halves, kl_of
from nelbo.objectives.matching import Kernel, mmd, prior_draws

if TYPE_CHECKING:
    from nelbo.models import Model


class InfoVAE(Objective):
    """A KL that weighs less, and the aggregated posterior at the prior all the same. Zhao et al. 2019.

        -log p(x|z) + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + weight - 1) MMD^2(q(z), p(z))

    The second KL of their objective, of q(z) to p(z), has no closed form; any divergence that is zero only where the
    two agree may stand for it, as they say; here the squared maximum mean discrepancy.

    alpha   1 is MMD-VAE: no KL of each image, so that the latent keeps all its information, and no density is read.
            0 and weight 1 is the ELBO; below 0 the KL weighs more than 1
    weight  lambda of the paper
    """

    needs_density: ClassVar[bool] = False  # unless alpha leaves some of the KL: see check
    loss_is_bound: ClassVar[bool] = False

    alpha: float = Field(default=0.0, le=1.0)
    weight: float = Field(default=10.0, ge=0.0)
    kernel: Kernel = "imq"

    @model_validator(mode="after")
    def _pulls_together(self) -> Self:
        if self.alpha + self.weight < 1.0:
            raise ValueError(
                f"alpha + weight is {self.alpha + self.weight:g}, and the discrepancy would be made larger; "
                "expected 1 or more: raise weight"
            )
        return self

    def check(self, model: Model) -> None:
        super().check(model)
        posterior = facts_of(model)
        if self.alpha != 1.0 and not posterior.has_density:
            raise ValueError(
                f"objective {self.name} with alpha {self.alpha:g} needs the density of the posterior for its KL, and "
                f"{posterior.name} is a point without one; use --objective.alpha 1 (MMD-VAE), or "
                "--model.posterior diagonal-gaussian"
            )

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        parts, bound_B = halves(draw)
        distance = mmd(self.kernel, draw.z_KBZ, prior_draws(draw))
        loss_B = parts["reconstruction"] + (self.alpha + self.weight - 1.0) * distance
        if self.alpha != 1.0:  # a point has no KL to weigh by zero
            loss_B = loss_B + (1.0 - self.alpha) * kl_of(parts)
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts | {"mmd": distance})
