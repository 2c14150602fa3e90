"""Images and arrays out of a run: every file's name, shape and content."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo import evaluate, plots
from nelbo.errors import ConfigError, DataError
from nelbo.pictures import export
from nelbo.pictures.export import Folder
from nelbo.pictures.view import View
from nelbo.training import api
from nelbo.training.recipe import Recipe
from nelbo.training.store import Run


@pytest.fixture(scope="module")
def view(tiny_run: Run) -> View:
    return View.open(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def colour(tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> View:
    """A run on 4 x 6 colour images in folders of classes, on the scale -1 to 1."""
    folder = tmp_path_factory.mktemp("colour")
    stream = np.random.RandomState(0)
    for number in range(40):
        file = folder / "pictures" / f"class {number % 2}" / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stream.randint(0, 256, (4, 6, 3)).astype(np.uint8)).save(file)
    recipe = tiny_recipe(
        {
            "data.source": str(folder / "pictures"),
            "data.transforms": [{"name": "scale", "low": -1.0}],
            "model.likelihood": "gaussian",
            "epochs": 1,
        }
    )
    return View.open(api.train(recipe, runs=folder, data_dir=folder, device="cpu"), device="cpu")


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "made")


def names(out: Folder) -> list[str]:
    """What is in the folder, which is what it remembers."""
    found = sorted(path.name for path in out.path.iterdir())
    assert found == sorted(path.name for path in out.files)
    return found


def array(out: Folder, name: str) -> np.ndarray[Any, Any]:
    loaded = np.load(out.path / f"{name}.npy", allow_pickle=False)
    assert isinstance(loaded, np.ndarray)
    return loaded


def pixels(file: Path) -> np.ndarray[Any, Any]:
    with Image.open(file) as image:
        return np.asarray(image)


def frames(file: Path) -> list[np.ndarray[Any, Any]]:
    with Image.open(file) as image:
        found = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            found.append(np.asarray(image.convert("RGB")))
        return found


def as_uint8(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.rint(images * 255).astype(np.uint8)


# --- samples ----------------------------------------------------------------------------------


def test_sample_writes_images_a_grid_and_arrays(view, out):
    export.sample(view, out, 11)
    single = [f"sample-{index:02}.png" for index in range(11)]
    assert names(out) == sorted([*single, "samples.png", "samples.npy", "samples-latents.npy"])
    images, latents = array(out, "samples"), array(out, "samples-latents")
    assert images.shape == (11, 8, 8, 1)
    assert images.dtype == np.float32
    assert 0.0 <= images.min() < images.max() <= 1.0
    z_NZ, _ = view.samples(11)
    np.testing.assert_array_equal(latents, z_NZ.numpy())
    np.testing.assert_allclose(images, view.decoded(torch.from_numpy(latents)), atol=1e-6)
    for index, name in enumerate(single):
        np.testing.assert_array_equal(pixels(out.path / name), as_uint8(images[index, ..., 0]))


def test_few_samples_have_short_names(view, out):
    export.sample(view, out, 1)
    assert names(out) == ["sample-0.png", "samples-latents.npy", "samples.npy", "samples.png"]


def test_temperature_scales_the_latents(view, tmp_path):
    cold, warm = Folder(tmp_path / "cold"), Folder(tmp_path / "warm")
    export.sample(view, cold, 4, temperature=0.5)
    export.sample(view, warm, 4)
    np.testing.assert_allclose(array(cold, "samples-latents"), 0.5 * array(warm, "samples-latents"))


def test_samples_like_images_are_named_after_them(view, out, tmp_path):
    Image.fromarray(as_uint8(view.inputs(5)[..., 0])).save(tmp_path / "mine.png")
    export.sample_like(view, out, 3, ["example:owl", "7", str(tmp_path / "mine.png")])
    single = [f"sample-{name}-{index}.png" for name in ("owl", "image7", "mine") for index in range(3)]
    assert names(out) == sorted([*single, "samples.png", "samples.npy", "samples-latents.npy"])
    images, latents = array(out, "samples"), array(out, "samples-latents")
    assert images.shape == (3, 3, 8, 8, 1)
    assert latents.shape == (3, 3, 3)
    x_BCHW = view.x_NCHW[[view.example(2), 7, 5]]
    np.testing.assert_allclose(latents, view.around(x_BCHW, 3)[0].transpose(0, 1).numpy(), atol=1e-6)
    np.testing.assert_allclose(images[1, 2], view.decoded(torch.from_numpy(latents[1, 2:3]))[0], atol=1e-6)
    np.testing.assert_array_equal(pixels(out.path / "sample-image7-2.png"), as_uint8(images[1, 2, ..., 0]))


def test_samples_like_images_may_be_a_mean_plus_noise(view, out):
    export.sample_like(view, out, 3, ["7", "5"], 0.5)
    latents = view.around(view.x_NCHW[[7, 5]], 3, 0.5)[0].transpose(0, 1).numpy()
    np.testing.assert_array_equal(array(out, "samples-latents"), latents)


def test_like_all_takes_an_example_of_every_class(view, out):
    export.sample_like(view, out, 1, ["all", "0"])
    made = {name for name in names(out) if name.startswith("sample-")}
    assert made == {"sample-cat-0.png", "sample-dog-0.png", "sample-owl-0.png", "sample-image0-0.png"}


def test_images_of_one_name_do_not_overwrite_each_other(view, out, tmp_path):
    for folder, index in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        Image.fromarray(as_uint8(view.inputs(index)[..., 0])).save(tmp_path / folder / "1.png")
    export.reconstruct(view, out, [str(tmp_path / "a/1.png"), str(tmp_path / "b/1.png")], 16)
    assert {"reconstruction-1.png", "reconstruction-1-2.png"} <= set(names(out))
    both = [pixels(out.path / name) for name in ("reconstruction-1.png", "reconstruction-1-2.png")]
    assert not np.array_equal(*both)


# --- reconstructions --------------------------------------------------------------------------


def test_reconstruct_the_first_images(view, out):
    error = export.reconstruct(view, out, [], 5)
    assert names(out) == sorted(
        [*(f"reconstruction-image{i}.png" for i in range(5)), "reconstructions.npy", "reconstructions.png"]
    )
    images = array(out, "reconstructions")
    np.testing.assert_allclose(images, view.decoded(view.z_NZ[:5]), atol=1e-6)
    assert error == pytest.approx(float(np.mean((images - view.inputs(slice(5))) ** 2)), rel=1e-5)
    with Image.open(out.path / "reconstructions.png") as grid:
        assert grid.width > 5 * 8


def test_more_images_than_there_are_is_all_of_them(view, out):
    export.reconstruct(view, out, [], 1000)
    assert array(out, "reconstructions").shape == (40, 8, 8, 1)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_image_file_gives_what_the_split_gives(mode, view, tmp_path):
    one, other = Folder(tmp_path / "one"), Folder(tmp_path / "other")
    file = tmp_path / "picture.png"
    Image.fromarray(as_uint8(view.inputs(9)[..., 0])).convert(mode).save(file)
    export.reconstruct(view, one, [str(file)], 16)
    export.reconstruct(view, other, ["9"], 16)
    np.testing.assert_allclose(array(one, "reconstructions"), array(other, "reconstructions"), atol=1e-6)
    assert "reconstruction-picture.png" in names(one)


def test_a_colour_file_on_another_scale_gives_what_the_split_gives(colour, tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(as_uint8(colour.inputs(3))).save(file)
    torch.testing.assert_close(export.from_file(colour, file), colour.x_NCHW[3])
    out = Folder(tmp_path / "out")
    export.reconstruct(colour, out, [str(file), "3", "example:class 1"], 16)
    images = array(out, "reconstructions")
    assert images.shape == (3, 4, 6, 3)
    np.testing.assert_allclose(images[0], images[1], atol=1e-6)
    assert "reconstruction-class-1.png" in names(out)
    assert pixels(out.path / "reconstruction-picture.png").shape == (4, 6, 3)


def test_a_file_is_binarised_as_the_run_was(tiny_recipe, tmp_path):
    recipe = tiny_recipe({"epochs": 1, "data.transforms": [{"name": "binarise", "threshold": 90}]})
    view = View.open(api.train(recipe, runs=tmp_path, device="cpu"), device="cpu")
    raw = np.full((8, 8), 80, np.uint8)
    raw[2:4] = 100
    Image.fromarray(raw).save(tmp_path / "grey.png")
    x_CHW = export.from_file(view, tmp_path / "grey.png")
    np.testing.assert_array_equal(x_CHW[0].numpy(), (raw > 90).astype(np.float32))


def test_a_file_of_another_size_is_refused(view, out, tmp_path):
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"wide.png is 8 x 9 pixels.*images of 8 x 8; resize it first"):
        export.reconstruct(view, out, ["0", str(tmp_path / "wide.png")], 16)
    assert not out.path.exists()


def test_a_run_with_a_size_of_its_own_fits_any_file(tiny_recipe, tmp_path):
    recipe = tiny_recipe({"epochs": 1, "data.size": 6})
    view = View.open(api.train(recipe, runs=tmp_path, device="cpu"), device="cpu")
    Image.new("L", (31, 17), 200).save(tmp_path / "photo.png")
    assert export.from_file(view, tmp_path / "photo.png").shape == (1, 6, 6)


# --- latents ----------------------------------------------------------------------------------


def test_encode_npz_holds_a_row_an_image(view, tmp_path):
    file = tmp_path / "new" / "latents.npz"
    shapes = export.encode(view, file)
    assert shapes == {"mean": [40, 3], "std": [40, 3]} | {
        name: [40] for name in ("position", "split", "labels", "bound")
    }
    with np.load(file, allow_pickle=False) as stored:
        assert set(stored.files) == {*shapes}
        np.testing.assert_array_equal(stored["mean"], view.z_NZ.numpy())
        np.testing.assert_array_equal(stored["labels"], view.labels_N)
        assert set(stored["split"]) == {"test"}
        posterior = view.posterior(view.x_NCHW)
        np.testing.assert_allclose(stored["std"], posterior.std.numpy(), rtol=1e-5)
        assert (stored["std"] > 0).all()
        card = evaluate(view.run, samples=0, metrics=["bound"], device="cpu")
        assert -stored["bound"].mean() == pytest.approx(card["metrics"]["nelbo"]["value"])


def test_encode_csv_names_files_of_every_split(colour, tmp_path):
    every = View.open(colour.run, split="all", several=True, device="cpu")
    export.encode(every, tmp_path / "z.csv")
    rows = list(csv.DictReader((tmp_path / "z.csv").read_text().splitlines()))
    assert len(rows) == 40
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert {row["name"] for row in rows} == {f"class {i % 2}/{i:02}.png" for i in range(40)}
    for row in rows:
        assert row["label"] == row["name"].split("/")[0]
    (first,) = (row for row in rows if row["split"] == "test" and row["name"] == colour.split.images.names[0])
    means = [float(first[f"mean_{i}"]) for i in range(3)]
    np.testing.assert_allclose(means, colour.z_NZ[0].numpy(), rtol=1e-6)
    assert {"std_2", "bound", "position"} <= first.keys()
    with pytest.raises(ConfigError, match="no split is called 'all'"):
        View.open(colour.run, split="all", device="cpu")


def test_encode_npy_holds_the_means(view, tmp_path):
    assert export.encode(view, tmp_path / "latents.npy") == {"mean": [40, 3]}
    np.testing.assert_array_equal(np.load(tmp_path / "latents.npy", allow_pickle=False), view.z_NZ.numpy())


def test_encode_without_labels_leaves_them_out(tiny_recipe, tmp_path):
    np.save(tmp_path / "plain.npy", np.random.RandomState(0).randint(0, 256, (30, 8, 8)).astype(np.uint8))
    run = api.train(tiny_recipe({"data.source": str(tmp_path / "plain.npy"), "epochs": 1}), runs=tmp_path)
    shapes = export.encode(View.open(run), tmp_path / "latents.npz")
    assert set(shapes) == {"position", "split", "mean", "std", "bound"}


def test_encode_a_split_of_any_size(view, tmp_path):
    train = View.open(view.run, split="train", device="cpu")
    assert export.encode(train, tmp_path / "train.npz")["mean"] == [96, 3]


# --- lines and traversals ---------------------------------------------------------------------


def test_encode_looks_at_every_image_once(view, tmp_path, monkeypatch):
    seen, encode = [], view.model.encode
    monkeypatch.setattr(view.model, "encode", lambda x_BCHW: seen.append(len(x_BCHW)) or encode(x_BCHW))
    export.encode(view, tmp_path / "latents.npz")
    assert sum(seen) == 40


def test_encode_needs_no_matplotlib(view, tmp_path):
    """A third of a second of a command that takes one."""
    code = (
        "import sys; from nelbo.cli import main; code = main(sys.argv[1:]); "
        "print(code, [name for name in ('matplotlib', 'sklearn', 'scipy') if name in sys.modules])"
    )
    arguments = ["encode", str(view.run.path), "--device", "cpu", "--out", str(tmp_path / "z.npz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def grid(file: Path) -> np.ndarray[Any, Any]:
    """A grid's picture at its own size."""
    return pixels(file)[::2, ::2]


