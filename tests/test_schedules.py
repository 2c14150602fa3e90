"""Schedules: exact numbers at named moments."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from nelbo.core import Progress
from nelbo.errors import ConfigError
from nelbo.objectives import ELBO
from nelbo.recipe import Recipe, named, resolve
from nelbo.schedules import Constant, Cosine, Linear, Schedule


@pytest.mark.parametrize("epoch", range(1, 51))
def test_linear_by_epochs_is_the_tutorials_warm_up_constant_within_an_epoch(epoch):
    beta = Linear(epochs=25)
    values = {beta(Progress(epoch=epoch, epochs=50, step=step, steps=5000)) for step in (0, 17, 4999)}
    assert values == {min(1.0, epoch / 25)}


def test_the_fashion_recipe_warms_up_over_25_of_50_epochs():
    recipe = named("fashion-mlp")
    assert recipe.epochs == 50
    betas = [recipe.objective.beta(Progress(epoch=epoch)) for epoch in (1, 24, 25, 50)]
    assert betas == [1 / 25, 24 / 25, 1.0, 1.0]


def test_linear_by_steps_counts_them_from_one():
    ramp = Linear(start=2.0, end=4.0, steps=4)
    assert [ramp(Progress(step=step)) for step in range(6)] == [2.5, 3.0, 3.5, 4.0, 4.0, 4.0]


def test_linear_may_fall():
    assert Linear(start=1.0, end=0.0, steps=2)(Progress(step=0)) == 0.5


@pytest.mark.parametrize("lengths", [{}, {"epochs": 3, "steps": 3}])
def test_linear_has_one_length(lengths):
    with pytest.raises(ValidationError, match="either epochs or steps"):
        Linear(**lengths)
    with pytest.raises(ConfigError, match=r"objective\.beta: give either epochs or steps"):
        resolve(Recipe(), {"objective.beta": {"name": "linear", **lengths}})


@pytest.mark.parametrize("lengths", [{"epochs": 0}, {"steps": 0}, {"steps": 1.5}])
def test_linear_refuses_a_length_that_is_none(lengths):
    with pytest.raises(ValidationError):
        Linear(**lengths)


def test_cosine_starts_at_start_is_half_way_in_the_middle_and_ends_at_end():
    rate = Cosine(start=3.0, end=1.0)
    assert rate(Progress(step=0, steps=8)) == 3.0
    assert rate(Progress(step=4, steps=8)) == pytest.approx(2.0)
    assert rate(Progress(step=2, steps=8)) == pytest.approx(1 + 2 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert rate(Progress(step=8, steps=8)) == rate(Progress(step=99, steps=8)) == 1.0


def test_a_constant_does_not_move():
    assert {Constant(value=4)(Progress(epoch=e, step=e)) for e in range(5)} == {4.0}


def test_what_is_no_number_is_no_schedule():
    for value in (True, float("nan"), "four", [4]):
        with pytest.raises(ValidationError):
            ELBO(beta=value)
    with pytest.raises(TypeError, match="abstract"):
        Schedule.model_construct()(Progress())
