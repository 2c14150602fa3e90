"""The laws of a likelihood."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from nelbo.likelihoods import Likelihood
from nelbo.testing.densities import ROUNDING, SAMPLES, gradients, independent, settled
from nelbo.testing.exact import LinearGaussian
from nelbo.testing.law import Evidence, Law, instance, keep, require, show
from nelbo.testing.models import weights_average_to_one
from nelbo.testing.numeric import (
    Grid,
    around,
    counting_mismatch,
    interval,
    mismatch,
)
from nelbo.testing.settings import Outcome, settings_change_something, weights_of, with_every_setting

SHAPE = (2, 2, 3)
PIXEL = (1, 1, 1)
DRAWS = 3  # random decoder outputs that each law is tried on, beside others
INTEGRAL = 1e-4
LEVELS = torch.arange(256, dtype=torch.float64) / 255


def check_likelihood(
    likelihood: Likelihood | type[Likelihood], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a likelihood p(x | z) against one, or against a class with its default settings.

    Probabilities of pixels that are binary or levels sum to one, densities integrate to one, over one pixel and over
    images of several channels; log-probabilities are sums over pixels; the mean is E[x]; samples come from it, with
    noise of their own for every pixel; gradients are those of finite differences; nothing is lost at extreme outputs;
    every setting changes something. Returns each law with its evidence. Raises LawBroken.
    `skip` leaves laws out by name; `only` holds one.
    """
    spec = instance(likelihood, Likelihood)
    return keep(spec, LAWS, spec, skip, only)


# --- values, and all that a pixel can be ------------------------------------------------------------


