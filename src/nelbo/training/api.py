"""The Python surface: train and load. `card` adds evaluate; the command line is a thin coat over these."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nelbo import engine
from nelbo.data import Images, Splits
from nelbo.errors import ConfigError, DataError, RunError, TrainingFailed, UnknownName
from nelbo.metrics import Split
from nelbo.models import BuiltModel
from nelbo.training import store
from nelbo.training.loop import Tell, fit
from nelbo.training.recipe import Recipe, named, resolve
from nelbo.training.store import Run

FROM_PYTHON = "python"  # the data source of a run whose images were passed as an object


def quiet(event: str, row: dict[str, Any]) -> None:
    """Hears everything and says nothing."""


def plan(
    recipe: str | Path | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    data: object | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    overwrite: bool = False,
) -> tuple[Recipe, Path]:
    """The resolved recipe and the folder it would train in; every mistake that can be seen without data is raised."""
    wanted = resolve(recipe, overrides)
    if data is not None:
        wanted = resolve(wanted, {"data.source": FROM_PYTHON})
    else:
        wanted.data.check_source()
        if (path := wanted.data.path()) is not None:  # so that the run can be measured from anywhere
            wanted = resolve(wanted, {"data.source": str(path.resolve())})
    plain = None
    if wanted.recipe != "custom":
        plain = _known(wanted.recipe)
    folder = Path(runs) / store.check_name(name or store.default_name(wanted, plain))
    store.check_free(wanted, folder, overwrite=overwrite)
    return wanted, folder


def _write_environment(run: Run, where: torch.device, splits: Splits) -> dict[str, Any]:
    """What the run runs on and with, in env.json; an interrupted run keeps what its first part ran on."""
    environment = engine.describe(where) | {"command": engine.command_line(), "data": describe_data(splits)}
    earlier = run.read_json("env.json", missing={})
    if earlier:
        environment["earlier"] = [*earlier.pop("earlier", []), earlier]
    run.write_json("env.json", environment)
    return environment


def _known(name: str) -> Recipe | None:
    try:
        return named(name)
    except UnknownName:
        return None


def train(
    recipe: str | Path | Recipe,
    *,
    overrides: Mapping[str, Any] | None = None,
    data: object | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    overwrite: bool = False,
    tell: Tell = quiet,
) -> Run:
    """Trains a recipe and returns its run folder; the same call goes on with an interrupted run.

    recipe     a registered name, a TOML file, or a Recipe
    overrides  dotted fields, as on the command line: {"model.latent_dim": 16, "objective.beta": 4}
    data       images instead of `recipe.data.source`: an array, a tensor, (images, labels), a torch data set
    tell       hears `data`, `model`, `resume`, `begin`, `step`, `epoch` and `warning` with a table each

    The command line then also evaluates on the test split and draws the pictures (`nelbo.evaluate(run)`, `nelbo plot`).

    Raises ConfigError, DataError, DeviceError and RunError before anything is written, TrainingFailed
    and Interrupted later.
    """
    wanted, folder = plan(recipe, overrides, data=data, runs=runs, name=name, overwrite=overwrite)
    where = engine.pick_device(device)
    engine.check_precision(where, wanted.precision)
    begun = time.perf_counter()
    splits = load_data(wanted, data_dir, data)
    if not overwrite:
        _same_data(Run(folder), splits)
        if Run(folder).finished:
            return Run(folder)
        if Run(folder).checkpoint_path("last").is_file():
            Run(folder).load("last")  # a damaged one is refused before anything is written
    shapes = outline(wanted, splits.shape)
    _check_fits(wanted, splits)
    run = store.start(wanted, folder, overwrite=overwrite)
    environment = _write_environment(run, where, splits)
    loading = time.perf_counter() - begun
    tell(
        "data",
        environment["data"]
        | {
            "observation_kind": observation_kind(wanted),
            "bound": wanted.objective.bound_name,
            "note": splits.note,
        },
    )
    tell("model", shapes)
    try:
        state = fit(wanted, splits, run, where, tell)
    except TrainingFailed as error:  # kept for the doctor
        run.log({"event": "failed", "epoch": len(run.history()) + 1, "why": str(error)})
        raise
    best = load(run, checkpoint="best", device="cpu")
    store.share(
        run, best, splits.shape, {"recipe": wanted.recipe, "class_names": environment["data"]["class_names"]}
    )
    run.write_json(
        "summary.json",
        {
            "finished": True,
            "epochs": state.epoch - 1,
            "best_epoch": state.best_epoch,
            "selection": _selection(wanted, splits, state.best_bound),
            "images_per_second": round(state.images / state.seconds["train"], 1),
            "seconds": {"data": loading, **state.seconds},
            "device": str(where),
            "threads": state.threads,
            "batch_size": wanted.batch_size,
            **state.how,
        },
    )
    return run


def outline(recipe: Recipe, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Sends random input through a built model: the shape of everything on the way, and the number of weights.

    Raises ConfigError where a network does not fit images of this shape.
    """
    model = recipe.model.build(shape).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        x_BCHW = torch.rand(2, *shape)
        z_BZ = model.encode(x_BCHW).mean
        decoded = model.decode(z_BZ).mean
    if decoded.shape != x_BCHW.shape:
        raise ConfigError(
            f"model: decodes to {tuple(decoded.shape[1:])}, but the images are {shape} (C, H, W)"
        )
    weights = sum(parameter.numel() for parameter in model.parameters())
    return {
        "input": list(shape),
        "latent": list(z_BZ.shape[1:]),
        "output": list(decoded.shape[1:]),
        "weights": weights,
    }


