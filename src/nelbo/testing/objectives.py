"""The laws of an objective."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from nelbo.core import Draw, Progress
from nelbo.dists.normal import DiagonalNormal
from nelbo.errors import NelboError
from nelbo.models import BuiltModel
from nelbo.objectives import Objective, Owner
from nelbo.schedules import Constant, Schedule
from nelbo.testing.codes import bounds_of_codes_hold, coded
from nelbo.testing.law import (
    ERRORS,
    Evidence,
    Law,
    does_not_apply,
    instance,
    keep,
    mean_and_error,
    require,
    show,
)
from nelbo.testing.owners import OWNER_LAWS, Held, owner_outcome
from nelbo.testing.settings import Outcome, changed, settings_change_something, with_every_setting
from nelbo.testing.surrogates import DIRECTIONS, surrogate_follows
from nelbo.testing.trials import (
    COPIES,
    START,
    called,
    discrete,
    drawn,
    enumerated,
    gaussian,
    plain,
    reports_the_elbo,
    with_k,
)

ROUNDING = 1e-9  # nats


def check_objective(
    objective: Objective | type[Objective], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of an objective against one, or against a class with its default settings.

        from nelbo.testing import check_objective
        check_objective(IWAE)

    On a linear-Gaussian model and on two models small enough to enumerate, all with exact log p(x): the bound
    reported is at most log p(x), whatever the settings and k, and no lower for a larger k; one sample and beta 1 give
    the ELBO; the parts are -log p(x|z) and KL; gradients are right; every setting changes something. Returns each
    law with its evidence. Raises LawBroken, which names the law and the numbers.
    `skip` leaves laws out by name; `only` holds one.
    """
    spec = instance(objective, Objective)
    return keep(spec, LAWS + (OWNER_LAWS if isinstance(spec, Owner) else ()), spec, skip, only)


NO_BOUND = does_not_apply("it reports no bound")


# --- the laws ---------------------------------------------------------------------------------------


def numbers_are_nats_an_image(spec: Objective) -> str | Evidence:
    law = gaussian()
    terms = called(spec, law.model.draw(law.x_BCHW, spec.k), START)
    shapes = {"loss_B": terms.loss_B, "bound_B": terms.bound_B}
    for name, value in shapes.items():
        good = value is None or (value.shape == (4,) and value.dtype == torch.float64)
        seen = (
            "" if value is None else f"{name} has shape {tuple(value.shape)} and {value.dtype} for 4 images"
        )
        require(
            good, f"{seen} in float64", "sums over samples, pixels and latents: one number an image stays"
        )
    missing = {"reconstruction", "kl"} - set(terms.parts)
    require(not missing, f"parts lack {sorted(missing)}", "the parts of Terms, which every log line holds")
    for name, value in terms.parts.items():
        require(value.shape in ((4,), ()), f"part {name} has shape {tuple(value.shape)}", f"parts[{name!r}]")
    for name, value in (shapes | dict(terms.parts)).items():
        require(value is None or value.isfinite(), f"{name} is {value}", f"{name} of an ordinary draw")
    return "loss, bound and parts have one number an image"


@with_every_setting
def the_bound_is_at_most_log_p(spec: Objective) -> str | Evidence:
    """In expectation, on every model and for several k."""
    if drawn(spec, spec.k, 1).bound_B is None:
        return NO_BOUND
    look = (
        "bound_B: a surrogate's value, a weighted or averaged KL and a sum without -log k are no bounds; "
        "the bound belongs into bound_B, or None"
    )
    if not spec.loss_is_bound and reports_the_elbo(spec):
        return "it is the ELBO, whatever the loss"
    log_px_B = gaussian().log_px_B
    for k, variant in ({spec.k: spec} | with_k(spec, 1, 5)).items():
        mean_B, error_B = mean_and_error(_bound(variant, k))
        seen = f"with k = {k} it reports {show(mean_B)} +- {show(error_B)} where log p(x) is {show(log_px_B)}"
        require(mean_B <= log_px_B + ERRORS * error_B + ROUNDING, seen, look)
        # 4^k draws an image: of five samples only where five is a setting, as it is in one of those tried
        for model in discrete() if k <= 5 and k in (1, spec.k) else ():
            exact = enumerated(variant, model, k)
            if exact is not None:
                above_B = exact["bound"] - model.log_px_B
                seen = f"with k = {k} it reports exactly {float(above_B.max()):.4g} nats more than log p(x)"
                require(above_B <= ROUNDING, f"{seen} for one of sixteen images", look)
    if spec.commits:
        bounds_of_codes_hold(spec)
    return "on a linear-Gaussian model, and exactly on two that are enumerated"


