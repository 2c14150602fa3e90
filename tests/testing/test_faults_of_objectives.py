"""Objectives with one fault each: the law that forbids it finds it, and names it."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import Field, ValidationError

from nelbo.core import Terms
from nelbo.dists.normal import DiagonalNormal
from nelbo.objectives import ELBO, Objective
from nelbo.schedules import Constant, Schedule
from nelbo.testing import LawBroken, check_objective
from nelbo.testing.objectives import COPIES, drawn, gaussian


def terms_of(draw, loss_B=None, bound_B=None, **parts):
    """The ELBO's terms, with what is given instead; no bound where the draw has none."""
    plain = ELBO()(draw, None)
    bound_B = plain.bound_B if bound_B is None else bound_B
    return Terms(
        loss_B=plain.loss_B if loss_B is None else loss_B,
        bound_B=None if draw.not_a_bound else bound_B,
        parts={"kl": kl_of(draw), **plain.parts, **parts},
    )


def kl_of(draw):
    return (draw.log_qz_KB - draw.log_pz_KB).mean(0) if draw.kl_BG is None else draw.kl_BG.sum(-1)


def rec_of(draw):
    return -draw.log_px_KB.mean(0)


def log_w_of(draw):
    return draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB


def define(call, base=Objective, **fields):
    """An objective class whose terms are `call(self, draw)`, or `call(self, draw, beta)` with today's beta."""

    def terms(self, draw, progress):
        return (
            call(self, draw, self.beta(progress))
            if "beta" in fields and call.__code__.co_argcount == 3
            else call(self, draw)
        )

    body = {
        "__call__": terms,
        "__annotations__": {name: kind for name, (kind, _) in fields.items()},
        "__module__": __name__,
        "__doc__": "An objective with a fault. Nobody 2024.",
        **{name: default for name, (_, default) in fields.items()},
    }
    return type(base)("Faulty", (base,), body)


def wrong_sign():
    return define(lambda self, draw: terms_of(draw, bound_B=-(rec_of(draw) - kl_of(draw))))


def kl_averaged_over_latents():
    return define(lambda self, draw: terms_of(draw, bound_B=-(rec_of(draw) + kl_of(draw) / 2)))


def surrogate_of_importance_weighting():
    def call(self, draw):
        log_w_KB = log_w_of(draw)
        share_KB = log_w_KB.softmax(0).detach()
        value_B = (share_KB * log_w_KB).sum(0)
        return terms_of(draw, loss_B=-value_B, bound_B=value_B)

    return define(call, k=(int, 5))


def no_division_by_k():
    return define(lambda self, draw: terms_of(draw, bound_B=log_w_of(draw).logsumexp(0)))


def beta_in_the_bound():
    def call(self, draw, beta):
        weighed_B = rec_of(draw) + beta * kl_of(draw)
        return terms_of(draw, loss_B=weighed_B, bound_B=-weighed_B)

    return define(call, beta=(Schedule, Constant(value=1.0)))


def beta_above_one_in_the_bound():
    def call(self, draw, beta):
        weighed_B = rec_of(draw) + max(beta, 1.0) * kl_of(draw)
        return terms_of(draw, loss_B=rec_of(draw) + beta * kl_of(draw), bound_B=-weighed_B)

    return define(call, beta=(Schedule, Constant(value=1.0)))


def beta_never_applied():
    return define(lambda self, draw: terms_of(draw), beta=(Schedule, Constant(value=1.0)))


def worst_of_k():
    return define(lambda self, draw: terms_of(draw, bound_B=log_w_of(draw).amin(0)))


def hidden_weight():
    return define(lambda self, draw: terms_of(draw, loss_B=rec_of(draw) + 0.00025 * kl_of(draw)))


def loss_of_another_sign():
    return define(lambda self, draw: terms_of(draw, loss_B=-(rec_of(draw) + kl_of(draw))))


def negative_kl_in_the_log():
    return define(lambda self, draw: terms_of(draw, kl=-kl_of(draw)))


def reconstruction_a_pixel_in_the_log():
    return define(lambda self, draw: terms_of(draw, reconstruction=rec_of(draw) / 6))


def batch_in_the_bound():
    def call(self, draw):
        bound_B = -(rec_of(draw) + kl_of(draw))
        return terms_of(draw, bound_B=bound_B - 0.01 * (bound_B - bound_B.mean()).square())

    return define(call)


