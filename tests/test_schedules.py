"""Schedules: exact numbers at named moments."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from nelbo.core import Progress
from nelbo.errors import ConfigError
from nelbo.objectives import ELBO
from nelbo.schedules import Constant, Cosine, Cyclic, Linear, Schedule, Sigmoid
from nelbo.training.recipe import Recipe, named, resolve


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


# --- warm-ups -----------------------------------------------------------------------------------


def test_a_sigmoid_reaches_both_ends_and_is_half_way_in_the_middle():
    beta = Sigmoid(epochs=20)
    values = [beta(Progress(epoch=epoch)) for epoch in range(1, 41)]
    assert values[9] == 0.5
    assert values[19:] == [1.0] * 21
    assert values == sorted(values)
    for early, late in zip(values[:9], values[18:9:-1], strict=True):
        assert early + late == pytest.approx(1.0)


@pytest.mark.parametrize("steepness", [0.01, 3.0, 10.0, 500.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.55, 0.9])
def test_a_sigmoid_is_the_logistic_function_stretched_to_its_ends(steepness, share):
    def s(t):
        return 1 / (1 + math.exp(-steepness * (t - 0.5)))

    found = Sigmoid(start=2.0, end=5.0, steps=20, steepness=steepness)(Progress(step=round(20 * share) - 1))
    assert found == pytest.approx(2 + 3 * (s(share) - s(0)) / (s(1) - s(0)), abs=1e-9)


def test_a_flat_sigmoid_is_a_straight_line():
    for step in range(12):
        line = Linear(steps=10)(Progress(step=step))
        assert Sigmoid(steps=10, steepness=1e-4)(Progress(step=step)) == pytest.approx(line, abs=1e-6)


@pytest.mark.parametrize("lengths", [{}, {"epochs": 3, "steps": 3}])
def test_a_sigmoid_has_one_length(lengths):
    with pytest.raises(ValidationError, match="either epochs or steps"):
        Sigmoid(**lengths)


def test_a_cycle_rises_stays_and_begins_again():
    beta = Cyclic(period=10, ramp=0.5)
    values = [beta(Progress(epoch=epoch, step=1000 * epoch)) for epoch in range(1, 31)]
    assert values[:10] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert values == values[:10] * 3


def test_a_cycle_by_steps_is_that_of_fu_et_al_one_step_on():
    """beta_t = min(1, tau / R), tau = mod(t - 1, T / M) / (T / M): theirs begins at 0, ours at the first share."""
    steps, cycles, ramp = 400, 4, 0.5
    period = steps // cycles
    beta = Cyclic(period=period, unit="steps", ramp=ramp)
    for step in range(steps - 1):
        t = step + 2  # theirs counts from 1, and is one step behind
        tau = ((t - 1) % period) / period
        if tau:
            assert beta(Progress(step=step, epoch=7)) == pytest.approx(min(1.0, tau / ramp))
    assert beta(Progress(step=period - 1)) == 1.0
    assert beta(Progress(step=period)) == pytest.approx(1 / (period * ramp))


def test_a_cycle_may_go_down_and_be_all_ramp():
    saw = Cyclic(start=4.0, end=2.0, period=4, ramp=1.0, unit="steps")
    assert [saw(Progress(step=step)) for step in range(5)] == [3.5, 3.0, 2.5, 2.0, 3.5]


@pytest.mark.parametrize("wrong", [{"period": 0}, {"ramp": 0.0}, {"ramp": 1.1}, {"unit": "hours"}])
def test_a_cycle_that_is_none_is_refused(wrong):
    with pytest.raises(ValidationError):
        Cyclic(**wrong)


def test_warm_ups_are_set_from_the_command_line():
    flags = {"objective.beta": "cyclic", "objective.beta.period": 25, "objective.beta.unit": "steps"}
    assert resolve(Recipe(), flags).objective.beta == Cyclic(period=25, unit="steps")
    found = resolve(Recipe(), {"objective.beta": "sigmoid", "objective.beta.epochs": 8})
    assert found.objective.beta == Sigmoid(epochs=8)
    assert (
        resolve(Recipe(), {"optimizer.lr": {"name": "sigmoid", "end": 1e-3, "steps": 5}}).optimizer.lr.steps
        == 5
    )
