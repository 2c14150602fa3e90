"""Likelihood regret: the bound that a posterior for one image alone gains over the encoder's (Xiao et al. 2020).

    max over (m, s) of L(x; N(m, s^2))  -  L(x; q(z | x))        L the ELBO, nats

An encoder knows images like those it was trained on. Of others it gives a poor posterior, and the gain is large.
"""

import torch
from torch import Tensor

from nelbo.core import Draw
from nelbo.core.distributions import PosteriorValue
from nelbo.dists.base import exact
from nelbo.dists.normal import DiagonalNormal
from nelbo.models import BuiltModel
from nelbo.objectives import halves

NOISES = 4  # samples of a step
FRESH = 16  # samples by which the gain is measured, other ones than those that were optimised
LEARNING_RATE = 0.3  # in units of the encoder's spread, falling to zero along a cosine


def why_none(posterior: PosteriorValue) -> str:
    """Return the reason why there is no regret of such a posterior; empty where there is."""
    if not isinstance(posterior, DiagonalNormal):
        return "the posterior of one image is optimised as a Gaussian of independent dimensions, which it is not here"
    return posterior.not_a_bound or ""


def regret(model: BuiltModel, x_BCHW: Tensor, steps: int) -> Tensor:
    """Return the regret of each image of a batch, at least 0: nats, float64 (B).

    Every image has a mean and a spread of its own, so that images do not depend on each other. The gain is measured
    with noise that was not optimised, the same for both; where it is none, the encoder's posterior is the best known.
    """
    start = model.encode(x_BCHW)
    assert isinstance(start, DiagonalNormal)
    mean_BZ, std_BZ = start.mean.detach(), start.std.detach().abs()
    begin = _posterior(mean_BZ, std_BZ, torch.zeros_like(mean_BZ), torch.zeros_like(mean_BZ))
    with torch.enable_grad():
        shift_BZ, growth_BZ = (torch.zeros_like(mean_BZ, requires_grad=True) for _ in range(2))
        optimizer = torch.optim.Adam([shift_BZ, growth_BZ], lr=LEARNING_RATE, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            q = _posterior(mean_BZ, std_BZ, shift_BZ, growth_BZ)
            loss = -_bound(model, x_BCHW, q, _noise(mean_BZ, NOISES)).sum()
            # Of these two alone: the weights of the decoder need no gradient.
            shift_BZ.grad, growth_BZ.grad = torch.autograd.grad(loss, [shift_BZ, growth_BZ])
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        fresh_KBZ = _noise(mean_BZ, FRESH)
        end = _posterior(mean_BZ, std_BZ, shift_BZ.detach(), growth_BZ.detach())
        gain_B = _bound(model, x_BCHW, end, fresh_KBZ) - _bound(model, x_BCHW, begin, fresh_KBZ)
    return exact(gain_B).clamp_min(0.0)


def _noise(like_BZ: Tensor, n: int) -> Tensor:
    """Draw n standard normal numbers for each, half of them the negatives of the others: their mean is exactly 0."""
    half_KBZ = torch.randn(n // 2, *like_BZ.shape, dtype=like_BZ.dtype, device=like_BZ.device)
    return torch.cat([half_KBZ, -half_KBZ])


def _posterior(mean_BZ: Tensor, std_BZ: Tensor, shift_BZ: Tensor, growth_BZ: Tensor) -> DiagonalNormal:
    """Return N(mean + shift std, (std exp(growth))^2)."""
    log_std_BZ = std_BZ.log() + growth_BZ
    return DiagonalNormal(mean_BZ + shift_BZ * std_BZ, log_std_BZ.exp(), 2.0 * log_std_BZ)


def _bound(model: BuiltModel, x_BCHW: Tensor, q: DiagonalNormal, noise_KBZ: Tensor) -> Tensor:
    z_KBZ = q.mean + q.std * noise_KBZ
    log_px_KB = model.decode(z_KBZ).log_prob(x_BCHW)
    _, bound_B = halves(Draw(z_KBZ=z_KBZ, log_px_KB=log_px_KB, posterior=q, prior=model.prior))
    assert bound_B is not None
    return bound_B
