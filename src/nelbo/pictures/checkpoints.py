"""The first epoch beside the best."""

import functools
from typing import Any

from nelbo import plots
from nelbo.pictures.base import Drawn, image_name, line_between, pairs_of_images, picture, reconstructed
from nelbo.pictures.view import View


@picture(group="checkpoints", order=1)
def first_against_best(view: View) -> Drawn:
    """The first epoch beside the best: reconstructions, prior samples, latents, an interpolation, a traversal."""
    sides = view.at("first"), view.at("best")
    titles = (f"first (epoch {sides[0].epoch})", f"best (epoch {sides[1].epoch})")
    title = f"{view.run.name} · {view.split_name}"
    stem = "first-against-best"
    beside = functools.partial(plots.side_by_side, titles=titles, title=title)
    index = list(range(min(len(view), 8)))
    pairs = [[side.inputs(index), reconstructed(side, index)] for side in sides]
    yield f"{stem}-reconstructions", beside(*pairs, row_labels=["input", "reconstruction"])
    drawn = [side.pictures(side.samples(36)[1]) for side in sides]
    yield f"{stem}-samples", beside(*drawn, title=f"{title} · prior samples")
    ends = pairs_of_images(view)
    lines = [[line_between(side, a, b, 8) for a, b in ends] for side in sides]
    labels = [f"{image_name(view, a)} to {image_name(view, b)}" for a, b in ends]
    yield f"{stem}-interpolation", beside(*lines, row_labels=labels, apart="ends")
    order = sides[1].by_information()[:4]  # of the best: the same four dimensions on both sides
    moved = [
        [side.decoded(side.traversal(side.start_of_traversal(), place, 3.0, 9)) for place in order]
        for side in sides
    ]
    span = ", -3 to 3" if view.model.latent_space.space == "real" else ""
    yield f"{stem}-traversal", beside(*moved, row_labels=[f"{view.directions[k]}{span}" for k in order])
    yield from _latents(sides, f"{stem}-latents", titles=titles, title=title)


def _latents(sides: tuple[View, View], stem: str, *, titles: tuple[str, str], title: str) -> Drawn:
    """Draw the plane itself when Z = 2, otherwise principal axes, and t-SNE of at most 2,000 images."""
    shared: dict[str, Any] = {"titles": titles, "class_names": sides[0].split.images.class_names}
    labels = sides[0].labels_N
    latents = [side.z_NZ.numpy() for side in sides]
    if latents[0].shape[1] == 2:
        yield stem, plots.two_scatters(latents[0], latents[1], labels, title=title, **shared)
        return
    flat = [plots.project(z_NZ, "pca", max_points=None)[0] for z_NZ in latents]
    shared["axis_labels"] = (("PC 1", "PC 2"), ("PC 1", "PC 2"))
    yield stem, plots.two_scatters(flat[0], flat[1], labels, title=f"{title} · PCA", **shared)
    (first, index), (best, _) = (side.tsne for side in sides)
    labels = None if labels is None else labels[index]
    shared |= {"axis_labels": (None, None), "title": f"{title} · t-SNE, {len(index)} images"}
    yield f"{stem}-tsne", plots.two_scatters(first, best, labels, **shared)