def more_samples_do_not_loosen_the_bound(spec: Objective) -> str | Evidence:
    """Burda et al. 2016, theorem 1: bounds of 1, 5 and 50 samples are in this order."""
    sizes = with_k(spec, 1, 5, 50)
    if drawn(spec, spec.k, 1).bound_B is None:
        return NO_BOUND
    if not spec.loss_is_bound and reports_the_elbo(spec):
        return "it is the ELBO, whose expectation does not depend on k"
    look = "the division by k: log 1/k sum_k w_k, where the k samples are independent"
    found = {k: mean_and_error(_bound(other, k)) for k, other in sizes.items()}
    for small, large in itertools.pairwise(sizes):
        (low_B, error_low), (high_B, error_high) = found[small], found[large]
        error = (error_low.square() + error_high.square()).sqrt()
        seen = f"{show(high_B)} with k = {large}, {show(low_B)} with k = {small}"
        require(low_B <= high_B + ERRORS * error + ROUNDING, seen, look)
    for model in discrete():
        few = {k: other for k, other in with_k(spec, 1, 2, 3, 5).items() if k <= 6}
        exact = [enumerated(other, model, k) for k, other in few.items()]
        bounds = [one["bound"] for one in exact if one is not None]
        for low_B, high_B in itertools.pairwise(bounds):
            seen = f"the exact bound falls by {float((low_B - high_B).max()):.4g} nats with more samples"
            require(low_B <= high_B + ROUNDING, seen, look)
    means = ", ".join(f"{float(mean_B.mean()):.3f} (k = {k})" for k, (mean_B, _) in found.items())
    return f"{means}, log p(x) {float(gaussian().log_px_B.mean()):.3f}"


def _bound(spec: Objective, k: int) -> Tensor:
    bound_B = drawn(spec, k).bound_B
    assert bound_B is not None
    return bound_B.view(COPIES, -1)


def one_sample_and_beta_one_give_the_elbo(spec: Objective) -> str | Evidence:
    """Hold the bound and the loss to the ELBO, exactly, over all draws of the enumerable models."""
    simple = plain(spec)
    if simple is None:
        return does_not_apply("it does not accept k = 1")
    if drawn(simple, 1, 1).bound_B is None:
        return NO_BOUND
    tried = 0
    for model in discrete():
        exact = enumerated(simple, model, 1)
        if exact is None:
            continue
        for name, sign in (("bound", 1.0), ("loss", -1.0))[: 1 + spec.loss_is_bound]:
            off_B = sign * exact[name] - model.elbo_B
            seen = f"{name}_B is {show(exact[name])} where the ELBO is {show(model.elbo_B)}"
            require(
                off_B.abs() <= ROUNDING, seen, f"{name}_B with k = 1 and beta = 1; sums, signs and weights"
            )
        tried += 1
    require(tried > 0, "it refuses both enumerable models", "which draws it accepts")
    return f"exact on {tried} enumerated models"


