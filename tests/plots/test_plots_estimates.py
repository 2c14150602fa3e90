"""The curve over K: what is drawn is what was given."""

from __future__ import annotations

import pytest

from nelbo.plots import PlotError, estimate_curve


def test_the_curve_the_bound_and_the_ends_are_drawn():
    figure = estimate_curve([1, 10, 100], [90.0, 85.5, 84.25], title="t", nelbo=91.0, notes=["small print"])
    figure.canvas.draw()
    (ax,) = figure.axes
    curve, bound = ax.lines
    assert list(curve.get_xdata()) == [1, 10, 100]
    assert list(curve.get_ydata()) == [90.0, 85.5, 84.25]
    assert list(bound.get_ydata()) == [91.0, 91.0]
    assert [text.get_text() for text in ax.texts] == ["90.00", "84.25"]
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "importance-weighted estimate",
        "NELBO",
    ]


def test_one_point_is_enough_and_unequal_lengths_are_refused():
    estimate_curve([1], [90.0], title="t").canvas.draw()
    with pytest.raises(PlotError, match="as many values"):
        estimate_curve([1, 2], [90.0], title="t")
    with pytest.raises(PlotError):
        estimate_curve([], [], title="t")
