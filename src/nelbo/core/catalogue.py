"""The catalogue of registered entries, for lists and help, and the import of a user's own files."""

import importlib.util
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec, kebab
from nelbo.errors import ConfigError


def entries(axis: str) -> dict[str, Any]:
    """Return every entry of an axis by name."""
    return {name: lookup(axis, name) for name in names(axis)}


def docline(entry: object) -> str:
    """Return the first paragraph of an entry's docstring, on one line."""
    paragraph = (inspect.getdoc(entry) or "").split("\n\n")[0]  # getdoc also finds that of a base class
    return " ".join(paragraph.split())


def describe(axis: str) -> dict[str, dict[str, str]]:
    """Return the fields of every entry of an axis, with their defaults, and its docline."""
    table = {}
    for name, entry in entries(axis).items():
        fields = []
        if inspect.isclass(entry) and issubclass(entry, Spec):
            for field, info in entry.model_fields.items():
                # Of a default that is a spec itself the name says enough.
                default = "" if info.is_required() else f" {getattr(info.default, 'name', info.default)!s}"
                fields.append(f"{kebab(field)}{default}")
        table[name] = {"fields": ", ".join(fields), "what": docline(entry)}
    return table


def import_files(files: Iterable[Path]) -> None:
    """Run Python files that register components; raise ConfigError naming the file that cannot be run."""
    for file in files:
        if not file.is_file():
            raise ConfigError(f"--import {file}: no such file")
        module_name = f"nelbo_import_{file.stem}"
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise ConfigError(f"--import {file}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # pickle and inspect look there
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigError(f"--import {file}: {type(error).__name__}: {error}") from error
