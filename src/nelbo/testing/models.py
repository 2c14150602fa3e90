"""The laws of a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nelbo.core import Draw
from nelbo.errors import NelboError
from nelbo.models import BuiltModel, Model
from nelbo.objectives import halves
from nelbo.testing.densities import ROUNDING
from nelbo.testing.exact import evidence, fit_posterior, images_of
from nelbo.testing.law import (
    ERRORS,
    SEED,
    Evidence,
    Law,
    does_not_apply,
    instance,
    keep,
    mean_and_error,
    require,
    show,
    undecided,
)
from nelbo.testing.settings import Outcome, changed, settings_change_something, weights_of, with_every_setting
from nelbo.testing.toys import shown

SHAPE = (1, 4, 5)
WEIGHTS = 5_000  # importance samples an image
# Latents for which log p(x) is known: two, one real beside one-hot vectors, or codes.
FEW = ({"latent_dim": 2}, {"latent_dim": 3}, {"codes": 6, "positions": 3, "code_dim": 2})
COVERED = 0.2  # effective share of the samples above which a mean weight and its error can be believed


def check_model(
    model: Model | type[Model], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a model against one, or against a class with its default settings.

    Built for small images, with two latents: log p(x) is then known by quadrature, whatever the networks. ELBO <=
    IW-5 <= IW-50 <= log p(x), and importance weights average to one; exactly k samples are drawn; encodings and
    reconstructions are of the posterior mean; an image's numbers do not depend on the others; every weight learns;
    every setting changes something. Returns each law with its evidence. Raises LawBroken.
    `skip` leaves laws out by name; `only` holds one.
    """
    spec = instance(model, Model)
    return keep(spec, LAWS, spec, skip, only)


def weights_average_to_one(model: BuiltModel, x_BCHW: Tensor, log_px_B: Tensor) -> str | Evidence:
    """The mean of p(x, z) / q(z|x) over z ~ q is p(x), and bounds of 1, 5 and 50 samples are in order below it.

    The mean is judged on the images whose posterior q covers: where a few samples carry all the weight, their mean
    says nothing. Without one such image the law does not apply.
    """
    if reason := model.draw(x_BCHW[:1]).not_a_bound:
        return does_not_apply(f"not a bound: {reason}")
    log_w_KB = model.log_weights(x_BCHW, WEIGHTS)
    bounds = {}
    for k in (1, 5, 50):
        estimates = log_w_KB.view(-1, k, len(x_BCHW)).logsumexp(1) - math.log(k)
        bounds[k] = mean_and_error(estimates)
    look = "what draw() returns: log_px_KB, log_pz_KB and log_qz_KB of the very samples z_KBZ"
    for k, (mean_B, error_B) in bounds.items():
        seen = f"the bound of {k} samples is {show(mean_B)} +- {show(error_B)}, log p(x) is {show(log_px_B)}"
        require(mean_B <= log_px_B + ERRORS * error_B, seen, look)
    for small, large in ((1, 5), (5, 50)):
        (low_B, error_low), (high_B, error_high) = bounds[small], bounds[large]
        error_B = (error_low.square() + error_high.square()).sqrt()
        seen = f"the bound of {large} samples is {show(high_B)}, that of {small} is {show(low_B)}"
        require(low_B <= high_B + ERRORS * error_B, seen, look)
    weight_KB = (log_w_KB - log_px_B).exp()
    effective_B = weight_KB.sum(0).square() / weight_KB.square().sum(0) / WEIGHTS
    covered_B = effective_B > COVERED
    if not covered_B.any():
        share = float(effective_B.max())
        return undecided(f"q misses the posterior: at most {share:.1%} of the samples carry the weight")
    mean_B, error_B = mean_and_error(weight_KB[:, covered_B])
    seen = (
        f"importance weights p(x, z) / (q(z|x) p(x)) average to {show(mean_B)} +- {show(error_B)}, not to 1"
    )
    require((mean_B - 1).abs() <= ERRORS * error_B, seen, look)
    found = " <= ".join(f"{float(bound_B.mean()):.3f}" for bound_B, _ in bounds.values())
    weight = f"mean weight {float(mean_B.mean()):.4f} +- {float(error_B.mean()):.4f}"
    return f"ELBO <= IW-5 <= IW-50 <= log p(x): {found} <= {float(log_px_B.mean()):.3f}; {weight}"


