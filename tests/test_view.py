"""A run opened for looking: latents are posterior means, class means true counts, random choices seeded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nelbo import pictures, plots
from nelbo.errors import ConfigError, DataError, RunError
from nelbo.pictures.view import View
from nelbo.training import api
from nelbo.training.recipe import Recipe
from nelbo.training.store import Run


@pytest.fixture(scope="module")
def view(tiny_run: Run) -> View:
    return View.open(tiny_run, device="cpu")


def test_latents_are_posterior_means_in_order(view):
    with torch.no_grad():
        one_by_one = torch.cat([view.model.encode(x_CHW[None]).mean for x_CHW in view.x_NCHW])
    torch.testing.assert_close(view.z_NZ, one_by_one, rtol=1e-5, atol=1e-6)
    assert view.z_NZ.shape == (40, 3)
    assert torch.equal(view.z_NZ, View.open(view.run, device="cpu").z_NZ)


def test_one_tsne_serves_every_picture_of_a_checkpoint(view, monkeypatch, tmp_path):
    fresh, made, project = View.open(view.run, device="cpu"), [], plots.project

    def counted(points_NZ, method, **more):
        made.extend([method] if method == "tsne" else [])
        return project(points_NZ, method, **more)

    monkeypatch.setattr(plots, "project", counted)
    pictures.draw(fresh, ["tsne", "first-against-best"], tmp_path)
    assert made == ["tsne", "tsne"], "of the best and of the first epoch"
    assert fresh.at("best") is fresh
    assert fresh.at("first") is not fresh


def test_images_are_the_files_own(view, tiny_data):
    arrays = np.load(tiny_data)
    np.testing.assert_allclose(view.x_NCHW[:, 0].numpy(), arrays["x_test"] / 255, atol=1e-7)
    np.testing.assert_allclose(view.inputs(slice(None))[..., 0], arrays["x_test"] / 255, atol=1e-7)
    assert [view.class_name(label) for label in view.labels_N] == list(arrays["y_test"])


def test_a_class_mean_weighs_every_image_of_the_class_once(view):
    counts = np.bincount(view.labels_N)
    assert len(set(counts)) > 1  # classes of different sizes, otherwise this proves little
    assert len(set(counts * 1.0)) != 1
    for label, count in enumerate(counts):
        total = np.zeros(3)
        for z_Z, own in zip(view.z_NZ.double().numpy(), view.labels_N, strict=True):
            total += z_Z * (own == label)
        np.testing.assert_allclose(view.class_mean(label).numpy(), total / count, rtol=1e-5, atol=1e-6)


def test_an_example_is_the_first_image_of_its_class(view):
    for label in view.classes:
        position = view.example(label)
        assert view.labels_N[position] == label
        assert label not in view.labels_N[:position]


@pytest.mark.parametrize(("asked", "label"), [("dog", 1), ("DOG", 1), ("2", 2), (0, 0), ("Cat", 0)])
def test_a_class_is_found_by_name_or_number(view, asked, label):
    assert view.find_class(asked) == label


@pytest.mark.parametrize("asked", ["dgo", "7", "", "-1", "--1", "²", "0.5"])
def test_a_class_that_is_not_there_is_named(view, asked):
    with pytest.raises(ConfigError, match="no class of tiny") as caught:
        view.find_class(asked)
    assert "cat, dog, owl" in str(caught.value)


def test_prior_samples_have_their_seed_and_serve_every_checkpoint(view):
    before = torch.get_rng_state()
    z_NZ, x_NCHW = view.samples(8)
    again = view.samples(8)
    first = view.at("first").samples(8)
    assert torch.equal(z_NZ, again[0])
    assert torch.equal(x_NCHW, again[1])
    assert torch.equal(z_NZ, first[0])
    assert not torch.equal(x_NCHW, first[1])  # other weights
    assert not torch.equal(z_NZ, View.open(view.run, device="cpu", seed=1).samples(8)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert x_NCHW.shape == (8, 1, 8, 8)
    torch.testing.assert_close(view.samples(8, 0.5)[0], 0.5 * z_NZ)
    assert float(view.samples(2, 0.0)[0].abs().max()) == 0.0


def test_draws_around_an_image_come_from_its_posterior(view):
    before = torch.get_rng_state()
    z_NBZ, x_NBCHW = view.around(view.x_NCHW[:2], 4000)
    assert z_NBZ.shape == (4000, 2, 3)
    assert x_NBCHW.shape == (4000, 2, 1, 8, 8)
    posterior = view.posterior(view.x_NCHW[:2])
    error = 5 * posterior.std / 4000**0.5
    assert bool(((z_NBZ.mean(0) - posterior.mean).abs() < error).all())
    torch.testing.assert_close(z_NBZ.std(0), posterior.std, rtol=0.06, atol=0.0)
    torch.testing.assert_close(view.decode(z_NBZ[3]), x_NBCHW[3])
    assert torch.equal(view.around(view.x_NCHW[:2], 4000)[0], z_NBZ)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_mean_plus_noise_is_drawn_where_noise_is_given(view):
    x_BCHW = view.x_NCHW[:2]
    mean_BZ, z_NBZ = view.mean(x_BCHW), view.around(x_BCHW, 4000, 2.0)[0]
    assert bool(((z_NBZ.mean(0) - mean_BZ).abs() < 5 * 2 / 4000**0.5).all())
    torch.testing.assert_close(z_NBZ.std(0), torch.full_like(mean_BZ, 2.0), rtol=0.06, atol=0.0)
    half, x_NBCHW = view.around(x_BCHW, 3, 0.5)
    torch.testing.assert_close(half - mean_BZ, view.around(x_BCHW, 3, 1.0)[0] / 2 - mean_BZ / 2)
    torch.testing.assert_close(view.decode(half[2]), x_NBCHW[2])


def test_decoding_in_pieces_changes_nothing(view, monkeypatch):
    z_MZ = torch.randn(25, 3, generator=torch.Generator().manual_seed(0))
    whole = view.decode(z_MZ)
    monkeypatch.setattr("nelbo.pictures.view.DECODE_AT_ONCE", 7)
    torch.testing.assert_close(view.decode(z_MZ), whole)
    assert not whole.requires_grad


def test_pictures_are_in_0_1_whatever_the_model_sees(tiny_recipe, tmp_path):
    recipe = tiny_recipe(
        {"epochs": 1, "data.transforms": [{"name": "scale", "low": -1.0}], "model.likelihood": "gaussian"}
    )
    view = View.open(api.train(recipe, runs=tmp_path, device="cpu"), device="cpu")
    assert float(view.x_NCHW.min()) < -0.9
    shown = view.inputs(slice(None))
    assert shown.dtype == np.float32
    assert shown.min() >= 0.0
    np.testing.assert_allclose(2 * shown[..., 0] - 1, view.x_NCHW[:, 0].numpy(), atol=1e-6)
    assert view.pictures(torch.full((1, 8, 8), 7.0)).max() == 1.0


def test_title_and_checkpoints(view):
    best = view.run.summary["best_epoch"]
    assert view.title == f"tiny · best (epoch {best}) · test"
    assert view.at("first").title == "tiny · first (epoch 1) · test"
    assert view.at("last").title == f"tiny · last (epoch {view.run.summary['epochs']}) · test"
    assert len(View.open(view.run, split="validation", device="cpu")) == 24
    assert len(View.open(view.run, split="train", device="cpu")) == 96
    with pytest.raises(ConfigError, match="no split is called 'tets'"):
        View.open(view.run, split="tets", device="cpu")
    with pytest.raises(RunError, match="no checkpoint is called 'bets'"):
        View.open(view.run, checkpoint="bets", device="cpu")


def test_no_labels_is_an_error_that_says_how_to_have_some(tiny_recipe: Callable[..., Recipe], tmp_path: Path):
    np.save(tmp_path / "plain.npy", np.random.RandomState(0).randint(0, 256, (30, 8, 8)).astype(np.uint8))
    recipe = tiny_recipe({"data.source": str(tmp_path / "plain.npy"), "epochs": 1})
    view = View.open(api.train(recipe, runs=tmp_path / "runs", device="cpu"), device="cpu")
    assert view.labels_N is None
    for ask in (lambda: view.classes, lambda: view.class_mean(0), lambda: view.example(0)):
        with pytest.raises(DataError, match="plain has no labels") as caught:
            ask()
        assert "folder" in str(caught.value)
        assert "'labels'" in str(caught.value)


def test_a_line_has_its_ends_and_even_steps(view):
    start, end = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.5])
    z_SZ = view.line(start, end, 6)
    assert torch.equal(z_SZ[0], start)
    assert torch.equal(z_SZ[-1], end)
    torch.testing.assert_close(z_SZ.diff(dim=0), ((end - start) / 5).expand(5, 2))
    assert view.line(start, end, 2).shape == (2, 2)
    for steps in (1, 0, -3):
        with pytest.raises(ConfigError, match=rf"2 steps or more \(got {steps}\)"):
            view.line(start, end, steps)


@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_a_traversal_moves_one_dimension(view, dimension):
    z_Z = torch.tensor([0.3, -1.0, 2.0])
    moved = view.traversal(z_Z, dimension, 3.0, 7)
    torch.testing.assert_close(moved[:, dimension], torch.tensor([-3.0, -2, -1, 0, 1, 2, 3]))
    rest = [other for other in range(3) if other != dimension]
    assert torch.equal(moved[:, rest], z_Z[rest].expand(7, 2))
    assert z_Z.tolist() == pytest.approx([0.3, -1.0, 2.0])  # the start itself is left alone


def test_a_traversal_needs_a_dimension_and_steps(view):
    for dimension in (-1, 3, 99):
        with pytest.raises(ConfigError, match=f"no latent dimension {dimension}; this model has 0 to 2"):
            view.traversal(torch.zeros(3), dimension, 3.0, 5)
    with pytest.raises(ConfigError, match="2 steps or more"):
        view.traversal(torch.zeros(3), 0, 3.0, 1)