def parts_are_what_they_are_called(spec: Objective) -> str | Evidence:
    """`reconstruction` is -log p(x|z) and `kl` is KL(q || p), both positive sums in nats."""
    for model in discrete():
        exact = enumerated(spec, model, spec.k) if spec.k <= 5 else None
        if exact is None:
            continue
        for name, truth_B in (("reconstruction", model.reconstruction_B), ("kl", model.kl_B)):
            seen = f"parts[{name!r}] is {show(exact[name])} where it is {show(truth_B)} nats"
            look = f"parts[{name!r}]: its sign, and sums over pixels and latents instead of means"
            require((exact[name] - truth_B).abs() <= ROUNDING, seen, look)
    with torch.no_grad():
        parts = drawn(spec, spec.k).parts
    q: Any = gaussian().model.encode(gaussian().x_BCHW)
    kl_B = q.kl_to(gaussian().model.prior).sum(-1).detach()
    mean_B, error_B = mean_and_error(parts["kl"].expand(4 * COPIES).view(COPIES, -1))
    seen = f"parts['kl'] is {show(mean_B)} +- {show(error_B)} where the KL is {show(kl_B)} nats"
    require((mean_B - kl_B).abs() <= ERRORS * error_B + ROUNDING, seen, "parts['kl'] with a closed-form KL")
    return f"KL {show(kl_B)}"


def beta_weighs_the_kl(spec: Objective) -> str | Evidence:
    simple = plain(spec)
    if "beta" not in type(spec).model_fields:
        return does_not_apply("it has no beta")
    if not isinstance(spec.setting("beta"), Schedule):
        return does_not_apply("its beta, which is no schedule, weighs something else")
    heavier = None if simple is None else changed(simple, beta=Constant(value=3.0))
    if simple is None or heavier is None:
        return does_not_apply("it does not accept k = 1 with beta = 1 and 3")
    for model in discrete():
        one, three = enumerated(simple, model, 1), enumerated(heavier, model, 1)
        if one is None or three is None:
            continue
        more_B = three["loss"] - one["loss"]
        seen = f"beta = 3 instead of 1 adds {show(more_B)} to the loss where 2 KL is {show(2 * model.kl_B)}"
        require((more_B - 2 * model.kl_B).abs() <= ROUNDING, seen, "where loss_B multiplies the KL by beta")
        if "bound" in one:
            seen = f"with beta = 3 the bound moves from {show(one['bound'])} to {show(three['bound'])}"
            require((three["bound"] - one["bound"]).abs() <= ROUNDING, seen, "bound_B: it has no beta in it")
    return "the loss gains (beta - 1) KL, the bound nothing"


@with_every_setting
def images_do_not_change_each_others_bound(spec: Objective) -> str | Evidence:
    law = gaussian()
    draw = law.model.draw(law.x_BCHW, spec.k)
    posterior: Any = draw.posterior
    first: Any = DiagonalNormal(posterior.mean[:1], posterior.std[:1], posterior.log_var[:1])
    z_K1Z = draw.z_KBZ[:, :1]
    alone = Draw(
        z_KBZ=z_K1Z, log_px_KB=draw.log_px_KB[:, :1], posterior=first, prior=draw.prior,
        x_BCHW=law.x_BCHW[:1], likelihood=law.model.decode(z_K1Z), decode=draw.decode,
        decoder_weights=draw.decoder_weights,
    )  # fmt: skip
    together, single = called(spec, draw, START).bound_B, called(spec, alone, START).bound_B
    if together is None or single is None:
        return NO_BOUND
    seen = f"the first image has {show(single)} alone and {show(together[:1])} among four"
    require((together[:1] - single).abs() <= ROUNDING, seen, "means over the batch inside bound_B")
    return "the same alone and among others"


def no_density_no_bound(spec: Objective) -> str | Evidence:
    """Require that no bound is reported where samples do not come from the density."""
    law = gaussian()
    q: Any = law.model.encode(law.x_BCHW)
    shared: Any = DiagonalNormal(q.mean, q.std, q.log_var, shared_noise=True)
    z_KBZ = shared.rsample(spec.k)
    likelihood = law.model.decode(z_KBZ)
    draw = Draw(
        z_KBZ=z_KBZ, log_px_KB=likelihood.log_prob(law.x_BCHW), posterior=shared, prior=law.model.prior,
        x_BCHW=law.x_BCHW, likelihood=likelihood, decode=law.model.decode,
        decoder_weights=law.model.draw(law.x_BCHW).decoder_weights,
    )  # fmt: skip
    bound_B = called(spec, draw, START).bound_B
    seen = "" if bound_B is None else f"it reports {show(bound_B)} for a draw whose not_a_bound is set"
    require(bound_B is None, seen, "bound_B: None if draw.not_a_bound else the bound")
    return "bound_B is None where the draw says so"


