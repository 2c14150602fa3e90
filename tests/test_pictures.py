"""Every registered picture, drawn for runs of every kind, and what the important ones show."""

from __future__ import annotations

import gc
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.text
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from nelbo import cli, pictures, plots
from nelbo.core.registry import lookup, names
from nelbo.pictures import base
from nelbo.pictures.view import NotApplicable, View
from nelbo.plots import PlotError
from nelbo.training import api
from nelbo.training.recipe import Recipe
from nelbo.training.store import Run

BY_CLASS = {"class-means", "class-interpolation", "resampled"}
BY_RUN = {"curves", "steps", "kl-history"}  # of all epochs, so that no checkpoint and no split is named


@pytest.fixture(scope="session")
def views(
    tiny_run: Run, tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, View]:
    """Runs that differ in latent dimensions, channels, shape, labels, splits and size."""
    folder = tmp_path_factory.mktemp("pictures")

    def view(name: str, shape: tuple[int, ...], labels: Any = None, **settings: Any) -> View:
        pixels = np.random.RandomState(len(name)).randint(0, 256, shape).astype(np.uint8)
        np.savez(folder / f"{name}.npz", images=pixels, **({} if labels is None else {"labels": labels}))
        overrides = {"data.source": str(folder / f"{name}.npz"), "epochs": 1} | settings
        return View.open(
            api.train(tiny_recipe(overrides), runs=folder, name=name, device="cpu"), device="cpu"
        )

    digits, z = np.arange(80) % 10, "model.latent_dim"
    return {
        "labels": View.open(tiny_run, device="cpu"),
        "colour-plane": view("colour-plane", (80, 6, 10, 3), digits, **{z: 2}, epochs=2),
        "no-labels": view("no-labels", (60, 9, 5), **{z: 5, "data.validation": 0}),
        "one-class": view("one-class", (40, 7, 7), np.zeros(40, int), **{z: 2}),
        "one-dimension": view("one-dimension", (40, 7, 7), digits[:40], **{z: 1}, latent_every=0),
        "three-images": view("three-images", (40, 5, 8), digits[:40] % 2, **{z: 4, "data.test": 3}),
        "no-kl": view(
            "no-kl",
            (40, 7, 7),
            digits[:40],
            **{z: 4, "model.posterior.noise": "shared", "data.validation": 0},
        ),
    }


def words(figure: Figure) -> str:
    found = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return " ".join(" ".join(found).split())


def captured(monkeypatch: pytest.MonkeyPatch, view: View, picture: str, plot: str) -> list[tuple[Any, Any]]:
    """What a picture hands to a plotting function: positional and named arguments of each call."""
    calls: list[tuple[Any, Any]] = []
    real = getattr(plots, plot)

    def listen(*given: Any, **named: Any) -> Any:
        calls.append((given, named))
        return real(*given, **named)

    monkeypatch.setattr(plots, plot, listen)
    list(lookup("picture", picture)(view))
    return calls


# --- all of them ------------------------------------------------------------------------------


KINDS = ["labels", "colour-plane", "no-labels", "one-class", "one-dimension", "three-images", "no-kl"]
QUICK = ("labels", "one-dimension", "no-kl")  # between them every picture is drawn, and one left out


def test_curves_of_grey_pixels_say_what_they_are(views):
    (_, figure), *_ = list(lookup("picture", "curves")(views["labels"]))
    words = " ".join(text.get_text() for text in figure.texts)
    assert views["labels"].splits.pixels == "grey"
    assert "not a likelihood" in words.replace("\n", " ")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_all_pictures_of_a_run(kind, views, tmp_path):
    view = views[kind]
    files, left_out = pictures.draw(view, [], tmp_path)
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == set(files)
    assert len(set(files)) == len(files)
    for name in names("picture"):
        of_it = [file for file in files if file.stem == name or file.stem.startswith(f"{name}-")]
        assert of_it or name in left_out, name
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert image.format == file.suffix[1:].upper()
            assert max(image.size) < 4000
    assert all(reason and not reason.startswith("Traceback") for reason in left_out.values())
    expected = {
        "labels": set(),
        "colour-plane": {"steps", "tsne"},
        "no-labels": {"steps", *BY_CLASS},
        "one-class": {"steps", "tsne", "class-interpolation"},
        "one-dimension": {"steps", "manifold"},
        "three-images": {"steps", "scatter", "tsne", "first-against-best"},
        "no-kl": {"steps"},
    }[kind] | {"iw-curve", "factor-sweeps", "factor-information"}
    assert expected <= set(left_out)
    assert set(left_out) - expected <= ({"kl"} if kind == "no-kl" else set())


