"""Checks that a likelihood fits its pixels: range, grey levels, sigma."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nelbo.core.config import to_dict
from nelbo.data import Transform
from nelbo.doctor.base import Finding, check
from nelbo.doctor.case import Case, NotLooked
from nelbo.doctor.command import Change
from nelbo.doctor.configuration import beta_over_training, fixed_sigma
from nelbo.engine import fixed_seed
from nelbo.models.base import Autoencoder

FAR, DRAWS = 1e3, 512  # outputs and latents so far out that whatever squashes them is at its ends
REACHED = 0.1  # of the pixels' range: what an output must come near to
BOUNDED = 10.0  # times the pixels' range: an output as wide as that is not squashed
SQUASHED = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
HIDDEN_WEIGHT = 4.0  # times that a sigma off its own error weighs the KL up or down
GAINED = 1.0  # nats an image


def likelihood_of(case: Case) -> Any:
    found = case.recipe.model.setting("likelihood")
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
    """A squashed output that cannot reach the pixels, or of which they use only a part: tanh against [0, 1] data.

    Found by behaviour: the means of the likelihood for outputs far out, and where there are weights, of the decoder for
    latents far out. A sigmoid whose output is taken for logits shows there too: its means stay in [0.5, 0.73].
    """
    likelihood = likelihood_of(case)
    low, high = case.splits.range
    near = REACHED * (high - low)
    for bottom, top in reach(case):
        cannot = bottom > low + near or top < high - near
        if not cannot and not high - low + near < top - bottom < BOUNDED * (high - low):
            continue
        x_NCHW = torch.cat(list(case.view("train").batches()))
        outside = float(((x_NCHW < bottom) | (x_NCHW > top)).double().mean())
        unused = 1.0 - (high - low) / (top - bottom)
        yield Finding(
            f"The decoder's output {'cannot reach' if cannot else 'reaches far beyond'} the pixels.",
            "serious",
            f"it is squashed into [{bottom:.3g}, {top:.3g}], and the pixels lie in [{low:g}, {high:g}]: "
            + (
                f"{outside:.0%} of them are out of reach"
                if cannot
                else f"{unused:.0%} of its range is never asked for"
            ),
            *_unsquashed(case, likelihood),
        )
        return


def _unsquashed(case: Case, likelihood: Any) -> tuple[str, Change]:
    low, high = case.splits.range
    if hasattr(type(likelihood), "model_fields") and "mean" in type(likelihood).model_fields:
        fitting = next(
            (name for name, both in SQUASHED.items() if both == (round(low), round(high))), "identity"
        )
        words = f"Let the mean be {'as wide as the pixels' if fitting == 'identity' else f'a {fitting}'}."
        return words, case.retrain({"model.likelihood.mean": fitting})
    words = "Squash once: let the decoder's last layer be linear, and leave the rest to the likelihood."
    return words, case.retrain({"model.likelihood": "bernoulli", "model.decoder": "mlp"})


@torch.no_grad()
def reach(case: Case) -> Iterator[tuple[float, float]]:
    """Smallest and largest mean of a pixel: of the likelihood for any output, then of the decoder for any latent."""
    spec, device = likelihood_of(case), torch.device("cpu")
    with fixed_seed(0, device):
        mean = spec.build((1, 1, 1)).eval()(FAR * torch.randn(DRAWS, spec.channels, 1, 1)).mean
        yield float(mean.min()), float(mean.max())
        if case.weights is None:
            return
        z_MZ = FAR * torch.randn(DRAWS, case.model.latent_dim)
        images = case.model.decode(z_MZ.to(case.device)).mean.float().cpu()
    if float(images.std(0).max()) > 1e-3:  # a decoder that ignores z says nothing about its reach
        yield float(images.min()), float(images.max())


@check("configuration", "data")
def pixels_outside_support(case: Case) -> Iterator[Finding]:
    """Pixels to which the likelihood gives no probability: training refuses them."""
    likelihood = likelihood_of(case)
    low, high = case.splits.range
    what = f"Pixels lie where a {likelihood.name} likelihood has no probability."
    if likelihood.support is not None and (low < likelihood.support[0] or high > likelihood.support[1]):
        yield Finding(
            what,
            "serious",
            f"they span [{low:g}, {high:g}], and its support is [{likelihood.support[0]:g}, {likelihood.support[1]:g}]",
            "Say what the smallest and largest pixel is, which maps them to [0, 1].",
            case.retrain({"data.range": [low, high]}),
        )
    elif likelihood.observation_kind == "levels" and not case.splits.eight_bit:
        yield Finding(
            what,
            "serious",
            f"it is one of the 256 levels of 8-bit images, and these are {case.splits.pixels} numbers between them",
            "Use a density.",
            case.retrain({"model.likelihood": "gaussian", "model.likelihood.sigma": "learned"}),
        )


@check("configuration", "data")
def grey_pixels(case: Case) -> Iterator[Finding]:
    """Grey pixels under a Bernoulli: a cross-entropy that is no likelihood.

    It trains well and compares only with numbers of its own kind: no distribution over grey values has it as density.
    """
    if likelihood_of(case).observation_kind != "binary" or case.splits.pixels == "binary":
        return
    train = case.splits.train
    x = train.rows(torch.arange(min(1000, len(train)))).float()
    x = x / 255 if train.dtype == torch.uint8 else x
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
    model's own error the first part is calibrated, and (sigma / s)^2 beta is the KL's real weight (Rybkin et al.
    2021). Without a trained model s is the spread around the mean image: all that there is to explain.
    """
    sigma = fixed_sigma(likelihood_of(case))
    if sigma is None:
        return
    betas = beta_over_training(case)
    beta = betas[-1] if betas else 1.0
    pixels = math.prod(case.splits.shape)
    trained = case.weights is not None
    error = max(reconstruction_error(case) if trained else spread(case), 1e-12)
    hidden = (sigma / error) ** 2
    if not (
        hidden > HIDDEN_WEIGHT or (hidden > 1.0 and not trained) or (hidden < 1 / HIDDEN_WEIGHT and trained)
    ):
        return
    seen = (
        f"the model's error on {case.looked('test')}" if trained else "all that varies around the mean image"
    )
    weight = f"{'' if trained else 'at least '}{float(f'{hidden * beta:.3g}'):,g}"
    yield Finding(
        f"Sigma is fixed at {sigma:g}, which weighs the KL without saying so.",
        "serious" if hidden > HIDDEN_WEIGHT and not trained else "worth knowing",
        f"{seen} is {error:.3g} a pixel (root mean square), so that the KL weighs {weight} beside a Gaussian whose "
        f"sigma is its error. Sigma {sigma:g} is what a squared error averaged over the {pixels} pixels amounts to "
        f"with a KL weight of {2 * sigma**2 * beta / pixels:.3g}",
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
    """A density so narrow that it exceeds what any probability of these pixels has: the bound has then no limit.

    Pixels lie on 256 values (or 2) a step apart. A density spread over that step would be 1 / step where the value is
    certain; one that is higher has grown on the emptiness between the values, and grows for ever as it gets narrower
    (Theis et al. 2016, section 3.1). Dequantised pixels, or a probability of levels, leave no such gain.
    """
    images, pixels = case.splits.train, case.splits.pixels
    if case.model.observation_kind != "density" or pixels == "dequantised" or images.dtype != torch.uint8:
        return
    if fixed_sigma(likelihood_of(case)) is not None:
        return
    low, high = case.splits.range
    step = (high - low) / (1 if pixels == "binary" else 255)
    excess_NP = (density_of_places(case) + images.shape[0] * math.log(step)).clamp_min(0.0)
    gained = float(excess_NP.sum(1).mean())
    if gained <= GAINED:
        return
    yield Finding(
        "The likelihood's density is finer than the pixels are: its bound has no limit.",
        "serious",
        f"{gained:,.0f} nats of an image's log p(x|z) are density above 1 / {step:.2g}, the highest of a value that is "
        f"certain to within the step between two {'values' if pixels == 'binary' else 'grey levels'}; "
        f"{float((excess_NP > 0).double().mean()):.0%} of the pixels have it",
        "Spread each level over its step with uniform noise, which makes the density one of levels."
        if pixels == "grey"
        else "Two values are a Bernoulli's.",
        case.retrain(
            {"data.transforms": transformed(case, "dequantise")}
            if pixels == "grey"
            else {"model.likelihood": "bernoulli"}
        ),
    )


@torch.no_grad()
def density_of_places(case: Case) -> Tensor:
    """log p(x | z) of each place of an image, nats, at the posterior mean: N P, P = height x width.

    Given z pixels are independent, so that every place is an image of one pixel to the likelihood.
    """
    if not isinstance(case.model, Autoencoder):
        raise NotLooked("this model's likelihood is not to be had by itself")
    likelihood = case.model.likelihood
    outputs: list[Tensor] = []
    hook = likelihood.register_forward_pre_hook(lambda _module, inputs: outputs.append(inputs[0]))
    try:
        x_BCHW = next(case.view("test").batches())
        case.model.reconstruct(x_BCHW)
    finally:
        hook.remove()
    value = likelihood(_places(outputs[0]))
    return value.log_prob(_places(x_BCHW)).reshape(len(x_BCHW), -1).cpu().double()  # type: ignore[no-any-return]


def _places(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, C, 1, 1)."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1], 1, 1)
