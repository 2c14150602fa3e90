"""The spaces that latents live in, what specs over latents share, and numerical helpers of distributions."""

import abc
import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nelbo.core.spec import Spec

LOG_2PI = math.log(2.0 * math.pi)
Space = Literal["real", "sphere", "ball", "one-hot", "mixed", "codes"]
"""The set that latents are in, and the measure of their densities: R^Z; the unit sphere in R^Z, by its surface; the
open unit ball, by volume; blocks of one-hot vectors, by counting; some of R and some one-hot; vectors of a codebook,
by counting. Only models have latents in a codebook; a posterior or a prior alone does not."""


class LatentSpec(Spec, abc.ABC):
    """A distribution over latents. A posterior and a prior fit where their `space` and their `blocks` are the same."""

    space: ClassVar[Space] = "real"

    def check(self, latent_dim: int) -> None:
        """Raise ValueError for a number of latent dimensions that there cannot be."""
        self.blocks(latent_dim)
        if self.space == "sphere" and latent_dim < 2:
            raise ValueError(
                f"a sphere needs 2 latent dimensions or more, not {latent_dim}; use --latent-dim 2 (a circle)"
            )

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        """Return the sizes of the one-hot vectors that the last latents are made of."""
        return ()


def full(value: Tensor) -> Tensor:
    """Return the value in float32 at least: what a bf16 network puts out becomes float32, float64 stays."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right in their own precision, also under autocast: bf16 samples would not have their density."""
    if left.device.type == "meta":  # for which there is no autocast
        return left @ right
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def exact(value: Tensor) -> Tensor:
    """Return the value in float64, on the CPU where the device has none (Apple MPS)."""
    return value.cpu().double() if value.device.type == "mps" else value.double()
