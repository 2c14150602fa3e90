"""The laws of an objective."""

import itertools
from collections.abc import Collection

import torch
from torch import Tensor

from nelbo.core import Progress
from nelbo.dists.normal import DiagonalNormal
from nelbo.errors import NelboError
from nelbo.models import BuiltModel
from nelbo.objectives import Objective, Owner
from nelbo.schedules import Constant, Schedule
from nelbo.testing.densities import differentiates
from nelbo.testing.law import (
    ERRORS,
    ROUNDING,
    Evidence,
    Law,
    does_not_apply,
    instance,
    keep,
    mean_and_error,
    require,
    require_form,
    show,
)
from nelbo.testing.owners import OWNER_LAWS, Held, owner_outcome
from nelbo.testing.settings import Outcome, changed, settings_tell_apart, with_every_setting
from nelbo.testing.surrogates import DIRECTIONS, surrogate_follows
from nelbo.testing.trials import (
    COPIES,
    START,
    called,
    coded,
    discrete,
    drawn,
    enumerated,
    gaussian,
    plain,
    reports_the_elbo,
    with_k,
    with_samples,
)

NO_BOUND = does_not_apply("it reports no bound")


def check_objective(
    objective: Objective | type[Objective], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of an objective against one, or against a class with its default settings.

        from nelbo.testing import check_objective
        check_objective(IWAE)

    On a linear-Gaussian model and on two models small enough to enumerate, all with exact log p(x): the bound
    reported is at most log p(x), whatever the settings and k, and no lower for a larger k; one sample and beta 1 give
    the ELBO; the parts are -log p(x|z) and KL; gradients are right; every setting changes something. For `skip`, `only`
    and what it returns or raises see `check`.
    """
    spec = instance(objective, Objective)
    if isinstance(spec, Owner):
        return keep(spec, [*LAWS, *OWNER_LAWS], spec, skip, only)
    return keep(spec, LAWS, spec, skip, only)


def numbers_are_nats_an_image(spec: Objective) -> str | Evidence:
    law = gaussian()
    terms = called(spec, law.model.draw(law.x_BCHW, spec.k), START)
    shapes = {"loss_B": terms.loss_B, "bound_B": terms.bound_B}
    for name, value in shapes.items():
        if value is not None:
            form = ((4,), torch.float64)
            look = "sums over samples, pixels and latents: one number an image stays"
            require_form(name, value, form, " for 4 images in float64", look)
    missing = {"reconstruction", "kl"} - set(terms.parts)
    require(not missing, f"parts lack {sorted(missing)}", "the parts of Terms, which every log line holds")
    for name, value in terms.parts.items():
        require(value.shape in ((4,), ()), f"part {name} has shape {tuple(value.shape)}", f"parts[{name!r}]")
    for name, value in (shapes | dict(terms.parts)).items():
        require(value is None or value.isfinite(), f"{name} is {value}", f"{name} of an ordinary draw")
    return "loss, bound and parts have one number an image"


@with_every_setting
def the_bound_is_at_most_log_p(spec: Objective) -> str | Evidence:
    """Hold the law in expectation, on every model and for several k."""
    if drawn(spec, spec.k, 1).bound_B is None:
        return NO_BOUND
    no_bounds = "a surrogate's value, a weighted or averaged KL and a sum without -log k are no bounds"
    look = f"bound_B: {no_bounds}; the bound belongs into bound_B, or None"
    if not spec.loss_is_bound and reports_the_elbo(spec):
        return "it is the ELBO, whatever the loss"
    log_px_B = gaussian().log_px_B
    for k, variant in ({spec.k: spec} | with_k(spec, 1, 5)).items():
        mean_B, error_B = mean_and_error(_bound(variant, k))
        fault = f"with k = {k} it reports {show(mean_B, error_B)} where log p(x) is {show(log_px_B)}"
        require(mean_B <= log_px_B + ERRORS * error_B + ROUNDING, fault, look)
        # 4^k draws an image: of five samples only where five is a setting, as it is in one of those tried
        for model in discrete() if k <= 5 and k in (1, spec.k) else ():
            exact = enumerated(variant, model, k)
            if exact is not None:
                above_B = exact["bound"] - model.log_px_B
                fault = f"with k = {k} it reports exactly {float(above_B.max()):.4g} nats more than log p(x)"
                require(above_B <= ROUNDING, f"{fault} for one of sixteen images", look)
    if spec.commits:
        _bounds_of_codes_hold(spec)
    return "on a linear-Gaussian model, and exactly on two that are enumerated"


@torch.no_grad()
def _bounds_of_codes_hold(spec: Objective) -> None:
    """Require that the bound is log p(x, z) of the codes that are taken, and at most log p(x), the sum over all."""
    model, x_BCHW = coded()
    bound_B = spec(model.draw(x_BCHW, spec.k), Progress()).bound_B
    assert bound_B is not None
    z_SZ = model.every_latent()
    log_joint_SB = model.decode(z_SZ[:, None]).log_prob(x_BCHW) + model.prior.log_prob(z_SZ)[:, None]
    taken_B = (z_SZ[:, None] == model.encode(x_BCHW).mean).all(-1).double().argmax(0)
    right_B = log_joint_SB.gather(0, taken_B[None])[0]
    report = f"of a model with {len(z_SZ)} latents it reports {show(bound_B)}, where log p(x, z) is "
    look = "bound_B: the commitment is no part of it, and the code length is"
    require((bound_B - right_B).abs() < 1e-9, f"{report}{show(right_B)}", look)
    log_px_B = log_joint_SB.logsumexp(0)
    require(bound_B <= log_px_B, f"{report}at most {show(log_px_B)}", look)


def more_samples_do_not_loosen_the_bound(spec: Objective) -> str | Evidence:
    """Require that bounds of 1, 5 and 50 samples are in this order (Burda et al. 2016, theorem 1)."""
    sizes = with_k(spec, 1, 5, 50)
    if drawn(spec, spec.k, 1).bound_B is None:
        return NO_BOUND
    if not spec.loss_is_bound and reports_the_elbo(spec):
        return "it is the ELBO, whose expectation does not depend on k"
    look = "the division by k: log 1/k sum_k w_k, where the k samples are independent"
    bounds = {k: mean_and_error(_bound(variant, k)) for k, variant in sizes.items()}
    for small, large in itertools.pairwise(sizes):
        (low_B, error_low), (high_B, error_high) = bounds[small], bounds[large]
        error = (error_low.square() + error_high.square()).sqrt()
        fault = f"{show(high_B)} with k = {large}, {show(low_B)} with k = {small}"
        require(low_B <= high_B + ERRORS * error + ROUNDING, fault, look)
    for model in discrete():
        # Of more than six samples there are too many draws to enumerate: 4^6 an image are 65,536 in all.
        few = {k: variant for k, variant in with_k(spec, 1, 2, 3, 5).items() if k <= 6}
        exact = [enumerated(variant, model, k) for k, variant in few.items()]
        for low_B, high_B in itertools.pairwise(values["bound"] for values in exact if values is not None):
            fault = f"the exact bound falls by {float((low_B - high_B).max()):.4g} nats with more samples"
            require(low_B <= high_B + ROUNDING, fault, look)
    means = ", ".join(f"{float(mean_B.mean()):.3f} (k = {k})" for k, (mean_B, _) in bounds.items())
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
            fault = f"{name}_B is {show(exact[name])} where the ELBO is {show(model.elbo_B)}"
            look = f"{name}_B with k = 1 and beta = 1; sums, signs and weights"
            require(off_B.abs() <= ROUNDING, fault, look)
        tried += 1
    require(tried > 0, "it refuses both enumerable models", "which draws it accepts")
    return f"exact on {tried} enumerated models"


def parts_are_what_they_are_called(spec: Objective) -> str | Evidence:
    """Require that `reconstruction` is -log p(x|z) and `kl` is KL(q || p), both positive sums in nats."""
    for model in discrete():
        exact = enumerated(spec, model, spec.k) if spec.k <= 5 else None
        if exact is None:
            continue
        for name, truth_B in (("reconstruction", model.reconstruction_B), ("kl", model.kl_B)):
            fault = f"parts[{name!r}] is {show(exact[name])} where it is {show(truth_B)} nats"
            look = f"parts[{name!r}]: its sign, and sums over pixels and latents instead of means"
            require((exact[name] - truth_B).abs() <= ROUNDING, fault, look)
    parts = drawn(spec, spec.k).parts
    kl_BG = gaussian().model.encode(gaussian().x_BCHW).kl_to(gaussian().model.prior)
    assert kl_BG is not None
    kl_B = kl_BG.sum(-1).detach()
    mean_B, error_B = mean_and_error(parts["kl"].expand(4 * COPIES).view(COPIES, -1))
    fault = f"parts['kl'] is {show(mean_B, error_B)} where the KL is {show(kl_B)} nats"
    require((mean_B - kl_B).abs() <= ERRORS * error_B + ROUNDING, fault, "parts['kl'] with a closed-form KL")
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
        fault = f"beta = 3 instead of 1 adds {show(more_B)} to the loss where 2 KL is {show(2 * model.kl_B)}"
        require((more_B - 2 * model.kl_B).abs() <= ROUNDING, fault, "where loss_B multiplies the KL by beta")
        if "bound" in one:
            fault = f"with beta = 3 the bound moves from {show(one['bound'])} to {show(three['bound'])}"
            require((three["bound"] - one["bound"]).abs() <= ROUNDING, fault, "bound_B: it has no beta in it")
    return "the loss gains (beta - 1) KL, the bound nothing"


@with_every_setting
def images_do_not_change_each_others_bound(spec: Objective) -> str | Evidence:
    law = gaussian()
    draw = law.model.draw(law.x_BCHW, spec.k)
    q = draw.posterior
    assert isinstance(q, DiagonalNormal)
    first = DiagonalNormal(q.mean[:1], q.std[:1], q.log_var[:1])
    alone = with_samples(draw, draw.z_KBZ[:, :1], first, law.x_BCHW[:1])
    together_B, single_B = called(spec, draw, START).bound_B, called(spec, alone, START).bound_B
    if together_B is None or single_B is None:
        return NO_BOUND
    fault = f"the first image has {show(single_B)} alone and {show(together_B[:1])} among four"
    require((together_B[:1] - single_B).abs() <= ROUNDING, fault, "means over the batch inside bound_B")
    return "the same alone and among others"


def no_density_no_bound(spec: Objective) -> str | Evidence:
    """Require that no bound is reported where samples do not come from the density."""
    law = gaussian()
    q = law.model.encode(law.x_BCHW)
    assert isinstance(q, DiagonalNormal)
    shared = DiagonalNormal(q.mean, q.std, q.log_var, shared_noise=True)
    z_KBZ = shared.rsample(spec.k)
    bound_B = called(spec, with_samples(law.model.draw(law.x_BCHW), z_KBZ, shared), START).bound_B
    fault = "" if bound_B is None else f"it reports {show(bound_B)} for a draw whose not_a_bound is set"
    require(bound_B is None, fault, "bound_B: None if draw.not_a_bound else the bound")
    return "bound_B is None where the draw says so"


@with_every_setting
def gradients_match_finite_differences(spec: Objective, thorough: bool = True) -> str | Evidence:
    """Hold the gradient to that of the loss or, for a surrogate, to that of the bound in expectation."""
    if not spec.follows and _is_differentiated(spec):
        loss = "the loss" if spec.one_loss else "each player's loss, the other's part held"
        return f"of {loss}, by every weight of the model"
    return surrogate_follows(spec, _is_differentiated, DIRECTIONS if thorough else 1)


def _is_differentiated(spec: Objective) -> bool:
    model, x_BCHW = gaussian().model, gaussian().x_BCHW
    hold = (lambda function: function()) if spec.one_loss else Held()

    def loss(*weights: Tensor) -> Tensor:
        del weights  # gradcheck moves them in place
        torch.manual_seed(5)
        moment = Progress(epoch=2, epochs=4, step=15, steps=30)
        return hold(lambda: called(spec, model.draw(x_BCHW, spec.k), moment).loss_B.mean())

    return differentiates(loss, tuple(model.parameters()))


@settings_tell_apart
def every_setting_changes_something(spec: Objective) -> Outcome:
    """Return loss, gradient, bound and parts on each model at three moments, by the first k of one set of samples."""
    results: dict[str, Tensor | str] = dict(owner_outcome(spec))
    moments = (START, Progress(3, 10, 25, 100), Progress(10, 10, 99, 100))
    law = gaussian()
    models: list[tuple[BuiltModel, Tensor]] = [(law.model, law.x_BCHW), *((m, m.x_BCHW) for m in discrete())]
    models += [coded()] if spec.commits else []
    for number, (model, x_BCHW) in enumerate(models):
        torch.manual_seed(7)
        whole = model.draw(x_BCHW, max(16, spec.k))
        draw = with_samples(whole, whole.z_KBZ[: spec.k])
        names, weights = zip(*model.named_parameters(), strict=True)
        for progress in moments:
            moment = f"{number} {progress.step}"
            try:
                terms = called(spec, draw, progress)
            except NelboError as error:
                results[f"{number} refused"] = type(error).__name__
                continue
            values = {"loss": terms.loss_B, "bound": terms.bound_B, **terms.parts}
            if terms.loss_B.requires_grad:  # losses of one value may train differently
                loss = terms.loss_B.mean()
                slopes = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
                values |= {f"slope by {name}": slope for name, slope in zip(names, slopes, strict=True)}
            for name, value in values.items():
                results[f"{moment} {name}"] = "none" if value is None else value.detach()
    return results


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
