"""The flags that several verbs share, and how a command line is sorted before it is parsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_type_hints

from tyro.conf import Positional, Suppress, UseAppendAction, arg

from nelbo.errors import ConfigError

if TYPE_CHECKING:
    from nelbo.cli.verb import Verb


def plain(help: str, metavar: str | None = None, name: str | None = None) -> object:
    """Return a flag's help without "(default: None)" or "(default: False)" behind it."""
    return arg(help=help, help_behavior_hint="", metavar=metavar, name=name)


RunName = Positional[
    Annotated[str, plain("a run folder, its name under --runs, or latest", "RUN", name="run")]
]
RunNames = Positional[
    Annotated[tuple[str, ...], plain("run folders, names under --runs, or latest", "RUN ...", name="run")]
]
Size = Annotated[int | None, plain("height and width of the resized images, as train's --data.size", "INT")]
Checkpoint = Annotated[Literal["best", "last", "first"], arg(help="the weights to use")]
SplitName = Annotated[str, arg(help="test, validation or train", metavar="NAME")]
AnySplit = Annotated[
    str | None,
    plain("test, validation or train; default: test, or all for --data without splits", "NAME"),
]
LookedAt = Annotated[
    str | None,
    plain(
        "other images, with the preprocessing of the run: a folder, file or set; or its data, moved", "PATH"
    ),
]
Json = Annotated[bool, plain("one JSON object on stdout and nothing else; progress stays on stderr")]
Runs = Annotated[Path, arg(help="folder that holds the runs", metavar="DIR")]
DataDir = Annotated[
    Path | None, plain("folder of the data sets; default: NELBO_DATA, or a cache folder", metavar="DIR")
]
Device = Annotated[str, arg(help="auto, cpu, cuda, cuda:N or mps", metavar="NAME")]
Imports = Annotated[
    tuple[Path, ...],
    UseAppendAction,
    plain("a Python file that registers components; repeat for more", name="import", metavar="FILE"),
]

Overrides = Suppress[dict[str, object]]  # set by `parsing`, from flags that are no fields
Settings = tuple[dict[str, object], list[str]]
"""The values of flags that are no fields of a verb, and the words that it refuses."""

HELP = {"--help", "-h"}


def sort(
    arguments: list[str], verb: type[Verb], stands_alone: Callable[[str], bool] = lambda flag: False
) -> tuple[list[str], list[str]]:
    """Return a verb's arguments, positional ones first, and the flags that are no fields of it, with their values.

    People mix flags and names in any order; the parser behind this does not take a name after a flag. A flag whose
    field is a `bool` stands alone, every other flag takes exactly one value. Of flags that are no fields,
    `stands_alone` knows those that may stand alone; they take `true` or `false` and nothing else.
    """
    hints = get_type_hints(verb)
    kinds = {"--" + item.name.rstrip("_").replace("_", "-"): hints[item.name] for item in fields(verb)}
    flags = kinds.keys() - {"--overrides"} | HELP
    alone = {flag for flag, kind in kinds.items() if kind is bool} | HELP  # they take no value
    positional: list[str] = []
    words: list[str] = []
    unknown: list[str] = []
    target, expects_value, may_stand_alone = words, False, False
    for word in arguments:
        expects_value &= not may_stand_alone or word.lower() in ("true", "false")
        if is_flag(word):
            flag, equals, _ = word.partition("=")
            flag = flag.replace("_", "-")
            target = words if flag in flags else unknown
            expects_value = not equals and flag not in alone
            may_stand_alone = expects_value and target is unknown and stands_alone(flag)
            target.append(word)
        elif expects_value:
            target.append(word)
            expects_value = False
        else:
            positional.append(word)
    return [*positional, *words], unknown


def dotted(words: list[str]) -> Settings:
    """Return the values of the flags with a dot in their name (`--sampler.components 20`), and the other words."""
    from nelbo.core.config import parse_flags
    from nelbo.training.recipe import types_of

    inside: list[str] = []
    others: list[str] = []
    target = others
    for word in words:  # a value goes where its flag went
        if is_flag(word):
            target = inside if "." in word.partition("=")[0] else others
        target.append(word)
    return parse_flags(inside, types_of), others


def true_or_false(flag: str) -> bool:
    """Return True for a flag of a recipe's field that is true or false: it may stand alone."""
    from nelbo.training.recipe import types_of

    return bool in types_of(flag.removeprefix("--").replace("-", "_"))


def names_in(text: str) -> list[str]:
    """Return the names of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def data_fields(overrides: Mapping[str, object], size: object) -> dict[str, object]:
    """Return the fields of `[data]` that flags set (`--data.range 0,4095`, `--size 64`); refuse others."""
    fields: dict[str, object] = {} if size is None else {"size": size}
    for key, value in overrides.items():
        table, _, name = key.partition(".")
        if table != "data" or name in ("", "source"):
            raise ConfigError(
                f"--{key.replace('_', '-')}: only fields of data are known here, as --data.range 0,4095"
            )
        fields[name] = value
    return fields


def is_flag(word: str) -> bool:
    """Return True for a flag: not a lone dash, and no negative number or list of numbers (-1,1)."""
    return word.startswith("-") and word != "-" and not (word[1].isdigit() or word[1] == ".")
