"""The recipe: everything that decides what a run is, in one frozen value.

`recipes/` holds functions that return one. A run folder's `config.toml` is a resolved recipe.
"""

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, overload

from pydantic import Field, ValidationError, model_validator

from nelbo.core import config
from nelbo.core.registry import lookup, names, register
from nelbo.core.spec import Spec, kebab
from nelbo.data import Data
from nelbo.data.survey import Survey, survey
from nelbo.data.transforms import decisive
from nelbo.errors import ConfigError, UnknownName
from nelbo.models import VAE, Model
from nelbo.objectives import ELBO, Objective
from nelbo.optim import Adam, Optimizer


class Recipe(Spec):
    """A data set, a model, an objective, an optimiser, and how long.

    batch_size           images of a step; the last short batch of an epoch is used
    batch_reduction      the loss of a batch: its images' mean, or their sum as some tutorials publish it
    seed                 of initialisation, order and noise
    precision            of the networks' arithmetic in training: fp32, bf16, or auto: bf16 where it is faster.
                         Weights, losses and every evaluation are float32
    compile              on, off, or auto: the training step is compiled when the run is long enough to pay for it
    clip_norm            largest gradient norm, or none
    ema                  decay of a running average of the weights, which is then what is evaluated; or none
    patience             epochs without a better validation bound before training stops; or none
    latent_every         epochs between looks at the latent statistics; 0 for never
    log_steps            keep the loss of every step in metrics.jsonl
    """

    recipe: str = "custom"
    data: Data = Data()
    model: Model = VAE()
    objective: Objective = ELBO()
    optimizer: Optimizer = Adam()
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=128, ge=1)
    batch_reduction: Literal["mean", "sum"] = "mean"
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    compile: Literal["auto", "on", "off"] = "auto"
    clip_norm: float | None = Field(default=None, gt=0.0)
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    patience: int | None = Field(default=None, ge=1)
    latent_every: int = Field(default=1, ge=0)
    log_steps: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Raise ValueError for parts that do not fit together, before any data is read."""
        self.objective.check(self.model)
        likelihood = self.model.setting("likelihood")
        support = None if likelihood is None else likelihood.support
        low, high = 0.0, 1.0  # of the pixels of every data set before its transforms
        for transform in self.data.transforms:
            low, high = transform.range(low, high)
        if support and (low < support[0] or high > support[1]):
            raise ValueError(
                f"data.transforms maps pixels to [{low:g}, {high:g}], but a {likelihood.name} "
                f"likelihood needs them in [{support[0]:g}, {support[1]:g}]; drop that scaling, or use "
                "--model.likelihood gaussian"
            )
        last = decisive(self.data.transforms)
        # Binarised pixels are the first and the last level.
        changed = (low, high) != (0.0, 1.0) or (last is not None and not last.binary)
        if likelihood is not None and likelihood.observation_kind == "levels" and changed:
            raise ValueError(
                f"data.transforms leaves pixels that are no 8-bit levels, but a {likelihood.name} likelihood is a "
                "probability of levels; use --data.transforms none, or --model.likelihood gaussian"
            )
        return self


RecipeFunction = Callable[[], Recipe]

GROUPS = START, OWN_DATA, TUTORIALS, LITERATURE, OTHERS = (
    "start here",
    "your own data",
    "the five tutorials, as published and corrected (docs/tutorials.md)",
    "the literature",
    "from your own files and plug-ins",
)
"""The groups of recipes, in the order of `nelbo recipes`."""
_group_of: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recipe that was chosen for some data, and the reasons in words, one line each."""

    recipe: Recipe
    reasons: tuple[str, ...]


@dataclass
class RecipeForData:
    """A recipe that looks at the data: `choose` returns it for a survey of them.

    Called without data, as every other recipe is, it returns the recipe for `example`.
    """

    name: str
    choose: Callable[[Survey], Chosen]
    example: Survey

    def __post_init__(self) -> None:
        functools.update_wrapper(self, self.choose)  # its name and its docstring, which is its promise

    def __call__(self) -> Recipe:
        return self.choose(self.example).recipe.model_copy(update={"recipe": self.name})


