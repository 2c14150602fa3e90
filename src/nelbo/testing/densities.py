"""The laws of every density: it integrates to one, samples come from it, its slopes are right."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from nelbo.testing.law import ERRORS, require
from nelbo.testing.numeric import Grid
from nelbo.testing.spaces import Support

M = TypeVar("M", bound=nn.Module)
INTEGRAL = 2e-3  # how far a numerical integral over a plane may be from one
SAMPLES = 20_000  # an error of 0.7 % of a deviation for a mean, which a law sees from 3.5 % on


def settled(module: M) -> M:
    """Return the module in float64 and evaluation mode."""
    return module.double().eval()


def integrates(grid: Grid, density_M: Tensor, latents: int) -> None:
    """Require that a density on a grid has an integral of one."""
    mass = float(grid.integral(density_M))
    fault = f"its density of {latents} latents integrates to {mass:.5g}"
    require(abs(mass - 1) < INTEGRAL, fault, "log_prob: the normaliser, and one term for every latent")


def matches(samples_NZ: Tensor, support: Support, grid: Grid, density_M: Tensor, method: str) -> None:
    """Require that samples are those of the density on a grid of their space."""
    fault = f"all {len(samples_NZ)} samples are the same"
    require(samples_NZ.std(0) > 0, fault, f"{method}: noise for each sample")
    fault = support.mismatch(samples_NZ, grid, density_M)
    require(not fault, fault, f"{method} against log_prob: location, scale, and noise shared between latents")


def differentiates(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> bool:
    """Return True if autograd agrees with central differences, in float64."""
    # The fast mode compares one random projection of the Jacobian, at the cost of a few calls however many the inputs.
    return torch.autograd.gradcheck(
        function, inputs, eps=1e-6, atol=1e-6, raise_exception=False, check_undefined_grad=False, fast_mode=True
    )  # fmt: skip


def gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], quantity: str) -> None:
    """Require that autograd agrees with central differences in float64."""
    fault = f"the gradient of {quantity} is not the slope that finite differences measure"
    look = f"{quantity}: detached tensors, in-place changes, a backward of its own"
    require(differentiates(function, inputs), fault, look)


def learns(gradient: Tensor | None) -> bool:
    """Return True if there is a gradient, which is finite and not zero everywhere."""
    return gradient is not None and bool(gradient.isfinite().all()) and bool((gradient != 0).any())


def independent(samples_ND: Tensor, columns: str, look: str) -> str:
    """Require that columns of samples, and successive rows, have no rank correlation."""
    # Values that tie, as those of pixels do, get ranks by chance: by their order they would be correlated.
    ranks_ND = (samples_ND + 1e-9 * torch.rand_like(samples_ND)).argsort(0).argsort(0).double()
    allowed = ERRORS / len(ranks_ND) ** 0.5
    off_diagonal = torch.corrcoef(ranks_ND.T) - torch.eye(ranks_ND.shape[1])
    largest = float(off_diagonal.abs().max())
    fault = f"samples of different {columns} have a rank correlation of {largest:.3f}"
    require(largest < allowed, fault, look)
    lag = torch.corrcoef(torch.stack([ranks_ND[:-1].flatten(), ranks_ND[1:].flatten()]))
    fault = f"successive samples have a rank correlation of {float(lag[0, 1]):.3f}"
    require(float(lag[0, 1].abs()) < allowed, fault, look)
    return f"rank correlation at most {largest:.3f}"
