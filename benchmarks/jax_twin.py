"""The same training in JAX, where it is installed: a whole epoch as one compiled scan. Never a dependency.

    python benchmarks/jax_twin.py [RECIPE ...] [--epochs 3] [--repeat 3] [--bf16] [--device cpu] [--data DIR]

For fully connected networks with Bernoulli pixels: the recipe's network, batch size, Adam and schedules. It leaves out
the short last batch, which is not counted. Prints one JSON line a recipe and turn, with the clocks of `nelbo bench`;
run that beside it for a ratio. Needs `pip install jax` in the same environment.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nelbo import engine
from nelbo.bench.lap import Lap, Memory, seconds_to_target
from nelbo.core import Progress
from nelbo.data import Splits
from nelbo.errors import ConfigError
from nelbo.likelihoods import Bernoulli
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO
from nelbo.optim import Adam
from nelbo.posteriors import DiagonalGaussian
from nelbo.posteriors.diagonal_gaussian import SMALLEST_STD
from nelbo.priors import StandardNormal
from nelbo.training import api
from nelbo.training.recipe import Recipe, resolve

NOT_HERE = "JAX is not installed (or cannot be imported)"


def importable() -> Any | None:
    """Return the module, or None. It would otherwise take most of a GPU's memory when first used."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        return importlib.import_module("jax")
    except (ImportError, RuntimeError, OSError):
        return None


def why_not(recipe: Recipe, splits: Splits) -> str | None:
    """Return the parts of the recipe that have no JAX twin here, or None where it has one."""
    model, optimizer, objective = recipe.model, recipe.optimizer, recipe.objective
    if not isinstance(model, VAE) or not isinstance(model.encoder, MLP) or not isinstance(model.decoder, MLP):
        return "no JAX twin: only of networks whose encoder and decoder are mlp"
    reasons = {
        "batch norm": model.encoder.batch_norm or model.decoder.batch_norm,
        "spectral norm": model.encoder.spectral_norm or model.decoder.spectral_norm,
        "gated layers": "gated" in (model.encoder.activation, model.decoder.activation),
        "this posterior": not isinstance(model.posterior, DiagonalGaussian),
        "shared noise": getattr(model.posterior, "noise", "") == "shared",
        "this prior": not isinstance(model.prior, StandardNormal),
        "this likelihood": not isinstance(model.likelihood, Bernoulli),
        "this objective": not isinstance(objective, ELBO) or bool(objective.free_bits) or objective.k != 1,
        "this optimiser": type(optimizer) is not Adam or bool(optimizer.weight_decay),
        "clipping": recipe.clip_norm is not None,
        "averaged weights": recipe.ema is not None,
        "transforms of batches": any(transform.random for transform in splits.transforms),
        "float pixels": splits.train.dtype != torch.uint8,
        "images on the disk": not isinstance(splits.train.pixels, Tensor),
    }
    missing = [name for name, is_so in reasons.items() if is_so]
    return f"no JAX twin of {', '.join(missing)}" if missing else None


def weights(model: nn.Module) -> list[tuple[Any, Any]]:
    """Return (W_IO, b_O) of every linear layer, in the order they compute: encoder, posterior, decoder."""
    return [
        (layer.weight.detach().cpu().numpy().T, layer.bias.detach().cpu().numpy())
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    ]


def make_loss(recipe: Recipe, jax: Any, dtype: Any) -> Callable[..., tuple[Any, Any]]:
    """loss(parameters, pixels_BD, noise_BZ, beta) -> (what is minimised, the mean bound); as `ELBO` has it."""
    model: Any = recipe.model
    jnp = jax.numpy
    layers_in, layers_out = len(model.encoder.hidden), len(model.decoder.hidden)
    functions = {
        "relu": jax.nn.relu,
        "leaky-relu": lambda x: jax.nn.leaky_relu(x, 0.2),
        "elu": jax.nn.elu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "silu": jax.nn.silu,
        "tanh": jnp.tanh,
    }

    def through(x: Any, layers: Sequence[Any], activation: str, last: int) -> Any:
        for index, (weight_IO, bias_O) in enumerate(layers):
            x = x @ weight_IO.astype(dtype) + bias_O.astype(dtype)
            x = functions[activation](x) if index < last else x
        return x

    def spread(raw: Any, mean: Any) -> tuple[Any, Any, Any]:
        match model.posterior.parametrisation:
            case "log-variance":
                return mean, jnp.exp(0.5 * raw), raw
            case "positive":
                std = jax.nn.softplus(raw) + SMALLEST_STD
            case "raw-sigma":
                std = raw
            case _:
                mean, std = jnp.tanh(mean), jnp.tanh(raw)
        return mean, std, jnp.log(jnp.square(std))

    def loss(parameters: Any, pixels_BD: Any, noise_BZ: Any, beta: Any) -> tuple[Any, Any]:
        x = pixels_BD.astype(jnp.float32) / 255
        raw = through(x.astype(dtype), parameters[: layers_in + 1], model.encoder.activation, layers_in)
        mean, std, log_var = spread(*reversed(jnp.split(raw.astype(jnp.float32), 2, axis=1)))
        z = mean + std * noise_BZ
        logits = through(
            z.astype(dtype), parameters[layers_in + 1 :], model.decoder.activation, layers_out
        ).astype(jnp.float32)
        distortion_B = (jax.nn.softplus(logits) - x * logits).sum(1)
        rate_B = 0.5 * (mean**2 + std**2 - 1 - log_var).sum(1)
        loss_B = distortion_B + beta * rate_B
        total = loss_B.sum() if recipe.batch_reduction == "sum" else loss_B.mean()
        return total, -(distortion_B + rate_B).mean()

    return loss