def recipe_for_data(example: Survey) -> Callable[[Callable[[Survey], Chosen]], RecipeForData]:
    """Register a function from a survey to a recipe under the function's name; see `RecipeForData`."""

    def registered(function: Callable[[Survey], Chosen]) -> RecipeForData:
        name = kebab(function.__name__)
        _group_of[name] = OWN_DATA
        entry: RecipeForData = register("recipe", name, RecipeForData(name, function, example))
        return entry

    return registered


@overload
def recipe(function: RecipeFunction, /) -> RecipeFunction: ...
@overload
def recipe(*, group: str) -> Callable[[RecipeFunction], RecipeFunction]: ...
def recipe(
    function: RecipeFunction | None = None, /, *, group: str = OTHERS
) -> RecipeFunction | Callable[[RecipeFunction], RecipeFunction]:
    """Register a function as the recipe of its own name; its docstring is its promise.

    group  the heading under which `nelbo recipes` lists it
    """
    if function is None:
        return functools.partial(_registered, group=group)
    return _registered(function, group)


def _registered(function: RecipeFunction, group: str) -> RecipeFunction:
    name = kebab(function.__name__)

    @functools.wraps(function)
    def with_name() -> Recipe:
        return function().model_copy(update={"recipe": name})

    _group_of[name] = group
    return register("recipe", name, with_name)


def group_of(name: str) -> str:
    """Return the group of a registered recipe."""
    return _group_of.get(name, OTHERS)


PARTS_OF_THE_MODEL = ("posterior", "prior", "likelihood", "latent_dim", "encoder", "decoder")
SHORT = {part: f"model.{part}" for part in PARTS_OF_THE_MODEL} | {
    "lr": "optimizer.lr",
    "beta": "objective.beta",
}
"""Fields that overrides may name without their prefix, and their whole names."""


def in_full(field: str) -> str:
    """Return `model.prior.components` of `prior.components`, and every other dotted field as it is."""
    head, dot, deeper = field.partition(".")
    return SHORT.get(head, head) + dot + deeper


def types_of(field: str) -> list[object]:
    """Return the types that a field of a recipe may hold, by its dotted name or a short one."""
    return config.field_types(Recipe, in_full(field).split("."))


@dataclass(frozen=True, slots=True)
class Resolved:
    """A resolved recipe.

    base      the registered recipe that it started from, None for a Recipe or a whole file
    given     the dotted fields that were laid over the base
    survey    the survey that the base was chosen by, of a recipe that looks at its data
    reasons   what was chosen and why, one line each; empty where nothing was
    """

    recipe: Recipe
    base: Recipe | None = None
    given: frozenset[str] = frozenset()
    survey: Survey | None = None
    reasons: tuple[str, ...] = ()


FOR_FOLDERS = "images"
"""The recipe of `nelbo train FOLDER`."""


def resolve(recipe: str | Path | Recipe, overrides: Mapping[str, object] | None = None) -> Recipe:
    """Return a recipe, from its name, a TOML file, a path to images or a Recipe, with overrides; see `resolved`."""
    return resolved(recipe, overrides).recipe


