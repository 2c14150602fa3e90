"""Objectives on the aggregated posterior with one fault each, and what the laws needed to hold them."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from nelbo.core import Progress, Terms
from nelbo.errors import ConfigError
from nelbo.objectives import Objective, halves
from nelbo.objectives.base import kl_of
from nelbo.objectives.tcvae import TCVAE, log_weights, pairs, taken_apart
from nelbo.testing import LawBroken, check_objective
from nelbo.testing.exact import Discrete
from nelbo.testing.trials import TOGETHER, discrete, drawn, enumerated, gaussian


class Faulty(TCVAE):
    """Takes the KL apart. Nobody 2026."""

    axis: ClassVar[str] = ""  # known to this file alone
    beta: float = 1.0
    pieces: ClassVar[tuple[float, ...]] = (1.0, 1.0, 1.0)
    bound_of_the_pieces: ClassVar[bool] = False

    def __call__(self, draw, progress):
        parts, bound_B = halves(draw)
        log_q = pairs(draw)
        found = taken_apart(draw, log_q, log_weights(log_q, progress.images, "stratified"))
        kl_B = sum(weight * piece_B for weight, piece_B in zip(self.pieces, found, strict=True))
        if self.bound_of_the_pieces and bound_B is not None:
            bound_B = -(parts["reconstruction"] + found[1] + found[2])
        return Terms(parts["reconstruction"] + kl_B, bound_B, parts)


def test_a_piece_that_is_left_out_is_found():
    class Lossy(Faulty):
        """Without the mutual information. Nobody 2026."""

        axis: ClassVar[str] = ""
        pieces: ClassVar[tuple[float, ...]] = (0.0, 1.0, 1.0)

    with pytest.raises(LawBroken, match="loss_B is") as caught:
        check_objective(Lossy(k=1), only="one sample and beta one give the elbo")
    assert caught.value.law == "one sample and beta one give the elbo"


def test_a_bound_made_of_the_batch_is_found():
    class Mixed(Faulty):
        """Reports the aggregate's KL in the place of each image's. Nobody 2026."""

        axis: ClassVar[str] = ""
        bound_of_the_pieces: ClassVar[bool] = True

    laws = {"the bound is at most log p", "one sample and beta one give the elbo"}
    with pytest.raises(LawBroken) as caught:
        check_objective(Mixed(k=1))
    assert caught.value.law in laws
    with pytest.raises(LawBroken, match="alone and"):
        check_objective(Mixed(k=1), only="images do not change each others bound")


def test_a_beta_that_is_no_schedule_is_not_taken_for_the_weight_of_the_kl():
    class Doubled(Objective):
        """The ELBO with another weight, called beta, of something else. Nobody 2026."""

        axis: ClassVar[str] = ""
        beta: float = 1.0

        def __call__(self, draw, progress):
            parts, bound_B = halves(draw)
            squares_B = (self.beta - 1.0) * draw.z_KBZ.square().sum(-1).mean(0)
            return Terms(parts["reconstruction"] + kl_of(parts) + squares_B, bound_B, parts)

    evidence = check_objective(Doubled())
    assert str(evidence["beta weighs the kl"]).startswith("does not apply: its beta, which is no schedule")
    assert str(evidence["one sample and beta one give the elbo"]) == "exact on 2 enumerated models"


def test_independent_bits_have_a_probability_each():
    model, other = Discrete(), Discrete(torch.rand(16, 4) + 0.1)
    draw, _ = model.every_draw(2)
    q = draw.posterior
    assert torch.allclose(q.log_prob_each(draw.z_KBZ).sum(-1), q.log_prob(draw.z_KBZ))
    with pytest.raises(ConfigError):
        TCVAE()(other.draw(other.x_BCHW), Progress())


def test_draws_in_batches_are_all_draws():
    """Expectations over batches of draws are those over all at once, and every copy of an image is there."""
    model = discrete()[0]
    objective = Faulty(k=4)
    assert TOGETHER < 4**4, "several batches"
    draw, probability_BM = model.every_draw(4)
    right_B = (halves(draw)[1].view(16, -1) * probability_BM).sum(1)
    found = enumerated(objective, model, 4)
    assert found is not None
    assert torch.allclose(found["bound"], right_B)
    gaussian()
    terms = drawn(objective, 4, copies=TOGETHER + 3)
    assert terms.bound_B.shape == terms.parts["kl"].shape == (4 * (TOGETHER + 3),)
