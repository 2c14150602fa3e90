"""A probability for each of the 256 levels of a pixel."""

from typing import ClassVar

import torch
from torch import Tensor

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.likelihoods.base import (
    TOP_LEVEL,
    Likelihood,
    LikelihoodModule,
    ObservationKind,
    parameters_of,
    sum_pixels,
)

LEVELS = TOP_LEVEL + 1


class CategoricalImage(LikelihoodValue):
    """The value prod_D softmax(logits)[level], x = level / 255. Shape of the logits: (..., L, C, H, W)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        levels_L = torch.arange(LEVELS, dtype=self.logits.dtype, device=self.logits.device) / TOP_LEVEL
        # Never in bfloat16, whose eight bits do not hold 256 levels.
        with torch.autocast(self.logits.device.type, enabled=False):
            return torch.einsum("...lchw,l->...chw", self.logits.softmax(-4), levels_L)

    def log_prob(self, x: Tensor) -> Tensor:
        level = (x * TOP_LEVEL).round().long().unsqueeze(-4)
        level = level.view(*(1,) * (self.logits.dim() - level.dim()), *level.shape)
        chosen = torch.take_along_dim(self.logits, level, dim=-4).squeeze(-4)
        # One level is taken before the sum is subtracted: `log_softmax` would make 256 numbers a pixel to drop 255.
        return sum_pixels(chosen - self.logits.logsumexp(-4))

    def sample(self) -> Tensor:
        """Return the level with the largest logit plus Gumbel noise: exactly a draw from the softmax."""
        noise = torch.empty_like(self.logits).exponential_().log()
        return (self.logits - noise).argmax(-4).to(self.logits.dtype) / TOP_LEVEL


class Categorical(Likelihood):
    """256 free probabilities a pixel (van den Oord et al. 2016, pixel networks): any shape, no notion of near levels.

    256 decoder outputs for each image channel: for an MLP on larger images that is most of its weights.
    """

    observation_kind: ClassVar[ObservationKind] = "levels"
    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    @property
    def channels(self) -> int:
        return LEVELS

    def build(self, shape: Shape) -> LikelihoodModule:
        return CategoricalModule()


class CategoricalModule(LikelihoodModule):
    def forward(self, outputs: Tensor) -> CategoricalImage:
        return CategoricalImage(parameters_of(outputs, LEVELS))
