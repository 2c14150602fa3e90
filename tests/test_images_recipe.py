"""The recipe that looks at the data, `nelbo train FOLDER`, and recipes that would spoil other data."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import nelbo
from nelbo.cli import main
from nelbo.data.survey import survey
from nelbo.errors import ConfigError, DataError
from nelbo.training import api
from nelbo.training.recipe import resolve, resolved
from nelbo.training.store import Run

LEVELS = np.random.default_rng(0)


def folder(path, n=24, size=(16, 12), colour=True, classes=()):
    """Write n images in a folder, and return it."""
    for i in range(n):
        shape = (*size, 3) if colour else size
        place = path / classes[i % len(classes)] if classes else path
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(LEVELS.integers(0, 256, shape).astype(np.uint8)).save(place / f"{i:03d}.png")
    return path


# --- what it sees -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({}, "24 colour images of 16 x 12, 256 levels, no labels"),
        ({"colour": False, "classes": ("a", "b")}, "24 grey images of 16 x 12, 256 levels, 2 classes"),
    ],
)
def test_a_folder_is_described_by_its_headers(tmp_path, made, words):
    from nelbo.data import Data

    assert str(survey(Data(source=str(folder(tmp_path / "f", **made))))) == words


@pytest.mark.parametrize(
    ("array", "likelihood"),
    [
        (LEVELS.integers(0, 2, (30, 8, 8)).astype(bool), "bernoulli"),
        (LEVELS.integers(0, 2, (30, 8, 8)).astype(np.uint8), "bernoulli"),
        (LEVELS.integers(0, 256, (30, 8, 8)).astype(np.uint8), "discretised-logistic"),
        (LEVELS.normal(0, 3, (30, 8, 8)).astype(np.float32), "gaussian"),
    ],
    ids=["bool", "mask", "levels", "real"],
)
def test_the_pixels_decide_the_likelihood(tmp_path, array, likelihood):
    np.save(tmp_path / "a.npy", array)
    from_file, from_python = resolve(tmp_path / "a.npy"), resolved("images", data=array).recipe
    assert from_file.model.likelihood.name == likelihood
    assert from_python.model == from_file.model


def test_every_choice_gives_a_recipe_that_trains(tmp_path):
    for name, made in {"tiny": {"size": (5, 7)}, "odd": {"size": (13, 33), "colour": False}}.items():
        path = folder(tmp_path / name, **made)
        run = nelbo.train(path, overrides={"epochs": 1}, runs=tmp_path / "runs", device="cpu")
        assert run.name.startswith(f"images-{name}-s0-")  # one epoch is not what the recipe says
        assert nelbo.evaluate(run, samples=0, device="cpu")["metrics"]["bits_per_dim"]["value"] > 0


def test_images_of_different_sizes_get_one(tmp_path):
    path = folder(tmp_path / "mixed", n=12, size=(100, 200))
    folder(path / "more", n=12, size=(80, 90))
    start = resolved(path)
    assert start.recipe.data.size == (57, 64)
    assert "resized to 57 x 64 (another: --data.size 128)" in start.reasons[0]
    assert api.shape_without_loading(start.recipe) == (3, 57, 64)


def test_what_is_given_wins_over_what_is_chosen(tmp_path):
    recipe = resolve(folder(tmp_path / "f"), {"latent_dim": 3, "data.size": 8, "model.encoder": "mlp"})
    assert recipe.model.latent_dim == 3
    assert recipe.data.size == 8
    assert recipe.model.encoder.name == "mlp"


def test_a_file_may_start_from_it(tmp_path):
    path = folder(tmp_path / "f")
    (tmp_path / "mine.toml").write_text(f'recipe = "images"\nepochs = 3\n[data]\nsource = "{path}"\n')
    recipe = resolve(tmp_path / "mine.toml")
    assert (recipe.epochs, recipe.data.source) == (3, str(path))
    assert recipe.model.likelihood.name == "discretised-logistic"


# --- the command ------------------------------------------------------------------------------


def test_a_dry_run_says_what_and_why_from_the_headers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", size=(64, 64))
    assert main(["train", "photos", "--dry-run"]) == 0
    short = capsys.readouterr().out
    assert "would train in runs/images-photos-s0\n" in short
    assert "network: 3 x 64 x 64 -> " in short
    reasons = [line for line in short.splitlines() if line.startswith("# ")][1:6]
    assert [line.split(":")[0] for line in reasons] == [
        "# images", "# network", "# likelihood", "# training", "# splits",
    ]  # fmt: skip
    assert main(["train", "images", "--data", "photos", "--dry-run"]) == 0
    assert capsys.readouterr().out == short
    assert not (tmp_path / "runs").exists()


def test_the_same_command_finds_its_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", size=(8, 8))
    command = ["train", "photos", "--epochs", "1", "--no-figures", "--device", "cpu"]
    assert main(command) == 0
    assert "likelihood: discretised-logistic" in capsys.readouterr().err
    (run,) = (tmp_path / "runs").iterdir()
    before = Run(run).summary
    assert main(command) == 0
    assert "finished already" in capsys.readouterr().err
    assert Run(run).summary["epochs"] == before["epochs"] == 1


def test_a_recipe_wins_over_a_folder_of_its_name_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "digits")
    assert main(["train", "digits", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert 'source = "digits"' in out
    assert "digits is the recipe of that name; for the folder write ./digits" in out
    assert main(["train", "./digits", "--dry-run"]) == 0
    assert 'recipe = "images"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no recipe is called 'nowhere'"),
        (["nowhere"], "Nor is there a folder or file of that name"),
        (["empty"], "holds no image files"),
        (["a-run"], "a-run is a run and no folder of images"),
        (["photos", "--data", "photos"], "both name images"),
        (["notes.txt"], "notes.txt"),
    ],
)
def test_what_is_no_data_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no images")
    folder(tmp_path / "a-run/figures", n=2)
    (tmp_path / "a-run/config.toml").write_text("")
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


# --- recipes that were made for other data ----------------------------------------------------


def test_a_recipe_that_would_binarise_photos_stops_and_says_what_fits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "my photos", size=(32, 32))
    assert main(["train", "digits", "--data", "my photos", "--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert "makes every pixel black or white (data.transforms binarise)" in error
    assert "24 colour images of 32 x 32" in error
    assert "nelbo train images --data 'my photos'" in error
    assert not (tmp_path / "runs").exists()
    for way_out in ("none", "binarise"):
        assert (
            main(["train", "digits", "--data", "my photos", "--data.transforms", way_out, "--dry-run"]) == 0
        )
    capsys.readouterr()


def test_a_binarising_recipe_takes_what_is_black_and_white_already():
    masks = LEVELS.integers(0, 2, (40, 8, 8)).astype(bool)
    plan = api.plan("digits", {"epochs": 1}, data=masks, runs="nowhere")
    assert [transform.name for transform in plan.recipe.data.transforms] == ["binarise"]


def test_a_recipe_that_would_shrink_images_stops(tmp_path):
    path = folder(tmp_path / "large", size=(48, 48), colour=False)
    with pytest.raises(DataError, match=r"shrinks images to 32 x 32 \(data.transforms resize\)"):
        api.plan("conv-bn-128", {"data.source": str(path)}, runs=tmp_path)
    with pytest.raises(DataError, match=r'nelbo.train\("images", data=...\)'):
        api.plan("conv-bn-128", data=torch.zeros(20, 1, 48, 48, dtype=torch.uint8), runs=tmp_path)


def test_a_named_set_is_what_everybody_knows(tmp_path):
    recipe = api.plan("mnist-vae", {"data.source": "fashion-mnist"}, runs=tmp_path).recipe
    assert recipe.data.source == "fashion-mnist"


def test_the_dry_run_is_json_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos")
    assert main(["train", "photos", "--dry-run", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert len(table["reasons"]) == 5
    assert table["network"]["input"] == [3, 16, 12]


def test_a_wrong_override_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match="latent-dim"):
        resolve(folder(tmp_path / "f"), {"latent_dim": 0})
