"""Checks of the bound beside others: that of training images, and that of a model without latents."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nelbo.doctor.base import Finding, Severity, check
from nelbo.doctor.case import LOOKED_AT, Case, NotLooked, some
from nelbo.doctor.latent import against_collapse, carrying
from nelbo.doctor.likelihood import likelihood_of
from nelbo.doctor.training import train_more, under_trained
from nelbo.likelihoods.spread import Learned, Optimal
from nelbo.metrics.bound import bound_of, not_a_bound

GAP = 0.1  # of what the model gains over one fixed image
ERRORS = 4.0  # standard errors before a difference is one
NOTHING = 1.0  # nats: a gain within its standard error, and smaller than this
FITTED_NUMBERS = 1_000_000  # pixels that the fixed image is fitted to


def nelbo_of(case: Case, split: str, n: int = LOOKED_AT) -> Tensor:
    """Return the NELBO of each of n images, evenly spaced through a split, nats, float64."""
    view = case.view(split, n)
    if reason := not_a_bound(case.model, view):
        raise NotLooked(f"there is no bound to compare: {reason}")
    halves = bound_of(case.model, view)
    return halves["reconstruction"] + halves["kl"]


def fixed_image(case: Case) -> Tensor:
    """Return the result of `fit_fixed_image`, fitted once."""
    return case.once("fixed image", lambda: fit_fixed_image(case))


def fit_fixed_image(case: Case) -> Tensor:
    """Return -log p(x) of each test image under the best single output of the decoder, nats, float64.

    This is what a model without z reaches: one output for all images, fitted to training images by L-BFGS together
    with what the likelihood itself learns.
    """
    spec, shape = likelihood_of(case, "compare with"), case.splits.shape
    # An optimal spread follows the data from step to step of training. Here there is none: it is a weight.
    spreads = [name for name in ("sigma", "scale") if isinstance(spec.setting(name), Optimal)]
    likelihood = spec.model_copy(update=dict.fromkeys(spreads, Learned())).build(shape).to(case.device)
    images = min(LOOKED_AT, max(200, FITTED_NUMBERS // math.prod(shape)))
    x_BCHW = torch.cat(list(case.view("train").of(some(case.splits.train, images)).batches()))
    output = torch.zeros(1, shape[0] * spec.channels, *shape[1:], device=case.device, requires_grad=True)
    weights = [output, *likelihood.parameters()]
    # Any output gives a bound on log p(x) without a latent, so that no accuracy of the fit is needed.
    optimizer = torch.optim.LBFGS(weights, max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = -likelihood(output[None]).log_prob(x_BCHW).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        losses = [-likelihood(output[None]).log_prob(x).flatten() for x in case.view("test").batches()]
    return torch.cat(losses).cpu().double()


@check("weights", "data")
def worse_than_a_fixed_image(case: Case) -> Iterator[Finding]:
    """A model that gives its test images no better bound than one and the same picture for all of them."""
    nelbo_N, fixed_N = nelbo_of(case, "test"), fixed_image(case)
    gain_N = fixed_N - nelbo_N
    if len(gain_N) < 2:  # of one image no error is known, and nothing can be said
        return
    gain, error = float(gain_N.mean()), float(gain_N.std() / len(gain_N) ** 0.5)
    if gain >= min(ERRORS * error, NOTHING):
        return
    remedy, change = train_more(case)
    if carrying(case.statistics) <= case.model.latent_dim / 2 and not under_trained(case):
        remedy, change = against_collapse(case)
    fault = "The model is no better than a single fixed picture: its latent does not pay for itself."
    fixed = f"the best single output for all images reaches {float(fixed_N.mean()):,.1f}"
    nelbo = f"NELBO {float(nelbo_N.mean()):,.1f} nats on {case.looked('test')}"
    yield Finding(fault, "serious", f"{nelbo}; without a latent, {fixed}", remedy, change)


@check("weights", "data")
def train_test_gap(case: Case) -> Iterator[Finding]:
    """A bound that is much better on training images than on test images, by the same code on as many of each."""
    if case.splits.test is None:
        raise NotLooked("there is no test split: data.test is 0")
    n = min(LOOKED_AT, len(case.splits.train), len(case.splits.test))
    if n < 2:  # of one image no error is known
        return
    train_N, test_N = nelbo_of(case, "train", n), nelbo_of(case, "test", n)
    gap = float(test_N.mean() - train_N.mean())
    error = float((train_N.var() / n + test_N.var() / n) ** 0.5)
    gain = float(fixed_image(case).mean() - train_N.mean())
    if gain <= 0 or gap <= ERRORS * error or gap <= GAP * gain:
        return
    remedy, changes = "Use fewer weights, or more images.", smaller(case)
    if case.splits.validation is None:
        benefit = "the checkpoint is selected, and training stopped, by its bound."
        remedy = f"Keep a validation split, so that {benefit}"
        changes = {"data.validation": 0.1, "patience": max(5, case.recipe.epochs // 10)}
    on_train, on_test = float(train_N.mean()), float(test_N.mean())
    evidence = (
        f"NELBO {on_train:,.1f} nats on {n:,} training images and {on_test:,.1f} on as many test images; the gap of "
        f"{gap:.1f} +- {error:.1f} is {gap / gain:.0%} of what the model gains over one fixed picture"
    )
    fault = "The bound is much better on training images than on test images: the model over-fits."
    severity: Severity = "serious" if gap > gain / 2 else "worth knowing"
    yield Finding(fault, severity, evidence, remedy, case.retrain(changes))


def smaller(case: Case) -> dict[str, object]:
    """Return the changes that halve the layers of the networks."""
    changes: dict[str, object] = {}
    for part in ("encoder", "decoder"):
        net = case.recipe.model.setting(part)
        for field in ("hidden", "channels"):
            if widths := net.setting(field, ()) if net is not None else ():
                changes[f"model.{part}.{field}"] = [max(1, width // 2) for width in widths]
    return changes or {"model.latent_dim": max(1, case.recipe.model.latent_dim // 2)}  # type: ignore[attr-defined]