def _built(spec: Model) -> tuple[BuiltModel, Tensor]:
    """In float64 and evaluation mode, with four images of its own."""
    model = shown(spec.build(SHAPE).double().eval())
    return model, images_of(model, 4)


@contextmanager
def _counted(model: BuiltModel) -> Iterator[list[int]]:
    """Counts the latents that are decoded meanwhile."""
    counts: list[int] = []
    decode = model.decode

    def counting(z: Tensor) -> Any:
        counts.append(z[..., 0].numel())
        return decode(z)

    model.decode = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        del model.decode


def _is_point(draw: Draw) -> bool:
    return bool(draw.posterior.is_point)


def _is_certain(draw: Draw) -> bool:
    """Return True if q has all its mass on one of a countable number of latents."""
    return bool(draw.posterior.deterministic)


def _small(spec: Model) -> Model | None:
    """The model with so few latents that log p(x) is known: by quadrature over two, or by enumerating codes."""
    fields = type(spec).model_fields
    found = (changed(spec, **few) for few in FEW if few.keys() <= fields.keys())
    return next((small for small in found if small is not None), None)


# --- the laws ---------------------------------------------------------------------------------------


@with_every_setting
def shapes_are_what_they_say(spec: Model) -> str | Evidence:
    model, x_BCHW = _built(spec)
    draw, latents = model.draw(x_BCHW, 3), model.latent_dim
    z_BZ = model.encode(x_BCHW).mean
    found = {
        "encode(x).mean": (z_BZ, (4, latents)),
        "decode(z).mean": (model.decode(z_BZ).mean, (4, *SHAPE)),
        "decode(z_KBZ).mean": (model.decode(draw.z_KBZ).mean, (3, 4, *SHAPE)),
        "draw(x, 3).z_KBZ": (draw.z_KBZ, (3, 4, latents)),
        "draw(x, 3).log_px_KB": (draw.log_px_KB, (3, 4)),
        "draw(x, 3).log_pz_KB": (draw.log_pz_KB, (3, 4)),
        "sample_prior(6)": (model.sample_prior(6), (6, latents)),
        "sample(6)": (model.sample(6), (6, *SHAPE)),
        "reconstruct(x)": (model.reconstruct(x_BCHW), (4, *SHAPE)),
    }
    if not _is_point(draw):
        found["draw(x, 3).log_qz_KB"] = draw.log_qz_KB, (3, 4)
    if not draw.not_a_bound:
        found["log_prob(x)"] = model.log_prob(x_BCHW, 7), (4,)
    for name, (tensor, shape) in found.items():
        seen = f"{name} has shape {tuple(tensor.shape)} and {tensor.dtype}, not {shape} and float64"
        require(tensor.shape == shape and tensor.dtype == torch.float64, seen, name.partition("(")[0])
        require(tensor.isfinite(), f"{name} is not finite", name.partition("(")[0])
    require(model.shape == SHAPE, f"shape is {model.shape}, not {SHAPE}", "the attribute shape")
    return ", ".join(found)


@with_every_setting
def encodings_and_reconstructions_are_of_the_mean(spec: Model) -> str | Evidence:
    model, x_BCHW = _built(spec)
    look = "encode().mean and reconstruct(): the posterior mean, not a sample"
    with torch.no_grad():
        first, second = model.encode(x_BCHW).mean, model.encode(x_BCHW).mean
    require(torch.equal(first, second), f"two encodings differ: {show(first)} and {show(second)}", look)
    one, two = model.reconstruct(x_BCHW), model.reconstruct(x_BCHW)
    require(torch.equal(one, two), f"two reconstructions differ: {show(one)} and {show(two)}", look)
    with torch.no_grad():
        decoded = model.decode(first).mean
    require(
        torch.equal(one, decoded), f"a reconstruction is {show(one)}, the decoded mean {show(decoded)}", look
    )
    return "twice the same, and the decoded mean"


