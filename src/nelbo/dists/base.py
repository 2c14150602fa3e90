"""The three distributions of a VAE, as axes. Each spec builds a module; the module returns values."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from nelbo.config import Spec

LOG_2PI = math.log(2.0 * math.pi)
Shape = tuple[int, int, int]


class Posterior(Spec):
    """q(z | x): `build(features, latent_dim)` gives a module from features_BF to a distribution over z_BZ.

    The value it returns has `mean`, `rsample(k)` -> z_KBZ, `log_prob(z_KBZ)` -> KB in nats,
    `kl_to(prior)` -> KL_BZ in closed form or None, and `not_a_bound` (core.Distribution).
    """

    axis: ClassVar[str] = "posterior"

    def build(self, features: int, latent_dim: int) -> nn.Module:
        raise TypeError(f"{type(self).__name__} is abstract")


class Prior(Spec):
    """p(z): `build(latent_dim)` gives a module with `log_prob(z)` -> nats and `sample(n)` -> z_NZ."""

    axis: ClassVar[str] = "prior"

    def build(self, latent_dim: int) -> nn.Module:
        raise TypeError(f"{type(self).__name__} is abstract")


class Likelihood(Spec):
    """p(x | z): `build(shape)` gives a module from decoder outputs to a distribution over images.

    The value it returns has `log_prob(x)` in nats, summed over the pixels, `mean` and `sample()`.

    channels   decoder outputs for each image channel
    support    the closed interval a pixel must lie in, or None for the real line
    binary     true when it is a probability only for pixels that are exactly 0 or 1
    """

    axis: ClassVar[str] = "likelihood"
    channels: ClassVar[int] = 1
    support: ClassVar[tuple[float, float] | None] = None
    binary: ClassVar[bool] = False

    def build(self, shape: Shape) -> nn.Module:
        raise TypeError(f"{type(self).__name__} is abstract")


def full(value: Tensor) -> Tensor:
    """At least float32: what a bf16 network puts out becomes float32, float64 stays."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def exact(value: Tensor) -> Tensor:
    """float64, on the CPU where the device has none (Apple MPS)."""
    return value.cpu().double() if value.device.type == "mps" else value.double()


def sum_pixels(value: Tensor) -> Tensor:
    """(..., C, H, W) -> (...)."""
    return value.flatten(-3).sum(-1)