@with_every_setting
def gradients_match_finite_differences(spec: Objective, thorough: bool = True) -> str | Evidence:
    """Hold the gradient to that of the loss or, for a surrogate, to that of the bound in expectation."""
    if not spec.follows and _is_differentiated(spec):
        of = "the loss" if spec.one_loss else "each player's loss, the other's part held"
        return f"of {of}, by every weight of the model"
    return surrogate_follows(spec, _is_differentiated, DIRECTIONS if thorough else 1)


def _is_differentiated(spec: Objective) -> bool:
    model, x_BCHW = gaussian().model, gaussian().x_BCHW
    hold = (lambda function: function()) if spec.one_loss else Held()

    def loss(*weights: Tensor) -> Tensor:
        del weights  # gradcheck moves them in place
        torch.manual_seed(5)
        moment = Progress(epoch=2, epochs=4, step=15, steps=30)
        return hold(lambda: called(spec, model.draw(x_BCHW, spec.k), moment).loss_B.mean())

    weights = tuple(model.parameters())
    return bool(
        torch.autograd.gradcheck(
            loss,
            weights,
            eps=1e-6,
            atol=1e-6,
            raise_exception=False,
            check_undefined_grad=False,
            fast_mode=True,
        )
    )


def every_setting_changes_something(spec: Objective) -> str | Evidence:
    return settings_change_something(spec, _outcome)


def _outcome(spec: Objective) -> Outcome:
    """Return loss, gradient, bound and parts on each model at three moments, by the first k of one set of samples."""
    found: dict[str, Tensor | str] = dict(owner_outcome(spec))
    moments = (START, Progress(3, 10, 25, 100), Progress(10, 10, 99, 100))
    law = gaussian()
    models: list[tuple[Any, Tensor]] = [(law.model, law.x_BCHW), *((m, m.x_BCHW) for m in discrete())]
    for number, (model, x_BCHW) in enumerate([*models, *([coded()] if spec.commits else [])]):
        torch.manual_seed(7)
        whole = model.draw(x_BCHW, max(16, spec.k))
        z_KBZ = whole.z_KBZ[: spec.k]
        likelihood = model.decode(z_KBZ)
        draw = Draw(
            z_KBZ=z_KBZ,
            log_px_KB=likelihood.log_prob(x_BCHW),
            posterior=whole.posterior,
            prior=whole.prior,
            x_BCHW=x_BCHW,
            likelihood=likelihood,
            decode=whole.decode,
            decoder_weights=whole.decoder_weights,
        )
        for progress in moments:
            try:
                terms = called(spec, draw, progress)
            except NelboError as error:
                found[f"{number} refused"] = type(error).__name__
                continue
            values: Mapping[str, Tensor | None] = {
                "loss": terms.loss_B,
                "bound": terms.bound_B,
                **terms.parts,
            }
            for name, value in values.items():
                found[f"{number} {progress.step} {name}"] = "none" if value is None else value.detach()
            found |= _slopes(terms.loss_B, model, f"{number} {progress.step}")
    return found


def _slopes(loss_B: Tensor, model: BuiltModel, moment: str) -> dict[str, Tensor | str]:
    """The gradient by each weight: losses of one value may train differently."""
    if not loss_B.requires_grad:
        return {}
    named = dict(model.named_parameters())
    slopes = torch.autograd.grad(loss_B.mean(), list(named.values()), retain_graph=True, allow_unused=True)
    return {
        f"{moment} slope by {name}": "none" if slope is None else slope
        for name, slope in zip(named, slopes, strict=True)
    }


LAWS: tuple[Law[Objective], ...] = (
    numbers_are_nats_an_image,
    the_bound_is_at_most_log_p,
    more_samples_do_not_loosen_the_bound,
    one_sample_and_beta_one_give_the_elbo,
    parts_are_what_they_are_called,
    beta_weighs_the_kl,
    images_do_not_change_each_others_bound,
    no_density_no_bound,
    gradients_match_finite_differences,
    every_setting_changes_something,
)
