"""Structural similarity of images: what the metric reports, and in several scales what an objective trains."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.core.vocabulary import Shape
from nelbo.errors import ConfigError

WINDOW, SIGMA = 11, 1.5  # of the Gaussian window, Wang et al. 2004, section III-B
C1, C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 at a range L of 1
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of five scales, Wang et al. 2003, section 3.2
FLOOR = 1e-3  # a power below 1 has no slope at 0, and correlations may be negative


def window_for(height: int, width: int) -> int:
    """Return the side of the window: 11, or the largest odd number that fits a smaller image."""
    side = min(WINDOW, height, width)
    return side - 1 + side % 2


def window(side: int) -> list[float]:
    """Return the weights of one axis of the Gaussian window."""
    offsets = torch.arange(side, dtype=torch.float64) - side // 2
    return torch.softmax(-0.5 * (offsets / SIGMA).square(), 0).tolist()


def moments(a: Tensor, b: Tensor, weights: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the product of the means under the window, the sum of their squares, the covariance, and the sum of the
    variances, at every position where the window lies inside the image."""
    mean_a, mean_b = _windowed(a, weights), _windowed(b, weights)
    product = mean_a * mean_b
    squares = mean_a.square() + mean_b.square()
    covariance = _windowed(a * b, weights) - product
    # SSIM needs the two variances only as a sum, so one window serves both.
    variances = _windowed(a.square() + b.square(), weights) - squares
    return product, squares, covariance, variances


def ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Return the structural similarity of images on [0, 1], float64 of shape N, at most 1. Wang et al. 2004, eq. 13.

    By moments under a Gaussian window of 11 x 11 and sigma 1.5; the mean over its positions and over channels.
    """
    weights = window(window_for(*a_NCHW.shape[-2:]))
    # In float64: a variance is a small difference of squares, and C2 is 9e-4.
    product, squares, covariance, variances = moments(a_NCHW.double(), b_NCHW.double(), weights)
    similarity = (2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))
    return similarity.flatten(1).mean(1)


def _windowed(x_NCHW: Tensor, weights: list[float]) -> Tensor:
    """Return weighted means along width, then height: the window is a product."""
    for axis in (-1, -2):  # 2 x 11 shifted sums for the 121 of the window itself
        size = x_NCHW.shape[axis] - len(weights) + 1
        total = x_NCHW.narrow(axis, 0, size) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            total.add_(x_NCHW.narrow(axis, start, size), alpha=weight)
        x_NCHW = total
    return x_NCHW


class MultiScale(nn.Module):
    """MS-SSIM of two sets of images on [0, 1], (N, C, H, W) each: N numbers, at most 1. Wang et al. 2003, eq. 7.

        l_M^(a_M)  prod_(j = 1..M) (c_j s_j)^(a_j)

    Contrast and structure at each of M scales, luminance at the coarsest, means over positions; each scale is the one
    before in means of 2 x 2 pixels. Of fewer than five scales the exponents are those of the first, made to add up
    to 1: one scale is SSIM. Means over positions below 0.001 count as that.

    window, scales   None is 11 or the largest odd number that fits, and as many of five scales as fit; numbers that do
                     not fit the images are refused
    """

    def __init__(self, shape: Shape, window_side: int | None = None, scales: int | None = None) -> None:
        super().__init__()
        _, height, width = shape
        side = window_for(height, width) if window_side is None else window_side
        fit = sum(min(height, width) >> scale >= side for scale in range(len(EXPONENTS)))
        if max(scales or 1, 1) > fit:
            raise ConfigError(
                f"objective.window {side} and objective.scales {scales or 1} do not fit images of {height} x {width}: "
                f"the smaller side, halved for every further scale, must hold the window ({fit} scales do); "
                "leave both out, or use a smaller window"
            )
        self.scales = fit if scales is None else scales
        self.weights = window(side)
        total = sum(EXPONENTS[: self.scales])
        self.exponents = [exponent / total for exponent in EXPONENTS[: self.scales]]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total_NC = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
        for scale, exponent in enumerate(self.exponents, 1):
            product, squares, covariance, variances = moments(a, b, self.weights)
            similarity = (2 * covariance + C2) / (variances + C2)  # contrast times structure
            if scale == self.scales:
                similarity = similarity * (2 * product + C1) / (squares + C1)  # luminance
            total_NC = total_NC * similarity.mean((-2, -1)).clamp_min(FLOOR) ** exponent
            if scale < self.scales:
                a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        return total_NC.mean(1)
