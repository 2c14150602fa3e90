"""Likelihoods against exact answers: sums over levels, integrals, fifty-digit arithmetic, finite differences."""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from nelbo.core.config import build, to_dict
from nelbo.core.registry import lookup, names
from nelbo.data import Data
from nelbo.errors import ConfigError, DataError
from nelbo.evaluation import card
from nelbo.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretisedLogistic,
    DiscretisedLogisticMixture,
    Fixed,
    Gaussian,
    Laplace,
    Learned,
    Likelihood,
    Optimal,
    PerPixel,
)
from nelbo.likelihoods.continuous_bernoulli import ContinuousBernoulliImage, langevin, log_sinhc
from nelbo.likelihoods.gaussian import GaussianImage
from nelbo.likelihoods.logistic import draw_level, log_level
from nelbo.metrics import Split
from nelbo.metrics.bound import bits, bound
from nelbo.models import VAE, base
from nelbo.training import api
from nelbo.training.recipe import resolve

CPU = torch.device("cpu")
LEVELS = torch.arange(256, dtype=torch.float64) / 255
SPREADS = [Fixed(value=0.2), Learned(start=0.2), PerPixel(start=0.2), Optimal()]
DISCRETE = [
    Categorical(),
    *(DiscretisedLogistic(scale=spread) for spread in SPREADS[:3]),
    DiscretisedLogisticMixture(),
    DiscretisedLogisticMixture(components=1),
]
DENSITIES = [
    ContinuousBernoulli(),
    *(Gaussian(sigma=spread) for spread in SPREADS),
    *(Laplace(scale=spread) for spread in SPREADS),
    Gaussian(sigma=0.3, mean="tanh"),
    Laplace(scale="per-pixel", mean="sigmoid"),
]


def label(spec: Likelihood) -> str:
    return repr(spec).replace(" ", "")


def one_pixel(spec: Likelihood, size: float = 2.0, n: int = 40, dtype=torch.float64):
    """n distributions over images of one pixel, with outputs of the decoder N(0, size^2)."""
    torch.manual_seed(0)
    module = spec.build((1, 1, 1)).to(dtype).requires_grad_(False)
    return module(size * torch.randn(n, spec.channels, 1, 1, dtype=dtype))


def log_probs(value, x_M: torch.Tensor) -> torch.Tensor:
    """log p of every value of one pixel: shape (M, n)."""
    return torch.stack([value.log_prob(x.view(1, 1, 1, 1)).view(-1) for x in x_M])