def resolved(
    recipe: str | Path | Recipe,
    overrides: Mapping[str, object] | None = None,
    *,
    data: object | None = None,
    data_dir: Path | None = None,
) -> Resolved:
    """Return a recipe with dotted overrides, and what it started from; raise ConfigError, or DataError for bad data.

    Fields of `SHORT` need no prefix. A file may start from a recipe: `recipe = "fashion-mlp"` and the changes.
    A name that is none, but a path to images, stands for the recipe `images` on them.

    data   images in memory that replace the source; a recipe that looks at its data looks at them
    """
    layers = [(_all_in_full(overrides or {}), "these flags")] if overrides else []
    reasons: list[str] = []
    if isinstance(recipe, Recipe):
        return Resolved(_laid_over(recipe, layers))
    name = str(recipe)
    if name.endswith(".toml"):
        table = config.read_toml(Path(recipe))
        name = str(table.get("recipe", "custom"))
        # A resolved file (a run's own config.toml) leaves out what is none, so it must not be laid over a recipe.
        complete = set(config.to_dict(Recipe())) <= set(table)
        if name == "custom" or complete:
            return Resolved(_laid_over(config.build(Recipe, table, str(recipe)), layers))
        layers.insert(0, (flatten(table), str(recipe)))
    elif kebab(name) not in names("recipe") and Path(name).expanduser().exists():
        if any("data.source" in layer or "data" in layer for layer, _ in layers):
            raise ConfigError(
                f"{name} and --data both name images; give one: nelbo train {FOR_FOLDERS} --data PATH"
            )
        if (Path(name).expanduser() / "config.toml").is_file():  # its pictures are no images to train on
            raise ConfigError(
                f"{name} is a run and no folder of images; its configuration trains again: "
                f"nelbo train {shlex.quote(name)}/config.toml"
            )
        layers.insert(0, ({"data.source": name}, name))
        name = FOR_FOLDERS
    elif Path(name).is_dir():
        reasons.append(f"{name} is the recipe of that name; for the folder write ./{name}")
    try:
        entry = lookup("recipe", name)
    except UnknownName as error:
        raise UnknownName(f"{error}. Nor is there a folder or file of that name") from None
    given = frozenset(field for layer, _ in layers for field in layer)
    if not isinstance(entry, RecipeForData):
        base = named(name)
        return Resolved(_laid_over(base, layers), base, given, reasons=tuple(reasons))
    # Its other fields decide nothing about the data, and some of them may only fit the recipe that is chosen.
    about_data = [
        ({k: v for k, v in layer.items() if k.partition(".")[0] == "data"}, of) for layer, of in layers
    ]
    source = _laid_over(entry(), [layer for layer in about_data if layer[0]]).data
    facts = survey(source, data_dir, data)
    chosen = entry.choose(facts)
    its_data = chosen.recipe.data.model_copy(update={"source": source.source})
    base = chosen.recipe.model_copy(update={"recipe": entry.name, "data": its_data})
    return Resolved(_laid_over(base, layers), base, given, facts, (*reasons, *chosen.reasons))


def _all_in_full(overrides: Mapping[str, object]) -> dict[str, object]:
    whole: dict[str, object] = {}
    for field, value in overrides.items():
        name = in_full(field)
        if name in whole:
            raise ConfigError(
                f"{kebab(name)} is set twice, with its short name and with its whole one; set it once"
            )
        whole[name] = value
    return whole


def _laid_over(base: Recipe, layers: Sequence[tuple[Mapping[str, object], str]]) -> Recipe:
    """Return the recipe with one layer of dotted fields after another; each has the words for where it is from."""
    for layer, source in layers:
        base = config.override(base, layer, source)
    return base


def named(name: str) -> Recipe:
    """Return the registered recipe of that name; raise UnknownName with the nearest."""
    function: RecipeFunction = lookup("recipe", name)
    try:
        return function()
    except ValidationError as error:  # a recipe of a user's own file or plug-in
        raise ConfigError(f"the recipe {name!r} is not valid: {error}") from None


def registered(name: str) -> Recipe | None:
    """Return the registered recipe of that name, or None where a run's recipe has another or none."""
    try:
        return named(name)
    except UnknownName:
        return None


def flatten(table: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested tables as dotted keys; a table's `name` becomes the value of the table itself."""
    flat: dict[str, object] = {}
    for key, value in table.items():
        dotted = prefix + str(key).replace("-", "_")
        if isinstance(value, Mapping):
            if "name" in value:
                flat[dotted] = value["name"]
            flat |= flatten({k: v for k, v in value.items() if k != "name"}, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat
