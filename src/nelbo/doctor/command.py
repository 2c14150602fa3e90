"""The remedies as lines to run: `nelbo train runs/x/config.toml --objective.beta 1`, or the same in Python."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from nelbo.core.spec import kebab


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A change of one subject that a training makes; its command line is rendered last.

    subject     the word that names it on a command line; with `in_python` an expression of Python
    fields      dotted recipe fields -> values
    flags       flags that are no fields, as runs and name; empty ones are left out
    imports     files that register components
    in_python   the subject has no name on a command line
    with_images images are passed from Python
    """

    subject: str
    fields: Mapping[str, object]
    flags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    imports: tuple[str, ...] = ()
    in_python: bool = False
    with_images: bool = False

    @property
    def command(self) -> str:
        """The line that trains the subject with these fields."""
        more = {key: value for key, value in self.flags.items() if value}
        if self.in_python:
            words = [self.subject, *([f"overrides={dict(self.fields)!r}"] if self.fields else [])]
            words += [f"{key}={value!r}" for key, value in more.items()]
            words += ["data=images"] if self.with_images else []
            return f"nelbo.train({', '.join(words)})"
        flags = {f"--{kebab(key)}": flag_value(value) for key, value in self.fields.items()}
        flags |= {f"--{key}": value for key, value in more.items()}
        words = [word for flag in flags.items() for word in flag]
        words += [word for file in self.imports for word in ("--import", file)]
        return shlex.join(["nelbo", "train", self.subject, *words])


def merged(changes: Sequence[Change]) -> Change | None:
    """Return one change with the fields of several to the same subject; None for one, or where they disagree."""
    lines = [change for change in changes if not change.in_python]
    if len({change.subject for change in lines}) != 1 or len({change.command for change in lines}) < 2:
        return None
    fields: dict[str, object] = {}
    flags: dict[str, str] = {}
    for change in lines:
        for key, value in change.fields.items():
            # As flags: [] and "none" are the same change.
            if flag_value(fields.setdefault(key, value)) != flag_value(value):
                return None
        for key, word in change.flags.items():
            if word and flags.setdefault(key, word) != word:
                return None
    return dataclasses.replace(lines[0], fields=fields, flags=flags)


def distinct_command(source: str, fields: Mapping[str, object]) -> str:
    """Return a command line that writes data, read with these fields of `[data]`, without blank and repeated images."""
    stem = Path(source).stem.replace(":", "-") or "images"
    words = ["nelbo", "doctor", source, "--kind", "data", "--distinct", f"{stem}-distinct.npz"]
    for name, value in fields.items():
        words += ["--size" if name == "size" else f"--data.{kebab(name)}", flag_value(value)]
    return shlex.join(words)


def flag_value(value: object) -> str:
    """Return plain data as a flag takes it: none, true, 0.001, 1,2; lists of tables as TOML."""
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


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)  # TOML writes a text, a number or a truth value the same way
