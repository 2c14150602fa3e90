"""Training for real: minutes each, run by name (`make slow`). Need MNIST and Fashion-MNIST in NELBO_DATA."""

from __future__ import annotations

import pytest

import nelbo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("recipe", "limit"),
    [("mlp-sigma", 106.2), ("mlp-tanh-binary", 88.0), ("conv-2d", 152.0), ("fashion-mlp", 240.0)],
)
def test_a_recipe_reaches_its_number(recipe, limit, tmp_path):
    run = nelbo.train(recipe, runs=tmp_path)
    card = nelbo.evaluate(run, samples=0)
    assert card["n"] == 10_000
    assert card["metrics"]["nelbo"]["value"] <= limit


def test_the_published_learning_rate_hardly_learns(tmp_path):
    run = nelbo.train("mlp-sigma-as-published", runs=tmp_path)
    assert 235 < nelbo.evaluate(run, samples=0)["metrics"]["nelbo"]["value"] < 265


def test_the_published_tanh_posterior_is_no_bound(tmp_path):
    run = nelbo.train("mlp-tanh-binary-as-published", runs=tmp_path)
    found = nelbo.evaluate(run, samples=10)["metrics"]
    assert found["nelbo"]["value"] is None
    assert found["iw_nll"]["value"] is None
    assert found["nelbo"]["missing"] == "not a bound"
    assert found["nelbo_independent_noise"]["value"] > found["reconstruction"]["value"] + 20
