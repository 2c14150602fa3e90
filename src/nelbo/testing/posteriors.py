"""The laws of a posterior."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue
from nelbo.errors import NotABound
from nelbo.posteriors import Posterior
from nelbo.priors import Prior, StandardNormal
from nelbo.testing.densities import SAMPLES, gradients, independent, integrates, matches, settled
from nelbo.testing.exact import LinearGaussian
from nelbo.testing.law import (
    ERRORS,
    ROUNDING,
    Evidence,
    Law,
    LawBroken,
    Verdict,
    does_not_apply,
    held,
    instance,
    keep,
    mean_and_error,
    require,
    require_alone,
    require_form,
    show,
)
from nelbo.testing.models import weights_average_to_one
from nelbo.testing.numeric import Grid
from nelbo.testing.settings import Outcome, settings_tell_apart, weights_of, with_every_setting
from nelbo.testing.spaces import (
    Support,
    beside,
    fellows,
    few,
    fits,
    points,
    small_latents,
    some_latents,
    told_apart_with,
)

FEATURES, IMAGES = 5, 2
POINTS, FINE = 121, 241  # along each axis of a plane; of bounded spaces
FIT = (80, 240)  # steps, each of which costs an inverse of a flow: more where few do not cover the posterior
POINT = does_not_apply("it is a point, without a density")


def check_posterior(
    posterior: Posterior | type[Posterior], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a posterior q(z | x) against one, or against a class with its default settings.

    Its density integrates to one and its samples come from it, with noise of their own for every image, latent
    and sample; independent dimensions have densities of their own; a closed-form KL is the Monte-Carlo KL;
    log-densities, samples and KL have the gradients of finite differences; on a linear-Gaussian model the importance
    weights average to one; every setting changes something.
    For `skip`, `only` and what it returns or raises see `check`.
    """
    spec = instance(posterior, Posterior)
    return keep(spec, LAWS, spec, skip, only)


def _head(spec: Posterior, latents: int) -> tuple[nn.Module, Tensor]:
    """Return the built posterior with features to put in."""
    features_BF = 1.5 * torch.randn(IMAGES, FEATURES)
    return settled(spec.build(FEATURES, latents)), features_BF


def _densities(spec: Posterior) -> Iterator[tuple[PosteriorValue, list[Grid], Tensor]]:
    """Yield for few latents the value, a grid around the samples of each image, and densities there (M, B)."""
    for latents in small_latents(spec):
        head, features_BF = _head(spec, latents)
        with torch.no_grad():
            value = head(features_BF)
            if value.not_a_bound:
                continue
            n = POINTS if spec.space == "real" else FINE
            grids = [Support.of(spec, latents).grid(z_KZ, n) for z_KZ in value.rsample(2000).unbind(1)]
            points_MBZ = torch.stack([grid.points_MZ for grid in grids], dim=1)
            yield value, grids, value.log_prob(points_MBZ).exp()


@with_every_setting
def shapes_and_types_are_kept(spec: Posterior) -> str | Evidence:
    latents = some_latents(spec, 4)
    head, features_BF = _head(spec, latents)
    prior = beside(spec, Prior).build(latents)
    for precision in (torch.float64, torch.float32):
        value = head.to(precision)(features_BF.to(precision))
        fault = "its value is no PosteriorValue"
        require(isinstance(value, PosteriorValue), fault, "dists.base.PosteriorValue")
        z_KBZ = value.rsample(6)
        kl_BG = value.kl_to(prior.to(precision))
        tensors = {"mean": (value.mean, (IMAGES, latents)), "rsample(6)": (z_KBZ, (6, IMAGES, latents))}
        if spec.has_density:
            tensors["log_prob"] = (value.log_prob(z_KBZ), (6, IMAGES))
        if kl_BG is not None:
            groups = kl_BG.shape[-1] if kl_BG.dim() and not spec.factorises else latents
            tensors["kl_to"] = (kl_BG, (IMAGES, min(groups, latents)))
        for name, (tensor, shape) in tensors.items():
            require_form(name, tensor, (shape, precision), f", not {shape} and {precision}", name)
    value = head.to(torch.bfloat16)(features_BF.to(torch.bfloat16))
    fault = f"a bf16 network gives samples in {value.rsample(1).dtype}"
    look = "`full`: distributions of a bf16 network are float32"
    require(value.rsample(1).dtype == torch.float32, fault, look)
    reason = value.not_a_bound
    explained = reason is None or len(str(reason)) > 20
    require(explained, f"not_a_bound is {reason!r}", "not_a_bound: None, or why")
    if not spec.has_density:
        _is_a_point(value)
    return "one number an image and sample, in float64 and float32; float32 for a bf16 network"


