"""Specs to and from plain tables, TOML and flags; overrides of their fields."""

import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import ValidationError

from nelbo.core.format import without_format
from nelbo.core.registry import lookup, names
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
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # with or without a byte order mark
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
    if text.lower() in NO_VALUES:
        return None
    if text.lower() in TRUTHS:
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", text.lower()):  # .001 and 1., which TOML refuses
        return float(text)
    try:
        value = tomllib.loads(f"value = {text}")["value"]  # lists and tables too, as in a file
        return value if isinstance(value, str | int | float | list | dict) else text  # a date is a name here
    except tomllib.TOMLDecodeError:
        items = text.split(",")
        return [parse_value(item.strip()) for item in items if item.strip()] if len(items) > 1 else text


Types = Callable[[str], Sequence[object]]
"""A function from the dotted name of a field to the types that it may hold, as `field_types` gives them."""
NO_VALUES = ("none", "null")
TRUTHS = ("true", "false")


def no_types(flag: str) -> Sequence[object]:
    """Return no types, for flags of which nothing is known."""
    return ()


def field_types(cls: type[Spec], path: Sequence[str]) -> list[object]:
    """Return the types of the field at a path, over all classes that may stand on the way; none of an unknown field.

    A class that a bare value may stand for counts with the field that the value sets: `data` with `data.source`.
    """
    head, deeper = path[0], path[1:]
    types: list[object] = []
    for concrete in [lookup(cls.axis, name) for name in names(cls.axis)] if cls.is_abstract() else [cls]:
        info = concrete.model_fields.get(head)
        for option in _alternatives(info.annotation) if info else ():
            if not (inspect.isclass(option) and issubclass(option, Spec)):
                types += [] if deeper else [option]
            elif deeper:
                types += field_types(option, deeper)
            elif not option.is_abstract() and option.scalar:
                types += field_types(option, [option.scalar])
    return types


def _alternatives(annotation: object) -> Iterable[object]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def parse_as(text: str, types: Sequence[object]) -> object:
    """Return a flag's text as the value of a field of these types: where text is meant, it is taken as it is."""
    if str not in types:
        return parse_value(text)
    return None if NoneType in types and text.lower() in NO_VALUES else text


def parse_flags(arguments: list[str], types: Types = no_types) -> dict[str, object]:
    """Return `{"model.latent_dim": 16, "ema": 0.99}` of `["--model.latent-dim", "16", "--ema=0.99"]`.

    A flag of a field that is true or false may stand alone: `--log-steps` is `--log-steps true`.
    """
    values: dict[str, object] = {}
    position = 0
    while position < len(arguments):
        flag = arguments[position]
        if not flag.startswith("--"):
            raise ConfigError(f"unexpected argument {flag!r}; fields are set as --field value")
        name, equals, text = flag[2:].partition("=")
        key = name.replace("-", "_")
        position += 1
        following = arguments[position] if position < len(arguments) else "--"
        if not equals and bool in types(key) and following.lower() not in TRUTHS:
            text = "true"
        elif not equals:
            if following.startswith("--"):
                raise ConfigError(f"{flag} needs a value, as in {flag} VALUE")
            text = following
            position += 1
        values[key] = parse_as(text, types(key))
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
