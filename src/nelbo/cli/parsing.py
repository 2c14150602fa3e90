"""The verbs of the command line, one dataclass each: its fields are its flags."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import tyro
from tyro.conf import FlagCreatePairsOff

from nelbo.cli import flags
from nelbo.cli.bench import Bench
from nelbo.cli.compare import Compare
from nelbo.cli.data import Data
from nelbo.cli.doctor import Doctor
from nelbo.cli.encode import Encode
from nelbo.cli.env import Env
from nelbo.cli.evaluate import Evaluate
from nelbo.cli.interpolate import Interpolate
from nelbo.cli.list import List
from nelbo.cli.plot import Plot
from nelbo.cli.recipes import Recipes
from nelbo.cli.reconstruct import Reconstruct
from nelbo.cli.report import Report
from nelbo.cli.sample import Sample
from nelbo.cli.samplers import Samplers
from nelbo.cli.train import Train
from nelbo.cli.traverse import Traverse
from nelbo.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    pass


VERBS: dict[str, type[Any]] = {
    "train": Train,
    "evaluate": Evaluate,
    "compare": Compare,
    "report": Report,
    "doctor": Doctor,
    "plot": Plot,
    "sample": Sample,
    "samplers": Samplers,
    "reconstruct": Reconstruct,
    "encode": Encode,
    "interpolate": Interpolate,
    "traverse": Traverse,
    "recipes": Recipes,
    "data": Data,
    "list": List,
    "env": Env,
    "bench": Bench,
}


def parse(verb: type[Any], name: str, arguments: list[str]) -> Any:
    """A verb with its flags. For `train`, flags that are not its own are fields of the recipe.

    Other verbs with `overrides` get flags with a dot: `--sampler.components 20`.
    """
    own = {"--" + item.name.rstrip("_").replace("_", "-") for item in fields(Train)} | {"--help", "-h"}
    arguments, foreign = flags.sort(arguments, own - {"--recipe", "--overrides"})
    overrides: dict[str, Any] = {}
    if verb is not Train:
        takes = any(item.name == "overrides" for item in fields(verb))
        inside, rest = flags.dotted(foreign) if takes else ([], foreign)
        arguments += rest
        overrides = _settings(inside) if inside else {}
    elif foreign and not {"--help", "-h"} & {*arguments}:
        overrides = _overrides(foreign, own)
    found = tyro.cli(
        verb,
        prog=f"nelbo {name}",
        args=arguments,
        config=(FlagCreatePairsOff,),
        use_underscores=False,
        add_help=True,
    )
    if overrides:
        found.overrides = overrides
    return found


def _settings(dotted: list[str]) -> dict[str, Any]:
    from nelbo.core.config import parse_flags

    return parse_flags(dotted)


def _overrides(foreign: list[str], own: set[str]) -> dict[str, Any]:
    """Flags as fields of a recipe; raises ConfigError for one that is neither a field nor a flag."""
    from nelbo.core.config import parse_flags
    from nelbo.core.spec import kebab
    from nelbo.training.recipe import PARTS_OF_THE_MODEL, Recipe

    heads = {kebab(name) for name in (*Recipe.model_fields, *PARTS_OF_THE_MODEL)} - {"recipe"}
    for word in foreign:
        head = word.partition("=")[0].removeprefix("--").partition(".")[0]
        if flags.is_flag(word) and kebab(head) not in heads:
            known = heads | {flag.removeprefix("--") for flag in own} - {"h", "-h", "overrides", "recipe"}
            raise ConfigError(
                f"no flag or field is called {word.partition('=')[0]}; {did_you_mean(head, known)}"
            )
    return parse_flags(foreign)
