"""The factor images: what is drawn, and factors in arrays of one's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nelbo.data import Data, Images, from_object
from nelbo.data.shapes import COLOURS, FACTORS, FORMS, PLACES, RADII, TEST, TURNS, Shapes, draw
from nelbo.data.survey import survey
from nelbo.errors import ConfigError, DataError
from nelbo.training.api import shape_without_loading
from nelbo.training.recipe import Recipe

GRID = tuple(FACTORS.values())
INDEX_NF = np.indices(GRID).reshape(len(GRID), -1).T


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Every image, uint8 (N, 3, 32, 32)."""
    return draw(32)


@pytest.fixture(scope="module")
def splits():
    return Data(source="shapes").load()


# --- pixels -----------------------------------------------------------------------------------


def test_every_combination_is_there_once_and_no_two_look_alike(images):
    assert images.shape == (24_576, 3, 32, 32)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(len(images), -1).view("V3072").ravel())) == len(images)


def test_a_form_lies_where_its_factors_say_and_wholly_inside(images):
    cover_NHW = images.max(1).astype(float) / 255
    mass_N = cover_NHW.sum((1, 2))
    at = np.arange(32) + 0.5
    x_N, y_N = (cover_NHW.sum(1) @ at) / mass_N, (cover_NHW.sum(2) @ at) / mass_N
    np.testing.assert_allclose(x_N, 9 + 2 * INDEX_NF[:, 4], atol=0.05)
    np.testing.assert_allclose(y_N, 9 + 2 * INDEX_NF[:, 5], atol=0.05)


def test_the_area_is_the_size_whatever_the_form_and_orientation(images):
    mass_N = images.max(1).astype(float).sum((1, 2)) / 255
    area_N = math.pi / 2 * (2 * np.array(RADII)[INDEX_NF[:, 2]]) ** 2
    np.testing.assert_allclose(mass_N, area_N, rtol=0.02)


def test_a_colour_is_its_channels(images):
    lit_NC = images.any((2, 3))
    np.testing.assert_array_equal(lit_NC, np.array(list(COLOURS.values()), bool)[INDEX_NF[:, 1]])
    cover_NHW = images.max(1)
    for channel in range(3):
        lit = lit_NC[:, channel]
        np.testing.assert_array_equal(images[lit, channel], cover_NHW[lit])


@pytest.mark.parametrize("side", [32, 64])
def test_orientations_differ_the_more_the_further_apart_they_are(side):
    grid = draw(side).reshape(*GRID, 3, side, side)[:, 1, :, :, 3, 3, 1].astype(float) / 255
    for form in range(len(FORMS)):
        for size in range(len(RADII)):
            turned = grid[form, size]
            apart = ((turned[:, None] - turned[None]) ** 2).sum((2, 3))
            assert all((np.diff(apart[i, i:]) > 0).all() for i in range(len(TURNS)))


def test_the_long_axis_has_the_angle_of_the_orientation(images):
    grid = images.reshape(*GRID, 3, 32, 32)[:, 1, -1, :, 3, 3, 1].astype(float)
    y, x = np.mgrid[:32, :32] + 0.5
    for form in range(len(FORMS)):
        for turn, degrees in enumerate(TURNS):
            p = grid[form, turn] / grid[form, turn].sum()
            right, up = x - (p * x).sum(), -(y - (p * y).sum())
            across, both, along = (p * right**2).sum(), (p * right * up).sum(), (p * up**2).sum()
            found = math.degrees(0.5 * math.atan2(2 * both, across - along))
            assert found == pytest.approx(degrees, abs=1.0), (form, degrees)


def test_a_larger_side_is_the_same_picture(images):
    picked = slice(0, None, 997)
    larger = draw(64)[picked].reshape(-1, 3, 32, 2, 32, 2).mean((3, 5))
    assert np.abs(larger - images[picked]).max() <= 16, "coverage is right to a sixteenth"


# --- the data set -----------------------------------------------------------------------------


def test_the_set_has_its_facts(splits):
    assert (len(splits.train), len(splits.test)) == (20_480, TEST)
    assert splits.shape == Shapes.shape == (3, 32, 32)
    assert Shapes.images == len(splits.train) + len(splits.test) == math.prod(GRID)
    assert (splits.pixels, splits.range) == ("grey", (0.0, 1.0))
    assert splits.train.factor_names == tuple(FACTORS)
    assert splits.test.class_names == tuple(FORMS)
    assert len(PLACES) == GRID[4] == GRID[5]
    assert len(TURNS) == GRID[3]


def test_train_and_test_are_all_images_and_share_none(splits, images):
    factors_NF = torch.cat([splits.train.factors_NF, splits.test.factors_NF]).numpy()
    flat_N = np.ravel_multi_index(tuple(factors_NF.T), GRID)
    np.testing.assert_array_equal(np.sort(flat_N), np.arange(len(images)))
    pixels_NCHW = torch.cat([splits.train.pixels_NCHW, splits.test.pixels_NCHW]).numpy()
    np.testing.assert_array_equal(pixels_NCHW, images[flat_N])
    assert torch.equal(splits.test.labels_N, splits.test.factors_NF[:, 0])


def test_the_same_images_and_split_on_every_machine_and_every_call(splits):
    hashes = [images.hash()[:16] for images in (splits.train, splits.test)]
    assert hashes == ["064ef74ff97393ba", "f8c36254935ad4b4"]
    assert Data(source="shapes").load().hash == splits.hash
    assert Data(source="shapes", split_seed=1).load().test.hash() == splits.test.hash()


def test_every_value_of_every_factor_is_in_the_test_split(splits):
    for k, values in enumerate(GRID):
        count = torch.bincount(splits.test.factors_NF[:, k])
        assert len(count) == values
        assert count.min() > 0.85 * TEST / values


