"""Telling a run, a configuration and data apart, and opening what is at hand of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch

from nelbo import engine
from nelbo.core import config
from nelbo.core.registry import names
from nelbo.data import Data, Splits
from nelbo.doctor.case import Case, Kind, Part
from nelbo.errors import ConfigError, DataError, RunError, UnknownName, did_you_mean
from nelbo.models import BuiltModel
from nelbo.training import api, store
from nelbo.training.recipe import Recipe, named, resolve
from nelbo.training.store import Run

NONE_YET = "a configuration has none yet; train it, and ask about its run"
ALONE = "data alone has none; ask about a configuration or a run"


def open_case(
    what: object,
    *,
    kind: Kind | Literal["auto"] = "auto",
    runs: Path = Path("runs"),
    data_dir: Path | None = None,
    data: object | None = None,
    size: int | None = None,
    device: str = "auto",
    imports: tuple[str, ...] = (),
) -> Case:
    """Open a run, a configuration or data. See `diagnose`."""
    where = engine.pick_device(device)
    if not isinstance(what, str | Path | Run | Recipe):
        case = _of_images(what, size, where)
    else:
        match tell_apart(what, runs) if kind == "auto" else kind:
            case "run":
                case = _of_run(_find(what, runs), data_dir, data, where)
            case "config":
                case = _of_config(what, data_dir, data, where)
            case "data":
                case = _of_data(what, size, data_dir, where)
    return dataclasses.replace(case, data_dir=data_dir, imports=imports)


def tell_apart(what: str | Path | Run | Recipe, runs: Path) -> Kind:
    """A run folder, its name or `latest` first; then a .toml file or a recipe's name; then data.

    Raises ConfigError with the nearest names where it is none of them.
    """
    if isinstance(what, Run):
        return "run"
    if isinstance(what, Recipe):
        return "config"
    text = str(what)
    if text == "latest" or any((place / "config.toml").is_file() for place in (Path(text), runs / text)):
        return "run"
    if text.endswith(".toml") or text in names("recipe"):
        return "config"
    if Path(text).exists() or text.partition(":")[0] in names("dataset"):
        return "data"
    here = [path.parent.name for path in runs.glob("*/config.toml")] if runs.is_dir() else []
    known = {*here, *names("recipe"), *names("dataset")}
    raise ConfigError(
        f"{text!r} is no run, recipe, .toml file, data set or path that exists; {did_you_mean(text, known)}"
    )


def also(what: str, kind: Kind, runs: Path) -> list[Kind]:
    """The other kinds that a text could have been read as."""
    run = any((place / "config.toml").is_file() for place in (Path(what), runs / what))
    could: dict[Kind, bool] = {
        "run": run,
        "config": what in names("recipe"),
        "data": what.partition(":")[0] in names("dataset") or (not run and Path(what).is_dir()),
    }
    return [other for other, there in could.items() if there and other != kind]


def _find(what: str | Path | Run | Recipe, runs: Path) -> Run:
    if isinstance(what, Recipe):
        raise ConfigError("a Recipe is a configuration and no run; leave kind at auto")
    return store.find(what, runs)


def _of_run(run: Run, data_dir: Path | None, data: object | None, device: torch.device) -> Case:
    recipe = run.recipe
    missing: dict[Part, str] = {}
    splits: Splits | None = None
    model: BuiltModel | None = None
    try:
        if data is None and recipe.data.source != api.FROM_PYTHON:
            _here(recipe.data, data_dir)
        splits = api.load_same_data(run, data_dir, data)
    except (DataError, ConfigError) as error:
        missing["data"] = f"the data is not at hand: {error}"
    failed = not run.finished and run.history("failed")
    try:
        model = None if failed else api.load(run, device=str(device))
    except RunError as error:
        missing["weights"] = f"the weights are not at hand: {error}"
    if failed:
        missing["weights"] = "training failed, and the weights before that say nothing more"
    if not run.history() and not failed:
        missing["history"] = "no epoch is finished yet"
    from_python = recipe.data.source == api.FROM_PYTHON
    file = str(run.path / "config.toml")
    return Case(
        run.name, "run", repr(file) if from_python else file, device, missing, recipe, splits, run, model,
        in_python=from_python, given=data,
    )  # fmt: skip


def _of_config(
    what: str | Path | Run | Recipe, data_dir: Path | None, data: object | None, device: torch.device
) -> Case:
    what = what.path / "config.toml" if isinstance(what, Run) else what
    recipe = resolve(what)
    missing: dict[Part, str] = {"history": NONE_YET, "weights": NONE_YET}
    splits = None
    try:
        if data is None:
            _here(recipe.data, data_dir)
        splits = recipe.data.load(data_dir, data)
    except DataError as error:
        missing["data"] = f"the data is not at hand: {error}"
    word = recipe.recipe if isinstance(what, Recipe) else str(what)
    source, in_python = word, data is not None
    if isinstance(what, Recipe) and not _is_named(what):
        source, in_python = "recipe", True
    elif in_python:
        source = repr(word)
    return Case(
        word, "config", source, device, missing, recipe, splits, in_python=in_python, given=data
    )  # fmt: skip


def _is_named(recipe: Recipe) -> bool:
    try:
        return recipe == named(recipe.recipe)
    except UnknownName:
        return False


def _of_data(
    what: str | Path | Run | Recipe, size: int | None, data_dir: Path | None, device: torch.device
) -> Case:
    spec = config.build(Data, {"source": str(what), "size": size}, "data")
    _here(spec, data_dir)
    return _alone(str(what), str(what), spec.load(data_dir), size, device)


def _of_images(images: object, size: int | None, device: torch.device) -> Case:
    splits = config.build(Data, {"source": api.FROM_PYTHON, "size": size}, "data").load(obj=images)
    case = _alone("images", "images", splits, size, device)
    return dataclasses.replace(case, in_python=True, given=images)


def _alone(subject: str, source: str, splits: Splits, size: int | None, device: torch.device) -> Case:
    missing: dict[Part, str] = {"configuration": ALONE, "history": ALONE, "weights": ALONE}
    return Case(subject, "data", source, device, missing, data=splits, size=size)


def _here(data: Data, data_dir: Path | None) -> None:
    """Raise DataError where reading this data would need a download, or it does not exist."""
    data.check_source()
    if not data.present(data_dir):
        name = data.source.partition(":")[0]
        raise DataError(f"{data.source} is not here; bring it with: nelbo data get {name}")