def observation_kind(recipe: Recipe) -> str | None:
    """Return the set that the likelihood is a probability on: binary, levels or density."""
    likelihood = recipe.model.component("likelihood")
    return None if likelihood is None else str(likelihood.observation_kind)


def _check_fits(recipe: Recipe, splits: Splits) -> None:
    """Refuses, before anything is written, a network that a last batch of one image does not fit."""
    if len(splits.train) % recipe.batch_size != 1 % recipe.batch_size:
        return
    try:  # batch norm cannot normalise a batch of one number a channel
        with torch.no_grad():
            recipe.model.build(splits.shape).train().draw(torch.zeros(1, *splits.shape))
    except ValueError:
        raise ConfigError(
            f"batch-size: with {len(splits.train)} training images and batches of {recipe.batch_size} the last batch "
            "holds one image, which batch norm cannot normalise; use another --batch-size"
        ) from None


def _selection(recipe: Recipe, splits: Splits, best_bound: float | None) -> str:
    if best_bound is not None and observation_kind(recipe) == "binary" and splits.pixels != "binary":
        return "lowest validation grey cross-entropy plus KL, at beta 1"
    if best_bound is not None:
        return "highest validation bound at beta 1"
    if splits.validation is None:
        return "last epoch: there is no validation split to select on"
    return "last epoch: the objective reports no bound to select on"


def load_data(recipe: Recipe, data_dir: str | Path | None = None, data: object | None = None) -> Splits:
    """The recipe's splits, checked against its likelihood."""
    if data is None and recipe.data.source == FROM_PYTHON:
        raise DataError("this run was trained on images passed from Python; pass them again as data=...")
    splits = recipe.data.load(Path(data_dir) if data_dir else None, data)
    if recipe.patience is not None and splits.validation is None:
        raise ConfigError("patience needs a validation split; set --data.validation 0.1")
    likelihood = recipe.model.component("likelihood")
    support = None if likelihood is None else likelihood.support
    low, high = splits.range
    if likelihood is not None and support and (low < support[0] or high > support[1]):
        raise DataError(
            f"{splits.name}: pixels lie in [{low:g}, {high:g}], but a {likelihood.name} likelihood needs them in "
            f"[{support[0]:g}, {support[1]:g}]; say so with --data.range {low:g},{high:g}, "
            "or use --model.likelihood gaussian"
        )
    if likelihood is not None and observation_kind(recipe) == "levels" and not splits.eight_bit:
        raise DataError(
            f"{splits.name}: pixels are floating-point numbers between the 8-bit levels, but a {likelihood.name} "
            "likelihood is a probability of levels; store the images as uint8, or use --model.likelihood gaussian"
        )
    return splits


def describe_data(splits: Splits) -> dict[str, Any]:
    """What a run records of its data."""
    return {
        "name": splits.name,
        "hash": splits.hash,
        "shape": list(splits.shape),
        "pixels": splits.pixels,
        "n": {
            "train": len(splits.train),
            "validation": len(splits.validation) if splits.validation is not None else 0,
            "test": len(splits.test),
        },
        "class_names": list(splits.train.class_names) if splits.train.class_names else None,
        "factors": _factors(splits.train),
    }


def _factors(images: Images) -> dict[str, int] | None:
    """The number of values of each known factor of variation."""
    if images.factors_NF is None or images.factor_names is None:
        return None
    return {
        name: len(values.unique())
        for name, values in zip(images.factor_names, images.factors_NF.T, strict=True)
    }


def _same_data(run: Run, splits: Splits) -> None:
    """Refuses to go on with, or to measure, a run on other data than it was trained on."""
    before = run.read_json("env.json", missing={}).get("data", {}).get("hash")
    if before not in (None, splits.hash):
        raise DataError(
            f"{run.name} was trained on data with hash {before}, but {splits.name} now has {splits.hash}: the images, "
            "their order, the split or the preprocessing changed. Bring the same data back, or train a new run"
        )


def load(
    run: str | Path | Run, *, checkpoint: str = "best", device: str = "auto", runs: str | Path = "runs"
) -> BuiltModel:
    """The trained model of a run: encode, decode, sample, reconstruct, log_prob. In evaluation mode.

    `run` may also be the `model/` folder of a run, or a copy of it: what is shared.

    Raises RunError when the run or the checkpoint is missing or damaged.
    """
    if isinstance(run, str | Path) and (Path(run) / "model.safetensors").is_file():
        return engine.place(store.shared(Path(run)), engine.pick_device(device))
    found = store.find(run, Path(runs))
    tensors, _ = found.load(checkpoint)
    if checkpoint == "last":
        prefix = "average." if any(key.startswith("average.") for key in tensors) else "model."
        tensors = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    shape = found.read_json("env.json").get("data", {}).get("shape")
    if not shape:
        raise RunError(
            f"{found.path / 'env.json'} does not say the shape of the images; the run is damaged: "
            "train again with --overwrite"
        )
    module = store.rebuild(found.recipe, tuple(shape), tensors, found.checkpoint_path(checkpoint))
    return engine.place(module, engine.pick_device(device))


def open_split(
    run: Run,
    split: str,
    device: torch.device,
    *,
    data_dir: str | Path | None = None,
    data: object | None = None,
    **more: Any,
) -> Split:
    """A split of the run's own data, as its model is measured on it."""
    splits = load_same_data(run, data_dir, data)
    return Split(splits.split(split), splits, device, **more)


def load_same_data(run: Run, data_dir: str | Path | None = None, data: object | None = None) -> Splits:
    """The data a run was trained on; raises DataError when what is found now is not that."""
    splits = load_data(run.recipe, data_dir, data)
    _same_data(run, splits)
    return splits