# --- probabilities of levels ------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("spec", DISCRETE, ids=label)
def test_256_levels_have_probability_one(spec, size):
    value = one_pixel(spec, size)
    log_p_LN = log_probs(value, LEVELS)
    assert log_p_LN.isfinite().all()
    torch.testing.assert_close(log_p_LN.exp().sum(0), torch.ones(40, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", DISCRETE, ids=label)
def test_the_mean_is_that_of_the_levels_and_samples_are_drawn_from_them(spec):
    value = one_pixel(spec, 1.0, n=3)
    p_LN = log_probs(value, LEVELS).exp()
    torch.testing.assert_close(value.mean.view(-1), (LEVELS[:, None] * p_LN).sum(0), rtol=1e-12, atol=1e-12)
    n = 20_000
    torch.manual_seed(1)
    module = spec.build((1, 1, 1)).double()
    torch.manual_seed(0)
    outputs = torch.randn(3, spec.channels, 1, 1, dtype=torch.float64)
    levels_RN = (module(outputs.expand(n, *outputs.shape)).sample() * 255).round().long().view(n, 3)
    for column in range(3):
        counts = torch.bincount(levels_RN[:, column], minlength=256).double()
        p = p_LN[:, column]
        # Neighbouring levels are pooled until each cell expects ten draws or more; chi-square of mean dof.
        cells, cell = [], torch.zeros(2, dtype=torch.float64)
        for pair in torch.stack([counts, n * p], 1):
            cell = cell + pair
            if cell[1] >= 10:
                cells.append(cell)
                cell = torch.zeros(2, dtype=torch.float64)
        observed, expected = torch.stack(cells).unbind(1)
        chi = float(((observed - expected).square() / expected).sum())
        assert chi < len(cells) + 6 * (2 * len(cells)) ** 0.5 + 6


def reference_log_level(level: int, location: float, scale: float) -> mpmath.mpf:
    """log P(level) to fifty digits, as the difference of two distribution functions."""
    edges = ((level + side) / mpmath.mpf(255) for side in (mpmath.mpf("0.5"), -mpmath.mpf("0.5")))
    high, low = (1 / (1 + mpmath.exp(-(edge - location) / scale)) for edge in edges)
    return mpmath.log((1 if level == 255 else high) - (0 if level == 0 else low))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_log_levels_and_their_gradients_in_the_tails_against_fifty_digits(dtype):
    cases = [
        (level, loc, s)
        for level in (0, 1, 7, 128, 254, 255)
        for loc in (-3.0, 0.02, 0.5, 1.4)
        for s in (5e-3, 0.05, 2.0)
    ]
    with mpmath.workdps(400):
        exact, slopes = [], []
        for level, loc, s in cases:
            exact.append(float(reference_log_level(level, mpmath.mpf(loc), mpmath.mpf(s))))
            at = (mpmath.mpf(loc), mpmath.log(s))
            log_p = functools.partial(lambda k, m, t: reference_log_level(k, m, mpmath.exp(t)), level)
            slopes.append([float(mpmath.diff(log_p, at, which)) for which in ((1, 0), (0, 1))])
    level, location, scale = torch.tensor(cases, dtype=torch.float64).unbind(1)
    parameters = [location.to(dtype).requires_grad_(), scale.log().to(dtype).requires_grad_()]
    found = log_level((level / 255).to(dtype), *parameters)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 3e-4, "atol": 1e-5}
    torch.testing.assert_close(found.double(), torch.tensor(exact, dtype=torch.float64), **tolerance)
    gradients = torch.autograd.grad(found.sum(), parameters)
    for gradient, slope in zip(gradients, torch.tensor(slopes, dtype=torch.float64).unbind(1), strict=True):
        torch.testing.assert_close(gradient.double(), slope, **tolerance)
    assert min(exact) < -600, "the tails are far"


def test_a_mixture_of_one_component_is_the_logistic():
    torch.manual_seed(0)
    outputs = torch.randn(4, 2, 2, 3, 5, dtype=torch.float64)
    weight = torch.randn(4, 2, 1, 3, 5, dtype=torch.float64)
    single = DiscretisedLogistic().build((1, 3, 5))(outputs)
    mixture = DiscretisedLogisticMixture(components=1).build((1, 3, 5)).double()
    same = mixture(torch.cat([weight, outputs], dim=-3))
    x = torch.randint(0, 256, (2, 1, 3, 5)) / 255.0
    torch.testing.assert_close(same.log_prob(x.double()), single.log_prob(x.double()))
    torch.testing.assert_close(same.mean, single.mean)


def test_a_mixture_is_the_weighted_sum_of_its_components():
    value = one_pixel(DiscretisedLogisticMixture(components=3), 1.0, n=5)
    x = torch.tensor(100 / 255, dtype=torch.float64)
    parts = log_level(x, value.location, value.log_scale).exp() * value.log_weight.exp()
    torch.testing.assert_close(value.log_prob(x.view(1, 1, 1)).exp(), parts.sum(-4).view(-1))
    assert one_pixel(DiscretisedLogisticMixture(), 0.0).location[0].flatten().tolist() == pytest.approx(
        [0.1, 0.3, 0.5, 0.7, 0.9]
    )


@pytest.mark.parametrize(
    "name", [name for name in names("likelihood") if lookup("likelihood", name).observation_kind == "levels"]
)
def test_uniform_pixels_cannot_cost_less_than_eight_bits(name):
    for size in (0.0, 1.0, 5.0):
        nats_N = -log_probs(one_pixel(lookup("likelihood", name)(), size), LEVELS).mean(0)
        assert (nats_N / math.log(2) >= 8 - 1e-12).all()
    if name == "categorical":
        assert one_pixel(Categorical(), 0.0).log_prob(LEVELS[3].view(1, 1, 1)).tolist() == pytest.approx(
            [-8 * math.log(2)] * 40, rel=1e-14
        )


def test_colours_keep_their_own_parameters():
    """Outputs are ordered by parameter, then by channel: the decoder's channel 3 is green's second parameter."""
    for spec in (
        DiscretisedLogistic(),
        DiscretisedLogisticMixture(components=2),
        Categorical(),
        Gaussian(sigma="per-pixel"),
    ):
        torch.manual_seed(0)
        outputs = torch.randn(spec.channels * 3, 2, 2, dtype=torch.float64)
        x = torch.randint(0, 256, (3, 2, 2)) / 255
        together = spec.build((3, 2, 2)).double()(outputs).log_prob(x.double())
        alone = [
            spec.build((1, 2, 2)).double()(outputs[c::3]).log_prob(x[c : c + 1].double()) for c in range(3)
        ]
        torch.testing.assert_close(together, torch.stack(alone).sum())


# --- densities --------------------------------------------------------------------------------


def quadrature(spec: Likelihood, value) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights over the support, or the real line as far as the density reaches: M values."""
    if spec.support:
        (low, high), n = spec.support, 400
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return torch.tensor(0.5 * (nodes + 1) * (high - low) + low), torch.tensor(
            0.5 * (high - low) * weights
        )
    grid = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    return grid, torch.full_like(grid, 120 / 240_000)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spec", DENSITIES, ids=label)
def test_a_density_integrates_to_one_and_has_its_mean(spec, training):
    torch.manual_seed(0)
    module = spec.build((1, 1, 1)).double().train(training)
    value = module(torch.randn(6, spec.channels, 1, 1, dtype=torch.float64))
    x_M, weight_M = quadrature(spec, value)
    p_MN = value.log_prob(x_M.view(-1, 1, 1, 1, 1)).exp() * weight_M[:, None]
    accuracy = 1e-10 if spec.support else 2e-5  # the Laplace density has a corner between two nodes
    torch.testing.assert_close(p_MN.sum(0), torch.ones(6, dtype=torch.float64), rtol=0, atol=accuracy)
    torch.testing.assert_close((x_M[:, None] * p_MN).sum(0), value.mean.view(-1), rtol=0, atol=4 * accuracy)


@pytest.mark.parametrize("spec", DENSITIES, ids=label)
def test_samples_are_spread_as_the_density_says(spec):
    torch.manual_seed(0)
    n, module = 20_000, spec.build((1, 1, 1)).double().eval().requires_grad_(False)
    outputs = torch.randn(3, spec.channels, 1, 1, dtype=torch.float64)
    value = module(outputs)
    x_M, weight_M = quadrature(spec, value)
    cdf_MN = (value.log_prob(x_M.view(-1, 1, 1, 1, 1)).exp() * weight_M[:, None]).cumsum(0)
    drawn_RN = module(outputs.expand(n, *outputs.shape)).sample().view(n, 3).sort(0).values
    for column in range(3):
        share = torch.searchsorted(drawn_RN[:, column].contiguous(), x_M) / n
        distance = float((share - cdf_MN[:, column]).abs().max())
        assert distance < 2.2 / n**0.5 + 0.005, "Kolmogorov-Smirnov"  # p = 1e-4, and the nodes' own width


LAMBDAS = [1e-6, 1e-3, 0.2, 0.4, 0.4999, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 0.5001, 0.6, 0.9, 0.999, 1 - 1e-6]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("lam", LAMBDAS)
def test_the_continuous_bernoulli_against_numerical_integration(lam, dtype):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, weights = 0.5 * (nodes + 1), 0.5 * weights
    unnormalised = lam**x * (1 - lam) ** (1 - x)
    mass, first = float(weights @ unnormalised), float(weights @ (x * unnormalised))
    logit = torch.tensor(math.log(lam) - math.log1p(-lam), dtype=torch.float64).to(dtype).requires_grad_()
    value = ContinuousBernoulliImage(logit.view(1, 1, 1))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert float(value.mean.detach()) == pytest.approx(first / mass, abs=tolerance)
    for pixel in (0.0, 0.3, 0.5, 1.0):
        found = value.log_prob(torch.full((1, 1, 1), pixel, dtype=dtype))
        expected = pixel * math.log(lam) + (1 - pixel) * math.log1p(-lam) - math.log(mass)
        assert float(found.detach()) == pytest.approx(expected, abs=tolerance, rel=tolerance)
        (slope,) = torch.autograd.grad(found, logit, retain_graph=True)
        assert float(slope) == pytest.approx(pixel - first / mass, abs=tolerance), (
            "d log p / d logit = x - mean"
        )


def test_the_continuous_bernoullis_mean_is_not_lambda():
    assert float(ContinuousBernoulliImage(torch.tensor([[[2.0]]])).mean) == pytest.approx(0.6565, abs=1e-4)
    assert float(torch.tensor(2.0).sigmoid()) == pytest.approx(0.8808, abs=1e-4)


def test_the_series_meets_the_direct_formula():
    with mpmath.workdps(50):
        for h in (1e-12, 1e-3, 0.1, 0.25 - 1e-12, 0.25, 0.3, 5.0, 400.0):
            exact = [mpmath.log(mpmath.sinh(h) / h), mpmath.coth(h) - 1 / mpmath.mpf(h)]
            for dtype, tolerance in ((torch.float64, 3e-14), (torch.float32, 1e-5)):
                for sign in (1, -1):
                    at = torch.tensor(sign * h, dtype=dtype, requires_grad=True)
                    value = log_sinhc(at)
                    (slope,) = torch.autograd.grad(value, at)
                    assert float(value.detach()) == pytest.approx(float(exact[0]), rel=tolerance)
                    assert float(slope) == pytest.approx(sign * float(exact[1]), rel=tolerance)
                    assert float(langevin(at.detach())) == pytest.approx(
                        sign * float(exact[1]), rel=tolerance
                    )
    zero = torch.zeros((), requires_grad=True)
    assert torch.autograd.grad(log_sinhc(zero), zero)[0] == 0 == langevin(zero)


# --- gradients and extremes ---------------------------------------------------------------------


@pytest.mark.parametrize("spec", [Bernoulli(), *DISCRETE, *DENSITIES], ids=label)
def test_gradients_against_finite_differences(spec):
    torch.manual_seed(0)
    module = spec.build((1, 2, 2)).double().eval()
    outputs = torch.randn(3, 2, spec.channels, 2, 2, dtype=torch.float64, requires_grad=True)
    x = (torch.randint(0, 256, (2, 1, 2, 2)) / 255).double()
    x = x.round() if spec.observation_kind == "binary" else x
    inputs = [outputs, *module.parameters()]
    if spec.channels > 100:  # a few of the 256 logits stand for all
        inputs = [torch.randn(1, 1, 1, dtype=torch.float64, requires_grad=True)]
        base = outputs.detach()[0, 0, :, :1, :1]

        def loss(shift):
            at = round(float(x[0, 0, 0, 0]) * 255)
            moved = torch.cat([base[:at], base[at : at + 1] + shift, base[at + 1 :]])
            return module(moved).log_prob(x[0, :, :1, :1])
    else:

        def loss(*values):
            return module(values[0]).log_prob(x)  # gradcheck moves the others, the parameters, in place

    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", [Bernoulli(), *DISCRETE, *DENSITIES], ids=label)
def test_extreme_decoders_give_finite_numbers_and_gradients(spec, dtype):
    module = spec.build((1, 1, 1)).to(dtype).eval()
    x = torch.tensor([0.0, 1.0], dtype=dtype).view(2, 1, 1, 1)
    for size in (1e-30, 1.0, 50.0, 1e4):
        for sign in (1, -1):
            outputs = torch.full((2, spec.channels, 1, 1), sign * size, dtype=dtype, requires_grad=True)
            value = module(outputs)
            found = value.log_prob(x)
            (slope,) = torch.autograd.grad(found.sum(), outputs)
            assert found.isfinite().all(), (size, sign)
            assert slope.isfinite().all(), (size, sign)
            assert value.mean.isfinite().all()
            assert value.sample().isfinite().all()


# --- spreads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", [1e-4, 0.01])
def test_a_spread_for_each_pixel_starts_where_it_is_told_and_stays_within_its_bounds(floor):
    spread = PerPixel(start=0.2, floor=floor)
    raw = torch.tensor([-1e30, -1e3, 0.0, 1e3, 1e30], dtype=torch.float64)
    sigma = spread.log_spread(raw).exp()
    assert sigma.tolist() == pytest.approx([floor, floor, 0.2, 1e6 * floor, 1e6 * floor], rel=2e-3)
    assert (sigma >= floor * (1 - 1e-12)).all()
    outputs = torch.full((1, 2, 1, 1), -1e4)
    value = Gaussian(sigma=spread).build((1, 1, 1))(outputs)
    at_most = -math.log(floor * math.sqrt(2 * math.pi))
    assert float(value.log_prob(value.mean)) == pytest.approx(at_most, rel=1e-5), (
        "the floor bounds the density"
    )


def test_a_configuration_of_the_version_before_opens_under_the_new_name_of_its_field():
    """`learned` was a field of its own, and `sigma` then where learning started."""
    before = {"name": "gaussian", "sigma": 0.5, "learned": True, "mean": "tanh"}
    assert build(Likelihood, before) == Gaussian(sigma=Learned(start=0.5), mean="tanh")
    assert build(Likelihood, before | {"learned": False}) == Gaussian(sigma=0.5, mean="tanh")
    with pytest.raises(ConfigError, match="unknown field"):
        build(Likelihood, before | {"learned": "yes"})


def test_a_learned_sigma_learns_and_starts_where_it_is_told():
    torch.manual_seed(0)
    module = Gaussian(sigma=Learned(start=2.0)).build((1, 1, 1))
    x, outputs = 0.3 * torch.randn(4000, 1, 1, 1), torch.zeros(4000, 1, 1, 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    assert float(module(outputs).log_sigma.detach().exp()) == pytest.approx(2.0, rel=1e-5)
    for _ in range(300):
        optimizer.zero_grad()
        (-module(outputs).log_prob(x).mean()).backward()
        optimizer.step()
    assert float(module(outputs).log_sigma.detach().exp()) == pytest.approx(0.3, abs=0.01), (
        "the most likely sigma"
    )
    assert not list(Gaussian(sigma=2.0).build((1, 1, 1)).parameters())


@pytest.mark.parametrize(
    ("spec", "deviation"),
    [(Gaussian(sigma="optimal"), 0.3), (Laplace(scale="optimal"), 0.3 * (2 / math.pi) ** 0.5)],
)
def test_the_optimal_spread_is_the_error_of_earlier_batches(spec, deviation):
    torch.manual_seed(0)
    module = spec.build((1, 4, 4))
    width = module.sigma if isinstance(spec, Gaussian) else module.scale
    mean = torch.randn(1, 100, 1, 4, 4, requires_grad=True)
    for _ in range(100):
        x = mean.detach()[0] + 0.3 * torch.randn(100, 1, 4, 4)
        before = width.split(mean)[1].clone()
        value = module(mean)
        first = value.log_prob(x)
        assert torch.equal(before, width.split(mean)[1]), "scoring changes nothing"
        module.after_step(x, value)
        after = width.split(mean)[1]
        assert not torch.equal(before, after)
        far = module(mean)
        scale = getattr(far, "log_sigma", getattr(far, "log_scale", None))
        assert torch.equal(scale, after), "what is scored next does not depend on what is scored next"
    assert float(after.exp()) == pytest.approx(deviation, rel=0.01)
    first.sum().backward()
    assert mean.grad.isfinite().all()
    kept = {key: value.clone() for key, value in module.state_dict().items()}
    again = spec.build((1, 4, 4))
    again.load_state_dict(kept)
    assert torch.equal(again.eval()(mean).log_prob(x), module(mean).log_prob(x))


def test_the_optimal_sigma_has_the_papers_gradient_at_its_fixed_point():
    """D log RMSE, the loss with the batch's own sigma, has the gradient of the loss at sigma = RMSE."""
    torch.manual_seed(0)
    module = Gaussian(sigma="optimal").build((1, 4, 4)).double()
    mean = torch.randn(1, 50, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(50, 1, 4, 4, dtype=torch.float64)
    module.after_step(x, module(mean))  # the first batch is the estimate
    (found,) = torch.autograd.grad(-module(mean).log_prob(x).mean(), mean)
    (papers,) = torch.autograd.grad(16 * 0.5 * (x - mean).square().mean().log(), mean)
    torch.testing.assert_close(found, papers)


def test_an_optimal_sigma_of_perfect_reconstructions_is_the_floor():
    module = Gaussian(sigma=Optimal(floor=0.01)).build((1, 1, 1))
    zeros = torch.zeros(2, 1, 1, 1)
    for _ in range(3):
        module.after_step(zeros, module(zeros))
    assert float(module(zeros).log_sigma.exp()) == pytest.approx(0.01)


def test_a_fixed_gaussian_is_the_scalar_formula():
    x, mean = torch.randn(2, 1, 3, 3), torch.randn(4, 2, 1, 3, 3)
    scalar = GaussianImage(mean, torch.tensor(-1.2)).log_prob(x)
    torch.testing.assert_close(scalar, GaussianImage(mean, torch.full_like(mean, -1.2)).log_prob(x))
    torch.testing.assert_close(
        scalar, torch.distributions.Normal(mean, math.exp(-1.2)).log_prob(x).sum((-1, -2, -3))
    )


def test_a_spread_is_a_number_a_name_or_a_table():
    assert Gaussian(sigma=0.1).sigma == Fixed(value=0.1)
    assert to_dict(Gaussian(sigma=0.1)) == {"name": "gaussian", "sigma": 0.1, "mean": "identity"}
    assert Gaussian(sigma="learned").sigma == Learned()
    assert Gaussian(sigma={"name": "per-pixel", "floor": 0.01}).sigma == PerPixel(floor=0.01)
    for spec in (Gaussian(sigma="optimal"), DiscretisedLogistic(), DiscretisedLogisticMixture()):
        assert build(Likelihood, to_dict(spec)) == spec
    changed = resolve(
        "digits", {"model.likelihood": "discretised-logistic-mixture", "model.likelihood.scale.floor": 1e-3}
    )
    assert changed.model.likelihood.scale == PerPixel(floor=1e-3)
    assert (Gaussian().channels, Gaussian(sigma="per-pixel").channels) == (1, 2)
    assert DiscretisedLogisticMixture(components=7).channels == 21


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"model.likelihood": "gaussian", "model.likelihood.sigma": -1}, "greater than 0"),
        ({"model.likelihood": "gaussian", "model.likelihood.sigma": "optimum"}, "did you mean 'optimal'"),
        (
            {"model.likelihood": "discretised-logistic", "model.likelihood.scale": "optimal"},
            "no optimal scale in closed form",
        ),
        (
            {"model.likelihood": "gaussian", "model.likelihood.sigma": {"name": "learned", "start": 1e-4}},
            "start must lie above the floor",
        ),
        ({"model.likelihood": "discretized-logistic"}, "did you mean 'discretised-logistic'"),
    ],
)
def test_wrong_settings_are_explained(flags, words):
    with pytest.raises(ConfigError, match=words):
        resolve("digits", flags)