def claims_a_bound_of_shared_noise():
    def call(self, draw):
        terms = terms_of(draw)
        return Terms(terms.loss_B, -(rec_of(draw) + kl_of(draw)), terms.parts)

    return define(call)


def kl_without_gradient():
    return define(lambda self, draw: terms_of(draw, loss_B=rec_of(draw) + kl_of(draw).detach()))


def importance_weights_without_gradient():
    def call(self, draw):
        log_w_KB = log_w_of(draw)
        bound_B = log_w_KB.logsumexp(0) - math.log(self.k)
        half_B = 0.5 * bound_B + 0.5 * bound_B.detach()
        return terms_of(draw, loss_B=-half_B, bound_B=bound_B)

    return define(call, k=(int, 3))


def field_that_does_nothing():
    return define(lambda self, draw: terms_of(draw), temperature=(float, 1.0))


def choice_that_does_nothing():
    from typing import Literal

    def call(self, draw):
        return terms_of(draw, loss_B=rec_of(draw) + (2 if self.how == "double" else 1) * kl_of(draw))

    return define(call, how=(Literal["plain", "double", "simple"], "plain"))


def number_that_is_a_switch():
    def call(self, draw):
        return terms_of(draw, loss_B=rec_of(draw) + (1.5 if self.strength else 1.0) * kl_of(draw))

    return define(call, strength=(float, 0.0))


def one_loss_for_all():
    return define(lambda self, draw: Terms(ELBO()(draw, None).loss_B.mean(), None, terms_of(draw).parts))


def no_parts():
    return define(lambda self, draw: Terms(ELBO()(draw, None).loss_B, None))


def single_precision():
    return define(lambda self, draw: terms_of(draw, loss_B=(rec_of(draw) + kl_of(draw)).float()))