def _value(spec: Likelihood, shape: tuple[int, int, int], outputs: Tensor) -> Any:
    """The distribution over images of `shape` for decoder outputs of any leading axes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return settled(spec.build(shape))(outputs)


def _outputs(spec: Likelihood, shape: tuple[int, int, int], *leading: int) -> Tensor:
    return 1.5 * torch.randn(*leading, spec.channels * shape[0], *shape[1:])


def _points(spec: Likelihood, outputs: Tensor) -> Grid:
    """Every value that a pixel can have, with its weight in a sum; for densities, a grid."""
    if spec.observation_kind == "density" and spec.support is None:
        return around(_value(spec, PIXEL, outputs.expand(4000, -1, -1, -1)).sample().view(-1, 1))
    if spec.observation_kind == "density":
        assert spec.support is not None
        return interval(*spec.support)
    values = LEVELS if spec.observation_kind == "levels" else torch.tensor([0.0, 1.0])
    return Grid(values[:, None], torch.ones(len(values)), torch.zeros(len(values), 1))


@torch.no_grad()
def _pixels(spec: Likelihood, n: int = DRAWS) -> Iterator[tuple[Tensor, Grid, Tensor]]:
    """For several decoder outputs of one pixel: the outputs, all it can be, and its probabilities (or density).

    Outputs are all 0, only one of them -3 or 3 (a scale is then narrow, or wide), or random.
    """
    none = torch.zeros(spec.channels, 1, 1)
    places = itertools.product(torch.randperm(spec.channels)[:2], (-3.0, 3.0))
    single = [none.index_fill(0, place, size) for place, size in places]
    for outputs in (none, *single, *_outputs(spec, PIXEL, n)):
        grid = _points(spec, outputs)
        among = _value(spec, PIXEL, outputs.expand(1, len(grid.points_MZ), -1, -1, -1))
        yield outputs, grid, among.log_prob(grid.points_MZ.view(-1, 1, 1, 1))[0].exp()


def _images(spec: Likelihood, outputs: Tensor, n: int) -> Tensor:
    """n images that the likelihood can score, drawn from it: (n, C, H, W)."""
    with torch.no_grad():
        return torch.as_tensor(_value(spec, SHAPE, outputs.expand(n, -1, -1, -1)).sample())


# --- the laws ---------------------------------------------------------------------------------------


@with_every_setting
def shapes_and_types_are_kept(spec: Likelihood) -> str | Evidence:
    x_BCHW = _images(spec, _outputs(spec, SHAPE), 2)
    for precision, wanted in ((torch.float64,) * 2, (torch.float32,) * 2, (torch.bfloat16, torch.float32)):
        module = settled(spec.build(SHAPE)).to(wanted)
        value = module(_outputs(spec, SHAPE, 5, 2).to(precision))
        found = {
            "log_prob": (value.log_prob(x_BCHW.to(wanted)), (5, 2)),
            "mean": (value.mean, (5, 2, *SHAPE)),
            "sample": (value.sample(), (5, 2, *SHAPE)),
        }
        for name, (tensor, shape) in found.items():
            seen = f"{name} has shape {tuple(tensor.shape)} and {tensor.dtype} for outputs in {precision}"
            require(
                tensor.shape == shape and tensor.dtype == wanted, f"{seen}, not {shape} and {wanted}", name
            )
    return "one number an image and sample, in float64 and float32; float32 for a bf16 network"


@with_every_setting
def probabilities_sum_to_one(spec: Likelihood) -> str | Evidence:
    """Or integrate, for a density: over all that one pixel can be."""
    worst = 0.0
    for _, grid, density_M in _pixels(spec):
        mass = float(grid.integral(density_M))
        verb = "integrates" if spec.observation_kind == "density" else "sums"
        seen = (
            f"one pixel's probability {verb} to {mass:.6g} over all that it can be ({spec.observation_kind})"
        )
        look = "log_prob: the normaliser; `of` and `support`, which say what it is a probability of"
        require(abs(mass - 1) < (INTEGRAL if spec.observation_kind == "density" else 1e-9), seen, look)
        worst = max(worst, abs(mass - 1))
    return f"one pixel's, to {worst:.1g} ({spec.observation_kind})"


@with_every_setting
def images_sum_to_one(spec: Likelihood) -> str | Evidence:
    """Over all images of two channels: pixels are independent given z, so that it is a product of sums.

    A pixel that is ignored counts each of its values once; a mean over pixels is no product.
    """
    outputs = _outputs(spec, SHAPE)
    one, other = _images(spec, outputs, 2)

    def value_of(x_MCHW: Tensor) -> Tensor:
        value = _value(spec, SHAPE, outputs.expand(1, len(x_MCHW), -1, -1, -1))
        return torch.as_tensor(value.log_prob(x_MCHW))[0]

    with torch.no_grad():
        for mask in torch.rand(4, *SHAPE) < 0.5:
            mixed, rest = torch.where(mask, one, other), torch.where(mask, other, one)
            parts = [value_of(image[None])[0] for image in (one, other, mixed, rest)]  # never in one batch
            off = float(parts[0] + parts[1] - parts[2] - parts[3])
            seen = f"exchanging pixels of two images changes the sum of their log-probabilities by {off:.4g}"
            require(abs(off) < 1e-6, seen, "log_prob: one term for every pixel, summed")
        log_total = value_of(one[None])[0]
        for place in itertools.product(*map(range, SHAPE)):
            at_place = outputs.view(-1, *SHAPE)[:, place[0], place[1], place[2]].view(-1, 1, 1)
            grid = _points(spec, at_place)
            x_MCHW = one.repeat(len(grid.points_MZ), 1, 1, 1)
            x_MCHW[(slice(None), *place)] = grid.points_MZ[:, 0]
            log_total = (
                log_total + (value_of(x_MCHW) - value_of(one[None])).exp().mul(grid.weights_M).sum().log()
            )
    seen = f"all images together have a probability of exp({float(log_total):.6g})"
    require(
        abs(float(log_total)) < 20 * INTEGRAL,
        seen,
        "log_prob: every pixel once, whatever its channel or place",
    )
    return f"over images of {SHAPE[0]} channels"


@with_every_setting
def the_mean_is_the_expectation(spec: Likelihood) -> str | Evidence:
    for outputs, grid, density_M in _pixels(spec):
        x_M = grid.points_MZ[:, 0]
        truth = float(grid.integral(density_M * x_M))
        wide = float(grid.integral(density_M * (x_M - truth).square()).sqrt())
        given = float(_value(spec, PIXEL, outputs[None]).mean.detach())
        seen = f"mean is {given:.6g}, the expectation of a pixel is {truth:.6g}"
        require(abs(given - truth) < INTEGRAL * max(wide, 1.0), seen, "mean: E[x], which is what is shown")
    return "of one pixel"


@with_every_setting
def samples_match_the_density(spec: Likelihood) -> str | Evidence:
    for outputs, grid, density_M in _pixels(spec, 1):
        with torch.no_grad():
            drawn_N = _value(spec, PIXEL, outputs.expand(SAMPLES, -1, -1, -1)).sample().flatten()
        low, high = spec.support or (-math.inf, math.inf)
        require((drawn_N >= low) & (drawn_N <= high), f"samples lie outside of {spec.support}", "sample")
        if spec.observation_kind == "density":
            seen = mismatch(drawn_N[:, None], grid, density_M)
        else:
            seen = counting_mismatch(drawn_N, grid.points_MZ[:, 0], density_M)
        require(not seen, seen, "sample against log_prob")
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
        twice = module(outputs[None]).log_prob(x_BCHW)[0]
    seen = f"log_prob of an image is {show(alone)} alone and {show(together[:1])} among others"
    require((together[:1] - alone).abs() <= ROUNDING, seen, "means over the batch")
    seen = f"log_prob is {show(together)} the first time and {show(twice)} the second"
    require(torch.equal(together, twice), seen, "what evaluation mode still changes")
    return "the same alone, among others, and again"


@with_every_setting
def gradients_match_finite_differences(spec: Likelihood) -> str | Evidence:
    module = settled(spec.build((2, 1, 1)))
    outputs = _outputs(spec, (2, 1, 1), 1, 2).requires_grad_()
    x_BCHW = module(outputs[0].detach()).sample().detach()
    inputs = (outputs, *module.parameters())
    gradients(lambda o, *_: torch.as_tensor(module(o).log_prob(x_BCHW)), inputs, "log_prob")
    return "log_prob, by decoder outputs and weights"


@with_every_setting
def extreme_outputs_stay_finite(spec: Likelihood) -> str | Evidence:
    """In float32, with decoder outputs of up to 50 in any direction and pixels at the ends of what they can be."""
    low, high = spec.support or (-1.0, 1.0)
    ends = (low, (low + high) / 2, high) if spec.observation_kind == "density" else (low, high)
    module = settled(spec.build(PIXEL)).float()
    one = torch.ones(spec.channels, 1, 1)
    turned = one * (-1.0) ** torch.arange(spec.channels).view(-1, 1, 1)
    ways = [one, -one, turned, -turned, *(2.0 * torch.randint(0, 2, (4, spec.channels, 1, 1)) - 1.0)]
    for way, size, end in itertools.product(ways, (0.0, 10.0, 50.0), ends):
        outputs = (size * way).float()[None, None].requires_grad_()
        log_px = module(outputs).log_prob(torch.full((1, *PIXEL), end, dtype=torch.float32))
        (gradient,) = torch.autograd.grad(log_px.sum(), outputs)
        seen = f"outputs of {show(outputs)} at x = {end:g} give {show(log_px)} and gradients {show(gradient)}"
        look = "log_prob: logarithms of what underflows, exponentials of what overflows, unbounded scales"
        require(log_px.isfinite().all() & gradient.isfinite().all(), seen, look)
    return "decoder outputs from -50 to 50"


def importance_weights_average_to_one(spec: Likelihood) -> str | Evidence:
    law = LinearGaussian(likelihood=spec, images=2)
    return weights_average_to_one(law.model, law.x_BCHW, law.log_px_B)


def every_setting_changes_something(spec: Likelihood) -> str | Evidence:
    return settings_change_something(spec, _outcome)


def _outcome(spec: Likelihood) -> Outcome:
    module = spec.build(SHAPE)
    found = weights_of(module)
    outputs = torch.linspace(-2, 2, 3 * spec.channels * math.prod(SHAPE)).view(1, 3, -1, *SHAPE[1:])
    x_BCHW = torch.linspace(0, 1, 3 * math.prod(SHAPE)).mul(255).round().div(255).view(3, *SHAPE)
    for mode in (True, True, False):  # twice, because a first batch may set something for the second
        torch.manual_seed(11)
        value = module.train(mode)(outputs)
        number = len(found)
        found |= {
            f"{number} log_prob": value.log_prob(x_BCHW).detach(),
            f"{number} mean": value.mean.detach(),
        }
        found |= {f"{number} samples": value.sample().detach()}
    return found


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