def drawn(images: np.ndarray[Any, Any], columns: int | None) -> np.ndarray[Any, Any]:
    return as_uint8(plots.montage(images, columns=columns))[..., 0]


def test_of_many_images_the_grid_shows_the_first_and_the_arrays_have_all(view, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "IN_A_GRID", 9)
    monkeypatch.setattr(export, "IN_A_ROW", 3)
    out = Folder(tmp_path / "samples")
    export.sample(view, out, 12)
    assert (
        len([name for name in names(out) if name.startswith("sample-")]) == len(array(out, "samples")) == 12
    )
    np.testing.assert_array_equal(grid(out.path / "samples.png"), drawn(array(out, "samples")[:9], None))
    like = Folder(tmp_path / "like")
    export.sample_like(view, like, 5, ["0", "1"])
    images = array(like, "samples")
    assert images.shape[:2] == (2, 5)
    first = np.concatenate([images[0, :3], images[1, :3]])
    np.testing.assert_array_equal(grid(like.path / "samples.png"), drawn(first, 3))
    again = Folder(tmp_path / "again")
    export.reconstruct(view, again, [], 7)
    images = array(again, "reconstructions")
    assert len(images) == 7
    both = np.concatenate([view.inputs(slice(3)), images[:3]])
    np.testing.assert_array_equal(grid(again.path / "reconstructions.png"), drawn(both, 3))