AT_MOST, ELBO_AT_ONE = "the bound is at most log p", "one sample and beta one give the elbo"
PARTS, GRADIENTS = "parts are what they are called", "gradients match finite differences"
NATS, SETTINGS = "numbers are nats an image", "every setting changes something"
FAULTS = {
    wrong_sign: (AT_MOST, "log p(x)"),
    kl_averaged_over_latents: (AT_MOST, "log p(x)"),
    surrogate_of_importance_weighting: (AT_MOST, "surrogate"),
    no_division_by_k: (AT_MOST, "log k"),
    beta_in_the_bound: (AT_MOST, "value=0.5"),
    beta_above_one_in_the_bound: ("beta weighs the kl", "the bound moves"),
    beta_never_applied: ("beta weighs the kl", "adds 0"),
    worst_of_k: ("more samples do not loosen the bound", "k = 5"),
    hidden_weight: (ELBO_AT_ONE, "loss_B"),
    loss_of_another_sign: (ELBO_AT_ONE, "loss_B"),
    negative_kl_in_the_log: (PARTS, "'kl'"),
    reconstruction_a_pixel_in_the_log: (PARTS, "'reconstruction'"),
    claims_a_bound_of_shared_noise: ("no density no bound", "not_a_bound"),
    kl_without_gradient: (GRADIENTS, "slope"),
    importance_weights_without_gradient: (GRADIENTS, "slope"),
    field_that_does_nothing: (SETTINGS, "temperature"),
    choice_that_does_nothing: (SETTINGS, "how = 'simple' gives what 'plain' gives"),
    number_that_is_a_switch: (SETTINGS, "gives what 0.25 gives"),
    one_loss_for_all: (NATS, "loss_B has shape ()"),
    no_parts: (NATS, "parts lack ['kl', 'reconstruction']"),
    single_precision: (NATS, "float32"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_by_the_law_that_forbids_it(fault, laws):
    law, words = FAULTS[fault]
    with pytest.raises(LawBroken) as caught:
        check_objective(fault(), only=law if laws == "its own" else None)
    broken = caught.value
    assert broken.law == law
    assert broken.component.startswith("Faulty(")
    assert words in str(broken)
    assert "Look at" in str(broken)


def test_a_bound_that_mixes_images_is_found_when_nothing_else_is_asked():
    """It is no ELBO either, and depends on which draws it is shown with; those laws skipped, the one that forbids the
    mixing finds it."""
    faulty = batch_in_the_bound()
    earlier = ["more samples do not loosen the bound", ELBO_AT_ONE]
    for skipped, law in enumerate(earlier):
        with pytest.raises(LawBroken, match=law):
            check_objective(faulty, skip=earlier[:skipped])
    with pytest.raises(LawBroken, match="alone and"):
        check_objective(faulty, skip=earlier)


def test_the_surrogates_value_exceeds_log_p_by_less_than_log_k():
    """PEERS 13 in numbers: the gradient is right, the value is between log p(x) and log p(x) + log k."""
    faulty = surrogate_of_importance_weighting()
    value = float(drawn(faulty(), 5).bound_B.view(COPIES, -1).mean())
    log_px = float(gaussian().log_px_B.mean())
    assert log_px < value < log_px + math.log(5)


@pytest.mark.usefixtures("every_setting")
def test_right_objectives_pass():
    def iwae(self, draw):
        bound_B = log_w_of(draw).logsumexp(0) - math.log(self.k)
        return terms_of(draw, loss_B=-bound_B, bound_B=bound_B)

    def iwae_by_weights(self, draw):
        """The same gradient from a surrogate whose value is not reported."""
        log_w_KB = log_w_of(draw)
        share_KB = log_w_KB.softmax(0).detach()
        bound_B = log_w_KB.logsumexp(0) - math.log(self.k)
        return terms_of(draw, loss_B=-(share_KB * log_w_KB).sum(0), bound_B=bound_B)

    for call in (iwae, iwae_by_weights):
        evidence = check_objective(define(call, k=(int, Field(default=5, ge=1))))
        assert len(evidence) == 10
        assert sum(str(found).startswith("does not apply") for found in evidence.values()) == 1, (
            "it has no beta"
        )
    assert "of a surrogate loss" in str(evidence[GRADIENTS])


def test_a_surrogate_without_a_bound_has_nothing_to_be_compared_with():
    def call(self, draw):
        return Terms(
            rec_of(draw) + kl_of(draw).detach(), None, {"reconstruction": rec_of(draw), "kl": kl_of(draw)}
        )

    before = [weight.detach().clone() for weight in gaussian().model.parameters()]
    with pytest.raises(LawBroken, match="no bound to compare it with"):
        check_objective(define(call), only=GRADIENTS)
    assert all(map(torch.equal, before, gaussian().model.parameters())), "and the weights are where they were"


def path_derivative(share):
    """log q with its parameters held fixed (Roeder et al. 2017), and a share of the KL's gradient: right at 1."""

    def call(self, draw, beta):
        kl_B = (draw.log_qz_KB - draw.log_pz_KB).mean(0)
        q = draw.posterior
        held_B = kl_B
        if isinstance(q, DiagonalNormal):
            held = DiagonalNormal(q.mean.detach(), q.std.detach(), q.log_var.detach())
            held_B = (held.log_prob(draw.z_KBZ) - draw.log_pz_KB).mean(0)
        loss_B = rec_of(draw) + beta * (share * held_B + (1 - share) * held_B.detach())
        bound_B = -(rec_of(draw) + kl_B)
        return Terms(
            loss_B, None if draw.not_a_bound else bound_B, {"reconstruction": rec_of(draw), "kl": kl_B}
        )

    return define(call, beta=(Schedule, Constant(value=1.0)))


def test_a_surrogate_is_followed_in_more_than_one_direction():
    """Along a single one a KL whose gradient is halved passed, the slope of the KL there being small."""
    evidence = check_objective(path_derivative(1.0), only=GRADIENTS)
    assert "of a surrogate loss" in str(evidence[GRADIENTS])
    assert evidence[GRADIENTS].settings == 3
    assert evidence[GRADIENTS].left_out > 0, "another beta is not the bound's"
    with pytest.raises(LawBroken, match="the loss's gradient is off by") as caught:
        check_objective(path_derivative(0.5)(k=1), only=GRADIENTS)
    assert caught.value.law == GRADIENTS
    assert not caught.value.found.startswith("as "), "with the default settings"


def test_an_objective_without_a_bound_may_be_anything_else():
    def call(self, draw):
        return Terms(rec_of(draw) * 0.3, None, {"reconstruction": rec_of(draw), "kl": kl_of(draw)})

    evidence = check_objective(define(call))
    assert str(evidence[AT_MOST]) == str(evidence[ELBO_AT_ONE]) == "does not apply: it reports no bound"


def test_no_samples_are_refused_where_a_class_has_its_own_default_of_them():
    own = define(lambda self, draw: terms_of(draw), k=(int, 5))
    assert own(k=1).k == 1
    with pytest.raises(ValidationError, match="at least one sample"):
        own(k=0)
