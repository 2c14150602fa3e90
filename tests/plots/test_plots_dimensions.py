"""Latent dimensions: the bars sum to the KL, names go with their bars."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from nelbo.plots import PlotError, kl_heatmap, kl_per_dimension, posterior_statistics
from nelbo.plots.style import BLUE, GREY

TITLE = "fashion-mlp-s0 · best · test"


def names_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("count", [1, 2, 32, 128])
def test_bars_are_sorted_and_sum_to_the_total(count):
    kl = np.random.default_rng(0).gamma(0.5, 1.0, count)
    figure = kl_per_dimension(kl, title=TITLE, active=kl > 0.01)
    figure.canvas.draw()
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == sorted(kl, reverse=True)
    assert sum(heights) == pytest.approx(kl.sum())
    assert figure.legends[0].get_title().get_text() == f"sum {kl.sum():.2f} nats"
    assert figure.get_suptitle().replace("\n", " ") == TITLE


def test_active_dimensions_are_counted_coloured_and_named():
    figure = kl_per_dimension([0.001, 2.0, 0.5], title=TITLE, active=[False, True, True])
    ax = figure.axes[0]
    assert names_of(figure) == ["active: 2", "inactive: 1"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["z1", "z2", "z0"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [BLUE, BLUE, GREY]


def test_activity_is_the_callers_measure():
    figure = kl_per_dimension([3.0, 2.0], title=TITLE, active=[False, True])
    assert names_of(figure) == ["active: 1", "inactive: 1"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in figure.axes[0].patches] == [GREY, BLUE]


def test_kl_that_is_not_finite_is_said():
    figure = kl_per_dimension([1.0, np.nan, np.inf], title=TITLE, active=[True] * 3)
    assert figure.get_supxlabel() == "2 of 3 dimensions have a KL that is not finite."
    with pytest.raises(PlotError, match="flags"):
        kl_per_dimension([1.0, 2.0], title=TITLE, active=[True])
    with pytest.raises(PlotError, match="at least one"):
        kl_per_dimension([], title=TITLE, active=[])


@pytest.mark.parametrize("count", [1, 5, 128])
def test_heatmap_orders_dimensions_by_the_last_epoch(count):
    kl = np.random.default_rng(0).random((3, count))
    figure = kl_heatmap(kl, [1, 10, 20], title=TITLE)
    figure.canvas.draw()
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert drawn.shape == (count, 3)
    assert (np.diff(drawn[:, -1]) <= 0).all()
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(kl.T, axis=0))
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1", "10", "20"]


def test_heatmap_accepts_gaps_and_refuses_wrong_shapes():
    kl = np.ones((2, 3))
    kl[0, 1] = np.nan
    kl_heatmap(kl, [1, 2], title=TITLE).canvas.draw()
    kl_heatmap(np.full((1, 2), np.nan), [1], title=TITLE).canvas.draw()
    with pytest.raises(PlotError, match="2 epochs"):
        kl_heatmap(np.ones((3, 4)), [1, 2], title=TITLE)


@pytest.mark.parametrize("count", [1, 4, 64])
def test_posterior_statistics_place_each_dimension(count):
    rng = np.random.default_rng(0)
    scale = np.linspace(0, 1, count)
    mean, std = rng.normal(0, 1, (500, count)) * scale, np.tile(np.sqrt(1 - scale**2), (500, 1))
    figure = posterior_statistics(mean, std, title=TITLE)
    figure.canvas.draw()
    dots = np.asarray(figure.axes[2].collections[0].get_offsets())
    np.testing.assert_allclose(dots, np.stack([mean.std(0), std[0]], axis=1))
    density = sum(bar.get_height() * bar.get_width() for bar in figure.axes[0].patches)
    assert density == pytest.approx(1.0)


def test_dimensions_at_one_place_share_one_text():
    mean, std = np.zeros((10, 4)), np.ones((10, 4))
    mean[::2, 2], std[:, 2] = 2.0, 0.1
    figure = posterior_statistics(mean, std, title=TITLE)
    texts = [text.get_text() for text in figure.axes[2].texts]
    assert [text.replace("\n", " ") for text in texts] == ["z0, z1, z3", "z2"]


def test_posterior_statistics_leave_out_what_is_not_finite():
    mean, std = np.zeros((4, 2)), np.ones((4, 2))
    mean[0, 0], std[:, 1] = np.nan, np.inf
    assert (
        posterior_statistics(mean, std, title=TITLE).get_supxlabel()
        == "5 of 8 values are not finite and left out."
    )
    with pytest.raises(PlotError, match="no value is finite"):
        posterior_statistics(mean * np.nan, std, title=TITLE)
    with pytest.raises(PlotError, match=r"\(N, Z\)"):
        posterior_statistics(np.zeros(3), np.zeros(3), title=TITLE)
