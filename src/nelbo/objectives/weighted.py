"""The base of objectives made of importance weights: the weights, the bound, and gradients by the samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.errors import ConfigError
from nelbo.objectives.base import Objective, Side, facts_of, halves, listed
from nelbo.schedules import Constant, Schedule

if TYPE_CHECKING:
    from nelbo.models import Model

TINY = 1e-30  # under a share of zero, which may be divided by and then counts for nothing


class ImportanceWeighted(Objective):
    """Objectives of log w_k = log p(x|z_k) + beta (log p(z_k) - log q(z_k|x)), z_k ~ q(z|x).

    Whatever is minimised, the bound reported is log 1/k sum_k w_k of all k samples at beta 1 (Burda et al. 2016,
    eq. 8): never above log p(x) in expectation, and the tightest that these samples give. So runs of this family with
    the same k can be compared. `minimised` is what a subclass adds.

    k         samples for each image
    beta      weight of log p(z) - log q(z|x): a number or a schedule (warm-up)
    resample  how many samples of each image carry the gradient through the decoder, drawn by their share of it; none
              given: all k. The decoder is passed k times forward, and this often forward and back. The gradient is the
              same in expectation, and noisier (Burda et al. 2016, section 3.1, have one sample by its weight; here
              systematic resampling: each is taken within one of as often as its share says)
    """

    axis: ClassVar[str] = "objective"  # abstract: it registers nothing
    k: int = 5
    beta: Schedule = Constant(value=1.0)
    resample: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fewer_are_resampled(self) -> Self:
        if self.resample is not None and self.resample >= self.k:
            raise ValueError(
                f"resample is the number of samples, of k, that carry the gradient: below k = {self.k}, not "
                f"{self.resample}; without it all of them do"
            )
        return self

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        parts, _ = halves(draw)
        beta = self.beta(progress)
        log_ratio_KB = draw.log_pz_KB - draw.log_qz_KB
        if self.resample is None or self.follows_samples or not torch.is_grad_enabled():
            loss_B = self.minimised(draw, draw.log_px_KB + beta * log_ratio_KB, beta)
        else:
            # The k decodings lend their values alone: the gradient through p(x|z) comes from the few decoded again.
            log_w_KB = draw.log_px_KB.detach() + beta * log_ratio_KB
            if not log_w_KB.requires_grad:  # the encoder is frozen
                log_w_KB.requires_grad_()
            loss_B = self.minimised(draw, log_w_KB, beta)
            share_KB = -slope(loss_B, log_w_KB)  # d bound / d log p(x|z_k), of any subclass
            loss_B = with_gradient_of(-loss_B, self._by_few(draw, share_KB, share_KB) - loss_B)
        bound_B = None if draw.not_a_bound else log_mean(draw.log_px_KB + log_ratio_KB)  # Burda, eq. 8
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts)

    def followed(self, draw: Draw, beta: float, decoder_KB: Tensor, encoder_KB: Tensor) -> Tensor:
        """Return sum_k log p(x|z_k) + beta log p(z_k): decoder and prior follow one share, z and encoder the other."""
        log_pz_KB = beta * draw.log_pz_KB
        if self.resample is None or not torch.is_grad_enabled():
            return passing(draw.log_px_KB + log_pz_KB, draw.z_KBZ, decoder_KB, encoder_KB)
        few_B = self._by_few(draw, decoder_KB, encoder_KB)
        return few_B + passing(log_pz_KB, draw.z_KBZ, decoder_KB, encoder_KB)

    def _by_few(self, draw: Draw, decoder_KB: Tensor, encoder_KB: Tensor) -> Tensor:
        """Return a loss of shape (B,) whose gradient is, in expectation over `resample` samples, that of all."""
        if self.resample is None or draw.x_BCHW is None or draw.decode is None:
            raise ConfigError(
                f"objective {self.name}: resample decodes some samples again, and this model's draws do not say of "
                "what image and how (Draw.x_BCHW, Draw.decode); leave resample out"
            )
        share_KB = decoder_KB.abs() + encoder_KB.abs()
        rows_SB = resampled(share_KB, self.resample)
        z_SBZ = draw.z_KBZ.take_along_dim(rows_SB[..., None], 0)
        log_px_SB = draw.decode(z_SBZ).log_prob(draw.x_BCHW)
        # A sample that comes with probability p counts 1 / p times; one without a share counts for nothing.
        often_SB = share_KB.sum(0) / (self.resample * share_KB.take_along_dim(rows_SB, 0)).clamp_min(TINY)
        decoder_SB = encoder_SB = often_SB * decoder_KB.take_along_dim(rows_SB, 0)
        if encoder_KB is not decoder_KB:
            encoder_SB = often_SB * encoder_KB.take_along_dim(rows_SB, 0)
        return passing(log_px_SB, z_SBZ, decoder_SB, encoder_SB)

    def minimised(self, draw: Draw, log_w_KB: Tensor, beta: float) -> Tensor:
        """Return loss_B, from the log-weights at today's beta."""
        raise TypeError(f"{type(self).__name__} is abstract")

    @property
    def follows(self) -> Mapping[Side, Objective | None]:
        if self.resample is None:
            return {}
        whole = self.model_copy(update={"resample": None})
        return {"encoder": whole, "decoder": whole}

    @property
    def bound_name(self) -> str:
        """It is no NELBO, but a bound of k samples, which is lower."""
        return "NELBO" if self.k == 1 else f"NELBO of {self.k} samples"

    @property
    def follows_samples(self) -> bool:
        """True if the gradient by z itself is used, which not every posterior passes on to its parameters."""
        return False

    def check(self, model: Model) -> None:
        super().check(model)
        decoder = model.setting("decoder")
        # Samples that are decoded again must come out, and be scored, as they were among all.
        if self.resample is not None and decoder is not None and decoder.batch_norm:
            raise ValueError(
                f"objective {self.name} with resample decodes a few samples again, and batch norm makes other images "
                "of them than among all; use --model.decoder.batch-norm false, or leave resample out"
            )
        posterior = facts_of(model)
        if self.follows_samples and not posterior.reparametrised:
            raise ValueError(
                f"objective {self.name} follows the samples back to the encoder, and those of {posterior.name} "
                "cannot be; use objective iwae with gradient total, or one of these posteriors: "
                + listed("posterior", lambda entry: entry.has_density and entry.reparametrised)
            )


