"""The VampPrior: a mixture of the model's own posteriors at learned pseudo-inputs."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from nelbo.core.distributions import Encode, PosteriorValue, PriorModule, TrainingImages
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import exact
from nelbo.dists.normal import DiagonalNormal
from nelbo.priors.base import Prior
from nelbo.priors.mixture import AT_ONCE, log_mixture

FIRST_IMAGES = 20_180_409  # seed of the choice of training images
START_WIDTH = 0.1  # deviation of noise to begin with, as a share of the range
ENCODED_AT_ONCE = 1000


class Vamp(Prior):
    """p(z) = 1/C sum_c q(z | u_c), pseudo-inputs u_c learned. Tomczak & Welling 2018 (VampPrior).

    The best prior for a model is its aggregate posterior 1/N sum_n q(z | x_n), which costs too much and overfits; C
    images that are weights stand for the N. Each time that log p(z) is asked for they pass the encoder once, with
    gradients to both. Any posterior with a density will do: those of diagonal Gaussians are summed by matrix products.

    components  C
    start       images: C training images, drawn once, when training begins; noise: numbers around the middle, and what
                a model has before it has seen images
    low, high   pseudo-inputs are clamped to [low, high], the range of the images (the paper's hardtanh)
    """

    components: int = Field(default=100, ge=1)
    start: Literal["images", "noise"] = "images"
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")
        return self

    def build(self, latent_dim: int) -> VampModule:
        return VampModule(self, latent_dim)


class VampModule(PriorModule):
    """A prior with pseudo-inputs once it is attached to an encoder, which belongs to the model and not to this module.

    Nothing that comes from the encoder is kept: its weights change, and it sees C images where it sees a batch.
    """

    made_of: ClassVar[str] = "the model's own posteriors"
    seen: Tensor  # whether pseudo-inputs have begun at images
    inputs_CCHW: nn.Parameter

    def __init__(self, spec: Vamp, latent_dim: int) -> None:
        super().__init__()
        self.components, self.low, self.high = spec.components, spec.low, spec.high
        self.from_images = spec.start == "images"
        self.encode: Encode | None = None  # a bound method: a copy of the model has a copy bound to itself
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def attach(self, encode: Encode, shape: Shape) -> None:
        self.encode = encode
        noise = START_WIDTH * (self.high - self.low) * torch.randn(self.components, *shape)
        self.inputs_CCHW = nn.Parameter(0.5 * (self.low + self.high) + noise)

    def observe_training_images(self, images: TrainingImages) -> None:
        """Begin at training images, once: a run that is resumed goes on with its own pseudo-inputs."""
        if not self.from_images or bool(self.seen):
            return
        rows_C = torch.arange(self.components) % images.n  # where there are fewer, some twice
        if images.n > self.components:
            rows_C = torch.randperm(images.n, generator=Generator().manual_seed(FIRST_IMAGES))[
                : self.components
            ]
        device = self.inputs_CCHW.device
        with torch.no_grad():
            x_CCHW = images.take(rows_C.to(device), Generator(device).manual_seed(FIRST_IMAGES))
            self.inputs_CCHW.copy_(x_CCHW)
            self.seen.fill_(True)

    def posteriors(self, rows: Tensor | None = None) -> PosteriorValue:
        """Return q(z | u) of every pseudo-input, or of those at these positions."""
        if self.encode is None:
            message = "a VampPrior is made of a model's posteriors: attach(encode, shape) comes first"
            raise RuntimeError(message)
        inputs = self.inputs_CCHW if rows is None else self.inputs_CCHW[rows]
        return self.encode(inputs.clamp(self.low, self.high))

    def log_prob(self, z: Tensor) -> Tensor:
        q, components = self.posteriors(), self.components
        if type(q) is DiagonalNormal:  # by matrix products: memory does not grow with Z
            weight_C = q.mean.new_full((components,), -math.log(components))
            return log_mixture(z, q.mean, q.log_var, weight_C)
        pieces = torch.split(z.reshape(-1, 1, z.shape[-1]), max(1, AT_ONCE // (components * z.shape[-1])))
        log_sums = [exact(q.log_prob(some.expand(-1, components, -1))).logsumexp(-1) for some in pieces]
        return (torch.cat(log_sums).view(z.shape[:-1]) - math.log(components)).to(z)

    def sample(self, n: int) -> Tensor:
        component_N = torch.randint(self.components, (n,), device=self.inputs_CCHW.device)
        pieces = torch.split(component_N, ENCODED_AT_ONCE)
        return torch.cat([self.posteriors(rows).rsample(1)[0] for rows in pieces])
