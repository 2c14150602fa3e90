"""The error of a reconstruction: squared error, peak signal-to-noise ratio, structural similarity."""

import torch

from nelbo.dists.base import exact
from nelbo.metrics.base import Missing, Number, Split, Value, Values, metric
from nelbo.metrics.bound import of_two_images
from nelbo.models import BuiltModel
from nelbo.objectives.similarity import WINDOW, ssim, window_for

PIXELS_AT_ONCE = 2**18  # of float64 held at a time, five times over
NUMBERS = {
    "mse": Number("MSE", better="lower"),
    "psnr": Number("PSNR", better="higher"),
    "ssim": Number("SSIM", better="higher"),
}


@metric(order=50, quick=True, depends_on_k=False, learns=False, numbers=NUMBERS)
def error(model: BuiltModel, split: Split) -> Values:
    """MSE, PSNR and SSIM of an image against the decoded posterior mean.

        MSE  = 1/D sum (x - m)^2, on the scale the model sees
        PSNR = 10 log10(range^2 / MSE) of each image, dB, then the mean over images
        SSIM = Wang et al. 2004, with the range of the data as dynamic range

    A mean over images does not exist where one is reconstructed without error: PSNR is infinite there.
    """
    low, high = split.data.range
    squared, similar = [], []
    for x_BCHW in split.batches():
        x, guess = exact(x_BCHW), exact(model.reconstruct(x_BCHW))
        squared.append((guess - x).square().flatten(1).mean(1).cpu())
        few = max(1, PIXELS_AT_ONCE // x[0].numel())  # ssim holds five copies of its input
        for x_part, guess_part in zip(torch.split(x, few), torch.split(guess, few), strict=True):
            similar.append(ssim((x_part - low) / (high - low), (guess_part - low) / (high - low)).cpu())
    mse_N, ssim_N = torch.cat(squared), torch.cat(similar)
    source = f"from the {of_two_images(model.encode, split).mean_is}"
    yield "mse", Value.over_images(mse_N, "squared/pixel", f"{source}, on the scale the model sees")
    decibel_N = 10.0 * ((high - low) ** 2 / mse_N).log10()
    note = f"{source}, mean over images of dB; data range [{low:g}, {high:g}]"
    perfect_N = mse_N == 0
    if perfect_N.any():
        exact_ones = f"{int(perfect_N.sum())} of {len(mse_N)} images are reconstructed without error"
        others = "" if perfect_N.all() else f"; {float(decibel_N[~perfect_N].mean()):.2f} dB over the others"
        yield "psnr", Value.none("dB", Missing("infinite", f"{exact_ones}{others}; {note}"))
    else:
        yield "psnr", Value.over_images(decibel_N, "dB", note)
    side = window_for(*split.images.shape[1:])
    smaller = "" if side == WINDOW else f"; window {side} x {side}, images are too small for 11 x 11"
    yield "ssim", Value.over_images(ssim_N, "", f"{source}; data range [{low:g}, {high:g}]{smaller}")
