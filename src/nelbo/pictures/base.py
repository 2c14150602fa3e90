"""Pictures: their registration, their drawing, and the latents and images that several of them show."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from nelbo.core.files import atomic
from nelbo.core.registry import lookup, names, register
from nelbo.pictures.view import SHOWN, NotApplicable, Pictures, View

if TYPE_CHECKING:  # matplotlib takes long to import, and a list of pictures needs none
    from matplotlib.figure import Figure

Drawn: TypeAlias = "Iterator[tuple[str, Figure | bytes]]"
InReport = Literal["picture", "chart", "both"]
GROUPS = {  # heading by name, in the order of a report; any other name is a group too
    "images": "Images as they are, reconstructed, drawn from the prior and around examples",
    "latent": "The latent space: what each dimension carries, and where images lie",
    "walks": "Walks in the latent space: class means, interpolations, traversals",
    "checkpoints": "The first epoch beside the best",
    "estimates": "The importance-weighted estimate",
    "factors": "Images whose factors of variation are known: one factor at a time, and their traces in the latent",
    "training": "The course of training",
}


@dataclasses.dataclass
class Picture:
    """A registered picture: a function of a view that yields (file name without suffix, figure or encoded bytes).

    group      the heading of a report under which it stands: a key of GROUPS, or any other text
    order      its place in the group; pictures of equal order follow by name
    in_report  picture: as it is; chart: a report has a chart of the same numbers instead; both: the chart replaces the
               file that is called like the picture, and the others are shown
    """

    function: Callable[[View], Drawn]
    group: str
    order: int
    in_report: InReport

    def __post_init__(self) -> None:
        functools.update_wrapper(self, self.function)  # its name and its docstring, which is the help text

    def __call__(self, view: View) -> Drawn:
        return self.function(view)


def picture(
    *, group: str, order: int = 0, in_report: InReport = "picture"
) -> Callable[[Callable[[View], Drawn]], Picture]:
    """Register a function as the picture of its name, with underscores as hyphens; see `Picture`."""

    def registered(function: Callable[[View], Drawn]) -> Picture:
        name = function.__name__.replace("_", "-")
        return register("picture", name, Picture(function, group, order, in_report))

    return registered


def heading(group: str) -> str:
    """Return the heading of a group in a report."""
    return GROUPS.get(group, group[:1].upper() + group[1:])


def draw(
    view: View, named: list[str], folder: Path, *, formats: tuple[str, ...] = ("png",)
) -> tuple[list[Path], dict[str, str]]:
    """Draw the named pictures (all, when none is named) into `folder`.

    Returns the files, and the reason for each picture that this run cannot have (no labels, too few images). The
    reason is raised instead where the picture was named.
    """
    from nelbo.plots import PlotError

    chosen = {name: lookup("picture", name) for name in named or names("picture")}
    files: list[Path] = []
    left_out: dict[str, str] = {}
    for name, chosen_picture in chosen.items():
        try:
            for stem, drawn in chosen_picture(view):
                for kind in ("gif",) if isinstance(drawn, bytes) else formats:
                    files.append(folder / f"{stem}.{kind}")
                    with atomic(files[-1]) as temporary:
                        if isinstance(drawn, bytes):
                            temporary.write_bytes(drawn)
                        else:
                            drawn.savefig(temporary, format=kind)
        except (NotApplicable, PlotError) as error:
            if named:  # of all pictures a few are not for this run, which is no failure
                raise
            left_out[name] = str(error)
    return files, left_out


def reconstructed(view: View, index: list[int]) -> Pictures:
    """Return the images at these positions after a pass through the model, from their posterior means."""
    return view.decoded(view.mean(view.images_at(index)))


def some_classes(view: View) -> list[int]:
    """Return the classes that pictures by class show; raises NotApplicable where there are no labels."""
    if view.labels_N is None:
        raise NotApplicable(f"{view.splits.name} has no labels, so there are no pictures by class")
    return view.classes[: 2 * SHOWN]


def classes_shown(view: View) -> str:
    """Return what a title adds where pictures by class show not all of them."""
    there, shown = len(view.classes), len(some_classes(view))
    return "" if shown == there else f" · {shown} of {there} classes"


def image_name(view: View, index: int) -> str:
    """Return the class of an image, or its position where there are no labels."""
    label = -1 if view.labels_N is None else int(view.labels_N[index])
    return f"image {index}" if label < 0 else view.class_name(label)


def line_between(view: View, a: int, b: int, steps: int) -> Pictures:
    """Return image a, the decoded line between the two latents, and image b."""
    start, end = view.mean(view.images_at([a, b]))
    return np.concatenate([view.inputs([a]), view.decoded(view.line(start, end, steps)), view.inputs([b])])


def pairs_of_images(view: View) -> list[tuple[int, int]]:
    """Return pairs of images of different classes, 1 and 7 first where there are digits."""
    if view.labels_N is None or len(view.classes) < 2:
        return [(i, i + 1) for i in range(0, min(len(view) - 1, 6), 2)] or [(0, 0)]
    digits = [(1, 7), (1, 8), (0, 4), (3, 5)]
    pairs = [pair for pair in digits if set(pair) <= set(view.classes)]
    pairs = pairs or [(view.classes[0], view.classes[-1])]
    return [(view.example(a), view.example(b)) for a, b in pairs]
