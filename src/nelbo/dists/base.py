"""The three distributions of a VAE, as axes. Each spec builds a module; the module returns values."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nelbo.core.spec import Spec

LOG_2PI = math.log(2.0 * math.pi)
TOP_LEVEL = 255  # of an 8-bit pixel: x = level / 255
Shape = tuple[int, int, int]
Of = Literal["binary", "levels", "density"]
Space = Literal["real", "sphere", "ball", "one-hot", "mixed", "codes"]
"""Where latents live, and what their densities are densities over: R^Z; the unit sphere in R^Z, by its surface; the
open unit ball, by volume; blocks of one-hot vectors, by counting; some of R and some one-hot; vectors of a codebook,
by counting. The last are of models, and of no posterior or prior by itself."""


class Posterior(Spec):
    """q(z | x): `build(features, latent_dim)` gives a module from features_BF to a distribution over z_BZ.

    The value it returns has `mean`, `rsample(k)` -> z_KBZ, `log_prob(z_KBZ)` -> KB in nats,
    `kl_to(prior)` -> KL_BG in closed form or None, and `not_a_bound` (core.Distribution). Where dimensions are
    independent given x (`factorises`) it also has `log_prob_each(z)` -> log q(z_j | x), with the shape of z after
    broadcasting.

    space           where latents live; a prior must live there too
    has_density     False for a point: no KL, no importance weights
    factorises      dimensions are independent given x
    reparametrised  samples have the gradient of their parameters, and log_prob(z) one by z. False: that of
                    `relaxed(k)` instead, the value's relaxed samples from the same noise; it is biased
    """

    axis: ClassVar[str] = "posterior"
    space: ClassVar[Space] = "real"
    has_density: ClassVar[bool] = True
    factorises: ClassVar[bool] = False
    reparametrised: ClassVar[bool] = True

    def check(self, latent_dim: int) -> None:
        """Raises ValueError for a number of latent dimensions that there cannot be."""

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        """Sizes of the one-hot vectors that the last latents are made of; the prior's must be the same."""
        return ()

    def build(self, features: int, latent_dim: int) -> nn.Module:
        raise TypeError(f"{type(self).__name__} is abstract")


class Prior(Spec):
    """p(z): `build(latent_dim)` gives a module with `log_prob(z)` -> nats and `sample(n)` -> z_NZ.

    A prior that is made of the model's own posteriors has a module with `attach(encode, shape)`, which gets the
    model's `encode` when the model is built; one that is made of training images has `see(images)`, which gets them
    when training begins (`Batches.take`), `refresh()`, called before the model is measured or saved, and perhaps
    `without(x_BCHW)`, the prior of a draw of these very images.

    space   where latents live; the posterior must live there too
    """

    axis: ClassVar[str] = "prior"
    space: ClassVar[Space] = "real"

    def check(self, latent_dim: int) -> None:
        """Raises ValueError for a number of latent dimensions that there cannot be."""

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        """Sizes of the one-hot vectors that the last latents are made of; the posterior's must be the same."""
        return ()

    def build(self, latent_dim: int) -> nn.Module:
        raise TypeError(f"{type(self).__name__} is abstract")


class Likelihood(Spec):
    """p(x | z): `build(shape)` gives a module from decoder outputs to a distribution over images.

    The value it returns has `log_prob(x)` in nats, summed over the pixels, `mean` = E[x] and `sample()`. Given z
    the pixels are independent, so that one pixel, `build((1, 1, 1))`, tells whether it is a distribution:

    of         what `log_prob` is the logarithm of a probability of
               binary    x in {0, 1}: exp(log_prob) sums to one over the two
               levels    x in {0, 1/255, ..., 1}, 8-bit pixels: it sums to one over the 256
               density   x real: it integrates to one over `support`
    support    the closed interval a pixel must lie in, or None for the real line
    channels   decoder outputs for each image channel; outputs (..., channels * C, H, W) are ordered by
               parameter, then by image channel
    """

    axis: ClassVar[str] = "likelihood"
    of: ClassVar[Of] = "density"
    support: ClassVar[tuple[float, float] | None] = None

    @property
    def channels(self) -> int:
        return 1

    def build(self, shape: Shape) -> nn.Module:
        raise TypeError(f"{type(self).__name__} is abstract")


def offer(module: nn.Module, method: str, *arguments: Any) -> None:
    """Calls a method of a prior that only some have."""
    if (found := getattr(module, method, None)) is not None:
        found(*arguments)


def given(prior: nn.Module, x_BCHW: Tensor) -> Any:
    """The prior of these images: in training one that is made of images leaves out each image itself (`without`)."""
    found = getattr(prior, "without", None)
    return prior if found is None else found(x_BCHW)


def mean_is(value: object) -> str:
    """What the `mean` of a posterior is: its mean, or the point that stands for it."""
    return str(getattr(value, "mean_is", "posterior mean"))


def full(value: Tensor) -> Tensor:
    """At least float32: what a bf16 network puts out becomes float32, float64 stays."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right in their own precision, also where autocast would make it bf16: a sample is that of its density."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def exact(value: Tensor) -> Tensor:
    """float64, on the CPU where the device has none (Apple MPS)."""
    return value.cpu().double() if value.device.type == "mps" else value.double()


def sum_pixels(value: Tensor) -> Tensor:
    """(..., C, H, W) -> (...)."""
    return value.flatten(-3).sum(-1)


def parameters_of(outputs: Tensor, count: int) -> Tensor:
    """Decoder outputs (..., P C, H, W) as the parameters of each pixel: (..., P, C, H, W), P = count."""
    *others, _, height, width = outputs.shape
    return full(outputs).view(*others, count, -1, height, width)
