"""Training curves: what is drawn is what was given, gaps and accidents included."""

from __future__ import annotations

import numpy as np
import pytest

from nelbo.plots import PlotError, epoch_curves, step_curve
from nelbo.plots.curves import running_median

TITLE = "curves · fashion-mlp-s0"
EPOCHS = [1, 2, 3, 4]
SERIES = {
    "reconstruction": {"train": [5.0, 4.0, 3.0, 2.0], "validation": [6.0, None, 4.0, float("nan")]},
    "KL": {"train": [1.0, 2.0, 3.0, 4.0]},
}


def lines(ax):
    return [line for line in ax.lines if len(line.get_xdata()) == len(EPOCHS)]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def notes_of(figure):
    return figure.get_supxlabel().replace("\n", " ")


def test_epoch_curves_draw_every_value_and_leave_gaps():
    figure = epoch_curves(EPOCHS, SERIES, title=TITLE, best_epoch=3, notes=["not a likelihood"])
    figure.canvas.draw()
    first, second = figure.axes
    train, validation = lines(first)
    assert list(train.get_ydata()) == [5, 4, 3, 2]
    np.testing.assert_array_equal(validation.get_ydata(), [6, np.nan, 4, np.nan])
    assert len(lines(second)) == 1
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["reconstruction", "KL"]
    assert legend_of(figure) == ["train", "validation", "best: epoch 3"]
    assert figure.get_suptitle() == TITLE
    assert notes_of(figure) == "not a likelihood"
    for ax in figure.axes:
        assert any(list(line.get_xdata()) == [3, 3] for line in ax.lines)


def test_best_epoch_is_marked_on_the_validation_line():
    figure = epoch_curves(EPOCHS, SERIES, title=TITLE, best_epoch=3)
    points = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in figure.axes[0].lines
        if len(line.get_xdata()) == 1
    ]
    assert points == [(3, 4.0)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_one_epoch_without_validation_shows_markers(count):
    series = {f"quantity {i}": {"train": [1.0 + i]} for i in range(count)}
    figure = epoch_curves([1], series, title=TITLE, best_epoch=1)
    figure.canvas.draw()
    visible = [ax for ax in figure.axes if ax.get_visible()]
    assert len(visible) == count
    assert all(ax.lines[0].get_marker() == "o" for ax in visible)


def test_a_value_between_gaps_is_marked_in_a_long_line():
    y = [1.0] * 10 + [None, 2.0, None] + [1.0] * 10
    figure = epoch_curves(range(1, 24), {"total": {"train": y}}, title=TITLE)
    assert figure.axes[0].lines[0].get_markevery() == [11]


def test_a_huge_first_epoch_is_cut_and_written_down():
    y = [543.3] + [240.0 - 0.2 * i for i in range(49)]
    figure = epoch_curves(range(1, 51), {"total": {"train": y}}, title=TITLE)
    (ax,) = figure.axes
    assert ax.get_ylim()[1] < 300
    assert [text.get_text() for text in ax.texts] == ["↑ 543.3 in epoch 1"]
    level = epoch_curves(range(1, 51), {"total": {"train": [240.0] * 50}}, title=TITLE)
    assert not level.axes[0].texts


def test_epoch_curves_refuse_wrong_lengths_and_accept_nothing_finite():
    with pytest.raises(PlotError, match="KL, train: 2 epochs need 2 values, got 1"):
        epoch_curves([1, 2], {"KL": {"train": [1.0]}}, title=TITLE)
    with pytest.raises(PlotError):
        epoch_curves([], {}, title=TITLE)
    epoch_curves([1, 2], {"KL": {"train": [None, None]}, "empty": {}}, title=TITLE).canvas.draw()


def test_step_curve_draws_every_step_and_the_median():
    y = np.random.default_rng(0).normal(200, 5, 2500)
    figure = step_curve(y, title=TITLE)
    raw, median = figure.axes[0].lines
    np.testing.assert_array_equal(raw.get_ydata(), y)
    assert (raw.get_xdata()[0], raw.get_xdata()[-1]) == (1, 2500)
    assert median.get_ydata()[0] == pytest.approx(np.median(y[:25]))
    assert median.get_xdata()[0] == pytest.approx(13)
    assert notes_of(figure) == ""


def test_spikes_are_left_out_and_counted_but_a_descent_is_not():
    y = 200 + 340 * np.exp(-np.arange(5000) / 200)
    assert step_curve(y, title=TITLE).axes[0].get_ylim()[1] > 540
    y[1000] = 1e6  # one bad batch
    figure = step_curve(y, title=TITLE)
    assert 500 < figure.axes[0].get_ylim()[1] < 800
    assert notes_of(figure) == "1 of 5000 steps lie beyond the axis (farthest: 1e+06 at step 1001)."


def test_wide_ranges_are_logarithmic_and_negative_losses_are_not():
    y = np.geomspace(1e4, 1, 1000)
    assert step_curve(y, title=TITLE).axes[0].get_yscale() == "log"
    assert step_curve(-y, title=TITLE).axes[0].get_yscale() == "linear"


def test_losses_that_are_not_finite_are_counted_and_marked():
    y = np.full(300, 3.0)
    y[[4, 9]] = np.nan, np.inf
    figure = step_curve(y, title=TITLE)
    figure.canvas.draw()
    assert notes_of(figure) == "2 of 300 losses are not finite (the first at step 5)."
    assert list(figure.axes[0].lines[-1].get_xdata()) == [5, 10]


@pytest.mark.parametrize("losses", [[1.0], [np.nan], [2.0, 1.0], [0.0] * 50])
def test_short_and_flat_step_curves(losses):
    figure = step_curve(losses, title=TITLE)
    figure.canvas.draw()
    raw = figure.axes[0].lines[0]
    np.testing.assert_array_equal(raw.get_xdata(), np.arange(1, len(losses) + 1))
    np.testing.assert_array_equal(raw.get_ydata(), losses)


def test_no_losses_are_refused():
    with pytest.raises(PlotError, match="at least one"):
        step_curve([], title=TITLE)


def test_running_median_is_the_median_of_each_window():
    y = np.random.default_rng(1).random(40)
    centres, medians = running_median(y, 7)
    assert centres[0] == 3
    np.testing.assert_allclose(medians, [np.median(y[i : i + 7]) for i in range(34)])
    assert len(running_median(y, 7, points=5)[0]) == 5