def test_many_images_are_reconstructed_in_pieces(view, tmp_path, monkeypatch):
    whole = export.reconstruct(view, Folder(tmp_path / "whole"), [], 40)
    monkeypatch.setattr("nelbo.pictures.view.DECODE_AT_ONCE", 7)
    assert export.reconstruct(view, Folder(tmp_path / "pieces"), [], 40) == pytest.approx(whole, rel=1e-5)


def test_interpolate_between_images(view, out):
    a, b = view.example(0), view.example(2)
    export.interpolate(view, out, str(a), "example:owl", 7)
    stem = f"interpolation-image{a}-owl"
    assert names(out) == sorted([f"{stem}.png", f"{stem}.gif", f"{stem}.npy", f"{stem}-latents.npy"])
    images, latents = array(out, stem), array(out, f"{stem}-latents")
    np.testing.assert_allclose(latents, view.line(view.z_NZ[a], view.z_NZ[b], 7).numpy(), atol=1e-6)
    np.testing.assert_allclose(images, view.decoded(torch.from_numpy(latents)), atol=1e-6)
    np.testing.assert_allclose(images[[0, -1]], view.decoded(view.z_NZ[[a, b]]), atol=1e-5)
    steps = as_uint8(images)
    assert all(not np.array_equal(one, two) for one, two in itertools.pairwise(steps))
    shown = frames(out.path / f"{stem}.gif")
    assert len(shown) == 12  # there and back: 7 + 5
    scale = shown[0].shape[0] // 8
    np.testing.assert_array_equal(shown[6][::scale, ::scale, 0], steps[6, ..., 0])
    np.testing.assert_array_equal(shown[7], shown[5])


