"""The evidence lower bound, with a weight on the KL and free bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.errors import ConfigError
from nelbo.objectives.base import Objective, halves, kl_of
from nelbo.schedules import Constant, Schedule

if TYPE_CHECKING:
    from nelbo.models import Model


class ELBO(Objective):
    """E_q[log p(x|z)] - KL(q || p). Kingma & Welling 2014, eq. 3; beta: Higgins et al. 2017, eq. 4.

    The loss is reconstruction + beta * KL. The bound reported is always the one at beta 1.

    beta       weight of the KL: a number or a schedule (warm-up)
    free_bits  nats for each group of latent dimensions that cost nothing: the KL of a group, averaged over the
               batch, counts as max(free_bits, KL) (Kingma et al. 2016, eq. 15, its lambda)
    group      latent dimensions that share them: 1, each has its own, or each part of the KL where that comes in
               parts of several (a categorical variable); latent_dim, all share one
    kl         closed-form (where there is one: auto), or monte-carlo from the k samples
    """

    beta: Schedule = Constant(value=1.0)
    free_bits: float = Field(default=0.0, ge=0.0)
    group: int = Field(default=1, ge=1)
    kl: Literal["auto", "closed-form", "monte-carlo"] = "auto"

    @model_validator(mode="after")
    def _free_bits_need_dimensions(self) -> Self:
        if self.free_bits and self.kl == "monte-carlo":
            raise ValueError("free-bits needs the closed-form KL of each latent dimension; leave kl at auto")
        return self

    def check(self, model: Model) -> None:
        super().check(model)
        if not self.free_bits and self.kl != "closed-form":
            return
        try:
            # Only a built model knows which KLs have a closed form: it draws for one small image, and leaves no trace
            # in the random stream.
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self(model.build((1, 32, 32)).eval().draw(torch.zeros(1, 1, 32, 32)), Progress())
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        beta = self.beta(progress)
        if (self.free_bits or self.kl == "closed-form") and draw.kl_BG is None:
            field, way = ("free-bits", "0") if self.free_bits else ("kl", "auto")
            raise ConfigError(
                f"objective.{field} needs a closed-form KL, and this posterior and prior have none; use "
                f"--objective.{field} {way}, or the posterior diagonal-gaussian and the prior standard-normal"
            )
        parts, bound_B = halves(draw, closed_form=self.kl != "monte-carlo")
        charged_B = self._charged(draw, kl_of(parts))
        return Terms(loss_B=parts["reconstruction"] + beta * charged_B, bound_B=bound_B, parts=parts)

    def _charged(self, draw: Draw, kl_B: Tensor) -> Tensor:
        """Return the KL of each image as the loss counts it; raise ConfigError where groups do not fit."""
        if not self.free_bits:
            return kl_B
        kl_BG = draw.kl_BG
        assert kl_BG is not None
        parts, latent_dim, together = kl_BG.shape[-1], draw.z_KBZ.shape[-1], 1
        if self.group > 1 or parts == 1:  # parts that share nothing need not be of one size
            size, uneven = divmod(latent_dim, parts)  # latents of a part: 1, or all if they are dependent
            if uneven or latent_dim % self.group or self.group % size:
                fits = (
                    [1] if uneven else [n for n in range(size, latent_dim + 1, size) if latent_dim % n == 0]
                )
                raise ConfigError(
                    f"objective.group: {self.group} latent dimensions cannot share free bits where the closed-form KL "
                    f"of {latent_dim} comes in {parts} part{'s' * (parts > 1)}; use one of {', '.join(map(str, fits))}"
                )
            together = self.group // size
        kl_G = kl_BG.mean(0).view(-1, together).sum(-1)  # the mean over the batch first: eq. 15
        return kl_G.clamp_min(self.free_bits).sum().expand_as(kl_B)
