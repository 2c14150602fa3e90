"""The flags that several verbs share, and how a command line is sorted before it is parsed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg


def plain(help: str, **more: Any) -> Any:
    """A flag whose help says all there is to say: no "(default: None)" or "(default: False)" behind it."""
    return arg(help=help, help_behavior_hint="", **more)


RunName = Positional[
    Annotated[str, plain("a run folder, its name under --runs, or latest", name="run", metavar="RUN")]
]
Checkpoint = Annotated[Literal["best", "last", "first"], arg(help="which weights")]
SplitName = Annotated[str, arg(help="test, validation or train", metavar="NAME")]
Json = Annotated[bool, plain("one JSON object on stdout and nothing else; progress stays on stderr")]
Runs = Annotated[Path, arg(help="folder that holds the runs", metavar="DIR")]
DataDir = Annotated[
    Path | None, plain("where data sets are kept; default: NELBO_DATA, or a cache folder", metavar="DIR")
]
Device = Annotated[str, arg(help="auto, cpu, cuda, cuda:N or mps", metavar="NAME")]
Imports = Annotated[
    tuple[Path, ...],
    UseAppendAction,
    plain("a Python file that registers components; repeat for more", name="import", metavar="FILE"),
]

SWITCHES = {"--overwrite", "--dry-run", "--no-figures", "--compare-first", "--json", "--help", "-h"}
"""The flags without a value. Every other flag takes exactly one."""


def sort(arguments: list[str], own: Collection[str]) -> tuple[list[str], list[str]]:
    """A verb's arguments, positional ones first, and the flags that are not its `own`.

    People mix flags and names in any order; the parser behind this does not take a name after a flag.
    """
    positional: list[str] = []
    mine: list[str] = []
    foreign: list[str] = []
    target, expects = mine, False
    for word in arguments:
        if is_flag(word):
            flag, given, _ = word.partition("=")
            flag = flag.replace("_", "-")
            target = mine if flag in own else foreign
            expects = not given and flag not in SWITCHES
            target.append(word)
        elif expects:
            target.append(word)
            expects = False
        else:
            positional.append(word)
    return [*positional, *mine], foreign


def dotted(words: list[str]) -> tuple[list[str], list[str]]:
    """Flags with a dot in their name and their values, and the rest."""
    inside: list[str] = []
    rest: list[str] = []
    target = rest
    for word in words:
        if is_flag(word):
            target = inside if "." in word.partition("=")[0] else rest
        target.append(word)
    return inside, rest


def is_flag(word: str) -> bool:
    """Whether a word is a flag: not a lone dash, and no negative number or list of numbers (-1,1)."""
    return word.startswith("-") and word != "-" and not (word[1].isdigit() or word[1] == ".")
