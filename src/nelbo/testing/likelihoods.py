"""The laws of a likelihood."""

import itertools
import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.likelihoods import Likelihood
from nelbo.testing.densities import SAMPLES, gradients, independent, settled
from nelbo.testing.exact import LinearGaussian
from nelbo.testing.law import Evidence, Law, instance, keep, require, require_alone, require_form, show
from nelbo.testing.models import weights_average_to_one
from nelbo.testing.numeric import Grid, around, counting_mismatch, interval, mismatch
from nelbo.testing.settings import Outcome, settings_tell_apart, weights_of, with_every_setting

SHAPE = (2, 2, 3)
PIXEL = (1, 1, 1)
DRAWS = 3  # random decoder outputs that each law is tried on, beside others
INTEGRAL = 1e-4  # how far an integral over a line may be from one
LEVELS = torch.arange(256, dtype=torch.float64) / 255


def check_likelihood(
    likelihood: Likelihood | type[Likelihood], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a likelihood p(x | z) against one, or against a class with its default settings.

    Probabilities of pixels that are binary or levels sum to one, densities integrate to one, over one pixel and over
    images of several channels; log-probabilities are sums over pixels; the mean is E[x]; samples come from it, with
    noise of their own for every pixel; gradients are those of finite differences; nothing is lost at extreme outputs;
    every setting changes something. For `skip`, `only` and what it returns or raises see `check`.
    """
    spec = instance(likelihood, Likelihood)
    return keep(spec, LAWS, spec, skip, only)


def _value(spec: Likelihood, shape: Shape, outputs: Tensor) -> LikelihoodValue:
    """Return the distribution over images of `shape` for decoder outputs of any leading axes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # the same weights at every call, whatever the law has drawn before
        value: LikelihoodValue = settled(spec.build(shape))(outputs)
        return value


def _outputs(spec: Likelihood, shape: Shape, *leading: int) -> Tensor:
    return 1.5 * torch.randn(*leading, spec.channels * shape[0], *shape[1:])


def _points(spec: Likelihood, outputs: Tensor) -> Grid:
    """Return every value that a pixel can have, with its weight in a sum; for densities, a grid."""
    if spec.observation_kind == "density" and spec.support is not None:
        return interval(*spec.support)
    if spec.observation_kind == "density":
        return around(_value(spec, PIXEL, outputs.expand(4000, -1, -1, -1)).sample().view(-1, 1))
    values = LEVELS if spec.observation_kind == "levels" else torch.tensor([0.0, 1.0])
    return Grid(values[:, None], torch.ones(len(values)), torch.zeros(len(values), 1))


@torch.no_grad()
def _pixels(spec: Likelihood, n: int = DRAWS) -> Iterator[tuple[Tensor, Grid, Tensor]]:
    """Yield several decoder outputs of one pixel with all it can be, and its probabilities (or density)."""
    # All 0, only one of them -3 or 3 (a scale is then narrow, or wide), or random.
    zeros = torch.zeros(spec.channels, 1, 1)
    places = itertools.product(torch.randperm(spec.channels)[:2], (-3.0, 3.0))
    single = [zeros.index_fill(0, place, size) for place, size in places]
    for outputs in (zeros, *single, *_outputs(spec, PIXEL, n)):
        grid = _points(spec, outputs)
        value = _value(spec, PIXEL, outputs.expand(1, len(grid.points_MZ), -1, -1, -1))
        yield outputs, grid, value.log_prob(grid.points_MZ.view(-1, 1, 1, 1))[0].exp()


@torch.no_grad()
def _images(spec: Likelihood, outputs: Tensor, n: int) -> Tensor:
    """Return n images that the likelihood can score, drawn from it: (n, C, H, W)."""
    return _value(spec, SHAPE, outputs.expand(n, -1, -1, -1)).sample()


@with_every_setting
def shapes_and_types_are_kept(spec: Likelihood) -> str | Evidence:
    x_BCHW = _images(spec, _outputs(spec, SHAPE), 2)
    for precision, dtype in ((torch.float64,) * 2, (torch.float32,) * 2, (torch.bfloat16, torch.float32)):
        module = settled(spec.build(SHAPE)).to(dtype)
        value = module(_outputs(spec, SHAPE, 5, 2).to(precision))
        tensors = {
            "log_prob": (value.log_prob(x_BCHW.to(dtype)), (5, 2)),
            "mean": (value.mean, (5, 2, *SHAPE)),
            "sample": (value.sample(), (5, 2, *SHAPE)),
        }
        for name, (tensor, shape) in tensors.items():
            instead = f" for outputs in {precision}, not {shape} and {dtype}"
            require_form(name, tensor, (shape, dtype), instead, name)
    return "one number an image and sample, in float64 and float32; float32 for a bf16 network"


@with_every_setting
def probabilities_sum_to_one(spec: Likelihood) -> str | Evidence:
    """Require that probabilities of all that one pixel can be sum to one, or integrate to one for a density."""
    kind, worst = spec.observation_kind, 0.0
    verb, allowed = ("integrates", INTEGRAL) if kind == "density" else ("sums", 1e-9)
    for _, grid, density_M in _pixels(spec):
        mass = float(grid.integral(density_M))
        fault = f"one pixel's probability {verb} to {mass:.6g} over all that it can be ({kind})"
        look = "log_prob: the normaliser; `of` and `support`, which say what it is a probability of"
        require(abs(mass - 1) < allowed, fault, look)
        worst = max(worst, abs(mass - 1))
    return f"one pixel's, to {worst:.1g} ({kind})"


@with_every_setting
def images_sum_to_one(spec: Likelihood) -> str | Evidence:
    """Require that probabilities of all images of two channels sum to one: a product of sums, one for every pixel."""
    outputs = _outputs(spec, SHAPE)
    first, second = _images(spec, outputs, 2)

    def log_prob(x_MCHW: Tensor) -> Tensor:
        return _value(spec, SHAPE, outputs.expand(1, len(x_MCHW), -1, -1, -1)).log_prob(x_MCHW)[0]

    with torch.no_grad():
        # Pixels are independent given z where log p(x) + log p(y) stays the same when x and y exchange some.
        for mask in torch.rand(4, *SHAPE) < 0.5:
            mixed = torch.where(mask, first, second), torch.where(mask, second, first)
            # Each alone: a batch would let a mean over images through.
            parts = [log_prob(image[None])[0] for image in (first, second, *mixed)]
            off = float(parts[0] + parts[1] - parts[2] - parts[3])
            fault = f"exchanging pixels of two images changes the sum of their log-probabilities by {off:.4g}"
            require(abs(off) < 1e-6, fault, "log_prob: one term for every pixel, summed")
        # Then sum_x p(x) = p(y) prod_j sum_{x_j} p(y with x_j) / p(y), for any image y. A pixel that is ignored counts
        # each of its values once; a mean over pixels is no product.
        log_total = log_prob(first[None])[0]
        for place in itertools.product(*map(range, SHAPE)):
            grid = _points(spec, outputs.view(-1, *SHAPE)[:, place[0], place[1], place[2]].view(-1, 1, 1))
            x_MCHW = first.repeat(len(grid.points_MZ), 1, 1, 1)
            x_MCHW[(slice(None), *place)] = grid.points_MZ[:, 0]
            ratio_M = (log_prob(x_MCHW) - log_prob(first[None])).exp()
            log_total = log_total + ratio_M.mul(grid.weights_M).sum().log()
    fault = f"all images together have a probability of exp({float(log_total):.6g})"
    look = "log_prob: every pixel once, whatever its channel or place"
    require(abs(float(log_total)) < 20 * INTEGRAL, fault, look)
    return f"over images of {SHAPE[0]} channels"


@with_every_setting
def the_mean_is_the_expectation(spec: Likelihood) -> str | Evidence:
    for outputs, grid, density_M in _pixels(spec):
        x_M = grid.points_MZ[:, 0]
        truth = float(grid.integral(density_M * x_M))
        deviation = float(grid.integral(density_M * (x_M - truth).square()).sqrt())
        mean = float(_value(spec, PIXEL, outputs[None]).mean.detach())
        fault = f"mean is {mean:.6g}, the expectation of a pixel is {truth:.6g}"
        allowed = INTEGRAL * max(deviation, 1.0)
        require(abs(mean - truth) < allowed, fault, "mean: E[x], which is what is shown")
    return "of one pixel"


@with_every_setting
def samples_match_the_density(spec: Likelihood) -> str | Evidence:
    for outputs, grid, density_M in _pixels(spec, 1):
        with torch.no_grad():
            drawn_N = _value(spec, PIXEL, outputs.expand(SAMPLES, -1, -1, -1)).sample().flatten()
        low, high = spec.support or (-math.inf, math.inf)
        require((drawn_N >= low) & (drawn_N <= high), f"samples lie outside of {spec.support}", "sample")
        if spec.observation_kind == "density":
            fault = mismatch(drawn_N[:, None], grid, density_M)
        else:
            fault = counting_mismatch(drawn_N, grid.points_MZ[:, 0], density_M)
        require(not fault, fault, "sample against log_prob")
    return f"{SAMPLES} samples of one pixel"


@with_every_setting
def pixels_have_noise_of_their_own(spec: Likelihood) -> str | Evidence:
    with torch.no_grad():
        x_NCHW = _value(spec, (2, 1, 2), torch.zeros(SAMPLES // 4, 2 * spec.channels, 1, 2)).sample()
    return independent(x_NCHW.flatten(1), "pixels", "sample: noise of the images' shape")


@with_every_setting
def images_are_judged_alone(spec: Likelihood) -> str | Evidence:
    module = settled(spec.build(SHAPE))
    outputs = _outputs(spec, SHAPE, 4)
    x_BCHW = _images(spec, outputs[0], 4)
    with torch.no_grad():
        together, alone = (module(outputs[None, :n]).log_prob(x_BCHW[:n])[0] for n in (4, 1))
        again = module(outputs[None]).log_prob(x_BCHW)[0]
    require_alone("log_prob of an image is", together[:1], alone, "means over the batch")
    fault = f"log_prob is {show(together)} the first time and {show(again)} the second"
    require(torch.equal(together, again), fault, "what evaluation mode still changes")
    return "the same alone, among others, and again"


@with_every_setting
def gradients_match_finite_differences(spec: Likelihood) -> str | Evidence:
    module = settled(spec.build((2, 1, 1)))
    outputs = _outputs(spec, (2, 1, 1), 1, 2).requires_grad_()
    x_BCHW = module(outputs[0].detach()).sample().detach()
    # gradcheck moves the weights in place, so that they are inputs and need not be passed on.
    inputs = (outputs, *module.parameters())
    gradients(lambda outputs, *_: torch.as_tensor(module(outputs).log_prob(x_BCHW)), inputs, "log_prob")
    return "log_prob, by decoder outputs and weights"


@with_every_setting
def extreme_outputs_stay_finite(spec: Likelihood) -> str | Evidence:
    """Require finite numbers in float32, for outputs of up to 50 and pixels at the ends of their range."""
    low, high = spec.support or (-1.0, 1.0)
    ends = (low, (low + high) / 2, high) if spec.observation_kind == "density" else (low, high)
    module = settled(spec.build(PIXEL)).float()
    ones = torch.ones(spec.channels, 1, 1)
    turned = ones * (-1.0) ** torch.arange(spec.channels).view(-1, 1, 1)
    random = 2.0 * torch.randint(0, 2, (4, spec.channels, 1, 1)) - 1.0
    directions = [ones, -ones, turned, -turned, *random]
    for direction, size, end in itertools.product(directions, (0.0, 10.0, 50.0), ends):
        outputs = (size * direction).float()[None, None].requires_grad_()
        log_px = module(outputs).log_prob(torch.full((1, *PIXEL), end, dtype=torch.float32))
        (gradient,) = torch.autograd.grad(log_px.sum(), outputs)
        results = f"{show(log_px)} and gradients {show(gradient)}"
        fault = f"outputs of {show(outputs)} at x = {end:g} give {results}"
        look = "log_prob: logarithms of what underflows, exponentials of what overflows, unbounded scales"
        require(log_px.isfinite().all() & gradient.isfinite().all(), fault, look)
    return "decoder outputs from -50 to 50"


def importance_weights_average_to_one(spec: Likelihood) -> str | Evidence:
    law = LinearGaussian(likelihood=spec, images=2)
    return weights_average_to_one(law.model, law.x_BCHW, law.log_px_B)


@settings_tell_apart
def every_setting_changes_something(spec: Likelihood) -> Outcome:
    module = spec.build(SHAPE)
    results = weights_of(module)
    outputs = torch.linspace(-2, 2, 3 * spec.channels * math.prod(SHAPE)).view(1, 3, -1, *SHAPE[1:])
    x_BCHW = torch.linspace(0, 1, 3 * math.prod(SHAPE)).mul(255).round().div(255).view(3, *SHAPE)
    for mode in (True, True, False):  # twice, because a first batch may set something for the second
        torch.manual_seed(11)
        value = module.train(mode)(outputs)
        number = len(results)
        results[f"{number} log_prob"] = value.log_prob(x_BCHW).detach()
        results[f"{number} mean"] = value.mean.detach()
        results[f"{number} samples"] = value.sample().detach()
    return results


LAWS: tuple[Law[Likelihood], ...] = (
    shapes_and_types_are_kept,
    every_setting_changes_something,
    probabilities_sum_to_one,
    images_sum_to_one,
    the_mean_is_the_expectation,
    samples_match_the_density,
    pixels_have_noise_of_their_own,
    images_are_judged_alone,
    gradients_match_finite_differences,
    extreme_outputs_stay_finite,
    importance_weights_average_to_one,
)