# --- bits a dimension -----------------------------------------------------------------------------


def split_of(pixels: torch.Tensor, **fields) -> Split:
    splits = Data(**{"test": 0.5, **fields}).load(obj=pixels)
    return Split(splits.test, splits, CPU)


def model_of(likelihood: Likelihood, shape=(1, 4, 4)):
    torch.manual_seed(0)
    return VAE(latent_dim=2, likelihood=likelihood).build(shape).eval()


GREY = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (60, 1, 4, 4)).astype(np.uint8))
BLACK_OR_WHITE = (GREY > 128).to(torch.uint8) * 255
REAL = torch.randn(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("likelihood", "pixels", "fields", "name", "words"),
    [
        (Bernoulli(), GREY, {"transforms": "dynamic-binarise"}, "bits_per_dim", ""),
        (Bernoulli(), BLACK_OR_WHITE, {}, "bits_per_dim", ""),
        (Bernoulli(), GREY, {}, "grey_cross_entropy", "not a likelihood"),
        (Bernoulli(), GREY, {"transforms": "dequantise"}, "grey_cross_entropy", "not a likelihood"),
        (Categorical(), GREY, {}, "bits_per_dim", ""),
        (DiscretisedLogistic(), GREY.float() / 255, {}, "bits_per_dim", ""),
        (Categorical(), BLACK_OR_WHITE, {}, "bits_per_dim", "only the first and the last"),
        (
            Categorical(),
            GREY,
            {"transforms": "dynamic-binarise"},
            "bits_per_dim",
            "only the first and the last",
        ),
        (Gaussian(), GREY, {"transforms": "dequantise"}, "bits_per_dim", "from above"),
        (ContinuousBernoulli(), GREY, {"transforms": "dequantise"}, "bits_per_dim", "from above"),
        (
            Gaussian(),
            GREY,
            {"transforms": ["dequantise", {"name": "scale", "low": -1}]},
            "bits_per_dim",
            "from above",
        ),
        (Gaussian(), GREY, {}, None, "not dequantised"),
        (ContinuousBernoulli(), GREY, {}, None, "not dequantised"),
        (Gaussian(), BLACK_OR_WHITE, {}, None, "only 0 and 1"),
        (Gaussian(), GREY, {"transforms": {"name": "scale", "low": -1}}, None, "real-valued"),
        (Laplace(), REAL, {}, None, "real-valued"),
        (Categorical(), REAL.sigmoid(), {}, None, "no bits/dim"),
    ],
)
def test_the_right_number_has_the_right_name(likelihood, pixels, fields, name, words):
    split, model = split_of(pixels, **fields), model_of(likelihood)
    found = dict(bound(model, split))
    shown = {"bits_per_dim", "grey_cross_entropy"} & set(found)
    assert shown == ({name} if name else set())
    assert words in (found[name] if name else found["nelbo"]).note
    low, high = split.data.range
    volume = 8 - math.log2(high - low) if likelihood.observation_kind == "density" else 0.0
    if name:
        expected = found["nelbo"].value / (16 * math.log(2)) + volume
        assert found[name].value == pytest.approx(expected, rel=1e-12)
        assert found[name].unit == ("bits/dim" if name == "bits_per_dim" else "bits/pixel")


