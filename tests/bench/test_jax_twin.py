"""benchmarks/jax_twin.py takes the step that nelbo takes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nelbo.bench import plain
from nelbo.core import Progress
from nelbo.core.registry import names
from nelbo.errors import ConfigError
from nelbo.training.recipe import resolve

CPU = torch.device("cpu")
TWINS = {
    "digits", "mlp-sigma", "mlp-sigma-as-published", "mlp-tanh-binary", "fashion-mlp",
    "cyclic-warm-up", "diagonal-gaussian", "elbo-warm-up", "sigmoid-warm-up",
}  # fmt: skip


@pytest.fixture
def twin(monkeypatch):
    """The module of benchmarks/jax_twin.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("jax_twin")
    sys.modules.pop("jax_twin")


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("name", names("recipe"))
def test_which_recipes_have_a_twin(twin, name, tiny_recipe):
    splits = tiny_recipe().data.load()
    assert (twin.why_not(resolve(name), splits) is None) == (name in TWINS)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"model.likelihood": "gaussian"}, "likelihood"),
        ({"objective.free_bits": 0.1}, "objective"),
        ({"objective.k": 2, "objective.kl": "monte-carlo"}, "objective"),
        ({"optimizer": "adamw"}, "optimiser"),
        ({"clip_norm": 1.0}, "clipping"),
        ({"ema": 0.9}, "averaged"),
        ({"model.encoder.batch_norm": True}, "batch norm"),
        ({"model.encoder.spectral_norm": True}, "spectral norm"),
        ({"model.decoder.activation": "gated"}, "gated layers"),
        ({"data.transforms": "dynamic-binarise"}, "transforms"),
    ],
)
def test_what_has_no_twin_is_named(twin, parts, overrides, word):
    recipe, splits, _ = parts(overrides)
    assert word in (twin.why_not(recipe, splits) or "")


def numpy_as_jax() -> SimpleNamespace:
    """As much of JAX as the loss needs, by NumPy: the mathematics is tested where JAX is not installed."""

    def softplus(x):
        return np.logaddexp(x, 0)

    functions = SimpleNamespace(
        relu=lambda x: np.maximum(x, 0), leaky_relu=lambda x, slope: np.where(x > 0, x, slope * x),
        elu=lambda x: np.where(x > 0, x, np.expm1(x)), gelu=None, silu=lambda x: x / (1 + np.exp(-x)),
        softplus=softplus,
    )  # fmt: skip
    return SimpleNamespace(nn=functions, numpy=np)


POSTERIORS = ["log-variance", "positive", "raw-sigma", "tanh"]


@pytest.mark.parametrize("activation", ["relu", "leaky-relu", "elu", "silu", "tanh"])
@pytest.mark.parametrize("parametrisation", POSTERIORS)
def test_the_twins_loss_is_the_recipes(twin, parts, parametrisation, activation, monkeypatch):
    recipe, splits, x_BCHW = parts(
        {
            "model.posterior.parametrisation": parametrisation,
            "model.encoder.activation": activation,
            "model.decoder.activation": activation,
            "objective.beta": 3.0,
        }
    )
    torch.manual_seed(0)
    model = recipe.model.build(splits.shape)
    noise_BZ = torch.randn(len(x_BCHW), recipe.model.latent_dim)
    monkeypatch.setattr(torch, "randn", lambda shape, **_: noise_BZ.view(shape))
    with torch.no_grad():
        terms = recipe.objective(model.draw(x_BCHW), Progress())
    loss = twin.make_loss(recipe, numpy_as_jax(), np.float32)
    pixels_BD = splits.train.pixels_NCHW[: len(x_BCHW)].flatten(1).numpy()
    total, bound = loss(twin.weights(model), pixels_BD, noise_BZ.numpy(), 3.0)
    assert total == pytest.approx(float(terms.loss_B.mean()), rel=1e-4)
    assert bound == pytest.approx(float(terms.bound_B.mean()), rel=1e-4)


def test_the_twins_adam_is_torchs(twin, parts):
    """Three steps on the same noise and order; needs JAX, which the project's own environment has not."""
    jax = pytest.importorskip(
        "jax", reason="JAX is not installed: its gradients and its Adam are not compared"
    )
    recipe, splits, _ = parts({"batch_size": 32, "objective.beta": 2.0, "data.validation": None})
    n, size = len(splits.train), 32
    torch.manual_seed(0)
    model = plain.stock(recipe.model.build(splits.shape))
    parameters = [tuple(map(jax.numpy.asarray, pair)) for pair in twin.weights(model)]
    zeros = jax.tree_util.tree_map(jax.numpy.zeros_like, parameters)
    pixels_ND = jax.numpy.asarray(splits.train.pixels_NCHW.reshape(n, -1).numpy())
    key = jax.random.key(3)
    epoch = jax.jit(twin.make_epoch(recipe, jax, jax.numpy.float32, n))
    schedules = twin._schedules(recipe, 1, n // size)
    after, _, bounds_S = epoch(parameters, (zeros, zeros, 0), key, pixels_ND, *schedules)
    order_key, noise_key = jax.random.split(key)
    order_SB = np.asarray(jax.random.permutation(order_key, n)[: n // size * size]).reshape(-1, size)
    keys_S = jax.random.split(noise_key, n // size)
    optimizer = plain.optimizer_of(recipe.optimizer, model)
    for index, rows in enumerate(order_SB):
        noise = torch.from_numpy(np.array(jax.random.normal(keys_S[index], (size, recipe.model.latent_dim))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", lambda shape, noise=noise, **_: noise.view(shape))
            x_BCHW = splits.train.pixels_NCHW[torch.from_numpy(rows.copy())] / 255
            _, bound_B = plain.step(recipe, model, optimizer, x_BCHW, 1, index, len(order_SB), n)
        assert float(bounds_S[index]) == pytest.approx(float(bound_B.detach().mean()), rel=1e-4)
    theirs = np.concatenate([np.concatenate([np.asarray(w).T.ravel(), np.asarray(b)]) for w, b in after])
    assert np.allclose(theirs, vector(model).numpy(), atol=2e-4)


def test_without_jax_it_says_so(twin, parts, monkeypatch):
    recipe, splits, _ = parts()
    for error in (ImportError, RuntimeError, OSError):

        def broken(name, error=error):
            raise error("no such thing")

        monkeypatch.setattr(twin.importlib, "import_module", broken)
        with pytest.raises(ConfigError, match="JAX is not installed"):
            twin.run(recipe, splits, epochs=2, device=CPU)
