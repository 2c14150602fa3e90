"""How far a reconstruction is from its image: squared error, peak signal-to-noise ratio, structural similarity."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nelbo.dists.base import exact
from nelbo.metrics.base import Split, Value, metric
from nelbo.models import BuiltModel

WINDOW, SIGMA = 11, 1.5  # of the Gaussian window of SSIM, Wang et al. 2004, section III-B
C1, C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 at a range L of 1
PIXELS_AT_ONCE = 2**18  # of float64 held at a time, five times over


def window_for(height: int, width: int) -> int:
    """Side of the SSIM window: 11, or the largest odd number that fits a smaller image."""
    side = min(WINDOW, height, width)
    return side - 1 + side % 2


def ssim(a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Structural similarity of images on [0, 1], float64 of shape N, at most 1. Wang et al. 2004, eq. 13.

    Means, variances and covariance under a Gaussian window of 11 x 11 and sigma 1.5 at every position where it
    lies inside the image, then the mean over positions and channels.
    """
    side = window_for(*a_NCHW.shape[-2:])
    offsets = torch.arange(side, dtype=torch.float64) - side // 2
    weights = torch.softmax(-0.5 * (offsets / SIGMA).square(), 0).tolist()
    a, b = a_NCHW.double(), b_NCHW.double()
    mean_a, mean_b = _windowed(a, weights), _windowed(b, weights)
    product = mean_a * mean_b
    squares = mean_a.square() + mean_b.square()
    covariance = _windowed(a * b, weights) - product
    variances = _windowed(a.square() + b.square(), weights) - squares
    similarity = (2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))
    return similarity.flatten(1).mean(1)


def _windowed(x_NCHW: Tensor, weights: list[float]) -> Tensor:
    """Weighted means along width, then height: the window is a product."""
    for axis in (-1, -2):
        size = x_NCHW.shape[axis] - len(weights) + 1
        total = x_NCHW.narrow(axis, 0, size) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            total.add_(x_NCHW.narrow(axis, start, size), alpha=weight)
        x_NCHW = total
    return x_NCHW


def _errors(model: BuiltModel, x_BCHW: Tensor, low: float, high: float) -> Tensor:
    """Squared error and SSIM of each image and its reconstruction: 2B, float64 on the CPU."""
    x, guess = exact(x_BCHW), exact(model.reconstruct(x_BCHW))
    squared_B = (guess - x).square().flatten(1).mean(1)
    few = max(1, PIXELS_AT_ONCE // x[0].numel())
    parts = [slice(start, start + few) for start in range(0, len(x), few)]
    similar = [ssim((x[here] - low) / (high - low), (guess[here] - low) / (high - low)) for here in parts]
    return torch.stack([squared_B, torch.cat(similar)]).cpu()


@metric
def error(model: BuiltModel, split: Split) -> Iterator[tuple[str, Value]]:
    """MSE, PSNR and SSIM between an image and the decoded posterior mean.

        MSE  = 1/D sum (x - m)^2, on the scale the model sees
        PSNR = 10 log10(range^2 / MSE) of each image, dB, then the mean over images
        SSIM = Wang et al. 2004, with the range of the data as dynamic range

    A mean over images does not exist where one is reconstructed without error: PSNR is infinite there.
    """
    low, high = split.data.range
    found = [_errors(model, x_BCHW, low, high) for x_BCHW in split.batches()]
    mse_N, ssim_N = torch.cat(found, dim=1)
    source = "from the posterior mean"
    yield "mse", Value.over_images(mse_N, "squared/pixel", f"{source}, on the scale the model sees")
    yield (
        "psnr",
        _psnr(mse_N, high - low, f"{source}, mean over images of dB; data range [{low:g}, {high:g}]"),
    )
    side = window_for(*split.images.shape[1:])
    smaller = "" if side == WINDOW else f"; window {side} x {side}, images are too small for 11 x 11"
    yield (
        "ssim",
        Value.over_images(ssim_N, "", f"{source}; data range [{low:g}, {high:g}]{smaller}"),
    )


def _psnr(mse_N: Tensor, span: float, note: str) -> Value:
    decibel_N = 10.0 * (span**2 / mse_N).log10()
    perfect_N = mse_N == 0
    if not perfect_N.any():
        return Value.over_images(decibel_N, "dB", note)
    exact_ones = f"infinite: {int(perfect_N.sum())} of {len(mse_N)} images are reconstructed without error"
    others = "" if perfect_N.all() else f"; {float(decibel_N[~perfect_N].mean()):.2f} dB over the others"
    return Value(None, "dB", None, f"{exact_ones}{others}; {note}")
