"""The rate-distortion plane: every run and mean where it belongs, and lines along which the NELBO is equal."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nelbo.plots import PlotError, rate_distortion
from nelbo.plots.style import class_colours

TITLE = "rate and distortion · best · test"
GROUPS = {"A: beta 1": [(5.0, 20.0), (6.0, 19.5), (5.5, 20.5)], "B: beta 4": [(2.0, 25.0)]}


def dots_of(ax):
    return [np.asarray(dots.get_offsets()) for dots in ax.collections]


def iso_lines_of(ax):
    return [np.stack(line.get_data(), axis=1) for line in ax.lines]


def test_runs_are_small_dots_and_a_groups_mean_is_large():
    figure = rate_distortion(GROUPS, title=TITLE)
    figure.canvas.draw()
    (ax,) = figure.axes
    runs, mean, single = dots_of(ax)
    np.testing.assert_array_equal(runs, GROUPS["A: beta 1"])
    np.testing.assert_allclose(mean, [np.mean(GROUPS["A: beta 1"], axis=0)])
    np.testing.assert_array_equal(single, GROUPS["B: beta 4"])
    sizes = [float(dots.get_sizes()[0]) for dots in ax.collections]
    assert sizes[0] < sizes[1] == sizes[2]
    assert figure.get_suptitle() == TITLE


def test_groups_are_told_apart_by_colour_and_by_the_letter_in_their_mark():
    figure = rate_distortion(GROUPS, title=TITLE, notes=["density of real pixels"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "A: beta 1 (3\N{NO-BREAK SPACE}runs)",
        "B: beta 4",
    ]
    handles = figure.legends[0].legend_handles
    assert [handle.get_color() for handle in handles] == class_colours(2)
    letters = {text.get_text(): text for text in figure.axes[0].texts if text.get_text().isalpha()}
    assert letters["A"].get_position() == pytest.approx((5.5, 20.0))
    assert letters["B"].get_position() == (2.0, 25.0)
    assert letters["A"].get_zorder() < letters["B"].get_zorder(), "a letter never lies over another mark"
    assert figure.get_supxlabel() == "density of real pixels"


def test_along_a_line_rate_plus_distortion_is_what_it_says():
    (ax,) = rate_distortion(GROUPS, title=TITLE).axes
    lines = iso_lines_of(ax)
    sums = [line.sum(1) for line in lines]
    assert len(lines) >= 3
    assert all(one == pytest.approx(one[0]) for one in sums)
    named = {
        float(text.get_text()): text.get_position()
        for text in ax.texts
        if re.match(r"[\d.]+$", text.get_text())
    }
    assert len(named) >= 3
    for nelbo, (rate, distortion) in named.items():
        assert rate + distortion == pytest.approx(nelbo)
        assert any(one[0] == pytest.approx(nelbo) for one in sums)


def test_every_point_is_inside_and_a_rate_below_zero_is_hardly_shown():
    groups = {"A": [(0.001, 25.0)], "B": [(30.0, 12.0)]}
    (ax,) = rate_distortion(groups, title=TITLE).axes
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for x, y in np.concatenate(dots_of(ax)):
        assert left < x < right
        assert bottom < y < top
    assert -2 < left < 0


@pytest.mark.parametrize(
    "groups", [{"A": [(5.0, 20.0)]}, {"A": [(0.0, 0.0)] * 2}, {"A": [(3.0, -900.0)], "B": [(4.0, -900.0)]}]
)
def test_one_point_equal_points_and_densities_are_drawn(groups):
    figure = rate_distortion(groups, title=TITLE)
    figure.canvas.draw()
    (ax,) = figure.axes
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    drawn = np.concatenate(dots_of(ax))
    for x, y in (point for points in groups.values() for point in points):
        assert (drawn == (x, y)).all(1).any()
        assert left < x < right
        assert bottom < y < top


def test_many_groups_and_long_names_are_drawn():
    groups = {f"{name}: {'very long setting ' * 4}": [(i, 50.0 - i)] for i, name in enumerate("ABCDEFGHIJKL")}
    figure = rate_distortion(groups, title=TITLE)
    figure.canvas.draw()
    assert (
        max(len(line) for text in figure.legends[0].get_texts() for line in text.get_text().split("\n")) <= 30
    )


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({}, "at least one run"),
        ({"A": []}, "A: expected"),
        ({"A": [(1.0, 2.0, 3.0)]}, r"A: expected .* got shape \(1, 3\)"),
        ({"A": [(1.0, float("nan"))]}, "A: a rate or a distortion is not finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(groups, says):
    with pytest.raises(PlotError, match=says):
        rate_distortion(groups, title=TITLE)