@with_every_setting
def draws_belong_to_their_samples(spec: Model) -> str | Evidence:
    """log p(x|z), log p(z) and log q(z|x) of a draw are those of its own z_KBZ."""
    model, x_BCHW = _built(spec)
    draw = model.draw(x_BCHW, 5)
    prior: Any = model.prior
    again = {
        "log_px_KB": (draw.log_px_KB, model.decode(draw.z_KBZ).log_prob(x_BCHW)),
        "log_pz_KB": (draw.log_pz_KB, prior.log_prob(draw.z_KBZ)),
    }
    if not _is_point(draw):
        again["log_qz_KB"] = draw.log_qz_KB, model.encode(x_BCHW).log_prob(draw.z_KBZ)
    for name, (given, computed) in again.items():
        seen = f"{name} is {show(given)}; of its own z_KBZ it is {show(computed)}"
        require((given - computed).abs() <= ROUNDING, seen, f"draw(): {name}")
    spread_BZ, reals = draw.z_KBZ.std(0), model.latent_space.reals(model.latent_dim)
    if _is_certain(draw):
        seen = f"samples of a certain q have a spread of {show(spread_BZ.max())} and log q of {show(draw.log_qz_KB)}"
        look = "posterior.deterministic: one latent for each image, of which log q is 0"
        require(bool((spread_BZ == 0).all()) and bool((draw.log_qz_KB == 0).all()), seen, look)
    elif not _is_point(draw):
        look = "draw(): k samples, not one repeated"  # of a certain category they may be the same
        require(spread_BZ[..., :reals] > 0, "the samples of an image are all the same", look)
    return " and ".join(again)


@with_every_setting
def exactly_k_samples_are_weighed(spec: Model) -> str | Evidence:
    """Fewer than the images, more, and no multiple of any batch; without gradients."""
    model, x_BCHW = _built(spec)
    if reason := model.draw(x_BCHW).not_a_bound:
        return does_not_apply(f"not a bound: {reason}")
    for k in (1, 3, 130):
        torch.manual_seed(SEED)
        with _counted(model) as counts:
            log_w_KB = model.log_weights(x_BCHW, k)
        seen = f"log_weights(x, {k}) of 4 images decodes {sum(counts)} latents and has shape {tuple(log_w_KB.shape)}"
        require(
            log_w_KB.shape == (k, 4) and sum(counts) == 4 * k, seen, "log_weights: exactly k for each image"
        )
        require(
            not log_w_KB.requires_grad, "importance weights keep their graph", "torch.no_grad in log_weights"
        )
        torch.manual_seed(SEED)
        log_px_B = model.log_prob(x_BCHW, k)
        right_B = log_w_KB.logsumexp(0) - math.log(k)
        seen = f"log_prob(x, {k}) is {show(log_px_B)}, the log of the mean weight {show(right_B)}"
        require((log_px_B - right_B).abs() <= 1e-6, seen, "log_prob: log 1/k sum_k w_k, with its sign")
    return "k of 1, 3 and 130"


@with_every_setting
def images_are_judged_alone(spec: Model) -> str | Evidence:
    """In evaluation mode an image's posterior and likelihood do not depend on the rest of the batch."""
    model, x_BCHW = _built(spec)
    with torch.no_grad():
        z_BZ, z_1Z = model.encode(x_BCHW).mean, model.encode(x_BCHW[:1]).mean
        log_B, log_1 = (model.decode(z_BZ[:n]).log_prob(x_BCHW[:n]) for n in (4, 1))
    for name, among, alone in (("posterior mean", z_BZ[:1], z_1Z), ("log p(x|z)", log_B[:1], log_1)):
        seen = f"the {name} of an image is {show(alone)} alone and {show(among)} among others"
        require(
            (among - alone).abs() <= ROUNDING, seen, "means over the batch, batch norm left in training mode"
        )
    return "the same alone and among others"


@with_every_setting
def every_weight_learns(spec: Model) -> str | Evidence:
    """The ELBO (of a point, log p(x|z) + log p(z)) has a gradient by every weight, finite and not zero."""
    model, x_BCHW = shown(spec.build(SHAPE).double()).train(), _built(spec)[1]
    draw = model.draw(x_BCHW, 2)
    parts, _ = halves(draw)
    total: Any = sum(part_B.sum() for part_B in parts.values())
    if _is_point(draw):
        total = total - draw.log_pz_KB.sum()
    total.backward()
    for name, weight in model.named_parameters():
        gradient = weight.grad
        seen = "no gradient" if gradient is None else f"a gradient of {show(gradient)}"
        good = gradient is not None and bool(gradient.isfinite().all()) and bool((gradient != 0).any())
        require(good, f"{name} has {seen}", f"whether {name} is used, and how the loss reaches it")
    return f"{sum(1 for _ in model.parameters())} weights"


