"""Specs to and from plain tables, TOML and flags; overrides of their fields."""

import inspect
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import ValidationError

from nelbo.core.format import without_format
from nelbo.core.registry import lookup
from nelbo.core.spec import Spec, kebab, options_of
from nelbo.errors import ConfigError, RunError

S = TypeVar("S", bound="Spec")


def to_dict(spec: Spec) -> dict[str, Any]:
    """Return the spec as plain tables; fields that are None are left out (TOML has no null)."""
    table: dict[str, object] = {"name": spec.name} if spec.axis else {}
    for field, value in spec:
        if value is not None:
            table[field] = _plain(value)
    return table


def _plain(value: object) -> object:
    if isinstance(value, Spec):
        table = to_dict(value)
        # beta = 4 in place of {name = "constant", value = 4}
        only_scalar = value.axis and value.scalar and set(table) == {"name", value.scalar}
        return table[value.scalar] if only_scalar else table
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def build(cls: type[S], table: object, source: str = "configuration") -> S:
    """Validate plain data into a spec; raise ConfigError with one line for each mistake."""
    try:
        return cls.model_validate(table)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    lines = ""
    for item in mistakes:
        field = ".".join(kebab(str(part)) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")  # pydantic's words before those of a validator
        if item["type"] == "unknown_field":
            field = ".".join(filter(None, [field, item["ctx"]["field"]]))
            message = f"unknown field; {item['ctx']['hint']}"
        elif item["type"] == "missing":
            message = "is required and was not given"
        elif item["type"] == "tuple_type":
            message = f"expected a list, as in 32,16 or [32, 16] (got {item['input']!r})"
        elif isinstance(item["input"], str | int | float | bool):
            message = f"{message} (got {item['input']!r})"
        lines += f"\n  {field}: {message}" if field else f"\n  {message}"
    raise ConfigError(f"{source} cannot be used:{lines}")


def dumps(spec: Spec) -> str:
    """Return the spec as TOML."""
    return tomli_w.dumps(to_dict(spec))


def read_toml(path: Path) -> dict[str, object]:
    """Return a TOML file as plain tables; raise ConfigError naming the file and the line."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None
    try:
        return without_format(table, path)
    except RunError as error:
        raise ConfigError(str(error)) from None


# --- overrides --------------------------------------------------------------------------------


def parse_value(text: str) -> object:
    """Return a flag's text as a TOML value where it is one, `none` as None, otherwise the text itself."""
    if text.lower() in ("none", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", text.lower()):  # .001 and 1., which TOML refuses
        return float(text)
    try:
        value = tomllib.loads(f"value = {text}")["value"]  # lists and tables too, as in a file
        return value if isinstance(value, str | int | float | list | dict) else text  # a date is a name here
    except tomllib.TOMLDecodeError:
        items = text.split(",")
        return [parse_value(item.strip()) for item in items if item.strip()] if len(items) > 1 else text


def parse_flags(arguments: list[str]) -> dict[str, object]:
    """Return `{"model.latent_dim": 16, "ema": 0.99}` of `["--model.latent-dim", "16", "--ema=0.99"]`."""
    values: dict[str, object] = {}
    position = 0
    while position < len(arguments):
        flag = arguments[position]
        if not flag.startswith("--"):
            raise ConfigError(f"unexpected argument {flag!r}; fields are set as --field value")
        key, equals, text = flag[2:].partition("=")
        position += 1
        if not equals:
            if position >= len(arguments) or arguments[position].startswith("--"):
                raise ConfigError(f"{flag} needs a value, as in {flag} VALUE")
            text = arguments[position]
            position += 1
        values[key.replace("-", "_")] = parse_value(text)
    return values


def override(spec: S, overrides: Mapping[str, object], source: str = "these flags") -> S:
    """Return a copy of the spec with dotted fields replaced; naming another class drops the old fields.

    `{"objective": "iwae", "objective.k": 5}` first swaps the objective, then sets its field.
    """
    table = to_dict(spec)
    for key in sorted(overrides, key=lambda dotted: dotted.count(".")):  # a class before the fields of it
        _set(table, type(spec), key.split("."), overrides[key])
    return build(type(spec), table, source)


def _set(table: dict[str, Any], cls: type[Spec], path: list[str], value: object) -> None:
    """Set the field at a path; `cls` is the class of the table, which says what a bare value stands for."""
    head, deeper = path[0], path[1:]
    info = cls.model_fields.get(head)
    types = options_of(info.annotation) if info else []
    field_spec = next((kind for kind in types if inspect.isclass(kind) and issubclass(kind, Spec)), None)
    entry = table.get(head)
    if deeper and field_spec is not None:
        if entry is None and info is not None and not info.is_required():
            entry = _plain(info.default)  # of a class that was named just now
        if not isinstance(entry, dict):
            entry = dict(field_spec.from_scalar(entry) or {}) if entry is not None else {}
        table[head] = entry
        named = field_spec.is_abstract() and isinstance(entry.get("name"), str)
        _set(entry, lookup(field_spec.axis, entry["name"]) if named else field_spec, deeper, value)
    elif deeper and isinstance(entry, dict):
        _set(entry, Spec, deeper, value)
    elif deeper:
        table[".".join(path)] = value  # refused by validation, which names it
    elif value is None:
        table.pop(head, None)
    else:
        scalar = None if field_spec is None or isinstance(value, Mapping) else field_spec.from_scalar(value)
        concrete = field_spec is not None and not field_spec.is_abstract()
        # The same name once more keeps the fields that are set; another name drops them.
        if isinstance(entry, dict) and scalar and (concrete or scalar.get("name") == entry.get("name")):
            entry.update(scalar)
        else:
            table[head] = value


def differences(a: Mapping[str, object], b: Mapping[str, object], prefix: str = "") -> list[str]:
    """Return the dotted fields in which two configurations differ, each as `field: left -> right`."""
    lines: list[str] = []
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{kebab(prefix + key)}: {left!r} -> {right!r}")
    return lines
