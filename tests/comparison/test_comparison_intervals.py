"""Intervals cover what they say they cover, as often as they say, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nelbo.evaluation.comparison.intervals import Interval, mean_and_error, over_images, over_seeds

TRIALS = 3000


def coverage(intervals: list[Interval | None], truth: float) -> float:
    return float(np.mean([one is not None and one.low <= truth <= one.high for one in intervals]))


# --- exact values -----------------------------------------------------------------------------


def test_over_images_is_the_paired_t_interval():
    a, b = np.random.default_rng(0).normal(size=(2, 25))
    found = over_images(a - b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.over, found.n, found.degrees, found.level) == ("images", (25,), 24, 0.95)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (4, 2)])
def test_over_seeds_is_welchs_interval(n, m):
    stream = np.random.default_rng(n)
    a, b = stream.normal(1.0, 1.0, n), stream.normal(0.0, 5.0, m)
    found = over_seeds(a, b, 0.9)
    expected = stats.ttest_ind(a, b, equal_var=False)
    bounds = expected.confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert found.degrees == pytest.approx(expected.df)
    assert (found.over, found.n, found.level) == ("seeds", (n, m), 0.9)


def test_mean_and_error():
    assert mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0 / math.sqrt(3)))
    assert mean_and_error([4.0]) == (4.0, None)


def test_where_nothing_varies_there_is_no_interval():
    assert over_images(np.array([0.5])) is None
    assert over_images(np.full(10, 0.5)) is None
    assert over_images(np.random.default_rng(0).normal(size=60) * 1e-15 + 0.05) is None
    assert over_seeds([1.0], [1.0, 2.0]) is None
    assert over_seeds([1.0, 2.0], [1.0]) is None
    assert over_seeds([2.0, 2.0], [3.0, 3.0]) is None


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(-1, 1, False), (0, 1, False), (0.1, 1, True), (-2, -1, True)]
)
def test_excludes_zero(low, high, excludes):
    assert Interval(low, high, "images", (9,), 8).excludes_zero is excludes


def test_an_interval_is_plain():
    assert Interval(1.0, 2.0, "seeds", (3, 4), 4.5).to_dict() == {
        "low": 1.0, "high": 2.0, "over": "seeds", "n": [3, 4], "degrees": 4.5, "level": 0.95,
    }  # fmt: skip


# --- coverage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("skewed", "n"), [(False, 10), (True, 200)])
def test_over_images_covers_the_mean_difference_of_other_images(skewed, n):
    stream = np.random.default_rng(1)
    draws = stream.exponential(1.0, (TRIALS, n)) - 1.0 if skewed else stream.normal(0.0, 2.0, (TRIALS, n))
    assert coverage([over_images(draw + 0.3) for draw in draws], 0.3) == pytest.approx(0.95, abs=0.012)


def test_over_seeds_covers_the_difference_of_configurations():
    stream = np.random.default_rng(2)
    found = [over_seeds(stream.normal(1.0, 1.0, 3), stream.normal(0.0, 3.0, 5)) for _ in range(TRIALS)]
    assert coverage(found, 1.0) == pytest.approx(0.95, abs=0.012)


def test_an_interval_over_images_says_nothing_about_another_seed():
    """Seeds move a run by sd 1, images by little: the interval over images misses, the one over seeds does not."""
    stream = np.random.default_rng(3)
    images, seeds = [], []
    for _ in range(600):
        a, b = stream.normal(0.0, 1.0, (2, 3))  # three seeds a group, no true difference
        noise_N = stream.normal(0.0, 1.0, 400)
        images.append(over_images(a.mean() - b.mean() + noise_N))
        seeds.append(over_seeds(a, b))
    assert coverage(images, 0.0) < 0.25
    assert coverage(seeds, 0.0) > 0.93