# Of images without labels the pictures are some of those of images with labels.
@pytest.mark.parametrize(
    "kind", ["labels", pytest.param("no-labels", marks=pytest.mark.slow), "colour-plane"]
)
def test_every_title_says_run_checkpoint_and_split(kind, views):
    view = views[kind].at("first")
    seen = 0
    for name in names("picture"):
        try:
            drawn = list(lookup("picture", name)(view))
        except NotApplicable:
            continue
        for stem, figure in drawn:
            assert re.fullmatch(r"[a-z0-9-]+", stem)
            if not isinstance(figure, Figure):
                assert figure.startswith(b"GIF89a")
                continue
            seen += 1
            text = words(figure)
            assert view.run.name in text, stem
            if stem in BY_RUN:
                continue
            assert "test" in text, stem
            assert "first (epoch 1)" in text, stem
            if name == "first-against-best":
                assert "best (epoch" in text, stem
    assert seen >= 14


def test_drawing_leaves_nothing_open(views, tmp_path):
    import matplotlib.pyplot as plt

    view = views["labels"]
    pictures.draw(view, ["kl", "samples", "class-interpolation"], tmp_path)
    figures = _alive()
    descriptors = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    pictures.draw(view, ["kl", "samples", "class-interpolation"], tmp_path)
    assert _alive() == figures
    if descriptors:
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert plt.get_fignums() == []


def _alive() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Figure) for thing in gc.get_objects())


@pytest.mark.parametrize(("kind", "signature"), [("pdf", b"%PDF-"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_formats(kind, signature, views, tmp_path):
    files, _ = pictures.draw(views["labels"], ["class-interpolation", "kl"], tmp_path, formats=(kind,))
    assert {file.suffix for file in files} == {f".{kind}", ".gif"}
    for file in files:
        assert file.read_bytes().startswith(b"GIF89a" if file.suffix == ".gif" else signature)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("no-labels", "class-means", "no labels"),
        ("no-labels", "resampled", "no labels"),
        ("no-labels", "class-interpolation", "no labels"),
        ("no-labels", "steps", "log-steps"),
        ("colour-plane", "tsne", "see scatter"),
        ("one-class", "class-interpolation", "needs two"),
        ("one-dimension", "manifold", "two latent dimensions"),
        ("three-images", "tsne", "at least 5 points"),
    ],
)
def test_one_that_does_not_apply_gives_its_reason_by_name(kind, name, reason, views, tmp_path):
    with pytest.raises((NotApplicable, PlotError), match=reason) as caught:
        pictures.draw(views[kind], [name], tmp_path / "asked")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "asked").exists()


# --- what they show ---------------------------------------------------------------------------


def test_reconstructions_come_from_posterior_means(views, monkeypatch):
    view = views["labels"]
    ((shown,), named), *_ = captured(monkeypatch, view, "reconstructions", "rows")
    assert named["row_labels"] == ["input", "reconstruction"] * 2
    expected = view.decoded(view.z_NZ[:20])
    for row, start in ((0, 0), (2, 10)):
        np.testing.assert_array_equal(shown[row], view.inputs(slice(start, start + 10)))
        np.testing.assert_allclose(shown[row + 1], expected[start : start + 10], atol=1e-6)


