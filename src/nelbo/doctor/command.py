"""Remedies as lines to run: `nelbo train runs/x/config.toml --objective.beta 1`, or the same in Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nelbo.core.spec import kebab


def train_command(
    what: str, changes: Mapping[str, Any], more: Mapping[str, str], imports: tuple[str, ...]
) -> str:
    """A command line that trains `what` with some fields changed; `more` are flags that are no fields."""
    flags = {f"--{kebab(key)}": flag_value(value) for key, value in changes.items()}
    flags |= {f"--{key}": value for key, value in more.items() if value}
    words = [word for flag in flags.items() for word in flag]
    words += [word for file in imports for word in ("--import", file)]
    return shlex.join(["nelbo", "train", what, *words])


def train_in_python(what: str, changes: Mapping[str, Any], more: Mapping[str, str], data: bool) -> str:
    """The same as a line of Python, for what has no name on a command line; `what` is an expression."""
    words = [f"overrides={dict(changes)!r}"] if changes else []
    words += [f"{key}={value!r}" for key, value in more.items() if value]
    return f"nelbo.train({', '.join([what, *words, *(['data=images'] if data else [])])})"


def distinct_command(source: str, size: Any) -> str:
    """A command line that writes data without its blank and repeated images."""
    stem = Path(source).stem.replace(":", "-") or "images"
    words = ["nelbo", "doctor", source, "--kind", "data", "--distinct", f"{stem}-distinct.npz"]
    return shlex.join(words if size is None else [*words, "--size", flag_value(size)])


def together(commands: Sequence[str]) -> str:
    """One `nelbo train` with the flags of several that train the same thing; empty for one, or where they disagree."""
    train = [shlex.split(command) for command in commands if command.startswith("nelbo train ")]
    flags: dict[str, str] = {}
    for words in train:
        for flag, value in zip(words[3::2], words[4::2], strict=True):
            if flags.setdefault(flag, value) != value:
                return ""
    if len({words[2] for words in train}) != 1 or len({tuple(words) for words in train}) < 2:
        return ""
    return shlex.join([*train[0][:3], *(word for flag in flags.items() for word in flag)])


def flag_value(value: Any) -> str:
    """Plain data as a flag takes it: none, true, 0.001, 1,2; lists of tables as TOML."""
    if value is None or value in ([], ()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        if all(isinstance(item, Mapping) and set(item) == {"name"} for item in value):
            return ",".join(item["name"] for item in value)
        plain = len(value) > 1 and not any(isinstance(item, Mapping) for item in value)
        return ",".join(map(flag_value, value)) if plain else f"[{', '.join(map(_toml, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)  # TOML writes a text, a number or a truth value the same way
