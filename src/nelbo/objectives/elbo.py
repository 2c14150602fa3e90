"""The evidence lower bound, with a weight on the KL and free bits."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.errors import ConfigError
from nelbo.objectives.base import Objective
from nelbo.schedules import Constant, Schedule


class ELBO(Objective):
    """E_q[log p(x|z)] - KL(q || p). Kingma & Welling 2014, eq. 3; beta: Higgins et al. 2017, eq. 4.

    The loss is reconstruction + beta * KL. The bound reported is always the one at beta 1.

    beta       weight of the KL: a number or a schedule (warm-up)
    free_bits  nats for each latent dimension that cost nothing: the KL of a dimension, averaged over the
               batch, counts as max(free_bits, KL) (Kingma et al. 2016, eq. 15)
    kl         closed-form (where there is one: auto), or monte-carlo from the k samples
    """

    beta: Schedule = Constant(value=1.0)
    free_bits: float = Field(default=0.0, ge=0.0)
    kl: Literal["auto", "closed-form", "monte-carlo"] = "auto"

    @model_validator(mode="after")
    def _free_bits_need_dimensions(self) -> Self:
        if self.free_bits and self.kl == "monte-carlo":
            raise ValueError("free-bits needs the closed-form KL of each latent dimension; leave kl at auto")
        return self

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        beta = self.beta(progress)
        reconstruction_B = -(draw.log_px_KB[0] if len(draw.log_px_KB) == 1 else draw.log_px_KB.mean(0))
        kl_B, charged_B = self._kl(draw)
        return Terms(
            loss_B=reconstruction_B + beta * charged_B,
            bound_B=None if draw.not_a_bound else -(reconstruction_B + kl_B),
            # Where samples do not come from the density, its KL is a surrogate and is not called one.
            parts={"reconstruction": reconstruction_B, "surrogate_kl" if draw.not_a_bound else "kl": kl_B},
        )

    def _kl(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The KL of each image, and what the loss charges for it."""
        kl_BZ = None if self.kl == "monte-carlo" else draw.kl_BZ
        if kl_BZ is None:
            if self.kl == "closed-form":
                raise ConfigError("objective.kl: this posterior and prior have no closed-form KL; use auto")
            if self.free_bits:
                raise ConfigError("objective.free-bits needs a closed-form KL for each latent dimension")
            kl_B = (draw.log_qz_KB - draw.log_pz_KB).mean(0)
            return kl_B, kl_B
        kl_B = kl_BZ.sum(-1)
        if not self.free_bits:
            return kl_B, kl_B
        charged = kl_BZ.mean(0).clamp_min(self.free_bits).sum()
        return kl_B, charged.expand_as(kl_B)