class Grouped(ImportanceWeighted):
    """Importance-weighted bounds of groups of samples.

    k       samples for each image, in all: M K of the paper
    groups  in which they are weighed, M of the paper; it divides k
    """

    axis: ClassVar[str] = "objective"  # abstract: it registers nothing
    k: int = 8
    groups: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _groups_are_equal(self) -> Self:
        if self.k % self.groups:
            near = max(self.groups, self.k - self.k % self.groups)
            raise ValueError(
                f"k is the number of all samples, and {self.groups} groups do not divide {self.k} of them; "
                f"use --objective.k {near}, or another number of groups"
            )
        return self

    def in_groups(self, value_KB: Tensor) -> Tensor:
        """Return (K, B) as (K / M, M, B)."""
        return value_KB.view(-1, self.groups, *value_KB.shape[1:])


def log_mean(log_w_KB: Tensor) -> Tensor:
    """Return log 1/K sum_k w_k over the first axis."""
    return log_w_KB.logsumexp(0) - math.log(len(log_w_KB))


def slope(value_KB: Tensor, z_KBZ: Tensor) -> Tensor:
    """Return the derivative of each value by its own z, as numbers; zero where nothing has a gradient (validation)."""
    if not (value_KB.requires_grad and z_KBZ.requires_grad):
        return torch.zeros_like(z_KBZ)
    # Of the sum: no value depends on another's z, so that one pass back has all their derivatives.
    (slope_KBZ,) = torch.autograd.grad(
        value_KB.sum(), z_KBZ, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return slope_KBZ.detach()


def slope_of_posterior(draw: Draw) -> Tensor:
    """Return d log q(z|x) / dz with the parameters of q held: how the density varies around each sample."""
    # Of another tensor: a posterior may remember the density of the very samples that it drew, as no function of z.
    z_KBZ = draw.z_KBZ.view_as(draw.z_KBZ)
    return slope(draw.posterior.log_prob(z_KBZ), z_KBZ)


def passing(value_KB: Tensor, z_KBZ: Tensor, decoder_KB: Tensor, encoder_KB: Tensor) -> Tensor:
    """Return sum_k of values: the weights behind them get `decoder_KB` times the gradient, z and so the encoder
    `encoder_KB` times."""
    if encoder_KB is decoder_KB:
        return (decoder_KB * value_KB).sum(0)
    more_KBZ = (encoder_KB - decoder_KB)[..., None] * slope(value_KB, z_KBZ)
    return (decoder_KB * value_KB + along(more_KBZ, z_KBZ)).sum(0)


def resampled(share_KB: Tensor, n: int) -> Tensor:
    """Return n of the K samples of each image, the k-th in expectation n share_k / sum(share) times: indices (n, B).

    Systematic resampling: one random number an image, and steps of 1/n from it along the cumulative shares.
    """
    up_to_KB = share_KB.cumsum(0)
    steps_n = torch.arange(n, device=share_KB.device, dtype=share_KB.dtype)
    at_nB = (steps_n[:, None] + torch.rand_like(share_KB[0])) * (up_to_KB[-1] / n)
    return (up_to_KB <= at_nB[:, None]).sum(1).clamp(max=len(share_KB) - 1)


def along(slope_KBZ: Tensor, z_KBZ: Tensor) -> Tensor:
    """Return a term whose gradient, `slope_KBZ` times dz, reaches the encoder through the samples alone: (K, B)."""
    return (slope_KBZ * z_KBZ).sum(-1)


def with_gradient_of(bound_B: Tensor, followed_B: Tensor) -> Tensor:
    """Return minus a bound, as a loss with minus the gradient of `followed_B`: its value is the bound."""
    return -(bound_B.detach() + (followed_B - followed_B.detach()))
