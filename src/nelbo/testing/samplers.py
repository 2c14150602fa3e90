"""The laws of a sampler."""

import functools
import random
from collections.abc import Callable, Collection, Mapping
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from nelbo.core.registry import names
from nelbo.core.spec import Spec
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.engine import fixed_seed
from nelbo.errors import ConfigError, DataError
from nelbo.likelihoods.gaussian import GaussianImage
from nelbo.models import BuiltModel
from nelbo.samplers.base import SPACES, Fitted, Latents, Sampler, of_posterior
from nelbo.testing.law import CPU, SEED, Evidence, Law, LawBroken, instance, keep, require, require_form, show
from nelbo.testing.numeric import around, farthest_projection, mismatch
from nelbo.testing.settings import Outcome, changed, settings_change_something, weights_of

S = TypeVar("S", bound=Spec)
Kind = Literal["one", "two", "point"]
TRAIN, SAMPLES = 2000, 4000
FEW = 60  # latents where only what is used matters, and not how well
ENOUGH = {"steps": 600, "centroids": 50}  # of a metric on the latents, whose cost is by centroid
QUICK = {"steps": 20, "batch_size": 8, "centroids": 8, "moves": 4, "leapfrog": 3}
POSTERIOR_STD = 0.3
CDF = 0.06  # how far a distribution function may be off, where one of 2,000 latents is off by 0.03
MOMENT = 0.15  # how far a mean may be off in standard deviations, and a covariance beside the largest


