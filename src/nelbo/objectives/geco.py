"""Generalised ELBO with constrained optimisation: a reconstruction that is good enough, at the smallest KL."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nelbo.core import Draw, Progress, Terms
from nelbo.core.vocabulary import Shape
from nelbo.objectives.base import Owner, halves, kl_of

LARGEST = math.log(1e6)  # of |log lambda|: a constraint that nothing can meet does not end in infinity


class GECO(Owner):
    """KL + lambda D C, lambda adapted until the constraint C <= 0 is met. Rezende & Viola 2018, algorithm 1.

        reconstruction   C = -log p(x|z) / D - tolerance              nats a pixel, D = C H W pixels
        squared-error    C = |x - E[x|z]|^2 / D - tolerance^2         tolerance is kappa of the paper, for each pixel

    In training C is replaced by its moving average, C + stop(C_ma - C), and after each step lambda becomes
    lambda exp(rate C_ma): it grows while the constraint is missed. With `reconstruction` and lambda 1 the loss is
    minus the ELBO but for a constant, and lambda = 1 / beta. The bound reported is the ELBO, at lambda 1.

    tolerance  the reconstruction that is good enough
    decay      of the moving average (alpha of the paper)
    rate       at which log lambda follows the moving average
    """

    loss_is_bound: ClassVar[bool] = False

    constraint: Literal["reconstruction", "squared-error"] = "reconstruction"
    tolerance: float = 0.2
    decay: float = Field(default=0.99, ge=0.0, lt=1.0)
    rate: float = Field(default=0.01, gt=0.0)

    @model_validator(mode="after")
    def _kappa_is_positive(self) -> Self:
        if self.constraint == "squared-error" and self.tolerance <= 0.0:
            raise ValueError(
                "tolerance is the root mean squared error of a pixel with constraint squared-error, "
                f"and {self.tolerance:g} is none; use a number above 0, as 0.1"
            )
        return self

    def build(self, latent_dim: int, shape: Shape) -> Multiplier:
        return Multiplier()

    def terms(self, draw: Draw, progress: Progress, module: nn.Module | None) -> Terms:
        assert isinstance(module, Multiplier)
        assert draw.x_BCHW is not None
        assert draw.likelihood is not None
        parts, bound_B = halves(draw)
        pixels = draw.x_BCHW[0].numel()
        if self.constraint == "reconstruction":
            off_B = parts["reconstruction"] / pixels - self.tolerance
        else:
            squared_KB = (draw.x_BCHW - draw.likelihood.mean).square().flatten(2).mean(-1)
            off_B = squared_KB.mean(0) - self.tolerance**2
        weight, smoothed = module.follow(off_B.detach().mean(), self.decay, self.rate)
        held_B = off_B + (smoothed - off_B.detach().mean())  # value of the average, gradient of this batch
        log = {"constraint": off_B.detach(), "lambda": weight.expand(len(off_B))}
        return Terms(loss_B=kl_of(parts) + weight * pixels * held_B, bound_B=bound_B, parts=parts | log)


class Multiplier(nn.Module):
    """lambda and the moving average of the constraint: buffers, that change in training mode only."""

    log_lambda: Tensor
    average: Tensor
    begun: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("log_lambda", "average", "begun"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def follow(self, constraint: Tensor, decay: float, rate: float) -> tuple[Tensor, Tensor]:
        """Return lambda of this step, and the constraint as it counts: its moving average in training, else itself."""
        weight = self.log_lambda.exp()
        if not self.training:
            return weight, constraint
        # `where`, not `if`: a branch on a buffer would wait for the device, and stop a captured step.
        smoothed = torch.where(self.begun > 0, torch.lerp(constraint, self.average, decay), constraint)
        self.average.copy_(smoothed)
        self.begun.fill_(1.0)
        self.log_lambda.add_(rate * smoothed).clamp_(-LARGEST, LARGEST)  # lambda <- lambda exp(rate C_ma)
        return weight, smoothed
