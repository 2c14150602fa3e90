"""The laws of every density: it integrates to one, samples come from it, its slopes are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nelbo.testing.law import ERRORS, require
from nelbo.testing.numeric import Grid
from nelbo.testing.spaces import Support

ROUNDING = 1e-9  # what float64 loses in a few hundred operations
INTEGRAL = 2e-3  # how far a numerical integral over a plane may be from one
SAMPLES = 20_000


def settled(module: nn.Module) -> Any:
    """The module in float64 and evaluation mode."""
    return module.double().eval()


def integrates(grid: Grid, density_M: Tensor, latents: int) -> None:
    """Require that a density on a grid has an integral of one."""
    mass = float(grid.integral(density_M))
    require(
        abs(mass - 1) < INTEGRAL,
        f"its density of {latents} latents integrates to {mass:.5g}",
        "log_prob: the normaliser, and one term for every latent",
    )


def matches(samples_NZ: Tensor, support: Support, grid: Grid, density_M: Tensor, what: str) -> None:
    """Require that samples are those of the density on a grid of their space."""
    require(
        samples_NZ.std(0) > 0, f"all {len(samples_NZ)} samples are the same", f"{what}: noise for each sample"
    )
    seen = support.mismatch(samples_NZ, grid, density_M)
    require(not seen, seen, f"{what} against log_prob: location, scale, and noise shared between latents")


def gradients(function: Callable[..., Any], inputs: tuple[Tensor, ...], what: str) -> None:
    """Require that autograd agrees with central differences in float64."""
    good = torch.autograd.gradcheck(
        function,
        inputs,
        eps=1e-6,
        atol=1e-6,
        raise_exception=False,
        check_undefined_grad=False,
        fast_mode=True,
    )
    require(
        good,
        f"the gradient of {what} is not the slope that finite differences measure",
        f"{what}: detached tensors, in-place changes, a backward of its own",
    )


def independent(samples_ND: Tensor, what: str, look: str) -> str:
    """Require that columns of samples, and successive rows, have no rank correlation."""
    ranks_ND = (samples_ND + 1e-9 * torch.rand_like(samples_ND)).argsort(0).argsort(0).double()
    allowed = ERRORS / len(ranks_ND) ** 0.5
    others = torch.corrcoef(ranks_ND.T) - torch.eye(ranks_ND.shape[1])
    largest = float(others.abs().max())
    require(largest < allowed, f"samples of different {what} have a rank correlation of {largest:.3f}", look)
    lag = torch.corrcoef(torch.stack([ranks_ND[:-1].flatten(), ranks_ND[1:].flatten()]))
    seen = f"successive samples have a rank correlation of {float(lag[0, 1]):.3f}"
    require(float(lag[0, 1].abs()) < allowed, seen, look)
    return f"rank correlation at most {largest:.3f}"
