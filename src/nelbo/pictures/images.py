"""Images as they are, reconstructed, drawn from the prior and around examples."""

import numpy as np

from nelbo import plots
from nelbo.evaluation.samplers import chosen_for
from nelbo.pictures.base import Drawn, classes_shown, image_name, picture, reconstructed, some_classes
from nelbo.pictures.view import SHOWN, Pictures, View


@picture(group="images", order=1)
def data(view: View) -> Drawn:
    """The first images of the split as the model sees them, with their classes."""
    n = min(len(view), 40)
    labels = None if view.labels_N is None else [view.class_name(int(label)) for label in view.labels_N[:n]]
    yield "data", plots.image_grid(view.inputs(slice(n)), title=view.title, labels=labels, columns=SHOWN)


@picture(group="images", order=2)
def reconstructions(view: View) -> Drawn:
    """Inputs above their reconstructions from the posterior mean."""
    index = list(range(min(len(view), 2 * SHOWN)))
    pairs = [index[:SHOWN], index[SHOWN:]]
    rows = [row for part in pairs if part for row in (view.inputs(part), reconstructed(view, part))]
    row_labels = ["input", "reconstruction"] * (len(rows) // 2)
    yield "reconstructions", plots.rows(rows, title=view.title, row_labels=row_labels)


@picture(group="images", order=3)
def samples(view: View) -> Drawn:
    """Decoded draws from the prior, and from the fitted sampler where one draws better (see nelbo samplers)."""
    _, x_NCHW = view.samples(64)
    yield "samples", plots.image_grid(view.pictures(x_NCHW), title=f"{view.title} · prior samples", columns=8)
    if (sampler := chosen_for(view.run, view.model)) is not None:
        _, x_NCHW = view.samples(64, sampler=sampler)
        title = f"{view.title} · samples of a fitted {sampler.name}"
        yield "samples-fitted", plots.image_grid(view.pictures(x_NCHW), title=title, columns=8)


@picture(group="images", order=4)
def around(view: View) -> Drawn:
    """Draws from the posterior of one image, decoded, beside the image."""
    index = view.examples()[:4]
    row_labels = [image_name(view, i) for i in index]
    title = f"{view.title} · draws from q(z|x)"
    rows = _draws_beside(view, index, SHOWN - 1)
    yield "around", plots.rows(rows, title=title, row_labels=row_labels, apart="first")


@picture(group="images", order=5)
def resampled(view: View) -> Drawn:
    """A row for each class: one example, then draws from its posterior."""
    rows = _draws_beside(view, [view.example(label) for label in some_classes(view)], SHOWN)
    row_labels = [view.class_name(label) for label in some_classes(view)]
    title = f"{view.title} · one example of each class, resampled{classes_shown(view)}"
    yield "resampled", plots.rows(rows, title=title, row_labels=row_labels, apart="first")


def _draws_beside(view: View, index: list[int], n: int) -> list[Pictures]:
    """Return a row for each image: the image, then n draws from its posterior, decoded."""
    _, x_NBCHW = view.around(view.images_at(index), n)
    return [np.concatenate([view.inputs([i]), view.pictures(x_NBCHW[:, row])]) for row, i in enumerate(index)]
