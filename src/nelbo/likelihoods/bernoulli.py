"""Bernoulli pixels on logits."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full
from nelbo.likelihoods.base import Likelihood, LikelihoodModule, ObservationKind, sum_pixels


class BernoulliImage(LikelihoodValue):
    """The value prod_D Bernoulli(x | sigmoid(logits)).

    For pixels strictly between 0 and 1 `log_prob` is minus a cross-entropy, which is not a log-likelihood; evaluation
    names it so.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.logits.sigmoid()

    def log_prob(self, x: Tensor) -> Tensor:
        # x * logit - log(1 + exp(logit)): no sigmoid is ever taken, so no logarithm of zero either.
        if x.requires_grad or self.logits.dim() != x.dim() + 1:
            return sum_pixels(x * self.logits - F.softplus(self.logits))
        return LogBernoulli.apply(self.logits, x)  # type: ignore[no-any-return, no-untyped-call]

    def sample(self) -> Tensor:
        return torch.bernoulli(self.mean)


class LogBernoulli(torch.autograd.Function):
    """sum_D x l - log(1 + exp(l)), whose derivative by l is x - sigmoid(l): three kernels back instead of eight.

    Shapes: logits l (K, B, C, H, W), pixels x (B, C, H, W), result (K, B).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(logits, x)
        return sum_pixels((x * logits).sub_(F.softplus(logits)))  # in place: one image-sized tensor less

    @staticmethod
    def backward(ctx: Any, grad_KB: Tensor) -> tuple[Tensor, None]:
        logits, x = ctx.saved_tensors
        return (x - logits.sigmoid()) * grad_KB[..., None, None, None], None


class Bernoulli(Likelihood):
    """Bernoulli pixels on logits: a likelihood for binary images, a cross-entropy for others."""

    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    observation_kind: ClassVar[ObservationKind] = "binary"

    def build(self, shape: Shape) -> LikelihoodModule:
        return BernoulliModule()


class BernoulliModule(LikelihoodModule):
    def forward(self, logits: Tensor) -> BernoulliImage:
        return BernoulliImage(full(logits))
