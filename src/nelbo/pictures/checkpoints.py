"""The first epoch beside the best."""

import functools

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
    scatters = functools.partial(plots.two_scatters, titles=titles, class_names=view.split.images.class_names)
    classes_N = view.labels_N
    first, best = (side.z_NZ.numpy() for side in sides)
    if first.shape[1] == 2:  # the plane itself
        yield f"{stem}-latents", scatters(first, best, classes_N, title=title)
        return
    first, best = (plots.project(z_NZ, "pca", max_points=None)[0] for z_NZ in (first, best))
    axes = (("PC 1", "PC 2"), ("PC 1", "PC 2"))
    yield f"{stem}-latents", scatters(first, best, classes_N, title=f"{title} · PCA", axis_labels=axes)
    (first, tsne_index), (best, _) = (side.tsne for side in sides)
    classes_N = None if classes_N is None else classes_N[tsne_index]
    title = f"{title} · t-SNE, {len(tsne_index)} images"
    yield f"{stem}-latents-tsne", scatters(first, best, classes_N, title=title, axis_labels=(None, None))
