"""Pictures of a run as matplotlib figures, for Python and notebooks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nelbo.core.registry import lookup
from nelbo.errors import ConfigError
from nelbo.pictures.base import Picture
from nelbo.pictures.view import View
from nelbo.training import store
from nelbo.training.store import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(
    run: str | Path | Run,
    picture: str,
    *,
    checkpoint: str = "best",
    split: str | None = None,
    data: object | None = None,
    device: str = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    seed: int = 0,
) -> Figure | list[Figure]:
    """Draw one picture of a run: a Figure, or a list of Figures in their order where the picture has several.

    picture     a name of `nelbo list picture`, such as scatter, samples, traversal
    checkpoint  first, best or last
    split       test by default; of images without splits there is one, all
    data        new images (`nelbo.training.looking.new_images`), or the place of the run's data, where it has moved
    seed        of every random choice

    Nothing is written, and pyplot does not know the figures: a notebook shows one once, as the last value of a cell.
    Animations are files alone: `nelbo plot` writes them as .gif. Raises UnknownName, with the nearest name, before the
    run is opened, and ConfigError, DataError and RunError where there is nothing to draw; NotApplicable where this run
    cannot have the picture.
    """
    chosen: Picture = lookup("picture", picture)
    view = View.open(
        store.find(run, Path(runs)),
        checkpoint=checkpoint,
        split=split,
        device=device,
        data_dir=data_dir,
        data=data,
        seed=seed,
    )
    figures = [drawn for _, drawn in chosen(view) if not isinstance(drawn, bytes)]
    if not figures:
        command = f"nelbo plot {view.run.quoted} {shlex.quote(picture)}"
        raise ConfigError(f"picture {picture!r} is an animation and no figure; write it by: {command}")
    return figures[0] if len(figures) == 1 else figures
