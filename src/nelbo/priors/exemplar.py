"""The exemplar prior: a mixture of normals around the encoded training images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from nelbo.core.distributions import Encode, PriorDensity, TrainingImages
from nelbo.core.vocabulary import Shape
from nelbo.errors import ConfigError
from nelbo.priors.base import Prior
from nelbo.priors.mixture import GaussianComponents, log_mixture

SEED = 20_201_206  # of the choice of images, of their noise where they are frozen, and of the signatures
ENCODED_AT_ONCE = 1000
SAME = 1e-4  # of two signatures, in units of the deviation that they have over images of random pixels


class Exemplar(Prior):
    """p(z) = 1/N sum_n N(z; m(x_n), s^2 I): x_n the training images, m the mean of the model's own posterior, s^2 one
    learned number. Norouzi, Fleet & Norouzi 2020 (Exemplar VAE).

    In training log p(z) is by `exemplars` random ones, encoded anew with gradients, and without the image's own:
    their leave-one-out and subsampling. The logarithm of a mean over some of them is at most, in
    expectation, that over all, so that what training logs is a lower bound. What is measured uses all N: their means
    are found again before every measurement (`refresh`) and saved with the weights.

    exemplars  drawn for each step; all of them where there are no more
    images     how many training images are exemplars, drawn once; none given: all
    """

    exemplars: int = Field(default=200, ge=2)
    images: int | None = Field(default=None, ge=2)

    def build(self, latent_dim: int) -> ExemplarModule:
        return ExemplarModule(self, latent_dim)


class ExemplarModule(GaussianComponents):
    """`attach` gives it the encoder, `observe_training_images` the images; only the means are saved.

    mean_NZ is no buffer: a weight average copies buffers in every step, and training does not read it.
    """

    made_of: ClassVar[str] = "training images"
    sketch_D2: Tensor

    def __init__(self, spec: Exemplar, latent_dim: int) -> None:
        super().__init__()
        self.exemplars, self.most = spec.exemplars, spec.images
        self.log_var = nn.Parameter(torch.zeros(()))
        self.mean_NZ = torch.zeros(0, latent_dim)
        self.encode: Encode | None = None  # a bound method: a copy of the model has a copy bound to itself
        self.seen: Seen | None = None

    # --- what it is made of ---

    def attach(self, encode: Encode, shape: Shape) -> None:
        self.encode = encode
        stream = Generator().manual_seed(SEED)
        sketch_D2 = torch.randn(math.prod(shape), 2, generator=stream, dtype=torch.get_default_dtype())
        self.register_buffer("sketch_D2", sketch_D2 / math.prod(shape) ** 0.5, persistent=False)

    def observe_training_images(self, images: TrainingImages) -> None:
        if images.n < 2:
            raise ConfigError("an exemplar prior needs two training images or more: each leaves out itself")
        rows_N = torch.arange(images.n)
        if self.most is not None and self.most < images.n:
            rows_N = torch.randperm(images.n, generator=Generator().manual_seed(SEED))[: self.most]
        self.seen = Seen(images, rows_N.sort().values.to(self.log_var.device))

    @torch.no_grad()
    def refresh(self) -> None:
        """Encode all exemplars; random transforms (dynamic binarisation) with fixed noise."""
        if self.seen is None:
            return
        stream = Generator(self.mean_NZ.device).manual_seed(SEED)
        pieces = torch.split(self.seen.rows_N, ENCODED_AT_ONCE)
        self.mean_NZ = torch.cat([self.encoded(self.seen.images.take(rows, stream)) for rows in pieces])

    def get_extra_state(self) -> Tensor:
        return self.mean_NZ

    def set_extra_state(self, state: Tensor) -> None:
        self.mean_NZ = state.to(self.mean_NZ)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExemplarModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.mean_NZ = fn(self.mean_NZ)  # to another device or precision with the weights
        return self

    def encoded(self, x_MCHW: Tensor) -> Tensor:
        if self.encode is None:
            raise RuntimeError("an exemplar prior is made of posteriors: attach(encode, shape) comes first")
        return torch.as_tensor(self.encode(x_MCHW.to(self.log_var.dtype)).mean)

    # --- the density ---

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mixture of all exemplars, as they were when last refreshed."""
        if not len(self.mean_NZ):
            raise ConfigError(
                "an exemplar prior is made of training images and has none: call "
                "model.observe_training_images(batches), then model.refresh(); training does both, and a trained "
                "model is saved with what it needs"
            )
        return self.mixture(self.mean_NZ)

    def mixture(self, mean_MZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight_M = mean_MZ.new_full((len(mean_MZ),), -math.log(len(mean_MZ)))
        return mean_MZ, self.log_var.expand(1, mean_MZ.shape[-1]), weight_M

    def log_prob(self, z: Tensor) -> Tensor:
        if not self.training or self.seen is None:
            return super().log_prob(z)
        return log_mixture(z, *self.mixture(self.encoded(self.seen.some(self.exemplars))))

    def sample(self, n: int) -> Tensor:
        if not self.training or self.seen is None:
            return super().sample(n)
        mean_NZ = self.encoded(self.seen.drawn(n))
        return torch.addcmul(mean_NZ, (0.5 * self.log_var).exp(), torch.randn_like(mean_NZ))

    def leave_out(self, x_BCHW: Tensor) -> PriorDensity:
        """Return the prior for these training images: each is scored without itself as an exemplar."""
        return Without(self, self.seen, x_BCHW) if self.training and self.seen is not None else self

    def signature(self, x_BCHW: Tensor) -> Tensor:
        """Return two numbers by which an image is known; sums: a product would round otherwise in another batch."""
        return (x_BCHW.flatten(1)[..., None] * self.sketch_D2).sum(1)


class Seen:
    """The training images that are exemplars: `rows_N` of `images`. Copies of a prior look at the same."""

    def __init__(self, images: TrainingImages, rows_N: Tensor) -> None:
        self.images, self.rows_N = images, rows_N

    def __deepcopy__(self, memo: object) -> Seen:
        return self  # a weight average copies the model; the images need no second one

    def drawn(self, n: int) -> Tensor:
        """Return n images at random, with replacement; from torch's own stream."""
        return self.images.take(self.rows_N[torch.randint(len(self.rows_N), (n,), device=self.rows_N.device)])

    def some(self, n: int) -> Tensor:
        """Return n images at random, or each once where there are no more."""
        return self.drawn(n) if len(self.rows_N) > n else self.images.take(self.rows_N)


class Without:
    """The exemplar prior as training images see it: each is scored by the others, and recognised by its pixels."""

    def __init__(self, prior: ExemplarModule, others: Seen, x_BCHW: Tensor) -> None:
        self.prior, self.others, self.x_BCHW = prior, others, x_BCHW

    def log_prob(self, z_KBZ: Tensor) -> Tensor:
        prior, x_MCHW = self.prior, self.others.some(self.prior.exemplars)
        mean_MZ, log_var, _ = prior.mixture(prior.encoded(x_MCHW))
        same_BM = (prior.signature(self.x_BCHW)[:, None] - prior.signature(x_MCHW)).abs().amax(-1) < SAME
        same_BM = same_BM & ~same_BM.all(-1, keepdim=True)  # all images are alike
        weight_BM = torch.zeros_like(same_BM, dtype=mean_MZ.dtype).masked_fill(same_BM, -math.inf)
        return log_mixture(z_KBZ, mean_MZ, log_var, weight_BM.log_softmax(-1))

    def sample(self, n: int) -> Tensor:
        return self.prior.sample(n)
