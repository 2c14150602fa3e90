"""Telling a run, a configuration and data apart, and opening what is at hand of each."""

import dataclasses
from collections.abc import Mapping
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
    data_fields: Mapping[str, object] | None = None,
    device: str = "auto",
    imports: tuple[str, ...] = (),
) -> Case:
    """Open a run, a configuration or data. See `diagnose`."""
    place = engine.pick_device(device)
    fields = {**({} if size is None else {"size": size}), **(data_fields or {})}
    if not isinstance(what, str | Path | Run | Recipe):
        splits = config.build(Data, {"source": api.FROM_PYTHON, **fields}, "data").load(obj=what)
        case = _of_data("images", splits, fields, place)
        case = dataclasses.replace(case, in_python=True, images=what)
    else:
        match tell_apart(what, runs) if kind == "auto" else kind:
            case "run":
                if isinstance(what, Recipe):
                    raise ConfigError("a Recipe is a configuration and no run; leave kind at auto")
                case = _of_run(store.find(what, runs), data_dir, data, place)
            case "config":
                case = _of_config(what, data_dir, data, place)
            case "data":
                spec = config.build(Data, {"source": str(what), **fields}, "data")
                _must_be_present(spec, data_dir)
                case = _of_data(str(what), spec.load(data_dir), fields, place)
    return dataclasses.replace(case, data_dir=data_dir, imports=imports)


def tell_apart(what: str | Path | Run | Recipe, runs: Path) -> Kind:
    """Return the kind: a run folder, its name or `latest` first; then a .toml file or a recipe's name; then data.

    Raises ConfigError with the nearest names where it is none of them.
    """
    if isinstance(what, Run):
        return "run"
    if isinstance(what, Recipe):
        return "config"
    text = str(what)
    if text == "latest" or _is_run(text, runs):
        return "run"
    if text.endswith(".toml") or text in names("recipe"):
        return "config"
    if Path(text).exists() or text.partition(":")[0] in names("dataset"):
        return "data"
    run_names = [path.parent.name for path in runs.glob("*/config.toml")] if runs.is_dir() else []
    hint = did_you_mean(text, {*run_names, *names("recipe"), *names("dataset")})
    raise ConfigError(f"{text!r} is no run, recipe, .toml file, data set or path that exists; {hint}")


def _is_run(text: str, runs: Path) -> bool:
    return any((folder / "config.toml").is_file() for folder in (Path(text), runs / text))


def also(what: str, kind: Kind, runs: Path) -> list[Kind]:
    """Return the other kinds that a text could have been read as."""
    is_run = _is_run(what, runs)
    possible: dict[Kind, bool] = {
        "run": is_run,
        "config": what in names("recipe"),
        "data": what.partition(":")[0] in names("dataset") or (not is_run and Path(what).is_dir()),
    }
    return [name for name, is_possible in possible.items() if is_possible and name != kind]


def _of_run(run: Run, data_dir: Path | None, data: object | None, device: torch.device) -> Case:
    recipe = run.recipe
    from_python = recipe.data.source == api.FROM_PYTHON
    missing: dict[Part, str] = {}
    splits: Splits | None = None
    model: BuiltModel | None = None
    try:
        if data is None and not from_python:
            _must_be_present(recipe.data, data_dir)
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
    file = str(run.path / "config.toml")
    return Case(
        run.name, "run", repr(file) if from_python else file, device, missing, recipe, splits, run, model,
        in_python=from_python, images=data,
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
            _must_be_present(recipe.data, data_dir)
        splits = recipe.data.load(data_dir, data)
    except DataError as error:
        missing["data"] = f"the data is not at hand: {error}"
    word = recipe.recipe if isinstance(what, Recipe) else str(what)
    source, in_python = word if data is None else repr(word), data is not None
    if isinstance(what, Recipe):
        try:
            is_named = what == named(what.recipe)
        except UnknownName:
            is_named = False
        if not is_named:  # by no command line either: the remedies are lines of Python about `recipe`
            source, in_python = "recipe", True
    return Case(word, "config", source, device, missing, recipe, splits, in_python=in_python, images=data)


def _of_data(subject: str, splits: Splits, fields: Mapping[str, object], device: torch.device) -> Case:
    missing: dict[Part, str] = {"configuration": ALONE, "history": ALONE, "weights": ALONE}
    return Case(subject, "data", subject, device, missing, data=splits, data_fields=fields)


def _must_be_present(data: Data, data_dir: Path | None) -> None:
    """Raise DataError where reading this data would need a download, or it does not exist."""
    data.check_source()
    if not data.present(data_dir):
        name = data.source.partition(":")[0]
        raise DataError(f"{data.source} is not here; bring it with: nelbo data get {name}")
