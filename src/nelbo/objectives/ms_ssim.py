"""The ELBO beside structural similarity."""

import math
from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import nn

from nelbo.core import Draw, Progress, Terms
from nelbo.core.vocabulary import Shape
from nelbo.objectives.base import Owner, halves, kl_of
from nelbo.objectives.similarity import EXPONENTS, MultiScale
from nelbo.schedules import Constant, Schedule


class MSSSIM(Owner):
    """(1 - weight) * -log p(x|z) + weight * D * (1 - MS-SSIM(x, E[x|z])) + beta * KL. Wang et al. 2003, eq. 7.

    As a loss of autoencoders: Snell et al. 2017. D = C H W: a pixel's full dissimilarity weighs one nat. The bound
    reported is the ELBO, without similarity. What it owns has no weights; it is what the size of the images decides.

    weight          share of the dissimilarity, from 0 (the ELBO) to 1 (no likelihood is trained)
    beta            weight of the KL: a number or a schedule
    window, scales  side of the Gaussian window, odd, and number of scales. Left out: 11 or the largest that fits, and
                    as many of five as fit then. On 8 x 8 pixels a window of 3 has two scales
    pixels          the smallest and largest value of a pixel
    """

    name: ClassVar[str] = "ms-ssim"
    loss_is_bound: ClassVar[bool] = False

    weight: float = Field(default=0.5, ge=0.0, le=1.0)
    beta: Schedule = Constant(value=1.0)
    window: int | None = Field(default=None, ge=1)
    scales: int | None = Field(default=None, ge=1, le=len(EXPONENTS))
    pixels: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.window is not None and self.window % 2 == 0:
            raise ValueError(f"window is {self.window}: expected an odd number, so that it has a centre")
        if self.pixels[0] >= self.pixels[1]:
            raise ValueError("pixels: expected the smallest value, then the largest, as in 0,1")
        return self

    def build(self, latent_dim: int, shape: Shape) -> MultiScale:
        return MultiScale(shape, self.window, self.scales)

    def terms(self, draw: Draw, progress: Progress, module: nn.Module | None) -> Terms:
        assert module is not None
        assert draw.x_BCHW is not None
        assert draw.likelihood is not None
        parts, bound_B = halves(draw)
        low, high = self.pixels
        mean_KBCHW = draw.likelihood.mean
        x_KBCHW = draw.x_BCHW.expand_as(mean_KBCHW)
        similar = module(*((pixels.flatten(0, 1) - low) / (high - low) for pixels in (mean_KBCHW, x_KBCHW)))
        similar_B = similar.view(len(mean_KBCHW), -1).mean(0)
        dissimilar_B = math.prod(draw.x_BCHW.shape[1:]) * (1 - similar_B)  # D (1 - MS-SSIM): scale of nats
        image_B = (1 - self.weight) * parts["reconstruction"] + self.weight * dissimilar_B
        loss_B = image_B + self.beta(progress) * kl_of(parts)
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts | {"ms_ssim": similar_B})
