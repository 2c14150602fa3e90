from __future__ import annotations

import matplotlib.text
import numpy as np
import pytest

from nelbo import plots
from nelbo.plots import PlotError


def words(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_every_cell_says_its_share_and_is_as_dark():
    share = np.array([[0.9, 0.0], [0.25, 0.5], [0.0, 1.0]])
    figure = plots.factor_table(
        share, title="a title", dimensions=["z0", "z4", "z7"], factors=["form", "hue"]
    )
    found = words(figure)
    for word in ("a title", "z0", "z4", "z7", "form", "hue", "0.90", "0.25", "0.50", "1.00"):
        assert word in found, word
    (picture,) = figure.axes[0].images
    np.testing.assert_array_equal(picture.get_array(), share)
    assert picture.get_clim() == (0.0, 1.0), "two runs have one scale"


def test_many_dimensions_are_drawn_without_numbers():
    figure = plots.factor_table(
        np.zeros((90, 2)), title="t", dimensions=[f"z{i}" for i in range(90)], factors=["a", "b"]
    )
    assert "0.00" not in words(figure)
    assert "90 dimensions" in words(figure)
    assert figure.get_figheight() < 14


@pytest.mark.parametrize("share", [np.zeros((2, 3)), np.zeros((0, 2)), np.full((1, 2), np.nan)])
def test_what_is_no_table_is_refused(share):
    with pytest.raises(PlotError, match="factors"):
        plots.factor_table(share, title="t", dimensions=["z0"][: len(share)], factors=["a", "b"])
