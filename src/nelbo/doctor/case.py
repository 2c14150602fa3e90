"""What the doctor looks at: a run, a configuration or data, opened, with what is missing said."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from nelbo import api, engine, store
from nelbo.config import kebab
from nelbo.core import names
from nelbo.data import Data, Images, Splits
from nelbo.errors import ConfigError, DataError, NelboError, RunError, did_you_mean
from nelbo.metrics import LatentStatistics, Split, latent_statistics
from nelbo.models import BuiltModel
from nelbo.recipe import Recipe, resolve
from nelbo.store import Run

T = TypeVar("T")
Kind = Literal["run", "config", "data"]
Part = Literal["configuration", "data", "history", "weights"]
LOOKED_AT = 2000  # images of a split that a model is looked at with


class NotLooked(NelboError):
    """Why a check cannot tell."""


@dataclasses.dataclass
class Case:
    """One subject. A part that is None is in `missing`, with the reason.

    configuration  what decides what a run is
    data           the splits, as a model sees them
    run            the folder, whose metrics.jsonl is the history
    weights        the model of the run's best checkpoint
    source         what names the subject on a command line: `runs/x/config.toml`, `fashion-mlp`, `photos`
    """

    subject: str
    kind: Kind
    source: str
    device: torch.device
    missing: dict[Part, str]
    configuration: Recipe | None = None
    data: Splits | None = None
    run: Run | None = None
    weights: BuiltModel | None = None
    imports: tuple[str, ...] = ()

    # --- its parts, for checks that need them ---

    def _there(self, part: Part, value: T | None) -> T:
        if value is None:
            raise NotLooked(self.missing[part])
        return value

    @property
    def recipe(self) -> Recipe:
        return self._there("configuration", self.configuration)

    @property
    def splits(self) -> Splits:
        return self._there("data", self.data)

    @property
    def model(self) -> BuiltModel:
        return self._there("weights", self.weights)

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The logged epochs, oldest first."""
        return self._there("history", self.run).history()

    # --- what several checks measure ---

    def view(self, name: str) -> Split:
        """At most LOOKED_AT images of a split, evenly spaced through it, as a model is measured on them."""
        return Split(
            some(self.splits.split(name), LOOKED_AT), self.splits, self.device, self.recipe.precision
        )

    def looked(self, name: str) -> str:
        """`2,000 of 10,000 test images`."""
        n = len(self.splits.split(name))
        return f"{n:,} {name} images" if n <= LOOKED_AT else f"{LOOKED_AT:,} of {n:,} {name} images"

    @cached_property
    def statistics(self) -> LatentStatistics:
        """Of the test images that are looked at."""
        return latent_statistics(self.model, self.view("test"))

    # --- remedies ---

    def retrain(self, changes: Mapping[str, Any]) -> str:
        """The command that trains this subject with some fields changed: {"objective.beta": 1.0}."""
        if self.run is not None and self.recipe.data.source == api.FROM_PYTHON:
            overrides = {key.replace("-", "_"): value for key, value in changes.items()}
            return f"nelbo.train({self.source!r}, overrides={overrides!r}, data=images)"
        words = ["nelbo", "train", self.source]
        for key, value in changes.items():
            words += ["--" + kebab(key), flag_value(value)]
        if self.run is not None and self.run.path.parent != Path("runs"):
            words += ["--runs", str(self.run.path.parent)]
        for file in self.imports:
            words += ["--import", file]
        return shlex.join(words)


def some(images: Images, n: int) -> Images:
    """At most n of these images, evenly spaced: of every class where they are sorted by class."""
    return images if len(images) <= n else images.select(spaced(len(images), n))


def spaced(total: int, n: int) -> Tensor:
    """n positions out of `total`, evenly spaced, each once."""
    return torch.arange(n) * total // n


