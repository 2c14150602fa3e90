"""The laws of a prior."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from nelbo.core.distributions import PriorModule
from nelbo.priors import Prior
from nelbo.testing.densities import SAMPLES, gradients, integrates, matches, settled
from nelbo.testing.exact import LinearGaussian
from nelbo.testing.law import Evidence, Law, instance, keep, require, require_alone, require_form, show
from nelbo.testing.models import weights_average_to_one
from nelbo.testing.numeric import Grid
from nelbo.testing.settings import Outcome, settings_tell_apart, weights_of
from nelbo.testing.spaces import Support, few, fits, points, small_latents, some_latents, told_apart_with
from nelbo.testing.toys import built

MOVED = 0.5  # deviation of the move of one number; many numbers move as far together


def check_prior(
    prior: Prior | type[Prior], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a prior p(z) against one, or against a class with its default settings.

    Its density integrates to one, its samples come from it, its log-density has the gradients of finite differences
    and judges every latent alone; with it as the prior of a linear model importance weights average to one; every
    setting changes something. A prior that is made of a model's posteriors is attached to a fixed toy encoder, and
    shown toy images. For `skip`, `only` and what it returns or raises see `check`.
    """
    spec = instance(prior, Prior)
    return keep(spec, LAWS, spec, skip, only)


def _planes(spec: Prior) -> Iterator[tuple[PriorModule, Grid, Tensor]]:
    """Yield for few latents the prior with weights moved, a grid around its samples, and its density there."""
    for latents in small_latents(spec):
        prior = settled(built(spec, latents))
        with torch.no_grad():
            for weight in prior.parameters():  # many begin at the standard normal, whatever they do later
                numbers = max(1, weight.dim() and weight.shape[-1])
                weight.add_(MOVED * torch.randn_like(weight) / numbers**0.5)
            samples_NZ = prior.sample(4000)
            fault = f"all {len(samples_NZ)} samples are the same"
            require(samples_NZ.std(0) > 0, fault, "sample: noise for each of n samples")
            grid = Support.of(spec, latents).grid(samples_NZ)
            yield prior, grid, prior.log_prob(grid.points_MZ).exp()


def shapes_and_types_are_kept(spec: Prior) -> str | Evidence:
    latents = some_latents(spec, 4)
    prior = built(spec, latents)
    for precision in (torch.float64, torch.float32):
        prior = prior.to(precision)
        samples_NZ = prior.sample(9)
        require_form("sample(9)", samples_NZ, ((9, latents), precision), f" in {precision}", "sample")
        log_prob = prior.log_prob(points(spec, latents, 6, 5).to(precision))
        name = f"log_prob of (6, 5, {latents}) latents"
        require_form(name, log_prob, ((6, 5), precision), f" in {precision}", "log_prob")
    return "in float64 and float32"


def the_density_integrates_to_one(spec: Prior) -> str | Evidence:
    for _, grid, density_M in _planes(spec):
        integrates(grid, density_M, grid.points_MZ.shape[1])
    return few(spec)


def samples_match_the_density(spec: Prior) -> str | Evidence:
    for prior, grid, density_M in _planes(spec):
        with torch.no_grad():
            samples_NZ = prior.sample(SAMPLES)
            matches(samples_NZ, Support.of(spec, samples_NZ.shape[1]), grid, density_M, "sample")
    return f"{SAMPLES} samples {few(spec)}"


def latents_are_judged_alone(spec: Prior) -> str | Evidence:
    latents = some_latents(spec, 3)
    prior = settled(built(spec, latents))
    z_KBZ = points(spec, latents, 5, 4)
    with torch.no_grad():
        together, alone = prior.log_prob(z_KBZ)[:, :1], prior.log_prob(z_KBZ[:, :1])
    require_alone("log_prob is", together, alone, "means over the batch")
    return "the same alone and among others"


def gradients_match_finite_differences(spec: Prior) -> str | Evidence:
    latents = some_latents(spec, 2)
    prior = settled(built(spec, latents))
    z_BZ = points(spec, latents, 4).requires_grad_()
    if not prior.log_prob(z_BZ).requires_grad:  # uniform on its space, or detached
        log_prob_B = prior.log_prob(points(spec, latents, 4))
        fault = f"log_prob has no gradient and varies: {show(log_prob_B)}"
        require(torch.equal(prior.log_prob(z_BZ), log_prob_B), fault, "log_prob: detached tensors")
        return "log_prob is the same everywhere"
    gradients(lambda z, *_: prior.log_prob(z), (z_BZ, *prior.parameters()), "log_prob")
    return "log_prob, by latents and weights"


def importance_weights_average_to_one(spec: Prior) -> str | Evidence:
    law = LinearGaussian(prior=spec)
    return weights_average_to_one(law.model, law.x_BCHW, law.log_px_B)


@settings_tell_apart
def every_setting_changes_something(spec: Prior) -> Outcome:
    latents = told_apart_with(spec)
    if not fits(spec, latents):
        return {"refused": "by check"}
    prior = built(spec, latents)
    results, z_KBZ = weights_of(prior), points(spec, latents, 4, 2)
    for mode in (True, False):
        torch.manual_seed(11)
        prior.train(mode)
        results[f"{mode} samples"] = prior.sample(7).detach()
        results[f"{mode} log_prob"] = prior.log_prob(z_KBZ).detach()
    return results


LAWS: tuple[Law[Prior], ...] = (
    shapes_and_types_are_kept,
    every_setting_changes_something,
    the_density_integrates_to_one,
    samples_match_the_density,
    latents_are_judged_alone,
    gradients_match_finite_differences,
    importance_weights_average_to_one,
)
