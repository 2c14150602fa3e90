"""Surrogate losses with one fault each, and with a false word about what they follow: the law finds it."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
import torch

from nelbo.dists.normal import DiagonalNormal
from nelbo.objectives import ELBO
from nelbo.objectives.geco import GECO, Multiplier
from nelbo.objectives.iwae import IWAE
from nelbo.objectives.miwae import MIWAE
from nelbo.objectives.piwae import PIWAE
from nelbo.objectives.weighted import along, log_mean, slope, with_gradient_of
from nelbo.posteriors import DiagonalGaussian
from nelbo.testing import LawBroken, check_objective, check_posterior

GRADIENTS, SETTINGS = "gradients match finite differences", "every setting changes something"


def swapped():
    class Faulty(PIWAE):
        """Encoder and decoder have each other's bound. Nobody 2018."""

        @property
        def follows(self):
            return {"encoder": IWAE(k=self.k), "decoder": MIWAE(k=self.k, groups=self.groups)}

    return Faulty


def decoder_of_the_groups():
    class Faulty(PIWAE):
        """The decoder follows the groups, too. Nobody 2018."""

        def minimised(self, draw, log_w_KB, beta):
            return -log_mean(self.in_groups(log_w_KB)).mean(0)

        @property
        def follows(self):
            return super().follows

    return Faulty


def only_one_v():
    class Faulty(IWAE):
        """The shares are not squared, and it says that it is unbiased. Nobody 2019."""

        gradient: Literal["stl"] = "stl"

        @property
        def follows(self):
            return {"encoder": IWAE(k=self.k, beta=self.beta), "decoder": IWAE(k=self.k, beta=self.beta)}

    return Faulty


def score_of_the_wrong_sign():
    class Faulty(PIWAE):
        """log q is added. Nobody 2018."""

        def minimised(self, draw, log_w_KB, beta):
            v_KB = log_w_KB.softmax(0).detach()
            joint_KB = draw.log_px_KB + beta * draw.log_pz_KB
            return with_gradient_of(log_mean(log_w_KB), (v_KB * (joint_KB + beta * draw.log_qz_KB)).sum(0))

    return Faulty


def claims_a_bias():
    class Faulty(IWAE):
        """Doubly reparametrised, and called biased. Nobody 2019."""

        gradient: Literal["dreg"] = "dreg"

        @property
        def follows(self):
            plain = IWAE(k=self.k, beta=self.beta)
            return {"encoder": None if self.k > 1 else plain, "decoder": plain}

    return Faulty


def claims_a_bias_of_one_sample():
    class Faulty(IWAE):
        """Biased whatever k. Nobody 2019."""

        gradient: Literal["stl"] = "stl"

        @property
        def follows(self):
            return {"encoder": None, "decoder": IWAE(k=self.k, beta=self.beta)}

    return Faulty


def follows_no_bound():
    class Faulty(PIWAE):
        """It follows a loss with a hidden weight, rightly. Nobody 2018."""

        def minimised(self, draw, log_w_KB, beta):
            weighed_KB = draw.log_px_KB + 0.1 * beta * (draw.log_pz_KB - draw.log_qz_KB)
            return with_gradient_of(log_mean(log_w_KB), weighed_KB.mean(0))

        @property
        def follows(self):
            hidden = Hidden(k=self.k)
            return {"encoder": hidden, "decoder": hidden}

    class Hidden(IWAE):
        """The KL counts a tenth. Nobody 2018."""

        def minimised(self, draw, log_w_KB, beta):
            return -(draw.log_px_KB + 0.1 * beta * (draw.log_pz_KB - draw.log_qz_KB)).mean(0)

    return Faulty


def follows_another_surrogate():
    class Faulty(PIWAE):
        """It follows itself. Nobody 2018."""

        @property
        def follows(self):
            return {"encoder": PIWAE(k=self.k, groups=self.groups), "decoder": IWAE(k=self.k)}

    return Faulty


