"""Runs on a handful of images end well: no picture and no check asks for a spread that one image does not have."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nelbo import pictures
from nelbo.doctor import diagnose
from nelbo.pictures.view import NotApplicable, View
from nelbo.training import api


def test_one_test_image_is_enough(tiny_recipe, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8)).astype(np.uint8)
    recipe = tiny_recipe({"epochs": 1, "data.validation": 0})
    labels = np.array([0, 1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = api.train(recipe, data=(images, labels), runs=tmp_path, name="few", device="cpu")
        view = View.open(run, device="cpu", data=(images, labels))
        assert len(view) == 1
        with pytest.raises(NotApplicable, match="need three images; the test split has 1"):
            pictures.draw(view, ["manifold"], tmp_path / "figures")
        files, _ = pictures.draw(view, ["posterior", "class-means", "kl"], tmp_path / "figures")
        assert len(files) == 3
        diagnose(run, device="cpu", data=(images, labels))


def test_hundreds_of_classes_are_no_heap_of_names(tmp_path):
    from nelbo.plots import scatter

    stream = np.random.default_rng(0)
    labels = np.arange(600) % 200
    names = [f"patient {i:05}" for i in range(200)]
    figure = scatter(stream.normal(size=(600, 2)), labels, title="t", class_names=names)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["200 classes by colour: too many for their names"]
    letters = scatter(
        stream.normal(size=(600, 2)), labels % 47, title="t", class_names=[chr(48 + i) for i in range(47)]
    )
    assert len(letters.axes[0].texts) == 47


@pytest.mark.parametrize(("validation", "split"), [(6, "validation"), (0, "train")])
def test_a_run_on_everything_is_measured_on_what_there_is(nelbo, tmp_path, validation, split):
    np.save(tmp_path / "all.npy", np.random.default_rng(0).integers(0, 256, (24, 8, 8)).astype(np.uint8))
    flags = ("--epochs", 1, "--latent-dim", 2, "--data.transforms", "none", "--device", "cpu", "--no-figures")
    shares = ("--data.test", 0, "--data.validation", validation)
    code, out, error = nelbo("train", "digits", "--data", "all.npy", *shares, *flags, "--name", "all")
    assert code == 0
    words = "training" if split == "train" else split
    assert f"no test split (data.test is 0): the model is measured on the {words} images" in error
    assert f"{split}, n = {validation or 24}" in out
    assert f"nelbo evaluate runs/all --split {split}" in out
    assert nelbo("evaluate", "all", "--split", split, "--samples", 0)[0] == 0
    code, _, error = nelbo("plot", "all", "kl")
    assert code == 2
    assert f"all has no test split (data.test is 0); name another, as in --split {split}" in error
    code, out, _ = nelbo("doctor", "all")
    assert code in (0, 1)
    assert "there is no test split: data.test is 0" in out
