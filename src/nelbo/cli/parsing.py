"""The parser of a command line: from words to a verb with its fields set."""

import importlib
from dataclasses import fields
from typing import Any, cast

import tyro
from tyro.conf import FlagCreatePairsOff

from nelbo.cli import flags
from nelbo.cli.overview import verbs
from nelbo.cli.verb import OnRuns, Verb
from nelbo.errors import ConfigError, did_you_mean


def load(name: str) -> type[Verb]:
    """Return the class of a verb; raises ConfigError for a name that is none."""
    entries = verbs()
    if name not in entries:
        raise ConfigError(f"no verb is called {name!r}; {did_you_mean(name, entries)}")
    verb = cast(type[Verb], vars(importlib.import_module(f"nelbo.cli.{name}"))[entries[name].kind])
    # In its help a verb's own flags come first, then the shared ones. Every field is passed by keyword, so that
    # their order in the class has no other meaning.
    rank = {item.name: place for place, item in enumerate(reversed(fields(OnRuns)))}
    items = verb.__dataclass_fields__.items()
    verb.__dataclass_fields__ = dict(sorted(items, key=lambda item: rank.get(item[0], -1)))
    return verb


def parse(name: str, arguments: list[str]) -> Verb:
    """Return the verb `name` with its flags set; a flag that it does not know ends the process with code 2."""
    verb = load(name)
    words, unknown = flags.sort(arguments, verb, verb.stands_alone)
    help_only = bool(flags.HELP & {*words})  # a wrong flag beside --help does not hide the help
    settings, refused = ({}, []) if help_only else verb.settings(unknown)
    command = tyro.cli(
        verb,
        prog=f"nelbo {name}",
        args=[*words, *refused],
        config=(FlagCreatePairsOff,),  # no --no-json beside --json
        use_underscores=False,
        add_help=True,
    )
    if settings:
        cast(Any, command).overrides = settings
    return command
