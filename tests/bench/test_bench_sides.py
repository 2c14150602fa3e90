"""The sides of a bench do the same work: the plain loop takes the step that nelbo takes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from methods import recipe_of
from torch import nn

from nelbo.bench import machine, nelbo, plain
from nelbo.errors import ConfigError
from nelbo.optim import Adam, AdamW
from nelbo.training import api
from nelbo.training.recipe import resolve
from nelbo.training.store import Run
from tests.conftest import recipes

CPU = torch.device("cpu")


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


# --- the plain loop ---------------------------------------------------------------------------

CONVOLUTIONS = {
    "model.encoder": {"name": "conv", "channels": [4, 6], "top": 8},
    "model.decoder": {"name": "conv", "channels": [6, 4], "top": 8},
    "optimizer": {"name": "adamw", "lr": 0.02},
    "batch_reduction": "sum",
}


@pytest.mark.parametrize("overrides", [{}, CONVOLUTIONS], ids=["mlp", "conv"])
def test_the_plain_loop_takes_the_same_step(parts, overrides):
    """torch's own layers and its own Adam, on nelbo's weights and noise: nelbo's loss and new weights."""
    recipe, splits, x_BCHW = parts(overrides)
    found = {}
    for side in ("nelbo", "plain"):
        torch.manual_seed(0)
        model = recipe.model.build(splits.shape)
        if side == "plain":
            model = plain.stock(model)
            optimizer = plain.optimizer_of(recipe.optimizer, model)
        else:
            optimizer = recipe.optimizer.build(model.parameters())
        torch.manual_seed(1)
        loss, bound_B = plain.step(recipe, model, optimizer, x_BCHW, 1, 0, 3, 48)
        found[side] = vector(model), float(loss.detach()), bound_B.detach()
    assert torch.allclose(found["plain"][0], found["nelbo"][0], atol=1e-5)
    assert found["plain"][1] == pytest.approx(found["nelbo"][1], rel=1e-5)
    assert torch.allclose(found["plain"][2], found["nelbo"][2], rtol=1e-4)


@pytest.mark.parametrize("name", recipes())
def test_stock_layers_are_torchs_own(name):
    recipe = recipe_of(name)
    model = plain.stock(recipe.model.build(api.shape_without_loading(recipe)))
    layers = [layer for layer in model.modules() if isinstance(layer, plain.STOCK)]
    assert layers
    assert {type(layer).__module__.partition(".")[0] for layer in layers} == {"torch"}


def test_its_pictures_are_the_pixels(parts):
    _, splits, x_BCHW = parts()
    pictures = plain.Pictures(splits)
    assert len(pictures) == len(splits.train)
    found = torch.stack([pictures[index] for index in range(len(x_BCHW))])
    assert found.dtype == torch.float32
    assert torch.equal(found, x_BCHW)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_of_any_number_of_channels(channels):
    images = torch.randint(0, 256, (20, channels, 5, 7), dtype=torch.uint8)
    splits = api.load_data(resolve("digits", {"data.transforms": ()}), None, images)
    pictures = plain.Pictures(splits)
    assert torch.equal(pictures[3], splits.train.pixels_NCHW[3] / 255)


def test_its_optimiser_is_torchs_and_another_is_refused():
    model = nn.Linear(2, 2)
    found = plain.optimizer_of(Adam(lr=0.5, betas=(0.1, 0.2), eps=3.0), model)
    assert type(found) is torch.optim.Adam
    assert {key: found.defaults[key] for key in ("lr", "betas", "eps", "fused")} == {
        "lr": 0.5, "betas": (0.1, 0.2), "eps": 3.0, "fused": None,
    }  # fmt: skip
    assert type(plain.optimizer_of(AdamW(), model)) is torch.optim.AdamW
    with pytest.raises(ConfigError, match="the plain loop has no optimiser 'sgd'; it knows adam and adamw"):
        plain.optimizer_of(SimpleNamespace(name="sgd"), model)


def test_the_plain_loop_times_every_epoch_but_the_first_and_learns(parts):
    recipe, splits, _ = parts({"epochs": 20})
    before = torch.get_rng_state()
    lap = plain.run(recipe, splits, epochs=20, device=CPU, target=1000.0)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random stream"
    assert (len(lap.epochs), lap.images, lap.precision, lap.how) == (19, 96, "fp32", "eager")
    assert min(lap.epochs) > 0
    assert lap.target_seconds is not None, "1,000 nats are passed at once"
    reached = plain.run(recipe, splits, epochs=20, device=CPU, target=37.0)
    assert reached.target_seconds is not None, "it learns"
    assert reached.target_seconds > lap.target_seconds
    assert plain.run(recipe, splits, epochs=2, device=CPU, target=1.0).target_seconds is None


# --- nelbo itself -----------------------------------------------------------------------------


def test_own_training_ends_after_so_many_epochs_and_keeps_its_length(tiny_recipe):
    """The choices and schedules are those of the whole run: `auto` compiles by the number of steps."""
    recipe = tiny_recipe({"epochs": 50})
    lap = nelbo.run(recipe, {"compile": "off", "precision": "fp32"}, epochs=3, device=CPU, target=1000.0)
    assert (len(lap.epochs), lap.images, lap.precision, lap.how) == (2, 96, "fp32", "eager")
    assert lap.threads == 1
    assert lap.compile_seconds == 0
    assert lap.target_seconds is not None
    assert lap.target_seconds < sum(lap.epochs) * 50


def test_the_listener_keeps_the_bound_of_every_batch(tiny_recipe, tmp_path):
    listener = nelbo.Listener(2)
    with pytest.raises(nelbo.Enough):
        api.train(tiny_recipe(), runs=tmp_path, name="x", device="cpu", tell=listener)
    assert [len(row) for row in listener.bounds] == [3, 3]
    logged = [row["train"]["bound"] for row in Run(tmp_path / "x").history()]
    for row, mean in zip(listener.bounds, logged, strict=True):
        assert np.average(row, weights=[40, 40, 16]) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"compiled": False, "steps_at_once": 1}, "eager"),
        ({"compiled": True, "steps_at_once": 1}, "compiled"),
        ({"compiled": True, "steps_at_once": 16}, "compiled, captured, 16 steps at once"),
    ],
)
def test_how_the_steps_ran_in_words(how, words):
    assert nelbo.words(how) == words


# --- the machine ------------------------------------------------------------------------------


def test_the_work_of_an_image_is_counted(parts):
    """Dense layers of I x O: 2 I O forward, as much for the weights' gradients and the inputs', but the pixels'."""
    recipe, splits, _ = parts()
    sizes = [(64, 32), (32, 2 * 3), (3, 32), (32, 64)]
    assert machine.flops_an_image(recipe, splits) == 6 * sum(i * o for i, o in sizes) - 2 * 64 * 32


def test_the_product_rate_is_that_of_a_product(monkeypatch):
    clock = itertools.count(0.0, 0.05)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    found = machine.product_rate(CPU, "fp32", size=50)
    assert found["flops_per_second"] == pytest.approx(2 * 50**3 / 0.05)
    assert (found["size"], found["threads"]) == (50, torch.get_num_threads())
    monkeypatch.undo()
    assert machine.product_rate(CPU, "bf16", size=32)["flops_per_second"] > 0