def flag_value(value: Any) -> str:
    """A value as a flag takes it: none, true, 0.001, 1,2."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(flag_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- opening ----------------------------------------------------------------------------------


def open_case(
    what: object,
    *,
    kind: Kind | Literal["auto"] = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    data: object | None = None,
    device: str = "auto",
    imports: tuple[str, ...] = (),
) -> Case:
    """Opens a run, a configuration or data. See `diagnose`."""
    where = engine.pick_device(device)
    folder = Path(data_dir) if data_dir else None
    if not isinstance(what, str | Path | Run | Recipe):
        splits = Data(source=api.FROM_PYTHON).load(obj=what)
        return _of_data("images from Python", api.FROM_PYTHON, splits, where)
    found = tell_apart(what, Path(runs)) if kind == "auto" else kind
    if found == "run":
        case = _of_run(store.find(_no_recipe(what), Path(runs)), folder, data, where)
    elif found == "config":
        case = _of_config(_no_run(what), folder, data, where)
    else:
        source = Data(source=str(what))
        source.check_source()
        if not source.present(folder):
            raise DataError(absent(source))
        case = _of_data(str(what), str(what), source.load(folder), where)
    case.imports = imports
    return case


def tell_apart(what: str | Path | Run | Recipe, runs: Path) -> Kind:
    """run, config or data: a run folder, its name or `latest` first; then a recipe or .toml file; then data.

    Raises ConfigError with the nearest names where it is none of them.
    """
    if isinstance(what, Run):
        return "run"
    if isinstance(what, Recipe):
        return "config"
    text = str(what)
    is_run = any((place / "config.toml").is_file() for place in (Path(text), runs / text))
    if is_run or text == "latest":
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


def _no_recipe(what: str | Path | Run | Recipe) -> str | Path | Run:
    if isinstance(what, Recipe):
        raise ConfigError("a Recipe is a configuration, not a run; leave kind at auto")
    return what


def _no_run(what: str | Path | Run | Recipe) -> str | Path | Recipe:
    return what.path / "config.toml" if isinstance(what, Run) else what


def _of_run(run: Run, data_dir: Path | None, data: object | None, device: torch.device) -> Case:
    recipe = run.recipe
    missing: dict[Part, str] = {}
    splits = model = None
    try:
        if data is None and recipe.data.source != api.FROM_PYTHON:
            recipe.data.check_source()
            if not recipe.data.present(data_dir):
                raise DataError(absent(recipe.data))
        splits = api.load_same_data(run, data_dir, data)
    except (DataError, ConfigError) as error:
        missing["data"] = f"the data is not at hand: {error}"
    try:
        model = api.load(run, device=str(device))
    except RunError as error:
        missing["weights"] = f"the weights are not at hand: {error}"
    if not run.history() and not run.history("failed"):
        missing["history"] = "no epoch is finished yet"
    file = str(run.path / "config.toml")
    return Case(run.name, "run", file, device, missing, recipe, splits, run, model)


def _of_config(
    what: str | Path | Recipe, data_dir: Path | None, data: object | None, device: torch.device
) -> Case:
    recipe = resolve(what)
    none_yet = "a configuration has none yet; train it, and ask about its run"
    missing: dict[Part, str] = {"history": none_yet, "weights": none_yet}
    splits = None
    try:
        if data is None:
            recipe.data.check_source()
            if not recipe.data.present(data_dir):
                raise DataError(absent(recipe.data))
        splits = recipe.data.load(data_dir, data)
    except DataError as error:
        missing["data"] = f"the data is not at hand: {error}"
    source = recipe.recipe if isinstance(what, Recipe) else str(what)
    return Case(source, "config", source, device, missing, recipe, splits)


def _of_data(subject: str, source: str, splits: Splits, device: torch.device) -> Case:
    alone = "data alone has none; ask about a configuration or a run"
    missing: dict[Part, str] = {"configuration": alone, "history": alone, "weights": alone}
    return Case(subject, "data", source, device, missing, data=splits)


def absent(data: Data) -> str:
    """What is said of a named set that would have to be downloaded."""
    return f"{data.source} is not here; bring it with: nelbo data get {data.source.partition(':')[0]}"
