"""The recipe: everything that decides what a run is, in one frozen value.

`recipes/` holds functions that return one. A run folder's `config.toml` is a resolved recipe.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from nelbo.core import config
from nelbo.core.registry import lookup, register
from nelbo.core.spec import Spec, kebab
from nelbo.data import Data
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


def recipe(function: RecipeFunction) -> RecipeFunction:
    """Register a function as the recipe of its own name; its docstring is its promise."""
    name = kebab(function.__name__)

    @functools.wraps(function)
    def with_name() -> Recipe:
        return function().model_copy(update={"recipe": name})

    return register("recipe", name, with_name)


PARTS_OF_THE_MODEL = ("posterior", "prior", "likelihood", "latent_dim")
"""Fields of the model that overrides may name without their prefix."""


def resolve(recipe: str | Path | Recipe, overrides: Mapping[str, object] | None = None) -> Recipe:
    """Return a recipe, from its name, a TOML file or a Recipe, with dotted overrides; raise ConfigError.

    Parts of the model need no `model.`. A file may start from a recipe: `recipe = "fashion-mlp"` and the changes.
    """
    if isinstance(recipe, Recipe):
        base = recipe
    elif str(recipe).endswith(".toml"):
        file = Path(recipe)
        table = config.read_toml(file)
        name = table.get("recipe", "custom")
        # A resolved file (a run's own config.toml) leaves out what is none, so it must not be laid over a recipe.
        complete = set(config.to_dict(Recipe())) <= set(table)
        if name == "custom" or complete:
            base = config.build(Recipe, table, str(file))
        else:
            base = config.override(named(str(name)), flatten(table), str(file))
    else:
        base = named(str(recipe))
    whole = {
        f"model.{key}" if key.partition(".")[0] in PARTS_OF_THE_MODEL else key: value
        for key, value in (overrides or {}).items()
    }
    return config.override(base, whole) if whole else base


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