def test_class_means_decode_the_true_means(views, monkeypatch):
    view = views["labels"]
    ((shown,), named), *_ = captured(monkeypatch, view, "class-means", "image_grid")
    assert named["labels"] == ["cat", "dog", "owl"]
    for label in range(3):
        mean = view.z_NZ[torch.from_numpy(view.labels_N == label)].mean(0)
        np.testing.assert_allclose(shown[label], view.decoded(mean[None])[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["labels", "colour-plane", "no-labels"])
def test_interpolations_end_in_the_reconstructions_of_their_ends(kind, views, monkeypatch):
    view = views[kind]
    ((shown,), named), *_ = captured(monkeypatch, view, "interpolation", "rows")
    pairs = base.pairs_of_images(view)
    if kind == "colour-plane":  # classes are digits: 1 and 7 come first
        assert named["row_labels"][0] == "1 to 7"
    assert named["apart"] == "ends"
    for row, (a, b) in zip(shown, pairs, strict=True):
        np.testing.assert_array_equal(row[[0, -1]], view.inputs([a, b]))
        np.testing.assert_allclose(row[[1, -2]], view.decoded(view.z_NZ[[a, b]]), atol=1e-5)
        if view.labels_N is not None:
            assert view.labels_N[a] != view.labels_N[b]


def test_class_interpolation_goes_from_mean_to_mean_in_100_steps(views, monkeypatch):
    view = views["colour-plane"]
    ((shown,), _), *_ = captured(monkeypatch, view, "class-interpolation", "image_grid")
    assert len(shown) == 100
    ends = view.decoded(torch.stack([view.class_mean(1), view.class_mean(8)]))
    np.testing.assert_allclose(shown[[0, -1]], ends, atol=1e-6)


def test_a_traversal_row_moves_only_its_dimension(views, monkeypatch):
    view = views["labels"]
    ((shown,), named), *_ = captured(monkeypatch, view, "traversal", "rows")
    order = [int(label.removeprefix("z")) for label in named["row_labels"]]
    assert sorted(order) == [0, 1, 2]
    kl_Z = view.statistics.kl_Z
    assert [float(kl_Z[dimension]) for dimension in order] == sorted(kl_Z.tolist(), reverse=True)
    start = view.z_NZ[view.example(0)]
    for row, dimension in zip(shown, order, strict=True):
        for step, value in enumerate(np.linspace(-3, 3, 11)):
            moved = start.clone()
            moved[dimension] = value
            np.testing.assert_allclose(row[step], view.decoded(moved[None])[0], atol=1e-5)
    assert named["column_labels"][0] == "-3.0"
    assert named["column_labels"][-1] == "+3.0"


@pytest.mark.parametrize("dimension", [0, 1])
def test_the_manifold_has_z0_to_the_right_and_z1_upwards(dimension, views, monkeypatch):
    view = views["colour-plane"]
    monkeypatch.setattr(
        View,
        "decoded",
        lambda self, z_MZ: (
            ((z_MZ[:, dimension] + 3) / 6).numpy()[:, None, None, None].repeat(4, 1).repeat(4, 2)
        ),
    )
    ((_, figure),) = lookup("picture", "manifold")(view)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    picture = np.asarray(Image.open(buffer).convert("L")).astype(float)
    (ax,) = figure.axes
    box = ax.get_position()
    height, width = picture.shape
    left, right = int(box.x0 * width) + 4, int(box.x1 * width) - 4
    top, bottom = int((1 - box.y1) * height) + 4, int((1 - box.y0) * height) - 4
    corners = {
        "bottom left": picture[bottom, left],
        "bottom right": picture[bottom, right],
        "top left": picture[top, left],
        "top right": picture[top, right],
    }
    rising = ("bottom right", "top right") if dimension == 0 else ("top left", "top right")
    for name, value in corners.items():
        assert (value > 128) == (name in rising), corners


def test_the_manifold_decodes_its_ticks(views, monkeypatch):
    view = views["colour-plane"]
    ((images,), named), *_ = captured(monkeypatch, view, "manifold", "manifold")
    ticks = torch.linspace(-2.5, 2.5, 20)
    assert named["extent"] == (-2.5, 2.5, -2.5, 2.5)
    for row, column in ((0, 19), (19, 0), (4, 11)):
        expected = view.decoded(torch.stack([ticks[column], ticks[row]])[None])[0]
        np.testing.assert_allclose(images[row, column], expected, atol=1e-5)


def test_the_scatter_shows_the_plane_itself(views, monkeypatch):
    view = views["colour-plane"]
    ((points, labels), named), *_ = captured(monkeypatch, view, "scatter", "scatter")
    np.testing.assert_array_equal(points, view.z_NZ.numpy())
    np.testing.assert_array_equal(labels, view.labels_N)
    assert named["prior_circles"]


def test_first_against_best_shows_the_same_latents_through_both(views, monkeypatch):
    view = views["labels"]
    calls = captured(monkeypatch, view, "first-against-best", "side_by_side")
    samples = calls[1]
    first, best = view.at("first"), view.at("best")
    z_NZ, _ = view.samples(36)
    np.testing.assert_allclose(samples[0][0], first.decoded(z_NZ), atol=1e-6)
    np.testing.assert_allclose(samples[0][1], best.decoded(z_NZ), atol=1e-6)
    order = np.argsort(-best.statistics.kl_Z.numpy())
    for side, shown in ((first, calls[3][0][0]), (best, calls[3][0][1])):
        moved = view.traversal(side.z_NZ[side.example(0)], int(order[0]), 3.0, 9)
        np.testing.assert_allclose(shown[0], side.decoded(moved), atol=1e-5)
    assert samples[1]["titles"] == ("first (epoch 1)", f"best (epoch {view.run.summary['best_epoch']})")


def test_curves_show_what_was_logged(views, monkeypatch):
    view = views["labels"]
    ((epochs, series), named), *_ = captured(monkeypatch, view, "curves", "epoch_curves")
    history = view.run.history()
    assert list(epochs) == list(range(1, len(history) + 1))
    assert set(series) == {"total", "reconstruction", "KL", "NELBO"}
    for split in ("train", "validation"):
        assert series["NELBO"][split] == [-row[split]["bound"] for row in history]
        assert series["KL"][split] == [row[split]["kl"] for row in history]
    assert named["best_epoch"] == view.run.summary["best_epoch"]
    ((losses,), _), *_ = captured(monkeypatch, view, "steps", "step_curve")
    assert len(losses) == 3 * len(history)


@pytest.mark.parametrize("name", ["samples", "around", "interpolation", "scatter", "data"])
def test_drawing_twice_gives_the_same_file(name, views, tmp_path):
    contents = []
    for folder in ("one", "two"):
        files, _ = pictures.draw(views["labels"], [name], tmp_path / folder)
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]


