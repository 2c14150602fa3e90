"""Discretised logistic pixels, one or a mixture: a probability for each of the 256 levels, near levels alike."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full
from nelbo.likelihoods.base import (
    TOP_LEVEL,
    Likelihood,
    LikelihoodModule,
    ObservationKind,
    parameters_of,
    sum_pixels,
)
from nelbo.likelihoods.spread import Optimal, PerPixel, Spread

HALF = 0.5 / TOP_LEVEL  # half the width of a level on [0, 1]
CENTRE = 0.5  # where a decoder output of 0 puts the location


def log_level(x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """Return log P(level), x = level / 255, of a logistic distribution cut into levels whose edges absorb the tails.

    P = sigmoid(a) - sigmoid(b) with a, b = (x +- half a level - location) / s. The difference is
    sigmoid(a) sigmoid(-b) (1 - exp(b - a)), so that the logarithm is a sum of three that never cancel, in any tail;
    a at the top level and b at the bottom are infinite, and their factors 1.
    """
    inverse = (-log_scale).exp()
    bottom, top = x < HALF, x > 1.0 - HALF
    below = F.logsigmoid((x + HALF - location) * inverse).masked_fill(top, 0.0)
    above = F.logsigmoid((location + HALF - x) * inverse).masked_fill(bottom, 0.0)
    width = (-(-2.0 * HALF * inverse).expm1()).log()  # log(1 - exp(b - a))
    return below + above + torch.where(bottom | top, 0.0, width)


def mean_level(location: Tensor, log_scale: Tensor) -> Tensor:
    """Return E[level] / 255 of the same distribution, which is not its location near the edges.

    E[level] = sum_{k = 1..255} P(level >= k), term by term: exact, memory flat, 255 sigmoids a pixel.
    """
    inverse = (-log_scale).exp()
    scaled = (location + HALF) * inverse
    total = torch.zeros_like(scaled)
    for level in range(1, TOP_LEVEL + 1):
        # In place, which its derivative allows: three passes over the pixels a term.
        total.add_(scaled.sub(inverse, alpha=level / TOP_LEVEL).sigmoid_())
    return total / TOP_LEVEL


def draw_level(location: Tensor, log_scale: Tensor) -> Tensor:
    """Draw level / 255: a logistic draw, rounded to its level."""
    uniform = torch.rand_like(location)
    drawn = location + log_scale.exp() * (uniform.log() - (-uniform).log1p())
    return (drawn * TOP_LEVEL).round().clamp(0, TOP_LEVEL) / TOP_LEVEL


class LogisticImage(LikelihoodValue):
    """The value prod_D P(level | location, s); `log_scale` = log s is a scalar, or one for each pixel."""

    def __init__(self, location: Tensor, log_scale: Tensor) -> None:
        self.location = location
        self.log_scale = log_scale

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return mean_level(self.location, self.log_scale)

    def log_prob(self, x: Tensor) -> Tensor:
        return sum_pixels(log_level(x, self.location, self.log_scale))

    def sample(self) -> Tensor:
        return draw_level(self.location, self.log_scale)


class DiscretisedLogistic(Likelihood):
    """A logistic distribution cut into 256 levels, the edges absorbing its tails (Kingma et al. 2016).

    scale   s on [0, 1]: per-pixel, learned (one for all, as in that paper), or a number
    """

    observation_kind: ClassVar[ObservationKind] = "levels"
    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    scale: Spread = PerPixel()

    @field_validator("scale")
    @classmethod
    def _not_closed_form(cls, value: Spread) -> Spread:
        if isinstance(value, Optimal):
            raise ValueError(
                "a logistic distribution has no optimal scale in closed form; use learned or per-pixel"
            )
        return value

    @property
    def channels(self) -> int:
        return 1 + self.scale.outputs

    def build(self, shape: Shape) -> LikelihoodModule:
        return LogisticModule(self)


class LogisticModule(LikelihoodModule):
    def __init__(self, spec: DiscretisedLogistic) -> None:
        super().__init__()
        self.scale = spec.scale.build()

    def forward(self, outputs: Tensor) -> LogisticImage:
        location, log_scale = self.scale.split(full(outputs))
        return LogisticImage(CENTRE + location, log_scale)


# --- mixtures -----------------------------------------------------------------------------------


class LogisticMixtureImage(LikelihoodValue):
    """The value prod_D sum_M w_M P(level | location_M, s_M). Shape of the parameters: (..., M, C, H, W)."""

    def __init__(self, logits: Tensor, location: Tensor, log_scale: Tensor) -> None:
        self.log_weight = logits.log_softmax(-4)
        self.location = location
        self.log_scale = log_scale

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return (self.log_weight.exp() * mean_level(self.location, self.log_scale)).sum(-4)

    def log_prob(self, x: Tensor) -> Tensor:
        log_level_M = log_level(x.unsqueeze(-4), self.location, self.log_scale)
        return sum_pixels((self.log_weight + log_level_M).logsumexp(-4))

    def sample(self) -> Tensor:
        noise = torch.empty_like(self.log_weight).exponential_().log()
        # The largest logit plus Gumbel noise: exactly a draw of one component for each pixel.
        chosen = (self.log_weight - noise).argmax(-4, keepdim=True)
        location, log_scale = self.location.gather(-4, chosen), self.log_scale.gather(-4, chosen)
        return draw_level(location.squeeze(-4), log_scale.squeeze(-4))


class DiscretisedLogisticMixture(Likelihood):
    """A mixture of discretised logistics for each pixel and channel (Salimans et al. 2017, section 2.1).

    Their coupling of red, green and blue is left out: given z, channels are independent here as pixels are, so
    that z has to carry what they share, and `mean` is exact. Starts with the components spread over [0, 1].

    components   M; 3 M decoder outputs for each image channel
    scale        where each s starts, and its floor
    """

    observation_kind: ClassVar[ObservationKind] = "levels"
    support: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    components: int = Field(default=5, ge=1)
    scale: PerPixel = PerPixel()

    @property
    def channels(self) -> int:
        return 3 * self.components

    def build(self, shape: Shape) -> LikelihoodModule:
        return LogisticMixtureModule(self)


class LogisticMixtureModule(LikelihoodModule):
    centres: Tensor

    def __init__(self, spec: DiscretisedLogisticMixture) -> None:
        super().__init__()
        self.spec = spec
        centres = (torch.arange(spec.components) + 0.5) / spec.components
        self.register_buffer("centres", centres.view(-1, 1, 1, 1), persistent=False)

    def forward(self, outputs: Tensor) -> LogisticMixtureImage:
        logits, location, raw = parameters_of(outputs, self.spec.channels).chunk(3, dim=-4)
        return LogisticMixtureImage(logits, self.centres + location, self.spec.scale.log_spread(raw))