@pytest.mark.parametrize(
    "transforms", [("dequantise",), ("dequantise", {"name": "scale", "low": -1.0, "high": 3.0})]
)
def test_a_uniform_density_costs_eight_bits_on_any_scale(transforms):
    split = split_of(GREY, transforms=transforms)
    low, high = split.data.range
    nats_N = torch.full((30,), 16 * math.log(high - low), dtype=torch.float64)
    name, unit, bits_N, _ = bits(nats_N, split, model_of(Gaussian()))
    assert (name, unit) == ("bits_per_dim", "bits/dim")
    torch.testing.assert_close(bits_N, torch.full_like(bits_N, 8.0), rtol=0, atol=1e-14)
    if (low, high) == (0.0, 1.0):
        x_BCHW = next(split.batches())
        uniform = ContinuousBernoulliImage(torch.zeros(1, 4, 4)).log_prob(x_BCHW)
        assert uniform.abs().max() == 0.0


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.2])
def test_dequantised_bits_bound_those_of_the_levels_from_above(sigma):
    """The truth: P(level) is the integral of the density over its bin, by the distribution function."""
    centre, first, last = 110.3 / 256, 95, 125
    density = GaussianImage(
        torch.tensor(centre, dtype=torch.float64), torch.tensor(math.log(sigma), dtype=torch.float64)
    )
    with mpmath.workdps(40):
        edges = [mpmath.ncdf((level / mpmath.mpf(256) - centre) / sigma) for level in range(first, last + 1)]
        truth = [-float(mpmath.log(b - a, 2)) for a, b in itertools.pairwise(edges)]
    u = (torch.arange(2**15, dtype=torch.float64) + 0.5) / 2**15
    everywhere = (torch.arange(first, last).view(-1, 1) + u) / 256
    model = model_of(Gaussian(), (1, 1, 1))
    levels = torch.arange(first, last).repeat(2000)[:, None, None, None].to(torch.uint8)
    split = split_of({"train": levels[:1], "test": levels}, transforms="dequantise")
    nats = -density.log_prob(everywhere[..., None, None, None])
    exact = bits(nats, split, model)[2].mean(1)
    gap = exact - torch.tensor(truth, dtype=torch.float64)
    assert (gap > 0).all(), "an upper bound for every level"
    slope = (everywhere.mean(1) - centre) / sigma**2 / 256  # of the log-density, a level
    about = slope.square() / 24 / math.log(2)
    assert (gap < 1.2 * about + 0.02 / (256 * sigma) ** 4).all(), "and as tight as the density is smooth"
    drawn_N = bits(-torch.cat([density.log_prob(x.double()) for x in split.batches()]), split, model)[2]
    error = drawn_N.view(2000, -1).std(0) / 2000**0.5
    assert ((drawn_N.view(2000, -1).mean(0) - exact).abs() < 5 * error).all(), "what the transform draws"


