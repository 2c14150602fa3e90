"""Image files given to a trained run are prepared as its own images were; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.errors import DataError
from nelbo.pictures import export
from nelbo.pictures.view import View
from nelbo.training import api

RNG = np.random.default_rng(0)


def levels(high, *shape, dtype=np.uint8):
    return RNG.integers(0, high, shape).astype(dtype)


@pytest.fixture
def trained(tmp_path, tiny_recipe, monkeypatch):
    """(images or a folder's arrays, overrides) -> a view of the training split of a run of one epoch."""
    monkeypatch.setenv("NELBO_DATA", str(tmp_path / "cache"))

    def train(images, overrides=None, ending="png", data=None):
        (tmp_path / "in").mkdir(exist_ok=True)
        for i, image in enumerate(images):
            image = image if isinstance(image, Image.Image) else Image.fromarray(image)
            image.save(tmp_path / "in" / f"{i:02}.{ending}")
        source = {} if data is not None else {"data": str(tmp_path / "in")}
        recipe = tiny_recipe(
            {"epochs": 1, "data.validation": 0, "data.test": 3, **source, **(overrides or {})}
        )
        run = api.train(recipe, data=data, runs=tmp_path / "runs", name="run", device="cpu")
        return View.open(run, split="train", device="cpu", data=data)

    return train


FOLDERS = {
    "8 bits": (levels(256, 20, 8, 8), {}, "png"),
    "a range": (levels(17, 20, 8, 8), {"data.range": [0, 16]}, "png"),
    "a range and a size": (levels(17, 20, 16, 16), {"data.range": [0, 16], "data.size": 8}, "png"),
    "16 bits": (levels(65536, 20, 8, 8, dtype=np.uint16), {}, "png"),
    "12 bits": (levels(4096, 20, 8, 8, dtype=np.uint16), {"data.range": [0, 4095]}, "tif"),
    "signed": (levels(1400, 20, 8, 8, dtype=np.int32) - 1000, {"data.range": [-1000, 400]}, "tif"),
    "floats": (RNG.normal(size=(20, 8, 8)).astype(np.float32), {"model.likelihood": "gaussian"}, "tif"),
    "floats with a range": (
        RNG.uniform(-3, 3, (20, 8, 8)).astype(np.float32),
        {"data.range": [-3, 3]},
        "tif",
    ),
    "masks": (levels(2, 20, 8, 8), {}, "png"),
    "binarised": (levels(256, 20, 8, 8), {"data.transforms": "binarise"}, "png"),
    "kept alpha": (levels(256, 20, 8, 8, 4), {"data.alpha": "keep"}, "png"),
    "alpha on black": (levels(256, 20, 8, 8, 4), {"data.alpha": "black"}, "png"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_file_of_the_training_split_is_its_image(trained, tmp_path, kind):
    view = trained(*FOLDERS[kind])
    for at, name in enumerate(view.splits.train.names[:3]):
        x_CHW = export.from_file(view, tmp_path / "in" / name)
        assert torch.equal(x_CHW, view.images_at(at)), name


def test_channels_are_named(trained, tmp_path):
    view = trained([], data=levels(256, 20, 8, 8, 4))
    Image.fromarray(levels(256, 8, 8, 4)).save(tmp_path / "alpha.png")
    assert export.from_file(view, tmp_path / "alpha.png").shape == (4, 8, 8)
    Image.fromarray(levels(256, 8, 8, 3)).save(tmp_path / "plain.png")
    with pytest.raises(
        DataError, match=r"plain\.png has 3 channels, but run was trained on images of 4 channels"
    ):
        export.from_file(view, tmp_path / "plain.png")


def test_more_channels_than_a_file_has_are_named(trained, tmp_path):
    view = trained([], data=torch.from_numpy(levels(256, 20, 5, 8, 8)))
    Image.fromarray(levels(256, 8, 8)).save(tmp_path / "grey.png")
    with pytest.raises(
        DataError, match=r"grey\.png has 1 channel, but run was trained on images of 5 channels"
    ):
        export.from_file(view, tmp_path / "grey.png")


def test_colour_has_no_place_among_grey_images_but_grey_written_as_colour_has(trained, tmp_path):
    view = trained(levels(256, 20, 8, 8))
    with Image.open(tmp_path / "in" / view.splits.train.names[0]) as image:
        image.convert("RGB").save(tmp_path / "grey.png")
    assert torch.equal(export.from_file(view, tmp_path / "grey.png"), view.images_at(0))
    Image.fromarray(levels(256, 8, 8, 3)).save(tmp_path / "red.png")
    with pytest.raises(DataError, match=r"red\.png is in colour, but run was trained on grey images"):
        export.from_file(view, tmp_path / "red.png")


def test_whole_numbers_have_no_place_among_standardised_ones(trained, tmp_path):
    view = trained([], {"model.likelihood": "gaussian"}, data=RNG.normal(size=(20, 8, 8)).astype(np.float32))
    Image.fromarray(levels(256, 8, 8)).save(tmp_path / "grey.png")
    with pytest.raises(
        DataError, match=r"grey\.png holds 8-bit numbers, but run was trained on floating-point ones"
    ):
        export.from_file(view, tmp_path / "grey.png")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "map.tif")
    assert export.from_file(view, tmp_path / "map.tif").unique().tolist() == [0]


def test_floating_point_has_no_place_among_whole_numbers(trained, tmp_path):
    view = trained(levels(256, 20, 8, 8))
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "map.tif")
    with pytest.raises(DataError, match=r"map\.tif holds floating-point numbers"):
        export.from_file(view, tmp_path / "map.tif")
    Image.fromarray(levels(256, 5, 9)).save(tmp_path / "other.png")
    with pytest.raises(
        DataError, match=r"other\.png is 5 x 9 pixels, but run was trained on images of 8 x 8"
    ):
        export.from_file(view, tmp_path / "other.png")