def check_sampler(
    sampler: Sampler | type[Sampler], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a sampler against one, or against a class with its default settings.

    Fitted to latents of a model whose aggregate posterior is known, it draws latents of the right shape and type,
    repeats itself with the same seed and whatever else is random, changes nothing of the model, and follows the
    latents, or the density that it states. Posteriors that are points and dimensions that never change are no trouble;
    too few latents and latents of another space are refused with a way out; every setting changes something. For
    `skip`, `only` and what it returns or raises see `check`.
    """
    spec = instance(sampler, Sampler)
    return keep(spec, LAWS, spec, skip, only)


class Window(BuiltModel):
    """A model whose images are its latents: q(z | x) = N(x, 0.3^2 I), or the point x."""

    shape = (1, 1, 2)
    latent_dim = 2
    observation_kind = "density"

    def __init__(self, point: bool) -> None:
        super().__init__()
        self.std = torch.tensor(0.0 if point else POSTERIOR_STD)
        self.prior = StandardNormalModule(2)

    def encode(self, x_BCHW: Tensor) -> DiagonalNormal:
        mean_BZ = x_BCHW.flatten(1)
        std_BZ = self.std.to(mean_BZ).expand_as(mean_BZ)
        return DiagonalNormal(mean_BZ, std_BZ, 2.0 * std_BZ.log())

    def decode(self, z: Tensor) -> GaussianImage:
        return GaussianImage(z[..., None, None, :], torch.zeros(()).to(z))


def means_of(kind: Kind, n: int) -> Tensor:
    """Return n posterior means: one Gaussian that is not the prior, two of them, or two on a line beside the axis."""
    # The covariances are L L': neither is diagonal, so that what forgets correlations is found.
    lower = torch.tensor([[[0.5, 0.0], [-0.4, 0.3]], [[0.2, 0.0], [0.1, 0.6]]]).double()
    centre = torch.tensor([[-2.0, 0.0], [2.0, 1.0]]).double()
    component_N = torch.zeros(n).long() if kind == "one" else (torch.rand(n) < 0.6).long()
    noise_NZ = torch.randn(n, 2).double()
    mean_NZ = centre[component_N] + (lower[component_N] @ noise_NZ[:, :, None])[:, :, 0]
    if kind == "point":
        mean_NZ[:, 1] = 0.5
    return mean_NZ


def latents_of(model: Window, mean_NZ: Tensor) -> Latents:
    images_NCHW = mean_NZ[:, None, None]
    first = of_posterior(model.encode(images_NCHW))
    return Latents(*first, again=lambda rows_M: of_posterior(model.encode(images_NCHW[rows_M]))[0])


def quick(spec: S, settings: Mapping[str, int] = QUICK) -> S:
    """Return the same with few steps, where it has such a setting and no smaller one."""
    fields = settings.keys() & type(spec).model_fields.keys()
    return changed(spec, **{field: min(settings[field], spec.setting(field)) for field in fields}) or spec


def fit(
    spec: Sampler, kind: Kind = "two", n: int = FEW, dtype: torch.dtype = torch.float64, seed: int = SEED
) -> tuple[Window, Fitted]:
    """Return the sampler fitted to n latents, and the model they are of."""
    with fixed_seed(SEED, CPU):
        model = Window(point=kind == "point").eval()
        train, validation = (latents_of(model, means_of(kind, m).to(dtype)) for m in (n, max(2, n // 4)))
    with fixed_seed(seed, CPU):
        return model, spec.fit(model, train, validation)


@functools.lru_cache(maxsize=3)  # one fit of each kind, which takes seconds
def fitted_well(spec: Sampler, kind: Kind) -> tuple[Fitted, Tensor]:
    """Return the sampler with enough of its steps, fitted to many latents, and samples of it."""
    _, fitted = fit(quick(spec, ENOUGH), kind, TRAIN)
    with fixed_seed(SEED, CPU):
        return fitted, fitted.sample(SAMPLES)


def truth(kind: Kind) -> Tensor:
    """Return draws from the aggregate posterior: of new images."""
    with fixed_seed(SEED + 1, CPU):
        mean_NZ = means_of(kind, 5 * SAMPLES)
        return mean_NZ if kind == "point" else mean_NZ + POSTERIOR_STD * torch.randn(mean_NZ.shape).double()


def shapes_and_types_are_kept(spec: Sampler) -> str | Evidence:
    for precision in (torch.float64, torch.float32):
        model, fitted = fit(quick(spec), dtype=precision)
        model.to(precision)
        for n in (1, 9):
            z_NZ = fitted.sample(n)
            require_form(f"sample({n})", z_NZ, ((n, 2), precision), f" in {precision}", "sample")
            require(z_NZ.isfinite(), f"sample({n}) is {show(z_NZ)}", "sample")
            require(not z_NZ.requires_grad, f"sample({n}) requires gradients", "sample: torch.no_grad")
    return "in float64 and float32"


def the_same_seed_gives_the_same_latents(spec: Sampler) -> str | Evidence:
    samples = []
    for foreign_seed, seed in ((1, SEED), (2, SEED), (1, SEED + 1)):
        random.seed(foreign_seed)
        np.random.seed(foreign_seed)  # what must not matter
        before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        _, fitted = fit(quick(spec), seed=seed)
        with fixed_seed(seed, CPU):
            samples.append(fitted.sample(20))
        after = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        require(before == after, "the streams of random or numpy have moved", "random_state of an estimator")
    first, same_seed, another_seed = samples
    fault = f"the same seed gives {show(first)} and {show(same_seed)}"
    require(torch.equal(first, same_seed), fault, "random numbers that are not torch's")
    fault = "another seed gives the same latents"
    require(not torch.equal(first, another_seed), fault, "a seed of its own")
    return "fit and sample, whatever random and numpy do"


def nothing_of_the_model_changes(spec: Sampler) -> str | Evidence:
    before = dict(weights_of(Window(point=False)))
    model, fitted = fit(quick(spec))
    fitted.sample(3)
    after = dict(weights_of(model))
    same = before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)  # type: ignore[arg-type]
    require(same, "the model's weights or buffers are others", "fit: it trains the model")
    require(not model.training, "the model is in training mode afterwards", "fit: model.train()")
    require(torch.get_default_dtype() == torch.float64, "the default type is another", "set_default_dtype")
    return "weights and mode"


def samples_follow_the_latents_or_a_stated_density(spec: Sampler) -> str | Evidence:
    fitted, samples_NZ = fitted_well(spec, "two")
    density: Callable[[Tensor], Tensor] | None = getattr(fitted, "log_prob", None)
    fault = "it neither follows the latents nor states a density"
    require(spec.follows or density is not None, fault, "follows, and log_prob of what fit returns")
    evidence = []
    if density is not None:
        grid = around(samples_NZ)
        log_prob_M = torch.cat([density(z_BZ) for z_BZ in torch.split(grid.points_MZ, 5000)])
        # It may lack a constant, so that only its shape is held against the samples.
        density_M = (log_prob_M - log_prob_M.max()).exp()
        fault = f"all {len(samples_NZ)} samples are the same"
        require(samples_NZ.std(0) > 0, fault, "sample: noise for each")
        fault = mismatch(samples_NZ, grid, density_M / grid.integral(density_M))
        look = "sample against log_prob: location, scale, and what sample adds or leaves out"
        require(not fault, fault, look)
        evidence.append(f"{SAMPLES} samples match its density")
    if spec.follows:
        evidence += [_follows_one(fitted_well(spec, "one")[1]), _follows_two(samples_NZ)]
    return ", ".join(evidence)


def _follows_one(samples_NZ: Tensor) -> str:
    """Hold the distribution function against that of one Gaussian."""
    true_NZ = truth("one")
    scale = (len(samples_NZ) * len(true_NZ) / (len(samples_NZ) + len(true_NZ))) ** 0.5
    distance, direction = farthest_projection(samples_NZ, true_NZ)
    off = distance / scale
    fault = f"of one Gaussian the distribution function is off by {off:.3f}{direction}"
    require(off < CDF, fault, "what it is fitted to, and whether the fit is far enough")
    return f"one Gaussian within {off:.3f}"


def _follows_two(samples_NZ: Tensor) -> str:
    """Hold the moments against those of two Gaussians: the latents need not have the shape that a sampler fits."""
    true_NZ = truth("two")
    off = float(((samples_NZ.mean(0) - true_NZ.mean(0)) / true_NZ.std(0)).abs().max())
    fault = f"of two Gaussians the mean is off by {off:.3f} standard deviations"
    require(off < MOMENT, fault, "what it is fitted to: posterior samples of all training images")
    covariance, true = samples_NZ.T.cov(), true_NZ.T.cov()
    spread = float((covariance - true).abs().max() / true.abs().max())
    fault = f"of two Gaussians the covariance is {show(covariance)} and not {show(true)}"
    require(spread < MOMENT, fault, "posterior samples, and not only their means")
    return f"two within {off:.3f} deviations and {100 * spread:.0f} % of their covariance"


def a_point_and_a_dead_dimension_are_no_trouble(spec: Sampler) -> str | Evidence:
    samples_NZ, true_NZ = fitted_well(spec, "point")[1], truth("point")
    require(samples_NZ.isfinite(), f"samples are {show(samples_NZ)}", "divisions by a deviation of zero")
    if not spec.fewest(2):
        return "it does not look at latents"
    away = float((samples_NZ[:, 1] - 0.5).abs().max())
    require(away < 0.2, f"a dimension that is always 0.5 is off by {away:.3g}", "what divides by a deviation")
    if spec.follows:
        off = float((samples_NZ.mean(0) - true_NZ.mean(0))[0].abs() / true_NZ[:, 0].std())
        require(off < MOMENT, f"the mean is off by {off:.3f} deviations", "where it takes latents from")
    return f"a dead dimension stays within {away:.2g}"


def too_few_latents_are_refused(spec: Sampler) -> str | Evidence:
    least = spec.fewest(2)
    fit(quick(spec), n=max(1, least))
    if not least:
        return "it needs none"
    try:
        fit(quick(spec), n=least - 1)
    except DataError as error:
        helpful = str(least) in str(error) and "--sampler" in str(error)
        require(helpful, f"the refusal says {error}", "fewest")
        return f"fewer than {least}"
    raise LawBroken(f"{least - 1} latents are accepted, where it says it needs {least}", "fewest")


def latents_of_another_space_are_refused(spec: Sampler) -> str | Evidence:
    refused = []
    for space in SPACES:
        if space in spec.spaces:
            spec.check(space)
            continue
        try:
            spec.check(space)
        except ConfigError as error:
            helpful = any(f" {name}" in str(error) for name in names("sampler") if name != spec.name)
            require(helpful, f"the refusal says {error}", "check: name what works")
            refused.append(space)
        else:
            raise LawBroken(f"latents of space {space!r} are accepted", "check")
    return f"refused: {', '.join(refused) or 'none'}"


def every_setting_changes_something(spec: Sampler) -> str | Evidence:
    def outcome(spec: Sampler) -> Outcome:
        _, fitted = fit(spec)
        with fixed_seed(SEED, CPU):
            return {"samples": fitted.sample(30), "spaces": ", ".join(spec.spaces)}

    # The settings of a prior are held to this law on their own axis.
    return settings_change_something(quick(spec), outcome, apart=("prior",))


LAWS: tuple[Law[Sampler], ...] = (
    shapes_and_types_are_kept,
    every_setting_changes_something,
    the_same_seed_gives_the_same_latents,
    nothing_of_the_model_changes,
    samples_follow_the_latents_or_a_stated_density,
    a_point_and_a_dead_dimension_are_no_trouble,
    too_few_latents_are_refused,
    latents_of_another_space_are_refused,
)