# --- refusals, and whole runs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "transforms", [["dequantise"], [{"name": "scale", "high": 0.5}], [{"name": "scale", "low": -1.0}]]
)
def test_levels_that_a_transform_destroys_are_refused_before_any_data_is_read(transforms):
    with pytest.raises(
        ConfigError, match=r"data\.transforms .*categorical likelihood.*--model\.likelihood gaussian"
    ):
        resolve(
            "digits",
            {"data.source": "nowhere", "data.transforms": transforms, "model.likelihood": "categorical"},
        )
    resolve("digits", {"data.transforms": ["dynamic-binarise"], "model.likelihood": "categorical"})


def test_pixels_that_are_no_levels_are_refused_before_training(tiny_recipe, tmp_path):
    between = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    recipe = tiny_recipe({"model.likelihood": "categorical"})
    with pytest.raises(DataError, match="between the 8-bit levels, but a categorical likelihood"):
        api.train(recipe, data=between, runs=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(DataError, match="dequantise needs 8-bit levels"):
        Data(transforms="dequantise").load(obj=between)
    assert api.load_data(
        resolve(recipe, {"data.source": "python"}), data=(between * 255).round() / 255
    ).eight_bit


RUNS = {
    **{name: {"model.likelihood": name} for name in names("likelihood")},
    "dequantised gaussian": {
        "model.likelihood": "gaussian",
        "model.likelihood.sigma": "optimal",
        "data.transforms": "dequantise",
    },
    "a sigma for each pixel": {"model.likelihood": "gaussian", "model.likelihood.sigma": "per-pixel"},
    "a scale for each pixel": {"model.likelihood": "laplace", "model.likelihood.scale": "per-pixel"},
    "a learned scale, averaged": {
        "model.likelihood": "laplace",
        "model.likelihood.scale": "learned",
        "ema": 0.9,
    },
    "an optimal scale, averaged": {
        "model.likelihood": "laplace",
        "model.likelihood.scale": "optimal",
        "ema": 0.9,
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_every_likelihood_trains_and_is_measured(name, tiny_recipe, tmp_path):
    recipe = tiny_recipe({**RUNS[name], "epochs": 2, "optimizer.lr": 1e-3})
    run = api.train(recipe, runs=tmp_path, name="run", device="cpu")
    found = card.evaluate(run, samples=3, metrics=["bound", "importance", "error"], device="cpu")["metrics"]
    real = recipe.model.likelihood.observation_kind == "levels" or recipe.data.transforms
    assert ("bits_per_dim" in found) == bool(real)
    assert all(found[key]["value"] is not None for key in ("nelbo", "iw_nll", "mse"))
    history = run.history()
    assert history[-1]["validation"]["total"] < history[0]["validation"]["total"]
    again = card.evaluate(run, samples=3, metrics=["bound"], device="cpu")["metrics"]
    assert again["nelbo"] == found["nelbo"]


@pytest.mark.parametrize("spec", [*DISCRETE, *DENSITIES], ids=label)
def test_a_network_in_bfloat16_leaves_the_arithmetic_of_pixels_in_float32(spec):
    torch.manual_seed(0)
    module = spec.build((1, 2, 2)).eval()
    outputs = torch.randn(3, spec.channels, 2, 2).bfloat16()
    x = torch.randint(0, 256, (3, 1, 2, 2)) / 255
    exact = module(outputs.float())
    expected = exact.log_prob(x), exact.mean
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = module(outputs)
        torch.testing.assert_close((value.log_prob(x), value.mean), expected)
        assert value.sample().dtype == torch.float32


def test_importance_samples_of_a_categorical_stay_within_bounded_memory(monkeypatch):
    model = model_of(Categorical())
    decoded = []
    monkeypatch.setattr(
        model.decoder, "forward", lambda z, inner=model.decoder.forward: decoded.append(len(z)) or inner(z)
    )
    monkeypatch.setitem(base.PIXELS_AT_ONCE, "cpu", 3 * 16 * 256)
    assert model.log_weights(torch.zeros(1, 1, 4, 4), 10).shape == (10, 1)
    assert decoded == [3, 3, 3, 1]


def test_the_page_has_every_likelihood_and_every_spread():
    page = (Path(__file__).parent.parent / "docs" / "likelihoods.md").read_text(encoding="utf-8")
    for name in [*names("likelihood"), *names("spread")]:
        assert f"`{name}`" in page or (name == "fixed" and "a number: fixed" in page), name


def test_a_narrow_logistic_draws_the_level_it_lies_in():
    levels = torch.arange(256, dtype=torch.float64)
    for inside in (-0.45, 0.0, 0.45):
        drawn = draw_level((levels + inside) / 255, torch.tensor(1e-6).log())
        assert torch.equal((drawn * 255).round(), levels)
    assert draw_level(torch.tensor([-3.0, 4.0]), torch.tensor(0.01).log()).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("spec", DISCRETE, ids=label)
def test_levels_are_read_in_float32_as_they_come_from_uint8(spec):
    value = one_pixel(spec, 1.0, n=3, dtype=torch.float64)
    from_bytes = torch.arange(256, dtype=torch.uint8) / 255
    for x_L in (from_bytes, from_bytes * 0.999999):
        torch.testing.assert_close(log_probs(value, x_L), log_probs(value, LEVELS), rtol=1e-4, atol=1e-4)