def make_epoch(recipe: Recipe, jax: Any, dtype: Any, n: int) -> Callable[..., Any]:
    """epoch(parameters, moments, key, pixels_ND, betas_S, rates_S) -> (parameters, moments, bounds_S), S steps of Adam.

    A scan has steps of one size: the short last batch is left out, and not counted.
    """
    jnp = jax.numpy
    optimizer: Any = recipe.optimizer
    size = recipe.batch_size
    steps = n // size
    (b1, b2), eps = optimizer.betas, optimizer.eps
    latent_dim = recipe.model.latent_dim  # type: ignore[attr-defined]
    gradient = jax.value_and_grad(make_loss(recipe, jax, dtype), has_aux=True)
    over = jax.tree_util.tree_map

    def epoch(parameters: Any, moments: Any, key: Any, pixels_ND: Any, betas_S: Any, rates_S: Any) -> Any:
        order_key, noise_key = jax.random.split(key)
        order_SB = jax.random.permutation(order_key, n)[: steps * size].reshape(steps, size)

        def step(carry: Any, now: Any) -> Any:
            parameters, (first, second, t) = carry
            rows, key, beta, rate = now
            noise_BZ = jax.random.normal(key, (size, latent_dim))
            (_, bound), slopes = gradient(parameters, pixels_ND[rows], noise_BZ, beta)
            t = t + 1
            first = over(lambda m, g: b1 * m + (1 - b1) * g, first, slopes)
            second = over(lambda v, g: b2 * v + (1 - b2) * g * g, second, slopes)
            parameters = over(
                lambda p, m, v: p - rate * (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t)) + eps),
                parameters, first, second,
            )  # fmt: skip
            return (parameters, (first, second, t)), bound

        keys_S = jax.random.split(noise_key, steps)
        (parameters, moments), bounds_S = jax.lax.scan(
            step, (parameters, moments), (order_SB, keys_S, betas_S, rates_S)
        )
        return parameters, moments, bounds_S

    return epoch


def run(
    recipe: Recipe, splits: Splits, *, epochs: int, device: torch.device, precision: str = "fp32",
    target: float | None = None,
) -> Lap:  # fmt: skip
    """Train `epochs` epochs, compiled before the clock starts; raise ConfigError where there is no twin."""
    jax = importable()
    why = NOT_HERE if jax is None else why_not(recipe, splits)
    if jax is None or why:
        raise ConfigError(why or NOT_HERE)
    jnp = jax.numpy
    try:
        where = jax.devices("gpu" if device.type == "cuda" else device.type)[device.index or 0]
    except RuntimeError as error:
        raise ConfigError(f"JAX has no {device.type} here ({str(error).splitlines()[0]})") from None
    memory = Memory(device)
    dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
    n = len(splits.train)
    steps = n // recipe.batch_size
    with engine.fixed_seed(recipe.seed, torch.device("cpu")):
        parameters = [tuple(map(jnp.asarray, pair)) for pair in weights(recipe.model.build(splits.shape))]
    with jax.default_device(where):
        pixels_ND = jnp.asarray(splits.train.pixels_NCHW.reshape(n, -1).numpy())
        zeros = jax.tree_util.tree_map(jnp.zeros_like, parameters)
        state = parameters, (zeros, zeros, jnp.zeros((), jnp.int32))
        key = jax.random.key(recipe.seed)
        scheduled = [_schedules(recipe, epoch, steps) for epoch in range(1, epochs + 1)]
        begun = time.perf_counter()
        epoch_of = (
            jax.jit(make_epoch(recipe, jax, dtype, n)).lower(*state, key, pixels_ND, *scheduled[0]).compile()
        )
        compiling = time.perf_counter() - begun
        seconds, bounds = [], []
        for schedules in scheduled:
            key, now = jax.random.split(key)
            begun = time.perf_counter()
            *state, bounds_S = epoch_of(*state, now, pixels_ND, *schedules)
            jax.block_until_ready(bounds_S)
            seconds.append(time.perf_counter() - begun)
            bounds.append(np.asarray(bounds_S).tolist())
    return Lap(
        epochs=tuple(seconds[1:]),
        images=steps * recipe.batch_size,
        precision=precision,
        how=f"compiled by XLA, JAX {jax.__version__}",
        compile_seconds=compiling,
        target_seconds=seconds_to_target(bounds, seconds, target),
        peak_mb=memory.peak_mb() if device.type == "cpu" else None,
    )


def _schedules(recipe: Recipe, epoch: int, steps: int) -> tuple[Any, Any]:
    """beta and the learning rate of each step of an epoch, float32."""
    now = [
        Progress(epoch, recipe.epochs, (epoch - 1) * steps + i, recipe.epochs * steps) for i in range(steps)
    ]
    objective: Any = recipe.objective
    tables = ([schedule(at) for at in now] for schedule in (objective.beta, recipe.optimizer.lr))
    betas_S, rates_S = (np.asarray(table, dtype=np.float32) for table in tables)
    return betas_S, rates_S


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=["digits"])
    parser.add_argument("--epochs", type=int, default=3, help="of each training, the first left out")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NELBO_DATA", "data")))
    options = parser.parse_args()
    device, precision = engine.pick_device(options.device), "bf16" if options.bf16 else "fp32"
    for name in options.recipes:
        recipe = resolve(name)
        splits = api.load_data(recipe, options.data)
        for _ in range(options.repeat):
            lap = run(recipe, splits, epochs=options.epochs, device=device, precision=precision)
            print(json.dumps({"recipe": name, **dataclasses.asdict(lap)}), flush=True)


if __name__ == "__main__":
    main()
