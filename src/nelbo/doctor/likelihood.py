"""Checks that a likelihood fits its pixels: range, grey levels, sigma."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nelbo.core.config import to_dict
from nelbo.data import Transform
from nelbo.doctor.base import Finding, Severity, check
from nelbo.doctor.case import Case, NotLooked
from nelbo.doctor.configuration import beta_over_training, fixed_sigma
from nelbo.engine import fixed_seed
from nelbo.likelihoods import Likelihood
from nelbo.models.base import Autoencoder

FAR, DRAWS = 1e3, 512  # outputs and latents so far out that whatever squashes them is at its ends
REACHED = 0.1  # of the pixels' range: what an output must come near to
BOUNDED = 10.0  # times the pixels' range: an output as wide as that is not squashed
SQUASHED = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
HIDDEN_WEIGHT = 4.0  # times that a sigma off its own error weighs the KL up or down
GAINED = 1.0  # nats an image


def likelihood_of(case: Case, purpose: str = "look at") -> Likelihood:
    likelihood: Likelihood | None = case.recipe.model.setting("likelihood")
    if likelihood is None:
        raise NotLooked(f"a {case.recipe.model.name} has no likelihood of its own to {purpose}")
    return likelihood


def transformed(case: Case, added: str) -> list[dict[str, object]]:
    """Return the transforms as a flag takes them, with one before those that act on batches; it replaces its kind."""
    transforms = [t for t in case.recipe.data.transforms if not (t.binary or t.dequantises)]
    once = [to_dict(t) for t in transforms if type(t).batch is Transform.batch]
    by_batch = [to_dict(t) for t in transforms if type(t).batch is not Transform.batch]
    return [*once, {"name": added}, *by_batch]


@check("configuration", "data")
def output_range(case: Case) -> Iterator[Finding]:
    """A squashed output that cannot reach the pixels, or of which they use only a part: tanh against [0, 1] data."""
    likelihood = likelihood_of(case)
    low, high = case.splits.range
    near = REACHED * (high - low)
    # By behaviour and not by name: a sigmoid whose output is taken for logits shows too, with means in [0.5, 0.73].
    for bottom, top in reach(case):
        cannot = bottom > low + near or top < high - near
        if not cannot and not high - low + near < top - bottom < BOUNDED * (high - low):
            continue
        x_NCHW = torch.cat(list(case.view("train").batches()))
        outside = float(((x_NCHW < bottom) | (x_NCHW > top)).double().mean())
        unused = 1.0 - (high - low) / (top - bottom)
        verb, consequence = "reaches far beyond", f"{unused:.0%} of its range is never asked for"
        if cannot:
            verb, consequence = "cannot reach", f"{outside:.0%} of them are out of reach"
        remedy = "Squash once: let the decoder's last layer be linear, and leave the rest to the likelihood."
        changes = {"model.likelihood": "bernoulli", "model.decoder": "mlp"}
        if "mean" in type(likelihood).model_fields:
            pixels = round(low), round(high)
            mean = next((name for name, reached in SQUASHED.items() if reached == pixels), "identity")
            remedy = f"Let the mean be {'as wide as the pixels' if mean == 'identity' else f'a {mean}'}."
            changes = {"model.likelihood.mean": mean}
        ends = f"it is squashed into [{bottom:.3g}, {top:.3g}], and the pixels lie in [{low:g}, {high:g}]"
        fault = f"The decoder's output {verb} the pixels."
        yield Finding(fault, "serious", f"{ends}: {consequence}", remedy, case.retrain(changes))
        return


@torch.no_grad()
def reach(case: Case) -> Iterator[tuple[float, float]]:
    """Yield the smallest and largest mean of a pixel: for any decoder output, then for any latent."""
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
    (low, high), (bottom, top) = case.splits.range, likelihood.support or (-math.inf, math.inf)
    fault = f"Pixels lie where a {likelihood.name} likelihood has no probability."
    if low < bottom or high > top:
        evidence = f"they span [{low:g}, {high:g}], and its support is [{bottom:g}, {top:g}]"
        remedy = "Say what the smallest and largest pixel is, which maps them to [0, 1]."
        yield Finding(fault, "serious", evidence, remedy, case.retrain({"data.range": [low, high]}))
    elif likelihood.observation_kind == "levels" and not case.splits.eight_bit:
        evidence = "it is one of the 256 levels of 8-bit images, and these pixels are other numbers"
        changes = {"model.likelihood": "gaussian", "model.likelihood.sigma": "learned"}
        yield Finding(fault, "serious", evidence, "Use a density.", case.retrain(changes))


@check("configuration", "data")
def grey_pixels(case: Case) -> Iterator[Finding]:
    """Pixels between black and white under a Bernoulli: a cross-entropy that is no likelihood."""
    # It trains well and compares only with numbers of its own kind: no distribution over such values has this density.
    if likelihood_of(case).observation_kind != "binary" or case.splits.pixels == "binary":
        return
    train = case.splits.train
    x = train.rows(torch.arange(min(1000, len(train)))).float()
    x = x / 255 if train.dtype == torch.uint8 else x
    between = float(((x > 0) & (x < 1)).double().mean())
    fault = "Pixels between black and white are fed to a Bernoulli: these are cross-entropies, not log-likelihoods."
    evidence = f"{between:.0%} of the pixels lie strictly between 0 and 1"
    remedy = (
        "Binarise them: anew in every batch, once for the test split. Or keep their levels, with a likelihood for "
        "them: --model.likelihood discretised-logistic."
    )
    changes = {"data.transforms": transformed(case, "dynamic-binarise")}
    yield Finding(fault, "worth knowing", evidence, remedy, case.retrain(changes))


@check("configuration", "data")
def hidden_kl_weight(case: Case) -> Iterator[Finding]:
    """A fixed sigma that weighs the KL without saying so: what an averaged squared error amounts to."""
    sigma = fixed_sigma(likelihood_of(case))
    if sigma is None:
        return
    betas = beta_over_training(case)
    beta = betas[-1] if betas else 1.0
    pixels = math.prod(case.splits.shape)
    trained = case.weights is not None
    # Without a trained model it is the spread around the mean image: all that there is to explain.
    error = max(reconstruction_error(case) if trained else spread(case), 1e-12)
    # SSE / (2 sigma^2) + beta KL = (s / sigma)^2 (SSE / (2 s^2) + (sigma / s)^2 beta KL). With s the error, the first
    # part is calibrated (Rybkin et al. 2021), and (sigma / s)^2 beta is the KL's real weight.
    hidden = (sigma / error) ** 2
    too_small = hidden < 1 / HIDDEN_WEIGHT and trained
    if not (hidden > HIDDEN_WEIGHT or (hidden > 1.0 and not trained) or too_small):
        return
    measured = "all that varies around the mean image"
    if trained:
        measured = f"the model's error on {case.looked('test')}"
    weight = f"{'' if trained else 'at least '}{float(f'{hidden * beta:.3g}'):,g}"
    changes: dict[str, object] = {"model.likelihood.sigma": "learned"}
    changes |= {"objective.beta": 1.0} if beta != 1.0 else {}
    evidence = (
        f"{measured} is {error:.3g} a pixel (root mean square), so that the KL weighs {weight} beside a Gaussian whose "
        f"sigma is its error. Sigma {sigma:g} is what a squared error averaged over the {pixels} pixels amounts to "
        f"with a KL weight of {2 * sigma**2 * beta / pixels:.3g}"
    )
    fault = f"Sigma is fixed at {sigma:g}, which weighs the KL without saying so."
    remedy = "Let sigma be learned: it then becomes the error, and the KL weighs 1."
    severity: Severity = "serious" if hidden > HIDDEN_WEIGHT and not trained else "worth knowing"
    yield Finding(fault, severity, evidence, remedy, case.retrain(changes))


def spread(case: Case) -> float:
    """Return the root mean square of the training images looked at around their mean image, a pixel."""
    x_NCHW = torch.cat(list(case.view("train").batches()))
    return float((x_NCHW - x_NCHW.mean(0)).square().mean().sqrt())


@torch.no_grad()
def reconstruction_error(case: Case) -> float:
    """Return the root mean square of the reconstructions' error on the test images looked at, a pixel."""
    errors = [(case.model.reconstruct(x) - x).square().mean((1, 2, 3)) for x in case.view("test").batches()]
    return float(torch.cat(errors).mean().sqrt())


