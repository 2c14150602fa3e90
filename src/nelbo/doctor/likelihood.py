"""Where a likelihood and the pixels it is asked about do not fit: range, grey levels, sigma."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from nelbo.config import to_dict
from nelbo.data import Transform
from nelbo.doctor.base import Finding, check
from nelbo.doctor.case import Case, NotLooked
from nelbo.doctor.configuration import beta_over_training, fixed_sigma

SQUASHED = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
HIDDEN_WEIGHT = 4.0  # times that a sigma off its own error weighs the KL up or down
FINER = 0.5  # of the step between grey levels: a narrower density counts on a value it cannot know
FINER_SHARE = 0.01


def likelihood_of(case: Case) -> Any:
    found = getattr(case.recipe.model, "likelihood", None)
    if found is None:
        raise NotLooked(f"a {case.recipe.model.name} has no likelihood of its own to look at")
    return found


def transformed(case: Case, *added: str) -> list[Any]:
    """The transforms as a flag takes them, with `added` before those that act on batches, whose kind they replace."""
    kept = [t for t in case.recipe.data.transforms if not (t.binary or t.dequantises)]
    once = [to_dict(t) for t in kept if type(t).batch is Transform.batch]
    return [
        *once,
        *({"name": name} for name in added),
        *(to_dict(t) for t in kept if type(t).batch is not Transform.batch),
    ]


@check("configuration", "data")
def output_range(case: Case) -> Iterator[Finding]:
    """A squashed output that cannot reach the pixels, or of which they use only a part: tanh against [0, 1] data."""
    squash = getattr(likelihood_of(case), "mean", None)
    if squash not in SQUASHED:
        return
    (bottom, top), (low, high) = SQUASHED[squash], case.splits.range
    if (round(low, 3), round(high, 3)) == (bottom, top):
        return
    reaches = bottom <= low and high <= top
    fitting = next(
        (name for name, interval in SQUASHED.items() if interval == (round(low), round(high))), "identity"
    )
    yield Finding(
        f"The decoder's output is a {squash}, in [{bottom:g}, {top:g}], but the pixels lie in [{low:g}, {high:g}].",
        "serious",
        f"{1 - (high - low) / (top - bottom):.0%} of the output's range is never asked for"
        if reaches
        else f"pixels below {bottom:g} or above {top:g} cannot be reconstructed",
        f"Let the mean be {'as wide as the pixels' if fitting == 'identity' else f'a {fitting}'}.",
        case.retrain({"model.likelihood.mean": fitting}),
    )


@check("configuration", "data")
def pixels_outside_support(case: Case) -> Iterator[Finding]:
    """Pixels to which the likelihood gives no probability: training refuses them."""
    likelihood = likelihood_of(case)
    low, high = case.splits.range
    if likelihood.support is None or (likelihood.support[0] <= low and high <= likelihood.support[1]):
        return
    yield Finding(
        f"Pixels lie where a {likelihood.name} likelihood has no probability.",
        "serious",
        f"they span [{low:g}, {high:g}], and its support is [{likelihood.support[0]:g}, {likelihood.support[1]:g}]",
        "Say what the smallest and largest pixel is, which maps them to [0, 1].",
        case.retrain({"data.range": [low, high]}),
    )


@check("configuration", "data")
def grey_pixels(case: Case) -> Iterator[Finding]:
    """Grey pixels under a Bernoulli: a cross-entropy that is no likelihood.

    It trains well and compares only with numbers of its own kind: no distribution over grey values has it as density.
    """
    if likelihood_of(case).of != "binary" or case.splits.pixels == "binary":
        return
    x = case.splits.train.pixels_NCHW[:1000].float()
    x = x / 255 if case.splits.train.pixels_NCHW.dtype == torch.uint8 else x
    between = float(((x > 0) & (x < 1)).double().mean())
    yield Finding(
        "Grey pixels are fed to a Bernoulli: the numbers are cross-entropies, not log-likelihoods.",
        "worth knowing",
        f"{between:.0%} of the pixels lie strictly between 0 and 1",
        "Binarise them: anew in every batch, once for the test split. Or keep grey levels, with a likelihood for "
        "them: --model.likelihood discretised-logistic.",
        case.retrain({"data.transforms": transformed(case, "dynamic-binarise")}),
    )


@check("configuration", "data")
def hidden_kl_weight(case: Case) -> Iterator[Finding]:
    """A fixed sigma that weighs the KL without saying so: what an averaged squared error amounts to.

    SSE / (2 sigma^2) + beta KL is (s / sigma)^2 times SSE / (2 s^2) + beta (sigma / s)^2 KL, for any s. With s the
    model's own error the first part is calibrated, and (sigma / s)^2 beta is the KL's real weight (Rybkin et al. 2021,
    section 3). Without a trained model s is the spread around the mean image: all that there is to explain.
    """
    sigma = fixed_sigma(likelihood_of(case))
    if sigma is None:
        return
    betas = beta_over_training(case)
    beta = betas[-1] if betas else 1.0
    pixels = math.prod(case.splits.shape)
    if case.weights is not None:
        error, what = reconstruction_error(case), f"the model's error on {case.looked('test')}"
    else:
        error, what = spread(case), "the images' spread around their mean image"
    hidden = (sigma / max(error, 1e-12)) ** 2
    off = hidden > (HIDDEN_WEIGHT if case.weights is not None else 1.0) or (
        case.weights is not None and hidden < 1 / HIDDEN_WEIGHT
    )
    if not off:
        return
    yield Finding(
        f"Sigma is fixed at {sigma:g}, which weighs the KL without saying so.",
        "worth knowing" if case.weights is not None else "serious",
        f"{what} is {error:.3g} a pixel (root mean square), so that the KL weighs {hidden * beta:.3g} beside a "
        f"Gaussian whose sigma is its error. Sigma {sigma:g} is what a squared error averaged over the {pixels} pixels "
        f"amounts to with a KL weight of {2 * sigma**2 * beta / pixels:.3g}",
        "Let sigma be learned: it then becomes the error, and the KL weighs 1.",
        case.retrain(
            {"model.likelihood.sigma": "learned"} | ({"objective.beta": 1.0} if beta != 1.0 else {})
        ),
    )


def spread(case: Case) -> float:
    """Root mean square of the training images that are looked at around their mean image, a pixel."""
    x_NCHW = torch.cat(list(case.view("train").batches()))
    return float((x_NCHW - x_NCHW.mean(0)).square().mean().sqrt())


@torch.no_grad()
def reconstruction_error(case: Case) -> float:
    """Root mean square of the reconstructions' error on the test images that are looked at, a pixel."""
    errors = [(case.model.reconstruct(x) - x).square().mean((1, 2, 3)) for x in case.view("test").batches()]
    return float(torch.cat(errors).mean().sqrt())


