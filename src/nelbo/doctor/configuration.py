"""Checks of a configuration alone: the weight of the KL, rates, the end of training."""

import math
from collections.abc import Iterator

from nelbo.core import Progress
from nelbo.doctor.base import Finding, check
from nelbo.doctor.case import Case, NotLooked
from nelbo.likelihoods import Fixed, Gaussian
from nelbo.optim import Adam
from nelbo.schedules import Constant, Linear, Schedule

# Of Adam's learning rates for networks of this kind; 1e-4 to 1e-3 are usual.
SLOWEST_RATE, FASTEST_RATE = 1e-5, 3e-2
USUAL_RATE = 1e-3  # Adam's default (Kingma & Ba 2015)


def steps_an_epoch(case: Case) -> int | None:
    """Return the optimiser steps an epoch; None where neither the data nor the history tells."""
    if case.data is not None:
        return math.ceil(len(case.data.train) / case.recipe.batch_size)
    rows = case.run.history() if case.run is not None else []
    return int(rows[-1]["step"] / rows[-1]["epoch"]) if rows else None


def moments(case: Case, schedule: Schedule) -> list[float]:
    """Return the values of a schedule at the first step, and at each epoch's end."""
    steps, epochs = steps_an_epoch(case), case.recipe.epochs
    if steps is None and schedule.setting("steps") is not None:
        raise NotLooked("a schedule in steps cannot be followed without the number of images")
    steps = steps or 1
    ends = [(epoch, epoch * steps - 1) for epoch in range(1, epochs + 1)]
    return [schedule(Progress(epoch, epochs, step, epochs * steps)) for epoch, step in [(1, 0), *ends]]


def beta_over_training(case: Case) -> list[float]:
    """Return the weight of the KL over training; empty where the objective has none."""
    beta = case.recipe.objective.setting("beta")
    return moments(case, beta) if isinstance(beta, Schedule) else []


@check("configuration")
def kl_weight(case: Case) -> Iterator[Finding]:
    """A KL whose weight is not 1 when training ends: what is minimised is then not the bound."""
    values = beta_over_training(case)
    if not values or math.isclose(values[-1], 1.0, rel_tol=1e-6):
        return
    final, recipe = values[-1], case.recipe  # the beta of Higgins et al. 2017, eq. 4
    beta = recipe.objective.setting("beta")
    evidence = f"beta is {final:g} at the end of epoch {recipe.epochs}"
    if isinstance(beta, Linear) and beta.end == 1.0:
        fault = "The warm-up of the KL does not end before training does."
        length = f"{beta.epochs} epochs" if beta.epochs else f"{beta.steps} steps"
        evidence += f"; the ramp to 1 takes {length}"
        remedy = "Shorten the ramp, so that most of training is at beta 1, or train longer."
        shorter = {"objective.beta": "linear", "objective.beta.epochs": max(1, recipe.epochs // 2)}
        yield Finding(fault, "serious", evidence, remedy, case.retrain(shorter))
        return
    changes: dict[str, object] = {"objective.beta": 1.0}
    remedy = "Weigh the KL with 1, where the loss is minus a bound on log p(x)."
    if final == 2.0:
        evidence += ". Twice the KL is also what is left when the factor 1/2 of its closed form is forgotten"
    fixed = fixed_sigma(recipe.model.setting("likelihood"))
    if fixed is not None and final > 0:
        # beta KL + SSE / (2 sigma^2) = beta (KL + SSE / (2 (sigma sqrt(beta))^2)): a true bound, of another likelihood.
        sigma = fixed * math.sqrt(final)
        evidence += (
            f". With sigma fixed at {fixed:g} this is {final:g} times the negative ELBO of a Gaussian "
            f"whose sigma is {sigma:.4g}"
        )
        remedy = "Say the same with a true bound: beta 1 and that sigma. The gradients keep their direction."
        changes["model.likelihood.sigma"] = round(sigma, 6)
    fault = f"The KL weighs {final:g}, not 1: what is minimised is not minus the bound that is reported."
    yield Finding(fault, "worth knowing", evidence, remedy, case.retrain(changes))


def fixed_sigma(likelihood: object) -> float | None:
    """Return the sigma of a Gaussian likelihood that does not learn it, or None."""
    sigma = likelihood.sigma if isinstance(likelihood, Gaussian) else None
    return sigma.value if isinstance(sigma, Fixed) else None


@check("configuration")
def learning_rate(case: Case) -> Iterator[Finding]:
    """A learning rate with which Adam cannot get anywhere, or cannot stay where it is."""
    optimizer = case.recipe.optimizer
    if not isinstance(optimizer, Adam):
        raise NotLooked("only the rates of Adam and its kin can be judged without a run")
    highest, steps = max(moments(case, optimizer.lr)), steps_an_epoch(case)
    if SLOWEST_RATE <= highest <= FASTEST_RATE:
        return
    evidence = f"the learning rate is at most {highest:g}; {USUAL_RATE:g} is usual"
    fault, verb = "The learning rate is so large that training may diverge.", "Lower"
    if highest < SLOWEST_RATE:
        fault, verb = "The learning rate is too small to train in this time.", "Raise"
        if steps is not None:
            total = steps * case.recipe.epochs
            evidence += (
                f". Adam moves a weight by about its rate a step at most, so by {total * highest:.2g} in all "
                f"{total:,} steps (Kingma & Ba 2015, section 2.1)"
            )
    remedy = f"{verb} it to what Adam is used with."
    yield Finding(fault, "serious", evidence, remedy, case.retrain({"optimizer.lr": USUAL_RATE}))


@check("configuration")
def summed_gradients(case: Case) -> Iterator[Finding]:
    """A clip or a weight decay that silently depends on the batch size, because the loss of a batch is its sum."""
    recipe, images = case.recipe, case.recipe.batch_size
    # Adam's own decay alone: that of AdamW is no part of the gradient, and the sum does not change it.
    decay = recipe.optimizer.setting("weight_decay", 0.0) if type(recipe.optimizer) is Adam else 0.0
    if recipe.batch_reduction != "sum" or (recipe.clip_norm is None and not decay):
        return
    meant = []
    if recipe.clip_norm is not None:
        meant.append(f"clip-norm {recipe.clip_norm:g} clips at {recipe.clip_norm / images:.3g} nats an image")
    if decay:
        meant.append(f"weight-decay {decay:g} acts as {decay / images:.3g}")
    yield Finding(
        "The loss is summed over the batch, so clipping and weight decay mean something else than they say.",
        "worth knowing", f"with {images} images a batch {' and '.join(meant)}",
        "Average the loss over the batch; Adam's steps are otherwise the same.",
        case.retrain({"batch_reduction": "mean"}),
    )  # fmt: skip


@check("configuration")
def selection(case: Case) -> Iterator[Finding]:
    """A rule for stopping that the warm-up of the KL can trigger."""
    recipe, values = case.recipe, beta_over_training(case)
    moving = next((i for i in range(len(values) - 1, 0, -1) if values[i] != values[i - 1]), 0)
    if recipe.patience is None or isinstance(recipe.objective.setting("beta"), Constant):
        return
    # While beta moves, the bound at beta 1 may get worse for reasons that pass.
    if recipe.patience < moving:
        fault = "Patience can end training while the weight of the KL is still moving."
        patience = f"{recipe.patience} epochs without a better bound end training"
        evidence = f"beta moves until epoch {moving}, and {patience}"
        remedy = "Give it more patience than the warm-up has epochs."
        change = case.retrain({"patience": moving + recipe.patience})
        yield Finding(fault, "worth knowing", evidence, remedy, change)
