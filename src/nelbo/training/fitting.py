"""The refusal of a recipe whose preprocessing would spoil other data than it was made for."""

import shlex
from pathlib import Path

from nelbo.data import Data
from nelbo.data.survey import Survey, survey
from nelbo.data.transforms import Resize
from nelbo.errors import DataError
from nelbo.training.recipe import FOR_FOLDERS, Recipe


def check(
    recipe: Recipe, base: Recipe, given: frozenset[str], data: object | None, data_dir: Path | None = None
) -> None:
    """Raise DataError where fields that a recipe has for its own data would binarise or shrink given images.

    Given images are a path or `data`; of a named set everybody knows what a recipe does to it. A field in `given` is
    meant; the others are as the base has them.
    """
    images_given = data is not None or recipe.data.path() is not None
    kept = base.data.model_copy(
        update={
            field: empty
            for field, empty in (("transforms", ()), ("size", None))
            if any(name.startswith(f"data.{field}") for name in given)
        }
    )
    if not images_given or not (kept.transforms or kept.size):
        return
    facts = survey(recipe.data.model_copy(update={"size": None}), data_dir, data)
    if spoils := _harm(kept, facts):
        none, meant = _fields(kept, ("none", "none")), _fields(kept, _in_words(kept))
        fits = f"nelbo train {FOR_FOLDERS} --data {shlex.quote(recipe.data.source)}"
        if data is not None:
            fits = f'nelbo.train("{FOR_FOLDERS}", data=...)'
            none, meant = f"in overrides, as on the command line {none}", f"{meant}, in overrides"
        raise DataError(
            f"{recipe.recipe} was made for {base.data.source}: it {' and '.join(spoils)}. These are {facts}. "
            f"A recipe that fits them: {fits}. To keep this one and leave the images as they are: {none}. "
            f"To do it all the same, say so: {meant}"
        )


def _harm(data: Data, facts: Survey) -> list[str]:
    """Return what the transforms and the size do to such images that cannot be undone, in words."""
    harm = []
    for transform in data.transforms:
        if transform.binary and facts.pixels != "binary":
            harm.append(f"makes every pixel black or white (data.transforms {transform.name})")
        if isinstance(transform, Resize):
            harm += _shrinks(
                (transform.height, transform.width or transform.height), facts, "data.transforms resize"
            )
    if (size := data.height_and_width()) is not None:
        harm += _shrinks(size, facts, "data.size")
    return harm


def _shrinks(size: tuple[int, int], facts: Survey, field: str) -> list[str]:
    smaller = size[0] < facts.largest[0] or size[1] < facts.largest[1]
    return [f"shrinks images to {size[0]} x {size[1]} ({field})"] if smaller else []


def _in_words(data: Data) -> tuple[str, str]:
    """Return the transforms and the size as a flag has them."""
    size = data.height_and_width() or ()
    return ",".join(transform.name for transform in data.transforms), ",".join(map(str, size))


def _fields(data: Data, values: tuple[str, str]) -> str:
    """Return the flags of the transforms and of the size, as far as the recipe has them, with these values."""
    flags = [
        ("--data.transforms", bool(data.transforms), values[0]),
        ("--data.size", bool(data.size), values[1]),
    ]
    return " ".join(f"{flag} {value}" for flag, there, value in flags if there)