def importance_weights_average_to_one(spec: Model) -> str | Evidence:
    """With two latents, against log p(x) by quadrature; q is fitted first, so that it covers the posterior.

    A q that is certain of one of the latents covers that one: its weight is p(x, z) exactly, by enumeration.
    """
    small = _small(spec)
    if small is None:
        return does_not_apply("it cannot be built with latent_dim = 2, for which log p(x) is a quadrature")
    model, x_BCHW = _built(small)
    if _is_certain(model.draw(x_BCHW)):
        return _weight_of_what_is_certain(model, x_BCHW)
    if reason := model.draw(x_BCHW).not_a_bound:
        return does_not_apply(f"not a bound: {reason}")
    fit_posterior(model)
    return weights_average_to_one(model, x_BCHW, evidence(model, x_BCHW))


def _weight_of_what_is_certain(model: Any, x_BCHW: Tensor) -> str:
    """Against every latent there is (`every_latent`): probabilities add up to one, and no bound is above log p(x)."""
    with torch.no_grad():
        z_SZ = model.every_latent()
        log_pz_S = model.prior.log_prob(z_SZ)
        log_joint_SB = model.decode(z_SZ[:, None]).log_prob(x_BCHW[None]) + log_pz_S[:, None]
        q_SB = model.encode(x_BCHW).log_prob(z_SZ[:, None].expand(-1, len(x_BCHW), -1)).exp()
    for name, mass in (("prior", log_pz_S.exp().sum()), ("posterior", q_SB.sum(0))):
        seen = f"the {name}'s probabilities of all {len(z_SZ)} latents add up to {show(mass)}"
        require((mass - 1).abs() < ROUNDING, seen, f"log_prob of the {name}")
    log_w_KB, log_px_B = model.log_weights(x_BCHW, 3), log_joint_SB.logsumexp(0)
    right_B = log_joint_SB.masked_fill(q_SB == 0, -math.inf).logsumexp(0)
    seen = (
        f"importance weights are {show(log_w_KB)}; of the latents that q takes log p(x, z) is {show(right_B)}"
    )
    require(
        (log_w_KB - right_B).abs() < 1e-6, seen, "what draw() returns: log_px_KB, log_pz_KB and log_qz_KB"
    )
    bound_B = halves(model.draw(x_BCHW))[1]
    seen = f"the bound is {bound_B}, the weight {show(right_B)}"
    require(
        bound_B is not None and bool((bound_B - right_B).abs().max() < 1e-6), seen, "kl_to: -log p(codes)"
    )
    require(
        right_B <= log_px_B + ROUNDING, f"{show(right_B)} is above log p(x), {show(log_px_B)}", "the bound"
    )
    return f"ELBO = IW <= log p(x): {float(right_B.mean()):.3f} <= {float(log_px_B.mean()):.3f}, of {len(z_SZ)} latents"


def every_setting_changes_something(spec: Model) -> str | Evidence:
    return settings_change_something(spec, _outcome)


def _outcome(spec: Model) -> Outcome:
    try:
        model = shown(spec.build(SHAPE))
    except NelboError as error:
        return {"refused": type(error).__name__}
    found = weights_of(model)
    x_BCHW = torch.linspace(0.1, 0.9, 3 * math.prod(SHAPE)).view(3, *SHAPE)
    for mode in (True, False):
        model.train(mode)
        torch.manual_seed(11)
        draw = model.draw(x_BCHW, 2)
        if mode:  # as a step of training does
            model.after_step(draw)
        found |= {f"{mode} z": draw.z_KBZ.detach(), f"{mode} log_px": draw.log_px_KB.detach()}
        found |= {f"{mode} log_pz": draw.log_pz_KB.detach(), f"{mode} reason": str(draw.not_a_bound)}
        if not _is_point(draw):
            found[f"{mode} log_qz"] = draw.log_qz_KB.detach()
    return found | {f"left behind: {name}": value for name, value in weights_of(model).items()}


LAWS: tuple[Law[Model], ...] = (
    shapes_are_what_they_say,
    every_setting_changes_something,
    encodings_and_reconstructions_are_of_the_mean,
    draws_belong_to_their_samples,
    exactly_k_samples_are_weighed,
    images_are_judged_alone,
    every_weight_learns,
    importance_weights_average_to_one,
)