def test_interpolate_between_class_means(view, out):
    export.interpolate(view, out, "class:cat", "class:1", 2)
    ends = torch.stack([view.class_mean(0), view.class_mean(1)])
    np.testing.assert_allclose(
        array(out, "interpolation-class-cat-class-dog-latents"), ends.numpy(), atol=1e-6
    )


def test_traverse_writes_an_array_and_an_animation_a_dimension(view, out):
    export.traverse(view, out, "example:cat", [], 2.0, 5)
    stem = "traversal-cat"
    assert names(out) == sorted([f"{stem}.png", f"{stem}.npy", *(f"{stem}-z{z}.gif" for z in range(3))])
    images = array(out, stem)
    assert images.shape == (3, 5, 8, 8, 1)
    start = view.z_NZ[view.example(0)]
    for dimension in range(3):
        for step, value in enumerate((-2.0, -1.0, 0.0, 1.0, 2.0)):
            moved = start.clone()
            moved[dimension] = value
            np.testing.assert_allclose(images[dimension, step], view.decoded(moved[None])[0], atol=1e-5)
        steps = as_uint8(images[dimension])
        if all(not np.array_equal(one, two) for one, two in itertools.pairwise(steps)):
            assert len(frames(out.path / f"{stem}-z{dimension}.gif")) == 8  # there and back: 5 + 3


