"""The format number in every file of a run folder, and the files that a version can read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nelbo.errors import RunError

FORMAT = 1
"""The format of the files of a run folder. A file without one is older than the number, and is read as 1."""


def with_format(table: Mapping[str, object]) -> dict[str, object]:
    """Return the table with the format of its file, first."""
    return {"format": FORMAT, **table}  # first, for a person who opens the file


def without_format(table: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the table of a file without its format; raise RunError for a format that this version cannot read."""
    number = table.pop("format", FORMAT)
    if not isinstance(number, int) or number > FORMAT:
        raise RunError(
            f"{file} was written by a newer nelbo (format {number}, this one reads up to {FORMAT}): update nelbo"
        )
    return table