# --- one of one's own -------------------------------------------------------------------------

OWN = '''
from nelbo import plots
from nelbo.pictures import picture


@picture(group="images", order=3)
def brightest_images(view):
    """The brightest images of the split."""
    index = view.x_NCHW.flatten(1).sum(1).argsort(descending=True)[:4]
    yield "brightest-images", plots.image_grid(view.inputs(index), title=view.title)


@picture(group="pictures of mine")
def darkest_image(view):
    """The darkest image of the split."""
    index = view.x_NCHW.flatten(1).sum(1).argsort()[:1]
    yield "darkest-image", plots.image_grid(view.inputs(index), title=view.title)
'''


@pytest.mark.usefixtures("_forgotten")
def test_one_file_adds_a_picture_to_lists_plots_and_reports(run_copy, tmp_path, capsys):
    """Nothing else is edited: the group and the place in it stand in the decorator."""
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    run = (run_copy.name, "--runs", str(run_copy.path.parent), "--device", "cpu", "--import", str(file))
    assert cli.main(["plot", run[0], "brightest-images", *run[1:]]) == 0
    assert (run_copy.path / "figures" / "brightest-images.png").is_file()
    capsys.readouterr()
    assert cli.main(["list", "picture", "--import", str(file)]) == 0
    assert "The brightest images of the split." in capsys.readouterr().out
    chosen = "darkest-image,resampled,brightest-images,reconstructions,kl"
    page = tmp_path / "page.html"
    report = ["report", run[0], "--samples", "2", "--pictures", chosen, "--out", str(page), *run[1:]]
    assert cli.main(report) == 0, capsys.readouterr().err
    text = page.read_text(encoding="utf-8")
    places = [
        text.index(f">{words}<")
        for words in (base.GROUPS["images"], "reconstructions", "brightest images", "resampled",
                      base.GROUPS["latent"], "Pictures of mine", "darkest image")
    ]  # fmt: skip
    assert places == sorted(places)
