"""Figures of images: the pixels that are shown, the labels beside them, sizes that fit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from nelbo.plots import PlotError, image_grid, manifold, montage, rows, side_by_side, to_uint8

TITLE = "fashion-mlp-s0 · best · test"


def images(n, height=6, width=4, channels=1, seed=0):
    return np.random.default_rng(seed).random((n, height, width, channels))


def shown(figure, i=0):
    """The bytes that an axes draws, with a channel axis."""
    array = np.asarray(figure.axes[i].images[0].get_array())
    return array if array.ndim == 3 else array[..., None]


def texts(figure, i=0):
    return [text.get_text() for text in figure.axes[i].texts]


def check_layout(figure: Figure):
    """Nothing is cut off, and image pixels are squares of a whole number of screen pixels."""
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    box = figure.get_tightbbox(figure.canvas.get_renderer()).transformed(figure.dpi_scale_trans)
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width + 1
    assert box.y1 <= height + 1
    for i, ax in enumerate(figure.axes):
        axes, (high, wide) = ax.get_window_extent(), shown(figure, i).shape[:2]
        assert axes.width / wide == pytest.approx(axes.height / high, rel=1e-6)
        assert axes.width / wide == pytest.approx(round(axes.width / wide), abs=1e-6)
        assert ax.images[0].get_interpolation() == "nearest"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_image_grid_shows_the_montage(n, channels):
    x = images(n, channels=channels)
    figure = image_grid(x, title=TITLE, columns=4)
    np.testing.assert_array_equal(shown(figure), to_uint8(montage(x, columns=4)))
    assert figure.get_suptitle().replace("\n", " ") == TITLE
    assert len(figure.axes[0].get_xticks()) == 0
    check_layout(figure)


@pytest.mark.parametrize("columns", [None, 2])
def test_labels_stand_under_their_tiles(columns):
    x = images(5)
    figure = image_grid(x, title=TITLE, labels=["a", "b", "$c_1$", "_d", "e"], columns=columns)
    assert texts(figure) == ["a", "b", "$c_1$", "_d", "e"]
    check_layout(figure)
    picture = shown(figure)
    for i, text in enumerate(figure.axes[0].texts):
        across, bottom = text.xy
        tile = picture[int(bottom) - 6 : int(bottom), int(across) - 2 : int(across) + 2]
        np.testing.assert_array_equal(tile, to_uint8(x[i]))


def test_long_labels_are_shortened_rather_than_written_over_each_other():
    figure = image_grid(images(6), title=TITLE, labels=["a name much longer than its tile is wide"] * 6)
    assert all(text.endswith("…") for text in texts(figure))
    check_layout(figure)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (64, 48), (218, 178)])
def test_figures_of_any_image_size_fit_a_page(size):
    figure = image_grid(images(24, *size), title=TITLE)
    check_layout(figure)
    assert 2 < max(figure.get_size_inches()) < 12.5


def test_rows_place_images_and_labels():
    top, bottom = images(4), images(3, channels=3, seed=1)
    names = ["input", "reconstruction"]
    figure = rows([top, bottom], title=TITLE, row_labels=names, column_labels=list("abcd"))
    picture = shown(figure)
    assert picture.shape == (13, 19, 3)
    np.testing.assert_array_equal(picture[:6, 5:9], np.repeat(to_uint8(top[1]), 3, -1))
    np.testing.assert_array_equal(picture[7:, 10:14], to_uint8(bottom[2]))
    assert (picture[7:, 15:] == 255).all()
    assert texts(figure) == ["input", "reconstruction", "a", "b", "c", "d"]
    check_layout(figure)


@pytest.mark.parametrize(
    ("apart", "lefts"), [("none", [0, 5, 10]), ("first", [0, 8, 13]), ("ends", [0, 8, 16])]
)
def test_columns_set_apart(apart, lefts):
    x = images(3)
    picture = shown(rows([x], title=TITLE, row_labels=["z3"], apart=apart))
    assert picture.shape[1] == lefts[-1] + 4
    for left, image in zip(lefts, x, strict=True):
        np.testing.assert_array_equal(picture[:, left : left + 4], to_uint8(image))


def test_rows_refuse_what_does_not_fit_together():
    with pytest.raises(PlotError, match="row labels"):
        rows([images(2)], title=TITLE, row_labels=["a", "b"])
    with pytest.raises(PlotError, match="one size"):
        rows([images(2), images(2, 5, 5)], title=TITLE, row_labels=["a", "b"])
    with pytest.raises(PlotError, match="2 columns need"):
        rows([images(2)], title=TITLE, row_labels=["a"], column_labels=["x"])
    with pytest.raises(PlotError, match="3 images need 3 labels"):
        image_grid(images(3), title=TITLE, labels=["a"])


def test_many_rows_stay_on_the_page():
    figure = rows([images(11, 28, 28)] * 32, title=TITLE, row_labels=[f"z{i}" for i in range(32)])
    check_layout(figure)
    assert figure.get_size_inches()[1] < 12.5


@pytest.mark.parametrize("kind", ["images", "rows"])
def test_side_by_side_draws_left_at_the_left(kind):
    x, y = images(4, 6, 6), images(4, 6, 6, seed=1)
    sides = {"images": (x, y), "rows": ([x[:2], x[2:]], [y[:2], y[2:]])}
    labels = ["input", "output"] if kind == "rows" else None
    figure = side_by_side(*sides[kind], titles=("first", "best"), title=TITLE, row_labels=labels)
    for i, (name, tiles) in enumerate([("first", x), ("best", y)]):
        np.testing.assert_array_equal(shown(figure, i), to_uint8(montage(tiles, columns=2)))
        assert name in texts(figure, i)
    left, right = (ax.get_window_extent() for ax in figure.axes)
    assert left.x1 < right.x0
    assert ("input" in texts(figure, 0)) == (kind == "rows")
    check_layout(figure)


@pytest.mark.parametrize("channels", [1, 3])
def test_manifold_has_z1_upwards_and_z0_to_the_right(channels):
    z1, z0 = np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.3, 0.6, 0.9], indexing="ij")
    tiles = np.broadcast_to((z1 / 2 + z0 / 3)[..., None, None, None], (3, 4, 5, 2, channels))
    figure = manifold(tiles, title=TITLE, extent=(-3, 3, -2, 2))
    picture, (ax,) = shown(figure), figure.axes
    assert picture.shape == (15, 8, channels)
    assert ax.images[0].origin == "upper"
    np.testing.assert_array_equal(picture[0, :2], to_uint8(tiles[2, 0])[0])  # top left: z1 last, z0 first
    np.testing.assert_array_equal(picture[-1, -1], to_uint8(tiles[0, -1])[0, 0])
    # The middles of the outer tiles are the extent; the axes rise to the right and upwards.
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, right) == pytest.approx((-4, 4))
    assert (bottom, top) == pytest.approx((-3, 3))
    assert ax.get_ylim() == pytest.approx((-3, 3))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z0", "z1")
    check_layout(figure)


def test_manifold_of_one_tile_and_wrong_shape():
    manifold(np.zeros((1, 1, 4, 4, 1)), title=TITLE, extent=(0, 0, 0, 0)).canvas.draw()
    with pytest.raises(PlotError, match="G, G"):
        manifold(np.zeros((4, 4, 4, 1)), title=TITLE, extent=(-1, 1, -1, 1))


def test_long_titles_are_wrapped_and_written_as_they_are():
    title = "a title with $signs$ of a run-with-a-long-name_s0 · best · test · and even more than that"
    figure = image_grid(images(1), title=title)
    assert figure.get_suptitle().replace("\n", " ") == title
    assert "\n" in figure.get_suptitle()
    check_layout(figure)


def test_plots_load_neither_pyplot_nor_torch_nor_scikit_learn():
    heavy = ("torch", "sklearn", "matplotlib.pyplot")
    code = f"import sys, nelbo.plots; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
