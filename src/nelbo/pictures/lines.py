"""Walks in the latent space: class means, interpolations, traversals."""

import numpy as np
import torch

from nelbo import plots
from nelbo.pictures.base import (
    Drawn,
    classes_shown,
    image_name,
    line_between,
    pairs_of_images,
    picture,
    some_classes,
)
from nelbo.pictures.view import SHOWN, NotApplicable, View


@picture(group="walks", order=1)
def class_means(view: View) -> Drawn:
    """The mean latent of every class, decoded."""
    labels = some_classes(view)
    decoded = view.decoded(torch.stack([view.class_mean(label) for label in labels]))
    names = [view.class_name(label) for label in labels]
    title = f"{view.title} · class means{classes_shown(view)}"
    yield "class-means", plots.image_grid(decoded, title=title, labels=names, columns=SHOWN)


@picture(group="walks", order=2)
def interpolation(view: View) -> Drawn:
    """Straight lines in the latent's space between test images, the ends as they are; the first pair animated."""
    index = pairs_of_images(view)
    rows = [line_between(view, a, b, SHOWN) for a, b in index]
    row_labels = [f"{image_name(view, a)} to {image_name(view, b)}" for a, b in index]
    title = f"{view.title} · interpolation"
    yield "interpolation", plots.rows(rows, title=title, row_labels=row_labels, apart="ends")
    frames = line_between(view, *index[0], 50)[1:-1]  # without the images themselves, which are not decoded
    yield "interpolation", plots.gif_bytes(frames)


@picture(group="walks", order=3)
def class_interpolation(view: View) -> Drawn:
    """A walk from one class mean to another in 100 steps: a grid and an animation."""
    labels = some_classes(view)
    if len(labels) < 2:
        raise NotApplicable(f"{view.splits.name} has one class; a line between class means needs two")
    start, end = (1, 8) if {1, 8} <= set(labels) else (labels[0], labels[-1])
    frames = view.decoded(view.line(view.class_mean(start), view.class_mean(end), 100))
    between = f"class means, {view.class_name(start)} to {view.class_name(end)}"
    yield "class-interpolation", plots.image_grid(frames, title=f"{view.title} · {between}", columns=SHOWN)
    yield "class-interpolation", plots.gif_bytes(frames)


@picture(group="walks", order=4)
def traversal(view: View) -> Drawn:
    """One row a latent dimension, most informative first, moved over +-3 from the posterior mean of an image."""
    order = view.by_information()[:SHOWN]
    rows = [view.decoded(view.traversal(view.start_of_traversal(), place, 3.0, 11)) for place in order]
    labels = [view.directions[place] for place in order]
    columns = None  # on a sphere and among categories the steps are no numbers
    if view.model.latent_space.space == "real":
        columns = [f"{value:+.1f}" for value in np.linspace(-3, 3, 11)]
    title = f"{view.title} · traversals"
    yield "traversal", plots.rows(rows, title=title, row_labels=labels, column_labels=columns)