@check("weights", "data")
def density_finer_than_pixels(case: Case) -> Iterator[Finding]:
    """A density narrower than the step between grey levels: the bound then measures that width, and has no limit.

    8-bit pixels lie on 256 values; a density with all its mass on one of them grows for ever as sigma falls (Theis et
    al. 2016, section 3.1). A probability of levels, or dequantised pixels, has no such gain.
    """
    images = case.splits.train.pixels_NCHW
    if (
        case.model.likelihood_of != "density"
        or case.splits.pixels == "dequantised"
        or images.dtype != torch.uint8
    ):
        return
    low, high = case.splits.range
    step = (high - low) / (1 if case.splits.pixels == "binary" else 255)
    with torch.no_grad():
        x_BCHW = next(case.view("test").batches())
        value = case.model.decode(case.model.encode(x_BCHW).mean)
        log_width = getattr(value, "log_sigma", getattr(value, "log_scale", None))
    if log_width is None:
        raise NotLooked("this density has no width to look at")
    width = log_width.exp()
    finer = float((width < FINER * step).double().mean())
    if finer <= FINER_SHARE:
        return
    yield Finding(
        "The likelihood's density is narrower than the step between two grey levels.",
        "serious",
        f"for {finer:.0%} of the pixels; the narrowest is {float(width.min()):.2g}, the step {step:.2g}. A probability "
        "of levels cannot exceed 1; this density does, and its bound says how narrow it became",
        "Spread each level over its step with uniform noise, which makes the density one of levels.",
        case.retrain({"data.transforms": transformed(case, "dequantise")}),
    )
