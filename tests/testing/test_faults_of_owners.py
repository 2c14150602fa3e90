"""Objectives that own a module, with one fault each: the law that forbids it finds it, and names it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nelbo.core import Terms
from nelbo.objectives import Objective, Owner, halves
from nelbo.objectives.critic import Critic, told_apart
from nelbo.testing import LawBroken, check_objective


class Judge(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.critic = Critic(hidden=(8,)).build(latent_dim)
        self.spare = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))


def define(own_loss=None, settings=None, watch=lambda own: own.training):
    """An owner whose own loss is `own_loss(own, z, prior)`; `watch` says when its buffer counts."""

    class Faulty(Owner):
        """The ELBO beside a critic of latents. Nobody 2026."""

        def build(self, latent_dim, shape):
            return Judge(latent_dim)

        def critic_settings(self):
            return {"lr": 0.01} if settings is None else settings

        def terms(self, draw, progress, own):
            parts, bound_B = halves(draw)
            if watch(own):
                own.seen.add_(1)
            kl_B = parts["surrogate_kl" if draw.not_a_bound else "kl"]
            z_BZ, prior_BZ = draw.z_KBZ[0], draw.prior.sample(draw.z_KBZ.shape[1])
            return Terms(
                loss_B=parts["reconstruction"] + kl_B,
                bound_B=bound_B,
                parts={"kl": kl_B} | parts,
                critic_loss_B=(own_loss or right)(own, z_BZ, prior_BZ),
            )

    return Faulty


def right(own, z_BZ, prior_BZ):
    return told_apart(own.critic(prior_BZ), own.critic(z_BZ.detach())) + own.spare.square().sum()


def latents_not_detached():
    return define(lambda own, z_BZ, prior_BZ: right(own, z_BZ, prior_BZ) + own.critic(z_BZ))


def one_loss_for_all():
    return define(lambda own, z_BZ, prior_BZ: right(own, z_BZ, prior_BZ).mean())


def no_loss_of_its_own():
    return define(lambda own, z_BZ, prior_BZ: None)


def a_weight_that_learns_nothing():
    def own_loss(own, z_BZ, prior_BZ):
        return told_apart(own.critic(prior_BZ), own.critic(z_BZ.detach()))

    return define(own_loss)


def counts_in_evaluation():
    return define(watch=lambda own: True)


def settings_that_no_optimiser_knows():
    return define(settings={"learning_rate": 0.01})


LEARNS, REACHES = "what it owns learns by its own loss", "its own loss does not reach the model"
FAULTS = {
    latents_not_detached: (REACHES, "detach"),
    one_loss_for_all: (LEARNS, "shape ()"),
    no_loss_of_its_own: (LEARNS, "critic_loss_B is None"),
    a_weight_that_learns_nothing: (LEARNS, "spare has no gradient"),
    counts_in_evaluation: ("it changes buffers in training only", "seen moves from 0 to 2"),
    settings_that_no_optimiser_knows: ("its settings are those of an optimiser", "learning_rate"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_by_the_law_that_forbids_it(fault, laws):
    law, words = FAULTS[fault]
    with pytest.raises(LawBroken) as caught:
        check_objective(fault(), only=law if laws == "its own" else None)
    assert caught.value.law == law
    assert words in str(caught.value)
    assert "Look at" in str(caught.value)


@pytest.mark.usefixtures("every_setting")
def test_a_right_owner_passes():
    evidence = check_objective(define())
    assert str(evidence[LEARNS]).startswith("5 weights")
    assert str(evidence[REACHES]).startswith("none by")
    assert str(evidence["it changes buffers in training only"]).startswith("1 buffers")


def test_an_owner_of_numbers_alone_has_no_loss_of_its_own():
    class Counts(Owner):
        """The ELBO, and how often it was asked. Nobody 2026."""

        def build(self, latent_dim, shape):
            module = nn.Module()
            module.register_buffer("seen", torch.zeros(()))
            return module

        def terms(self, draw, progress, own):
            parts, bound_B = halves(draw)
            kl_B = parts["surrogate_kl" if draw.not_a_bound else "kl"]
            return Terms(loss_B=parts["reconstruction"] + kl_B, bound_B=bound_B, parts={"kl": kl_B} | parts)

    evidence = check_objective(Counts)
    assert str(evidence[LEARNS]) == str(evidence[REACHES]) == "does not apply: what it owns has no weights"


def test_an_objective_that_claims_another_loss_still_reports_the_elbo():
    class Claims(define()):
        """Says that its loss is not the bound, and reports half. Nobody 2026."""

        loss_is_bound = False

        def terms(self, draw, progress, own):
            terms = super().terms(draw, progress, own)
            low_B = None if terms.bound_B is None else terms.bound_B - 1.0
            return Terms(terms.loss_B * 3, low_B, terms.parts, terms.critic_loss_B)

    with pytest.raises(LawBroken, match="bound_B is"):
        check_objective(Claims)


def test_a_claim_of_another_loss_does_not_excuse_a_bound_that_is_too_high():
    class Boasts(define()):
        """Says that its loss is not the bound, and reports a nat too much. Nobody 2026."""

        loss_is_bound = False

        def terms(self, draw, progress, own):
            terms = super().terms(draw, progress, own)
            high_B = None if terms.bound_B is None else terms.bound_B + 1.0
            return Terms(terms.loss_B, high_B, terms.parts, terms.critic_loss_B)

    with pytest.raises(LawBroken, match="at most log p"):
        check_objective(Boasts)


def two_players(hold):
    """The encoder's loss is the ELBO's, the decoder's twice the reconstruction; `hold` keeps z from the second."""

    class Faulty(Objective):
        """Two players. Nobody 2026."""

        loss_is_bound = False
        one_loss = False

        def __call__(self, draw, progress):
            parts, bound_B = halves(draw)
            kl_B = parts["surrogate_kl" if draw.not_a_bound else "kl"]
            again_B = -draw.decode(hold(draw.z_KBZ)).log_prob(draw.x_BCHW).mean(0)
            loss_B = parts["reconstruction"] + kl_B + again_B
            return Terms(loss_B, bound_B, {"kl": kl_B} | parts)

    return Faulty


def test_two_losses_in_one_have_the_slopes_of_each_player():
    law = "gradients match finite differences"
    assert "each player's loss" in str(check_objective(two_players(lambda z: z.detach()))[law])

    def unseen(z):
        with torch.no_grad():
            return 1.0 * z

    with pytest.raises(LawBroken) as caught:
        check_objective(two_players(unseen))
    assert caught.value.law == law