def _is_a_point(value: PosteriorValue) -> None:
    """Require of a posterior without a density that it says so, wherever it is asked."""
    signs = "`is_point = True`, `not_a_bound`, kl_to(...) = None, NotABound"
    look = f"a posterior with has_density = False: {signs}"
    fault = "it has no density, and its value has no `is_point = True` with a `not_a_bound`"
    require(bool(value.is_point and value.not_a_bound), fault, look)
    kl_BG = value.kl_to(StandardNormal().build(value.mean.shape[-1]))
    require(kl_BG is None, "it has no density, and a KL", look)
    require(torch.equal(value.rsample(2), value.mean.expand(2, *value.mean.shape)), "its samples vary", look)
    try:
        value.log_prob(value.rsample(1))
    except NotABound:
        return
    raise LawBroken("it has no density, and log_prob gives one", look)


@with_every_setting
def the_density_integrates_to_one(spec: Posterior) -> str | Evidence:
    if not spec.has_density:
        return POINT
    for value, grids, density_MB in _densities(spec):
        for grid, density_M in zip(grids, density_MB.unbind(1), strict=True):
            integrates(grid, density_M, value.mean.shape[-1])
    return few(spec)


@with_every_setting
def samples_match_the_density(spec: Posterior, thorough: bool = True) -> str | Evidence:
    if not spec.has_density:
        return POINT
    for value, grids, density_MB in _densities(spec):
        samples_KBZ = value.rsample(SAMPLES if thorough else SAMPLES // 4).detach()
        support = Support.of(spec, samples_KBZ.shape[-1])
        for image, grid in enumerate(grids):
            matches(samples_KBZ[:, image], support, grid, density_MB[:, image], "rsample")
        if value.mean_is != "posterior mean":  # a point that stands for it
            continue
        mean_BZ, error_BZ = mean_and_error(samples_KBZ)
        fault = f"mean is {show(value.mean)}, that of samples is {show(mean_BZ, error_BZ)}"
        require((value.mean - mean_BZ).abs() <= ERRORS * error_BZ, fault, "mean")
    if _head(spec, some_latents(spec, 2))[0](torch.zeros(1, FEATURES)).not_a_bound:
        return does_not_apply("it says itself that samples do not come from the density")
    return f"{SAMPLES} samples {few(spec)}"


@with_every_setting
def images_have_noise_of_their_own(spec: Posterior) -> str | Evidence:
    if not spec.has_density:
        return POINT
    head, features_BF = _head(spec, some_latents(spec, 1))
    with torch.no_grad():  # one image four times: samples that differ do so by noise alone
        z_KB = head(features_BF[:1].expand(4, -1)).rsample(SAMPLES)[..., 0]
    return independent(z_KB, "images", "rsample: noise of shape (k, images, latents)")


@with_every_setting
def images_are_judged_alone(spec: Posterior) -> str | Evidence:
    latents = some_latents(spec, 3)
    head, features_BF = _head(spec, latents)
    with torch.no_grad():
        together, alone = head(features_BF), head(features_BF[:1])
        z_KBZ = points(spec, latents, 5, IMAGES)
        pairs = {"mean": (together.mean[:1], alone.mean)}
        if spec.has_density:
            pairs["log_prob"] = (together.log_prob(z_KBZ)[:, :1], alone.log_prob(z_KBZ[:, :1]))
    for name, (among, single) in pairs.items():
        require_alone(f"{name} of an image is", among, single, "means over the batch")
    return "the same alone and among others"


@with_every_setting
def independent_dimensions_have_densities_of_their_own(spec: Posterior) -> str | Evidence:
    """Hold `log_prob_each` of a posterior that factorises; of another on R^Z the KL is one number."""
    latents = some_latents(spec, 3)
    head, features_BF = _head(spec, latents)
    value, z_KBZ = head(features_BF), points(spec, latents, 5, IMAGES)
    if not spec.factorises and spec.space != "real":
        return "it does not claim that they are"
    if not spec.factorises:
        fault = "its value has log_prob_each, and it does not say that it factorises"
        require(value.log_prob_each(value.mean) is None, fault, "the class variable factorises")
        kl_BG = value.kl_to(StandardNormal().build(latents))
        groups = 0 if kl_BG is None else kl_BG.shape[-1]
        fault = f"its dimensions depend on each other, and it gives {groups} KLs"
        require(groups <= 1, fault, "kl_to, or the class variable factorises")
        return "they depend on each other"
    each_KBZ, total_KB = value.log_prob_each(z_KBZ), value.log_prob(z_KBZ)
    fault = f"log_prob_each adds up to {show(each_KBZ.sum(-1))}, log_prob is {show(total_KB)}"
    require((each_KBZ.sum(-1) - total_KB).abs() <= ROUNDING, fault, "log_prob_each")
    moved_KBY = value.log_prob_each(z_KBZ + torch.tensor([1.0, 0.0, 0.0]))[..., 1:]
    each_KBY = each_KBZ[..., 1:]
    fault = f"with the first latent moved, of the others it is {show(moved_KBY)}, not {show(each_KBY)}"
    require((moved_KBY - each_KBY).abs() <= ROUNDING, fault, "log_prob_each: of each latent by itself")
    return "they add up, and each is of its own latent"


@with_every_setting
def closed_form_kl_is_the_monte_carlo_kl(spec: Posterior) -> str | Evidence:
    """Hold the law against every registered prior with a closed form; of one latent, each KL by itself."""
    if not spec.has_density:
        return POINT
    tried = set()
    for fellow in fellows(spec, Prior):
        for latents in (some_latents(spec, 1), some_latents(spec, 3)):
            name, prior = fellow.name, settled(fellow.build(latents))
            head, features_BF = _head(spec, latents)
            with torch.no_grad():
                value = head(features_BF)
                kl_BG = value.kl_to(prior)
                if kl_BG is None or value.not_a_bound:
                    continue
                z_KBZ = value.rsample(4 * SAMPLES)
                # KL(q || p) = E_q[log q - log p]
                mean_B, error_B = mean_and_error(value.log_prob(z_KBZ) - prior.log_prob(z_KBZ))
            kl = f"KL to {name} of {latents} latents is {show(kl_BG.sum(-1))} in closed form"
            fault = f"{kl}, {show(mean_B, error_B)} by samples"
            look = "kl_to: signs, halves, and a sum over latents (it gives each latent's KL)"
            require((kl_BG.sum(-1) - mean_B).abs() <= ERRORS * error_B + ROUNDING, fault, look)
            require(kl_BG >= -ROUNDING, f"a KL of {float(kl_BG.min()):.4g} nats is negative", look)
            tried.add(name)
    return f"to {', '.join(sorted(tried))}" if tried else does_not_apply("no prior has a closed form")


@with_every_setting
def gradients_match_finite_differences(spec: Posterior) -> str | Evidence:
    latents = some_latents(spec, 2)
    head, features_BF = _head(spec, latents)
    features_BF.requires_grad_()
    z_KBZ = points(spec, latents, 2, IMAGES)

    def samples(features: Tensor, *weights: Tensor) -> Tensor:
        torch.manual_seed(3)  # a finite difference is of the same noise
        value = head(features)
        return torch.as_tensor(value.rsample(2) if spec.reparametrised else value.relaxed(2))

    prior = settled(beside(spec, Prior).build(latents))
    inputs = (features_BF, *head.parameters())
    gradients(samples, inputs, "rsample")
    if not spec.has_density:
        return "rsample, by features and weights"
    gradients(lambda features, *_: head(features).log_prob(z_KBZ), inputs, "log_prob")
    if spec.reparametrised:  # then objectives differentiate the density around its samples
        fixed = features_BF.detach()
        gradients(lambda z: head(fixed).log_prob(z), (z_KBZ.requires_grad_(),), "log_prob, by z,")
    if head(features_BF).kl_to(prior) is not None:
        gradients(lambda features, *_: head(features).kl_to(prior), inputs, "kl_to")
    if not spec.reparametrised:
        return f"log_prob and KL, by features and weights; {_surrogate(spec, head, features_BF)}"
    return "rsample, log_prob and KL, by features and weights"


def _surrogate(spec: Posterior, head: nn.Module, features_BF: Tensor) -> str:
    """Require that samples have the gradient of the relaxed ones, and say how far that is from the true one."""

    def slope(function: Callable[[Any], Tensor]) -> Tensor:
        torch.manual_seed(3)  # the same noise for hard and relaxed samples
        return torch.autograd.grad(function(head(features_BF)), features_BF)[0]

    weigh_Z = torch.randn(head(features_BF).mean.shape[-1])
    straight = slope(lambda q: (q.rsample(2) * weigh_Z).sum())
    relaxed = slope(lambda q: (q.relaxed(2) * weigh_Z).sum())
    look = "rsample: the hard sample plus the relaxed one less itself detached, from the same noise"
    fault = f"the gradient of rsample is {show(straight)}, that of relaxed {show(relaxed)}"
    require((straight - relaxed).abs() <= ROUNDING, fault, look)
    support = Support.of(spec, len(weigh_Z))
    if support.reals:
        return "the gradient of a categorical sample is a surrogate, that of its relaxation"
    # The true gradient of E_q[f(z)] is by enumeration, f being random: what a decoder sees of z.
    states_SZ = support.grid(torch.empty(0)).points_MZ
    values_S = (states_SZ @ weigh_Z).sin()
    true = slope(lambda q: (q.log_prob(states_SZ[:, None]).exp() * values_S[:, None]).sum())
    biased = slope(lambda q: (q.rsample(SAMPLES) @ weigh_Z).sin().mean(0).sum())
    cosine = float(torch.cosine_similarity(true.flatten(), biased.flatten(), dim=0))
    require(cosine > 0, f"the surrogate gradient has a cosine of {cosine:.3f} with the true one", look)
    return f"the gradient of rsample is a surrogate, that of its relaxation; cosine with the true one {cosine:.3f}"


@with_every_setting
def importance_weights_average_to_one(spec: Posterior, thorough: bool = True) -> str | Evidence:
    if not spec.has_density:
        return POINT
    for steps in FIT if thorough else FIT[:1]:
        law = LinearGaussian(posterior=spec, steps=steps)
        evidence = held(weights_average_to_one(law.model, law.x_BCHW, law.log_px_B))
        if evidence.verdict is not Verdict.UNDECIDED:
            break
    return evidence


@settings_tell_apart
def every_setting_changes_something(spec: Posterior) -> Outcome:
    latents = told_apart_with(spec)
    if not fits(spec, latents):
        return {"refused": "by check"}
    head = spec.build(FEATURES, latents)
    results, z_KBZ = weights_of(head), points(spec, latents, 4, 2)
    features_BF = torch.linspace(-1, 1, 2 * FEATURES).view(2, FEATURES).requires_grad_()
    for mode in (True, False):
        torch.manual_seed(11)
        value = head.train(mode)(features_BF)
        samples_KBZ = value.rsample(2)
        results |= {f"{mode} mean": value.mean.detach(), f"{mode} samples": samples_KBZ.detach()}
        results[f"{mode} reason"] = str(value.not_a_bound)
        # Weighed, since the plain sum of one-hot samples has no slope.
        weighed = samples_KBZ * torch.linspace(-1.0, 1.0, samples_KBZ.numel()).view_as(samples_KBZ)
        (results[f"{mode} slope of samples"],) = torch.autograd.grad(weighed.sum(), features_BF)
        if spec.has_density:
            results[f"{mode} log_prob"] = value.log_prob(z_KBZ).detach()
    return results


LAWS: tuple[Law[Posterior], ...] = (
    shapes_and_types_are_kept,
    every_setting_changes_something,
    the_density_integrates_to_one,
    samples_match_the_density,
    images_have_noise_of_their_own,
    images_are_judged_alone,
    independent_dimensions_have_densities_of_their_own,
    closed_form_kl_is_the_monte_carlo_kl,
    gradients_match_finite_differences,
    importance_weights_average_to_one,
)