def test_traverse_only_what_was_asked_for(view, out):
    export.traverse(view, out, "class:owl", [2, 0], 3.0, 3)
    made = names(out)
    assert made == sorted(f"traversal-class-owl{end}" for end in (".npy", ".png", "-z0.gif", "-z2.gif"))
    assert array(out, "traversal-class-owl").shape == (2, 3, 8, 8, 1)


def test_colour_animations_have_colour(colour, out):
    export.interpolate(colour, out, "0", "1", 4)
    first, *_ = frames(out.path / "interpolation-image0-image1.gif")
    assert first.shape[2] == 3
    assert first.shape[0] * 6 == first.shape[1] * 4


# --- references -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "-1", "²", "nofile.png", "class:", "example:", "1.5", "image7", "."])
def test_what_is_no_reference_is_said(text, view):
    with pytest.raises(ConfigError, match="is no image"):
        export.refer(view, text)


def test_a_reference_is_an_image_or_a_class_mean(view):
    image, mean = export.refer(view, "3"), export.refer(view, "class:dog")
    assert torch.equal(image.x_CHW, view.x_NCHW[3])
    torch.testing.assert_close(image.z_Z, view.z_NZ[3])
    assert mean.x_CHW is None
    assert torch.equal(mean.z_Z, view.class_mean(1))
    assert (image.name, mean.name) == ("image3", "class-dog")


def test_nothing_is_written_when_something_is_wrong(view, out):
    for wrong in (
        lambda: export.sample(view, out, 0),
        lambda: export.sample_like(view, out, 2, ["0", "class:cat"]),
        lambda: export.sample_like(view, out, 2, ["0", "99"]),
        lambda: export.reconstruct(view, out, ["0", "class:cat"], 3),
        lambda: export.interpolate(view, out, "0", "1", 1),
        lambda: export.traverse(view, out, "0", [0, 7], 3.0, 5),
        lambda: export.traverse(view, out, "0", [0], 3.0, 1),
    ):
        with pytest.raises(ConfigError):
            wrong()
    assert not out.path.exists()
