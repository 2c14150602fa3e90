"""New images for a trained run, and its own data at another place: one preprocessing, and never taken for another."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nelbo as package
from nelbo.errors import ConfigError, DataError
from nelbo.evaluation import card as cards
from nelbo.pictures import export
from nelbo.pictures.view import View
from nelbo.training import api, looking

RNG = np.random.default_rng(0)


def u8(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def folder_of(path: Path, images: np.ndarray) -> Path:
    path.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / f"{number:02}.png")
    return path


@pytest.fixture(scope="module")
def lab(tiny_recipe, tmp_path_factory):
    """A run `scan` on a folder that has moved from scan to elsewhere, beside other folders."""
    lab = tmp_path_factory.mktemp("lab")
    folder_of(lab / "scan", u8(40, 8, 8))
    folder_of(lab / "more", u8(12, 8, 8))
    folder_of(lab / "wide", u8(3, 8, 9))
    folder_of(lab / "colour", u8(3, 8, 8, 3))
    folder_of(lab / "still grey", u8(3, 8, 8)[..., None].repeat(3, -1))
    recipe = tiny_recipe({"data.source": str(lab / "scan"), "epochs": 1, "data.validation": 4})
    api.train(recipe, runs=lab / "runs", name="scan", device="cpu")
    (lab / "scan").rename(lab / "elsewhere")
    return lab


@pytest.fixture
def run(lab):
    return package.Run(lab / "runs" / "scan")


# --- the data moved ---------------------------------------------------------------------------


def test_data_that_moved_is_known_by_its_hash(lab, run):
    with pytest.raises(DataError, match=r"scan was trained on .*scan, and nothing is there now.*--data PATH"):
        package.evaluate(run, samples=0, device="cpu")
    for place in (str(lab / "elsewhere"), lab / "elsewhere"):
        card = package.evaluate(run, data=place, samples=0, device="cpu", metrics=["bound", "probes"])
        assert "other_data" not in card
        assert (card["split"], card["n"]) == ("test", 8)
        assert cards.read(run, samples=0) == card
    assert looking.is_own(run, api.load_same_data(run, data=lab / "elsewhere"))
    with pytest.raises(DataError, match="was trained on data with hash"):
        api.load_same_data(run, data=lab / "more")


@pytest.mark.parametrize("verb", ["evaluate", "encode", "plot", "samplers"])
def test_verbs_that_read_say_where_the_data_went(verb, lab, nelbo):
    code, _, err = nelbo(verb, lab / "runs" / "scan", "--device", "cpu")
    assert code == 2
    assert "nothing is there now" in err
    assert "--data PATH" in err


def test_verbs_that_need_no_image_read_none(lab, nelbo, tmp_path):
    run, one, other = lab / "runs" / "scan", lab / "more" / "03.png", lab / "more" / "04.png"
    for words in (
        ["sample", run, "-n", 2],
        ["sample", run, "-n", 2, "--like", one],
        ["reconstruct", run, one],
        ["interpolate", run, one, other, "--steps", 3],
        ["traverse", run, one, "--dimensions", 0],
    ):
        code, _, err = nelbo(*words, "--device", "cpu", "--out", tmp_path / words[0])
        assert code == 0, err
    samples = np.load(tmp_path / "sample" / "samples.npy")
    assert samples.shape[-3:] == (8, 8, 1)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["reconstruct", "-n", "2", "--data", "elsewhere"], 0, ""),
        (["reconstruct", "-n", "2", "--data", "more"], 0, "more is not the data that scan was trained on: 12 new"),
        (["traverse", "1", "--data", "more"], 0, "12 new images (all)"),
        (["plot", "reconstructions", "--data", "more"], 0, "12 new images"),
        (["sample", "-n", "2", "--data", "more"], 2, "look at no images"),
        (["sample", "-n", "2", "--sampler", "gaussian-mixture", "--data", "more"], 2, "fitted to the training"),
        (["samplers", "--data", "nowhere"], 2, "'nowhere' is neither a data set nor a path that exists"),
        (["samplers", "--data", "more"], 2, "was trained on data with hash"),
        (["doctor", "--data", "more"], 2, "was trained on data with hash"),
        (["evaluate", "--data", "more", "--split", "test"], 2, "more has no splits"),
        (["evaluate", "--data", "more", "--metrics", "probes"], 2, "probes learn from its training images"),
        (["encode", "--data", "nowhere"], 2, "'nowhere' is neither a data set nor a path that exists"),
    ],
)  # fmt: skip
def test_the_flag_of_every_verb(words, code, says, lab, nelbo, monkeypatch):
    monkeypatch.chdir(lab)
    got, _, err = nelbo(words[0], "runs/scan", *words[1:], "--device", "cpu")
    assert (got, says in err) == (code, True), err


def test_the_doctor_prints_commands_with_the_new_place(lab, nelbo, monkeypatch):
    monkeypatch.chdir(lab)
    code, out, _ = nelbo("doctor", "runs/scan", "--data", "elsewhere", "--device", "cpu")
    assert code == 0
    commands = [line for line in out.splitlines() if "nelbo train" in line]
    assert commands
    assert all("--data.source elsewhere" in line for line in commands)


def test_a_run_trained_on_arrays_takes_a_file_on_the_command_line(tiny_recipe, tmp_path, nelbo):
    images = u8(30, 8, 8)
    api.train(tiny_recipe({"epochs": 1}), data=images, runs=tmp_path, name="held", device="cpu")
    code, _, err = nelbo("evaluate", tmp_path / "held", "--samples", 0)
    assert code == 2
    assert "numpy.save" in err
    assert "--data FILE.npy" in err
    np.save(tmp_path / "held.npy", images)
    words = ["--samples", 0, "--metrics", "bound", "--data", tmp_path / "held.npy"]
    code, out, _ = nelbo("evaluate", tmp_path / "held", *words)
    assert code == 0
    assert "test, n = 6" in out  # its own split, by the hash


# --- other images -----------------------------------------------------------------------------


def test_a_card_of_other_images_is_never_taken_for_that_of_the_run(lab, run, nelbo):
    package.evaluate(run, data=lab / "elsewhere", samples=0, metrics=["bound"], device="cpu")
    before = cards.read(run, samples=0)
    code, out, err = nelbo("evaluate", run.path, "--data", lab / "more", "--samples", 2)
    assert code == 0
    assert "other data: more (all), n = 12" in out
    assert "left out: more is not the data of scan, and quality, probes learn" in err
    files = list((run.path / "evaluation").rglob("*k2.json"))
    assert [file.parent.parent.name for file in files] == ["evaluation"]
    card = run.read_json(str(files[0].relative_to(run.path)))
    assert (card["other_data"], card["split"], card["n"]) == ("more", "all", 12)
    assert card["data_hash"][:8] in files[0].parent.name
    assert len(cards.read_per_image(run, card)["nelbo"]) == 12
    assert cards.read(run, samples=0) == before
    assert not cards.read(run, samples=2)
    assert not cards.read(run, "all")


def test_a_source_with_splits_keeps_them(run, tmp_path):
    np.savez(tmp_path / "two.npz", images=u8(5, 8, 8), x_test=u8(3, 8, 8))
    splits = looking.new_images(run, tmp_path / "two.npz")
    assert looking.default_split(splits) == "test"
    assert len(splits.split("test")) == 3
    with pytest.raises(ConfigError, match="no split is called 'all'"):
        splits.split("all")
    np.savez(tmp_path / "odd.npz", images=u8(5, 8, 8), x_val=u8(3, 8, 8))
    with pytest.raises(DataError, match="a validation split and no test split"):
        looking.new_images(run, tmp_path / "odd.npz")


def test_one_image_is_enough(run):
    image = u8(1, 8, 8)
    splits = looking.new_images(run, image)
    x_1CHW = next(iter(View.open(run, data=image, device="cpu").split.batches()))
    torch.testing.assert_close(x_1CHW[0, 0], torch.from_numpy(image[0]) / 255)
    assert (len(splits.train), splits.whole) == (1, True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wide", r"wide is 8 x 9 pixels, but scan was trained on images of 8 x 8"),
        (
            "colour",
            r"colour has 3 channels \(colour\), but scan was trained on images with 1 channel \(grey\)",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused_with_both_sides(name, says, lab, run):
    with pytest.raises(DataError, match=says):
        looking.new_images(run, lab / name)
    one = (
        r"wide/00.png is 8 x 9 pixels.*of 8 x 8"
        if name == "wide"
        else "is in colour, but scan was trained on grey"
    )
    with pytest.raises(DataError, match=one):
        export.from_file(View.open(run, images=False, device="cpu"), lab / name / "00.png")


def test_images_of_several_sizes_name_the_run(run, lab, tmp_path):
    shutil.copytree(lab / "more", tmp_path / "mixed")
    Image.fromarray(u8(9, 9)).save(tmp_path / "mixed" / "zz.png")
    with pytest.raises(
        DataError, match=r"different sizes.*scan was trained on images of 8 x 8 pixels with 1"
    ):
        looking.new_images(run, tmp_path / "mixed")


def test_colour_files_that_are_grey_are_grey(lab, run):
    """Many programs save grey pictures in colour: nothing is lost, and so nothing is refused."""
    splits = looking.new_images(run, lab / "still grey")
    with Image.open(lab / "still grey" / "01.png") as image:
        np.testing.assert_array_equal(splits.train.pixels_NCHW[1, 0].numpy(), np.asarray(image)[..., 0])


def test_grey_files_become_colour(tiny_recipe, lab, tmp_path):
    recipe = tiny_recipe({"data.source": str(lab / "colour"), "epochs": 1, "data.validation": 0})
    run = api.train(recipe, runs=tmp_path, name="colour", device="cpu")
    splits = looking.new_images(run, lab / "more")
    assert splits.shape == (3, 8, 8)
    assert torch.equal(splits.train.pixels_NCHW[:, 0], splits.train.pixels_NCHW[:, 2])


# --- the run's own scale ----------------------------------------------------------------------


def test_a_range_maps_files_as_it_maps_the_data(tiny_recipe, tmp_path):
    folder_of(tmp_path / "dark", RNG.integers(0, 17, (20, 8, 8)).astype(np.uint8))
    recipe = tiny_recipe(
        {"data.source": str(tmp_path / "dark"), "data.range": [0, 16], "epochs": 1, "data.validation": 0}
    )
    view = View.open(api.train(recipe, runs=tmp_path, device="cpu"), split="train", device="cpu")
    name = view.split.images.names[2]
    torch.testing.assert_close(export.from_file(view, tmp_path / "dark" / name), view.x_NCHW[2])
    with pytest.raises(DataError, match=r"data\.range 0,16.*255|whole numbers"):
        export.from_file(view, folder_of(tmp_path / "bright", u8(1, 8, 8)) / "00.png")


def test_a_run_on_standardised_numbers_takes_no_levels(tiny_recipe, tmp_path):
    numbers = RNG.normal(size=(30, 8, 8)).astype(np.float32)
    np.save(tmp_path / "z.npy", numbers)
    recipe = tiny_recipe(
        {"data.source": str(tmp_path / "z.npy"), "model.likelihood": "gaussian", "epochs": 1}
    )
    run = api.train(recipe, runs=tmp_path, device="cpu")
    file = folder_of(tmp_path / "files", u8(2, 8, 8)) / "00.png"
    with pytest.raises(DataError, match=r"8-bit levels.*was trained on numbers in.*not known which level"):
        looking.new_images(run, tmp_path / "files")
    for images in (True, False):  # also where nothing but the facts of the run is read
        with pytest.raises(DataError, match="no mapping between the two is known"):
            export.from_file(View.open(run, images=images), file)
    wider = looking.new_images(run, numbers[:4] * 2)
    assert wider.range == View.open(run).splits.range  # decibels mean what they mean on the run's own data


def test_floats_outside_of_the_range_are_refused(run):
    assert looking.new_images(run, RNG.random((2, 8, 8))).range == (0.0, 1.0)
    with pytest.raises(
        DataError, match=r"pixels lie in \[0, 255\].*outside of \[0, 1\], on which it was trained"
    ):
        looking.new_images(run, np.linspace(0, 255, 128).reshape(2, 8, 8))


def test_floats_between_the_levels_are_refused_by_a_probability_of_levels(tiny_recipe, tmp_path):
    recipe = tiny_recipe({"model.likelihood": "discretised-logistic", "epochs": 1})
    run = api.train(recipe, runs=tmp_path, device="cpu")
    with pytest.raises(DataError, match="between the 8-bit levels"):
        looking.new_images(run, RNG.random((2, 8, 8)))
