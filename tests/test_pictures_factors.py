"""Pictures of images whose factors are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nelbo import pictures, plots
from nelbo.core.registry import lookup
from nelbo.pictures.view import NotApplicable, View
from nelbo.training import api
from nelbo.training.recipe import Recipe
from nelbo.training.store import Run

GRID = (4, 5, 12)
FACTORS_NF = np.tile(np.indices(GRID).reshape(3, -1).T, (2, 1))


def drawn() -> np.ndarray:
    """A bar whose left end, brightness and (hardly) its background are three factors: images 8 x 8."""
    images = np.zeros((len(FACTORS_NF), 8, 8), np.uint8)
    for image, (left, bright, ground) in zip(images, FACTORS_NF, strict=True):
        image += np.uint8(ground)
        image[2:6, left : left + 4] = 100 + 30 * bright
    return images


@pytest.fixture(scope="module")
def run(tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("factors")
    names = np.array(["left", "brightness", "ground"])
    np.savez(folder / "bars.npz", images=drawn(), factors=FACTORS_NF, factor_names=names)
    recipe = tiny_recipe({"data.source": str(folder / "bars.npz"), "epochs": 12, "data.test": 0.4})
    return api.train(recipe, runs=folder, name="bars", device="cpu")


@pytest.fixture
def view(run: Run) -> View:
    return View.open(run, device="cpu")


def listened(
    monkeypatch: pytest.MonkeyPatch, view: View, picture: str, plot: str
) -> tuple[Any, dict[str, Any]]:
    found = {}
    real = getattr(plots, plot)
    monkeypatch.setattr(plots, plot, lambda *a, **k: found.update(given=a, named=k) or real(*a, **k))
    ((stem, _),) = list(lookup("picture", picture)(view))
    assert stem == picture
    return found["given"], found["named"]


def test_a_sweep_varies_one_factor_and_nothing_else(view, monkeypatch):
    (images, decoded), named = listened(monkeypatch, view, "factor-sweeps", "side_by_side")
    assert named["row_labels"] == ["left", "brightness", "ground"]
    by_pixels = {image.tobytes(): tuple(f) for image, f in zip(drawn(), FACTORS_NF.tolist(), strict=True)}
    for k, row in enumerate(images):
        pixels = np.rint(row[..., 0] * 255).astype(np.uint8)
        known = np.array([by_pixels[image.tobytes()] for image in pixels])
        assert (np.diff(known[:, k]) > 0).all(), "each value once, in order"
        assert len(np.unique(np.delete(known, k, axis=1), axis=0)) == 1
        assert abs(known[0] - np.median(FACTORS_NF, axis=0))[[i for i in range(3) if i != k]].max() <= 1
        with torch.no_grad():
            x = torch.from_numpy(row).permute(0, 3, 1, 2)
            expected = view.decode(view.posterior(x).mean)
        np.testing.assert_allclose(decoded[k], expected.permute(0, 2, 3, 1), atol=1e-5)
    assert len(images[0]) <= 4
    assert len(images[2]) <= 10, "of twelve values ten are shown"


def test_the_table_is_what_the_metric_measures(view, monkeypatch):
    (share_AF,), named = listened(monkeypatch, view, "factor-information", "factor_table")
    ranked = np.sort(np.vstack([share_AF, np.zeros(share_AF.shape[1])]), axis=0)
    found = dict(lookup("metric", "factors")(view.model, view.split))
    assert float((ranked[-1] - ranked[-2]).mean()) == pytest.approx(found["mig"].value, abs=1e-6)
    assert list(named["factors"]) == ["left", "brightness", "ground"][: share_AF.shape[1]]
    assert len(named["dimensions"]) == len(share_AF)
    assert found["dci_informativeness"].value > 0.3


def test_factors_are_counted_in_what_a_run_records(run):
    assert run.read_json("env.json")["data"]["factors"] == {"left": 4, "brightness": 5, "ground": 12}


@pytest.mark.parametrize("picture", ["factor-sweeps", "factor-information"])
def test_without_factors_there_is_no_such_picture(tiny_run, tmp_path, picture):
    with pytest.raises(NotApplicable, match="tiny has no known factors"):
        pictures.draw(View.open(tiny_run, device="cpu"), [picture], tmp_path)
