"""A loaded model checks its inputs; trainings leave the caller's random streams and default dtype as they were."""

from __future__ import annotations

import copy
import io
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import nelbo
from nelbo.errors import ConfigError, DataError
from nelbo.training import api
from nelbo.training.loaded import Checked


@pytest.fixture(scope="module")
def model(tiny_run):
    return nelbo.load(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def levels_NCHW(tiny_run):
    return tiny_run.recipe.data.load().test.pixels_NCHW[:5]


def log_prob(model, x):
    torch.manual_seed(0)
    return model.log_prob(x, 4)


def test_checks_change_no_number(tiny_run, model, levels_NCHW):
    bare, x = api.load(tiny_run, device="cpu"), levels_NCHW / 255
    assert isinstance(model, Checked)
    assert not isinstance(bare, Checked)
    assert isinstance(model, type(bare))
    assert torch.equal(log_prob(model, x), log_prob(bare, x))
    assert torch.equal(model(x), bare.reconstruct(x))


@pytest.mark.parametrize(
    "same",
    [
        lambda levels: levels,
        lambda levels: levels[:, 0],
        lambda levels: levels.numpy(),
        lambda levels: (levels[:, 0] / 255).numpy()[::-1].copy()[::-1],
        lambda levels: levels.double() / 255,
    ],
    ids=["uint8", "no channel axis", "NumPy", "NumPy backwards", "float64"],
)
def test_other_types_give_the_same_numbers(model, levels_NCHW, same):
    right, given = log_prob(model, levels_NCHW / 255), same(levels_NCHW)
    assert torch.equal(log_prob(model, given), right)
    assert torch.equal(model.encode(given).mean, model.encode(levels_NCHW / 255).mean)


def test_half_precision_is_taken_as_it_is(model, levels_NCHW):
    half = (levels_NCHW / 255).half()
    assert torch.equal(model.reconstruct(half), model.reconstruct(half.float()))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda x: x.permute(0, 2, 3, 1), r"shape \(5, 8, 8, 1\).*model.shape \(1, 8, 8\).*x.permute"),
        (lambda x: x[0, 0], r"shape \(8, 8\).*x\[None\]"),
        (lambda x: x[:, :, :4], r"shape \(5, 1, 4, 8\)"),
        (lambda x: x.expand(-1, 3, -1, -1), r"shape \(5, 3, 8, 8\)"),
        (lambda x: x.flatten(1), r"shape \(5, 64\)"),
        (lambda x: x * 255, r"needs them in \[0, 1\].*from 0 to 2\d\d.*x / 255"),
        (lambda x: x.clone().fill_(float("nan")), "320 of 320 pixels"),
        (lambda x: x.long(), "int64, but this model takes floating point"),
        (lambda x: x.tolist(), "not list"),
        (lambda x: x.numpy().astype(str), "not an array of <U"),
    ],
)
def test_images_that_do_not_fit_are_refused_by_every_call(model, levels_NCHW, wrong, says):
    given = wrong(levels_NCHW / 255)
    for call in (model, model.encode, model.reconstruct, model.log_prob, model.draw):
        with pytest.raises(DataError, match=says):
            call(given)


def test_latents_and_numbers_that_do_not_fit_are_refused(model):
    assert torch.equal(model.decode(np.zeros(3)).mean, model.decode(torch.zeros(3)).mean)
    for wrong, says in (
        (torch.zeros(2, 4), r"shape \(2, 4\).*\(..., 3\)"),
        (torch.tensor(1.0), r"shape \(\)"),
        (torch.full((2, 3), float("inf")), "finite"),
        (torch.zeros(2, 3, dtype=torch.int64), "z.float"),
    ):
        with pytest.raises(DataError, match=says):
            model.decode(wrong)
    for n in (-1, 2.5, True, "3"):
        with pytest.raises(ConfigError, match="n must be a whole number"):
            model.sample(n)
    with pytest.raises(ConfigError, match="k must be a whole number from 1"):
        model.log_prob(torch.zeros(1, 1, 8, 8), 0)
    with pytest.raises(DataError, match="temperature"):
        model.sample(2, float("nan"))


def test_eight_bit_images_are_refused_where_the_run_did_more_than_divide(
    tiny_recipe, tmp_path, tiny_run, levels_NCHW
):
    scaled = tiny_recipe(
        {"epochs": 1, "data.transforms": [{"name": "scale", "low": -1.0}], "likelihood": "gaussian"}
    )
    model = nelbo.load(nelbo.train(scaled, runs=tmp_path, device="cpu"), device="cpu")
    assert torch.isfinite(model.log_prob(levels_NCHW / 127.5 - 1, 2)).all()
    with pytest.raises(DataError, match=r"uint8.*went through scale.*as the model saw them"):
        model.encode(levels_NCHW)
    with pytest.raises(DataError, match="needs them finite"):
        model.encode(torch.full((1, 1, 8, 8), float("inf")))
    shared = nelbo.load(tiny_run.path / "model", device="cpu")
    with pytest.raises(DataError, match="folder does not say"):
        shared.encode(levels_NCHW)
    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        shared.encode(levels_NCHW.float())


def test_a_loaded_model_is_copied_and_saved(model, levels_NCHW):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(again(levels_NCHW), model(levels_NCHW))
        with pytest.raises(DataError):
            again(levels_NCHW[:, :, 1:])


def test_training_and_loading_leave_streams_and_default_dtype_as_they_were(tiny_recipe, tiny_run, tmp_path):
    def drawn() -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    class Noisy:
        """A data set that draws from every stream when it is read."""

        def __len__(self):
            return 30

        def __getitem__(self, index):
            drawn()
            return torch.full((1, 8, 8), index / 30), index % 2

    def script(between) -> list[tuple[float, float, float]]:
        torch.manual_seed(7), np.random.seed(7), random.seed(7)
        draws = [drawn()]
        between()
        return [*draws, drawn()]

    def train():
        run = nelbo.train(
            tiny_recipe({"epochs": 1}), data=Noisy(), runs=tmp_path, name="streams", device="cpu"
        )
        assert run.history()[0]["epoch"] == 1
        torch.set_default_dtype(torch.float64)
        try:
            other = nelbo.train(tiny_recipe(), runs=tmp_path, name="double", device="cpu")
            assert nelbo.load(other, device="cpu").encoder[1].weight.dtype == torch.float32
            assert torch.get_default_dtype() == torch.float64
            alone = [row["train"] for row in tiny_run.history()][:3]
            assert len(other.history()) == len(alone)
            assert [row["train"] for row in other.history()] == alone
        finally:
            torch.set_default_dtype(torch.float32)

    assert script(train) == script(lambda: None)


def test_the_surface_is_listed():
    assert set(nelbo.__all__) <= set(dir(nelbo))
    assert all(callable(getattr(nelbo, name)) for name in nelbo.__all__)


@pytest.mark.parametrize("backend", ["nonsense", "module://no_such_package.backend"])
def test_an_alien_matplotlib_backend_does_no_harm(backend, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", backend)
    script = (
        "import io, os; from nelbo.plots import PlotError; from nelbo.plots.style import new_figure; "
        "file = io.BytesIO(); new_figure(1, 1).savefig(file, format='png'); "
        f"assert file.getvalue()[1:4] == b'PNG' and os.environ['MPLBACKEND'] == {backend!r}"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