def test_the_side_is_named_after_a_colon():
    data = Data(source="shapes:48")
    assert survey(data).shape == data.load().shape == (3, 48, 48)
    assert shape_without_loading(Recipe(data=Data(source="shapes:64", size=20))) == (3, 20, 20)
    for side in ("33", "16", "256", "large"):
        with pytest.raises(ConfigError, match=f"shapes:{side}.*\n.*side: "):
            Data(source=f"shapes:{side}").check_source()


# --- factors go with their images -------------------------------------------------------------


def test_factors_follow_selection_new_pixels_validation_and_resizing(splits):
    index = torch.tensor([5, 2, 900])
    assert torch.equal(splits.test.select(index).factors_NF, splits.test.factors_NF[index])
    other = splits.test.with_pixels(torch.zeros(TEST, 1, 2, 2, dtype=torch.uint8))
    assert torch.equal(other.factors_NF, splits.test.factors_NF)
    small = Data(source="shapes", size=16, validation=100, transforms=("binarise",)).load()
    assert small.validation.factors_NF.shape == (100, 6)
    assert small.train.factor_names == splits.train.factor_names


def test_factors_enter_the_hash_and_their_absence_leaves_it_alone():
    pixels = torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4)
    plain = Images(pixels, torch.tensor([0, 1, 2]))
    assert plain.hash() == "ae5c8c61cfc85f30af81045cf6a8a5cea019fa2616216d1c3c9e032e1d1d43cf"
    factors = [torch.tensor(rows) for rows in ([[0], [1], [2]], [[0], [2], [1]], [[0, 0], [1, 1], [2, 2]])]
    hashes = {Images(pixels, plain.labels_N, None, f, tuple("ab"[: f.shape[1]])).hash() for f in factors}
    assert len(hashes | {plain.hash()}) == 4


@pytest.mark.parametrize(
    ("factors", "names", "message"),
    [
        (None, ("a",), "belong together"),
        (torch.zeros(3, 1, dtype=torch.int64), None, "belong together"),
        (torch.zeros(2, 1, dtype=torch.int64), ("a",), r"shape \(3, F\).*\(2, 1\)"),
        (torch.zeros(3, 1), ("a",), "int64"),
        (torch.zeros(3, dtype=torch.int64), ("a",), "shape"),
        (torch.zeros(3, 2, dtype=torch.int64), ("a",), "2 factors need as many different names, not a"),
        (torch.zeros(3, 2, dtype=torch.int64), ("a", "a"), "different names, not a, a"),
        (torch.zeros(3, 0, dtype=torch.int64), (), "not none"),
    ],
)
def test_factors_that_do_not_fit_are_refused(factors, names, message):
    pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(DataError, match=message):
        Images(pixels, factors_NF=factors, factor_names=names)


# --- factors of one's own ---------------------------------------------------------------------

GREY = np.random.RandomState(0).randint(0, 256, (10, 5, 6)).astype(np.uint8)
OWN = np.stack([np.arange(10) % 2, np.arange(10) // 2], axis=1)


def test_an_npz_may_have_factors(tmp_path):
    np.savez(tmp_path / "x.npz", images=GREY, factors=OWN, factor_names=np.array(["hue", "size"]))
    splits = Data(source=str(tmp_path / "x.npz")).load()
    assert splits.train.factor_names == ("hue", "size")
    for split in (splits.train, splits.test):
        for pixels, factors in zip(split.pixels_NCHW[:, 0].numpy(), split.factors_NF.tolist(), strict=True):
            assert factors == OWN[np.flatnonzero((pixels == GREY).all((1, 2)))[0]].tolist()
    np.savez(tmp_path / "y.npz", x_train=GREY, factors=OWN, x_test=GREY[:4], test_factors=OWN[:4])
    loaded = from_object(dict(np.load(tmp_path / "y.npz")))
    assert loaded.test.factors_NF.tolist() == OWN[:4].tolist()
    assert loaded.train.factor_names == ("factor 0", "factor 1")


def test_the_layout_of_dsprites_is_read_without_its_pickled_part(tmp_path):
    about = np.array([{"latents_names": ("a", "b")}], object)
    np.savez(
        tmp_path / "d.npz", imgs=GREY > 99, latents_classes=OWN, latents_values=OWN * 0.5, metadata=about
    )
    splits = Data(source=str(tmp_path / "d.npz")).load()
    assert splits.pixels == "binary"
    assert splits.train.factors_NF.shape == (8, 2)
    np.savez(tmp_path / "o.npz", imgs=about)
    with pytest.raises(DataError, match=r"o\.npz\[imgs\]: holds Python objects, which are never unpickled"):
        Data(source=str(tmp_path / "o.npz")).load()


@pytest.mark.parametrize(
    ("factors", "names", "message"),
    [
        (
            OWN * 0.5,
            ["a", "b"],
            r"x\.npz\[factors\]: float64 of shape \(10, 2\) for 10 images.*return_inverse",
        ),
        (OWN[:9], ["a", "b"], r"\(9, 2\) for 10 images; expected whole numbers \(10, F\)"),
        (OWN[:, 0], ["a"], r"\(10,\) for 10 images"),
        (OWN, ["a"], r"x\.npz\[factor_names\]: 2 factors need as many different names, not a"),
    ],
)
def test_wrong_factors_are_named(tmp_path, factors, names, message):
    np.savez(tmp_path / "x.npz", images=GREY, factors=factors, factor_names=np.array(names))
    with pytest.raises(DataError, match=message):
        Data(source=str(tmp_path / "x.npz")).load()
