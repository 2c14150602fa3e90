"""The registry: components by axis and name, loaded when first asked for, and plug-ins."""

import contextlib
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterator
from typing import Any, TypeVar

from nelbo.errors import ConfigError, UnknownName, did_you_mean

T = TypeVar("T")

HOMES = {
    "objective": "nelbo.objectives",
    "model": "nelbo.models",
    "net": "nelbo.nets",
    "posterior": "nelbo.posteriors",
    "prior": "nelbo.priors",
    "likelihood": "nelbo.likelihoods",
    "spread": "nelbo.likelihoods",
    "sampler": "nelbo.samplers",
    "schedule": "nelbo.schedules",
    "optimizer": "nelbo.optim",
    "transform": "nelbo.data",
    "dataset": "nelbo.data",
    "recipe": "nelbo.recipes",
    "metric": "nelbo.metrics",
    "picture": "nelbo.pictures",
    "check": "nelbo.doctor",
}
"""Axis -> the package or module that holds its built-in entries, imported when first asked for."""

_entries: dict[str, dict[str, Any]] = {axis: {} for axis in HOMES}
_loaded: set[str] = set()


def register(axis: str, name: str, entry: T) -> T:
    """Add `entry` under `name`. A second, different entry of the same name is refused."""
    earlier = _entries[axis].get(name)
    # A module that is imported twice (by path and by name) registers the same entry twice.
    if earlier is not None and _identity(earlier) != _identity(entry):
        raise ValueError(f"two entries of axis {axis!r} are named {name!r}: {earlier!r}, {entry!r}")
    _entries[axis][name] = entry
    return entry


def names(axis: str) -> list[str]:
    """Return every registered name of an axis, sorted."""
    _load(axis)
    return sorted(_entries[axis])


def lookup(axis: str, name: str) -> Any:
    """Return the entry of that name; raise UnknownName with the nearest spelling."""
    _load(axis)
    entry = _entries[axis].get(name.replace("_", "-"))  # written as in Python, too
    if entry is None:
        raise UnknownName(f"no {axis} is called {name!r}; {did_you_mean(name, _entries[axis])}")
    return entry


@contextlib.contextmanager
def temporary() -> Iterator[None]:
    """Forget at the end of the block what was registered in it, for tests and notebooks."""
    before = {axis: {name: _entries[axis][name] for name in names(axis)} for axis in HOMES}
    try:
        yield
    finally:
        for axis, entries in before.items():
            _entries[axis].clear()
            _entries[axis].update(entries)


def _identity(entry: object) -> tuple[str, str]:
    return getattr(entry, "__module__", ""), getattr(entry, "__qualname__", repr(entry))


def _load(axis: str) -> None:
    """Import every module of the axis's home, then plug-ins (entry points of group `nelbo`)."""
    home = HOMES[axis]
    if home in _loaded:
        return
    _loaded.add(home)  # before its modules are imported, since they may look names up themselves
    package = importlib.import_module(home)
    for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
        importlib.import_module(f"{home}.{module.name}")
    if "plugins" not in _loaded:
        _loaded.add("plugins")
        for point in importlib.metadata.entry_points(group="nelbo"):
            try:
                point.load()
            except Exception as error:
                raise ConfigError(
                    f"the plug-in {point.name!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}; "
                    "repair or uninstall it"
                ) from error
