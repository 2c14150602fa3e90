"""Typed errors. Each carries the exit code that the command line returns for it.

A message names the field, file or value, says what was expected, and gives the way out.
"""

import difflib
from collections.abc import Iterable


class NelboError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(NelboError):
    """A configuration, a flag or a combination of components that cannot be run."""

    exit_code = 2


class UnknownName(ConfigError):
    """A name that is not registered; the message offers the nearest ones."""


class DataError(NelboError):
    """Data that is missing, damaged, or not what the configuration needs."""

    exit_code = 2


class RunError(NelboError):
    """A run folder that is missing, damaged, or belongs to another configuration."""

    exit_code = 2


class DeviceError(NelboError):
    """A device that this machine does not have."""

    exit_code = 2


class TrainingFailed(NelboError):
    """Training stopped because it could not go on (a loss that is not finite, for example)."""


class NotABound(NelboError):
    """A bound was asked of samples that do not come from the density they would be weighted by."""


class Interrupted(NelboError):
    """Interrupted from outside; what had been done is saved, and the same command goes on."""

    exit_code = 130


def nearest(word: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The known names closest in spelling to `word`, best first (possibly none)."""
    known = list(known)
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=n, cutoff=0.55)
    close += [low for low in lower if word and low.startswith(word.lower()) and low not in close]
    return [lower[low] for low in close[:n]]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause for an error message: the nearest names, then all names when they are few."""
    known = sorted(known)
    close = nearest(word, known)
    hint = f"did you mean {' or '.join(repr(name) for name in close)}? " if close else ""
    shown = ", ".join(known[:24]) + (", ..." if len(known) > 24 else "")
    return f"{hint}Known: {shown}"