FAULTS = {
    swapped: "along a random direction of the encoder's weights",
    only_one_v: "of the encoder's weights the loss of IWAE",
    score_of_the_wrong_sign: "the encoder's weights the loss of MIWAE",
    claims_a_bias: "it says that its gradient by the encoder is biased, and it is off by",
    claims_a_bias_of_one_sample: "with one sample, too",
    follows_no_bound: "where log p(x) is",
    follows_another_surrogate: "whose own gradient is not that of its loss",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_by_the_law_that_forbids_it(fault, laws):
    with pytest.raises(LawBroken) as caught:
        check_objective(fault(), only=GRADIENTS if laws == "its own" else None)
    assert caught.value.law == GRADIENTS
    assert FAULTS[fault] in str(caught.value)


def test_what_is_followed_is_asked_of_losses_that_are_differentiated_too():
    """A loss may have the gradient of its value and still not follow what it says."""
    with pytest.raises(LawBroken, match="decoder's weights the loss of IWAE") as caught:
        check_objective(decoder_of_the_groups(), only=GRADIENTS)
    assert caught.value.law == GRADIENTS


def test_a_choice_that_changes_only_the_gradient_is_something():
    class Chosen(IWAE):
        """The bound's gradient, by itself or by a surrogate of the same samples. Nobody 2018."""

        gradient: Literal["total", "none"] = "total"

        @property
        def follows(self):
            return {}

        def minimised(self, draw, log_w_KB, beta):
            bound_B = log_mean(log_w_KB)
            return -bound_B if self.gradient == "total" else with_gradient_of(bound_B, draw.log_px_KB.mean(0))

    assert "gradient" in str(check_objective(Chosen, only=SETTINGS)[SETTINGS])


def test_a_choice_of_gradients_that_are_the_same_is_nothing():
    class Chosen(IWAE):
        """Two names for one gradient. Nobody 2018."""

        gradient: Literal["total", "whole"] = "total"
        follows_samples: ClassVar[bool] = False

        @property
        def follows(self):
            return {}

        def minimised(self, draw, log_w_KB, beta):
            return -log_mean(log_w_KB)

    with pytest.raises(LawBroken, match="gradient = 'whole' gives what 'total' gives") as caught:
        check_objective(Chosen, only=SETTINGS)
    assert caught.value.law == SETTINGS


def test_a_setting_that_shows_in_the_second_step_is_looked_for_there():
    class Forgetful(GECO):
        """No moving average. Nobody 2018."""

        def build(self, latent_dim, shape):
            return NoMemory()

    class NoMemory(Multiplier):
        def follow(self, constraint, decay, rate):
            return super().follow(constraint, 0.0, rate)

    with pytest.raises(LawBroken, match=r"decay = .* gives what") as caught:
        check_objective(Forgetful, only=SETTINGS)
    assert caught.value.law == SETTINGS


class Sideways(DiagonalNormal):
    """Its density is right, and does not vary with z where it is differentiated."""

    def log_prob_each(self, z):
        return super().log_prob_each(z.detach())


def test_a_density_that_cannot_be_differentiated_by_z_is_found():
    class Faulty(DiagonalGaussian):
        """A posterior with a fault."""

        def build(self, features, latent_dim):
            head = super().build(features, latent_dim)
            head.register_forward_hook(lambda module, given, q: Sideways(q.mean, q.std, q.log_var))
            return head

    with pytest.raises(LawBroken, match="log_prob, by z") as caught:
        check_posterior(Faulty(parametrisation="positive"), only=GRADIENTS)
    assert caught.value.law == GRADIENTS


def test_a_slope_is_zero_where_nothing_is_differentiated():
    z_KBZ = torch.randn(2, 3, 4)
    assert torch.equal(slope(z_KBZ.sum(-1), z_KBZ), torch.zeros_like(z_KBZ))
    z_KBZ.requires_grad_()
    assert torch.equal(slope(3 * z_KBZ.sum(-1), z_KBZ), torch.full_like(z_KBZ, 3.0))
    assert along(torch.ones_like(z_KBZ), z_KBZ).shape == (2, 3)
    assert not ELBO().follows