@check("weights", "data")
def density_finer_than_pixels(case: Case) -> Iterator[Finding]:
    """A density so narrow that it exceeds what any probability of these pixels has: the bound has then no limit."""
    images, pixels = case.splits.train, case.splits.pixels
    if case.model.observation_kind != "density" or pixels == "dequantised" or images.dtype != torch.uint8:
        return
    if fixed_sigma(likelihood_of(case)) is not None:
        return
    low, high = case.splits.range
    binary = pixels == "binary"
    step = (high - low) / (1 if binary else 255)
    # A density spread over the step between two values would be 1 / step where the value is certain. One that is
    # higher has grown on the emptiness between them, and grows for ever as it gets narrower (Theis et al. 2016,
    # section 3.1).
    excess_NP = (density_of_places(case) + images.shape[0] * math.log(step)).clamp_min(0.0)
    gained = float(excess_NP.sum(1).mean())
    if gained <= GAINED:
        return
    remedy = "Two values are a Bernoulli's."
    changes: dict[str, object] = {"model.likelihood": "bernoulli"}
    if pixels == "grey":
        remedy = "Spread each level over its step with uniform noise, which makes the density one of levels."
        changes = {"data.transforms": transformed(case, "dequantise")}
    evidence = (
        f"{gained:,.0f} nats of an image's log p(x|z) are density above 1 / {step:.2g}, the highest of a value that is "
        f"certain to within the step between two {'values' if binary else 'levels'}; "
        f"{float((excess_NP > 0).double().mean()):.0%} of the pixels have it"
    )
    fault = "The likelihood's density is finer than the pixels are: its bound has no limit."
    yield Finding(fault, "serious", evidence, remedy, case.retrain(changes))


@torch.no_grad()
def density_of_places(case: Case) -> Tensor:
    """Return log p(x | z) of each place of an image, nats, at the posterior mean: N P, P = height x width."""
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
    # Given z pixels are independent, so that every place is an image of one pixel to the likelihood.
    value = likelihood(_places(outputs[0]))
    return value.log_prob(_places(x_BCHW)).reshape(len(x_BCHW), -1).cpu().double()  # type: ignore[no-any-return]


def _places(images: Tensor) -> Tensor:
    """Return each place as an image of one pixel: (B, C, H, W) -> (B H W, C, 1, 1)."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1], 1, 1)
