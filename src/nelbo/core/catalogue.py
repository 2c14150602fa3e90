"""The catalogue of registered entries, for lists and help, and the import of a user's own files."""

from __future__ import annotations

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
    """Every entry of an axis by name."""
    return {name: lookup(axis, name) for name in names(axis)}


def docline(entry: object) -> str:
    """The first sentence of an entry's docstring, on one line."""
    paragraph = (inspect.getdoc(entry) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def describe(axis: str) -> dict[str, dict[str, str]]:
    """For every entry of an axis: its fields with their defaults, and what it is."""
    return {name: {"fields": _fields(entry), "what": docline(entry)} for name, entry in entries(axis).items()}


def _fields(entry: Any) -> str:
    if not (inspect.isclass(entry) and issubclass(entry, Spec)):
        return ""
    shown = []
    for name, info in entry.model_fields.items():
        default = "" if info.is_required() else f" {getattr(info.default, 'name', info.default)!s}"
        shown.append(f"{kebab(name)}{default}")
    return ", ".join(shown)


def import_files(files: Iterable[Path]) -> None:
    """Runs Python files that register components; raises ConfigError naming the file that cannot be run."""
    for file in files:
        if not file.is_file():
            raise ConfigError(f"--import {file}: no such file")
        module_name = f"nelbo_import_{file.stem}"
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise ConfigError(f"--import {file}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigError(f"--import {file}: {type(error).__name__}: {error}") from error
