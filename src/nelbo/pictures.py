"""The pictures of a run: what to draw from which values. `plots` knows how.

Each function takes a View and yields (file name, Figure or encoded bytes); its docstring is the help text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from nelbo import plots
from nelbo.core import lookup, names, register
from nelbo.metrics.latent import ACTIVE_VARIANCE
from nelbo.store import atomic
from nelbo.view import NotApplicable, View, line, traversal

Drawn = Iterator[tuple[str, Figure | bytes]]
Picture = Callable[[View], Drawn]
SHOWN = 10  # columns of a row of examples
TSNE_POINTS = 2000


def picture(function: Picture) -> Picture:
    """Registers a picture under its function's name."""
    return register("picture", function.__name__.replace("_", "-"), function)


def draw(
    view: View, what: list[str], folder: Path, *, formats: tuple[str, ...] = ("png",)
) -> tuple[list[Path], dict[str, str]]:
    """Draws the named pictures (all, when none is named) into `folder`.

    Returns the files, and the reason for each picture that this run cannot have (no labels, too few images);
    when it was asked for by name that reason is raised instead.
    """
    chosen = {name: lookup("picture", name) for name in what or names("picture")}
    files: list[Path] = []
    left_out: dict[str, str] = {}
    for name, function in chosen.items():
        try:
            for stem, drawn in function(view):
                files += _write(folder, stem, drawn, formats)
        except (NotApplicable, plots.PlotError) as error:
            if what:
                raise
            left_out[name] = str(error)
    return files, left_out


def _write(folder: Path, stem: str, drawn: Figure | bytes, formats: tuple[str, ...]) -> list[Path]:
    if isinstance(drawn, bytes):
        file = folder / f"{stem}.gif"
        with atomic(file) as temporary:
            temporary.write_bytes(drawn)
        return [file]
    files = [folder / f"{stem}.{kind}" for kind in formats]
    for file, kind in zip(files, formats, strict=True):
        with atomic(file) as temporary:
            drawn.savefig(temporary, format=kind)
    return files


# --- images -----------------------------------------------------------------------------------


@picture
def data(view: View) -> Drawn:
    """The first images of the split as the model sees them, with their classes."""
    n = min(len(view), 40)
    labels = None if view.labels_N is None else [view.class_name(int(label)) for label in view.labels_N[:n]]
    yield "data", plots.image_grid(view.inputs(slice(n)), title=view.title, labels=labels, columns=SHOWN)


def _examples(view: View) -> list[int]:
    """One image of each class where there are classes, otherwise the first images."""
    if view.labels_N is not None and 1 < len(view.classes) <= 2 * SHOWN:
        return [view.example(label) for label in view.classes][:SHOWN]
    return list(range(min(len(view), SHOWN)))


def _reconstructed(view: View, index: list[int]) -> Any:
    return view.decoded(view.posterior(view.x_NCHW[index]).mean)


@picture
def reconstructions(view: View) -> Drawn:
    """Inputs above their reconstructions from the posterior mean."""
    index = list(range(min(len(view), 2 * SHOWN)))
    pairs = [index[:SHOWN], index[SHOWN:]]
    shown = [row for part in pairs if part for row in (view.inputs(part), _reconstructed(view, part))]
    row_labels = ["input", "reconstruction"] * (len(shown) // 2)
    yield "reconstructions", plots.rows(shown, title=view.title, row_labels=row_labels)


@picture
def samples(view: View) -> Drawn:
    """Decoded draws from the prior."""
    _, x_NCHW = view.samples(64)
    yield "samples", plots.image_grid(view.pictures(x_NCHW), title=f"{view.title} · prior samples", columns=8)


@picture
def around(view: View) -> Drawn:
    """Draws from the posterior of one image, decoded, beside the image."""
    index = _examples(view)[:4]
    _, x_NBCHW = view.around(view.x_NCHW[index], SHOWN - 1)
    shown = [
        np.concatenate([view.inputs([i]), view.pictures(x_NBCHW[:, position])])
        for position, i in enumerate(index)
    ]
    row_labels = [_image_name(view, i) for i in index]
    title = f"{view.title} · draws from q(z|x)"
    yield "around", plots.rows(shown, title=title, row_labels=row_labels, apart="first")


@picture
def resampled(view: View) -> Drawn:
    """A row for each class: one example, then draws from its posterior."""
    index = [view.example(label) for label in _some_classes(view)]
    _, x_NBCHW = view.around(view.x_NCHW[index], SHOWN)
    shown = [
        np.concatenate([view.inputs([i]), view.pictures(x_NBCHW[:, row])]) for row, i in enumerate(index)
    ]
    row_labels = [view.class_name(label) for label in _some_classes(view)]
    title = f"{view.title} · one example of each class, resampled"
    yield "resampled", plots.rows(shown, title=title, row_labels=row_labels, apart="first")


def _some_classes(view: View) -> list[int]:
    if view.labels_N is None:
        raise NotApplicable(f"{view.splits.name} has no labels, so there are no pictures by class")
    return view.classes[: 2 * SHOWN]


def _image_name(view: View, index: int) -> str:
    return f"image {index}" if view.labels_N is None else view.class_name(int(view.labels_N[index]))


# --- training ---------------------------------------------------------------------------------


@picture
def curves(view: View) -> Drawn:
    """Total, reconstruction, KL and NELBO by epoch, training and validation."""
    history = view.run.history()
    if not history:
        raise NotApplicable(f"{view.run.name} has no finished epoch to draw")
    series: dict[str, dict[str, list[float | None]]] = {}
    for quantity in ("total", "reconstruction", "kl", "bound"):
        sign, name = {"bound": (-1.0, "NELBO"), "kl": (1.0, "KL")}.get(quantity, (1.0, quantity))
        for split in ("train", "validation"):
            values = [row.get(split, {}).get(quantity) for row in history]
            if any(value is not None for value in values):
                signed = [None if value is None else sign * value for value in values]
                series.setdefault(name, {})[split] = signed
    best = view.run.summary.get("best_epoch")
    epochs = [row["epoch"] for row in history]
    notes = ["train: averaged over the epoch, while the weights move; validation: after it, fixed noise"]
    yield "curves", plots.epoch_curves(epochs, series, title=view.run.name, best_epoch=best, notes=notes)


@picture
def steps(view: View) -> Drawn:
    """The loss of every step (needs log-steps in the recipe)."""
    losses = [loss for row in view.run.history("steps") for loss in row["loss"]]
    if not losses:
        raise NotApplicable(f"{view.run.name} kept no loss of every step; train with --log-steps true")
    yield "steps", plots.step_curve(np.array(losses, dtype=float), title=view.run.name)


# --- latents ----------------------------------------------------------------------------------


@picture
def kl(view: View) -> Drawn:
    """KL of each latent dimension, sorted, and its history over training."""
    statistics = view.statistics
    if statistics.kl_Z is None:
        raise NotApplicable(f"{view.run.name}: this posterior and prior have no closed-form KL a dimension")
    active = statistics.mean_variance_Z.numpy() > ACTIVE_VARIANCE
    yield "kl", plots.kl_per_dimension(statistics.kl_Z.numpy(), title=view.title, active=active)
    rows = [row for row in view.run.history() if row.get("latent", {}).get("kl_per_dimension")]
    if len(rows) > 1:
        table = np.array([row["latent"]["kl_per_dimension"] for row in rows], dtype=float)
        yield "kl-history", plots.kl_heatmap(table, [row["epoch"] for row in rows], title=view.run.name)


@picture
def posterior(view: View) -> Drawn:
    """Distribution of posterior means and standard deviations against the prior."""
    found = view.posterior(view.x_NCHW[:2000])
    std = getattr(found, "std", None)
    if std is None:
        raise NotApplicable(f"{view.run.name}: this posterior has no standard deviation")
    mean = found.mean.float().cpu().numpy()
    yield "posterior", plots.posterior_statistics(mean, std.abs().float().cpu().numpy(), title=view.title)


def _names(view: View) -> list[str] | None:
    found = view.split.images.class_names
    return list(found) if found else None


@picture
def scatter(view: View) -> Drawn:
    """Posterior means by class: the latent plane itself when Z = 2, otherwise its first two principal axes."""
    z_NZ = view.z_NZ.numpy()
    if z_NZ.shape[1] == 2:
        figure = plots.scatter(
            z_NZ, view.labels_N, title=view.title, class_names=_names(view), prior_circles=True
        )
    else:
        flat, index = plots.project(z_NZ, "pca", max_points=None)
        labels = None if view.labels_N is None else view.labels_N[index]
        figure = plots.scatter(
            flat, labels, title=f"{view.title} · PCA", class_names=_names(view), axis_labels=("PC 1", "PC 2")
        )
    yield "scatter", figure


@picture
def tsne(view: View) -> Drawn:
    """Posterior means by class: principal axes beside t-SNE, at most 2,000 images."""
    if view.z_NZ.shape[1] == 2:
        raise NotApplicable("t-SNE of a latent plane shows less than the plane itself; see scatter")
    flat, index = plots.project(view.z_NZ.numpy(), "tsne", max_points=TSNE_POINTS)
    pca, _ = plots.project(view.z_NZ.numpy()[index], "pca", max_points=None)
    labels = None if view.labels_N is None else view.labels_N[index]
    words: dict[str, Any] = {"titles": ("PCA", "t-SNE"), "title": f"{view.title} · {len(index)} images"}
    axes = (("PC 1", "PC 2"), None)
    yield "tsne", plots.two_scatters(pca, flat, labels, class_names=_names(view), axis_labels=axes, **words)


@picture
def manifold(view: View) -> Drawn:
    """The decoded latent plane: both dimensions when Z = 2, otherwise the plane of the first two principal axes."""
    if view.z_NZ.shape[1] < 2:
        raise NotApplicable("a plane needs two latent dimensions")
    size = 20
    centre, first, second, labels = _plane(view)
    ticks = torch.linspace(-2.5, 2.5, size)
    grid = centre + ticks[None, :, None] * first + ticks[:, None, None] * second
    decoded = view.decoded(grid.flatten(0, 1))
    images = decoded.reshape(size, size, *decoded.shape[1:])
    title = f"{view.title} · decoded plane"
    yield "manifold", plots.manifold(images, title=title, extent=(-2.5, 2.5, -2.5, 2.5), axis_labels=labels)


def _plane(view: View) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[str, str]]:
    """Centre, two directions of one unit (standard deviation where it is a principal axis), and their names."""
    z_NZ = view.z_NZ
    if z_NZ.shape[1] == 2:
        return torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), ("z0", "z1")
    centre = z_NZ.mean(0)
    _, spread, axes = torch.linalg.svd(z_NZ - centre, full_matrices=False)
    scale = spread / max(1, len(z_NZ) - 1) ** 0.5
    return centre, scale[0] * axes[0], scale[1] * axes[1], ("PC 1, standard deviations", "PC 2")


# --- classes, lines, traversals ---------------------------------------------------------------


@picture
def class_means(view: View) -> Drawn:
    """The mean latent of every class, decoded."""
    labels = _some_classes(view)
    shown = view.decoded(torch.stack([view.class_mean(label) for label in labels]))
    names_ = [view.class_name(label) for label in labels]
    title = f"{view.title} · class means"
    yield "class-means", plots.image_grid(shown, title=title, labels=names_, columns=SHOWN)


@picture
def interpolation(view: View) -> Drawn:
    """Straight lines in the latent between pairs of test images, ends shown as they are; the first pair animated."""
    index = _pairs(view)
    shown = [_line_between(view, a, b, SHOWN) for a, b in index]
    row_labels = [f"{_image_name(view, a)} to {_image_name(view, b)}" for a, b in index]
    title = f"{view.title} · interpolation"
    yield "interpolation", plots.rows(shown, title=title, row_labels=row_labels, apart="ends")
    yield "interpolation", plots.gif_bytes(_line_between(view, *index[0], 50)[1:-1])


def _line_between(view: View, a: int, b: int, steps: int) -> Any:
    """Image a, the decoded line between the two latents, image b."""
    ends = view.posterior(view.x_NCHW[[a, b]]).mean.float().cpu()
    return np.concatenate([view.inputs([a]), view.decoded(line(ends[0], ends[1], steps)), view.inputs([b])])


def _pairs(view: View) -> list[tuple[int, int]]:
    """Pairs of images of different classes, 1 and 7 first where there are digits."""
    if view.labels_N is None or len(view.classes) < 2:
        return [(i, i + 1) for i in range(0, min(len(view) - 1, 6), 2)] or [(0, 0)]
    wanted = [(1, 7), (1, 8), (0, 4), (3, 5)]
    pairs = [pair for pair in wanted if set(pair) <= set(view.classes)] or [
        (view.classes[0], view.classes[-1])
    ]
    return [(view.example(a), view.example(b)) for a, b in pairs]


@picture
def class_interpolation(view: View) -> Drawn:
    """From one class mean to another in 100 steps: a grid and an animation."""
    labels = _some_classes(view)
    if len(labels) < 2:
        raise NotApplicable(f"{view.splits.name} has one class; a line between class means needs two")
    start, end = (1, 8) if {1, 8} <= set(labels) else (labels[0], labels[-1])
    shown = view.decoded(line(view.class_mean(start), view.class_mean(end), 100))
    between = f"class means, {view.class_name(start)} to {view.class_name(end)}"
    yield "class-interpolation", plots.image_grid(shown, title=f"{view.title} · {between}", columns=SHOWN)
    yield "class-interpolation", plots.gif_bytes(shown)


def traversals(view: View) -> Drawn:
    """One row a latent dimension, most informative first, moved over +-3 from the posterior mean of an image."""
    order = _informative(view)[:SHOWN]
    shown = [view.decoded(traversal(_start(view), dimension, 3.0, 11)) for dimension in order]
    labels = [f"z{dimension}" for dimension in order]
    columns = [f"{value:+.1f}" for value in np.linspace(-3, 3, 11)]
    title = f"{view.title} · traversals"
    yield "traversal", plots.rows(shown, title=title, row_labels=labels, column_labels=columns)


def _start(view: View) -> torch.Tensor:
    """The posterior mean of the first example."""
    return torch.as_tensor(view.posterior(view.x_NCHW[[_examples(view)[0]]]).mean[0].float().cpu())


def _informative(view: View) -> list[int]:
    """Latent dimensions by falling KL, or by the variance of their means where there is no closed form."""
    kl_Z = view.statistics.kl_Z
    weight = view.statistics.mean_variance_Z if kl_Z is None else kl_Z
    return [int(dimension) for dimension in torch.argsort(weight, descending=True)]


register("picture", "traversal", traversals)


# --- first against best -----------------------------------------------------------------------


@picture
def first_against_best(view: View) -> Drawn:
    """The first epoch beside the best: reconstructions, prior samples, latents, an interpolation, a traversal."""
    sides = view.at("first"), view.at("best")
    titles = (f"first (epoch {sides[0].epoch})", f"best (epoch {sides[1].epoch})")
    title = f"{view.run.name} · {view.split_name}"
    stem = "first-against-best"
    index = list(range(min(len(view), 8)))
    pairs = [[side.inputs(index), _reconstructed(side, index)] for side in sides]
    names_ = ["input", "reconstruction"]
    yield f"{stem}-reconstructions", plots.side_by_side(*pairs, titles=titles, title=title, row_labels=names_)
    drawn = [side.pictures(side.samples(36)[1]) for side in sides]
    yield f"{stem}-samples", plots.side_by_side(*drawn, titles=titles, title=f"{title} · prior samples")
    ends = _pairs(view)
    lines = [[_line_between(side, a, b, 8) for a, b in ends] for side in sides]
    names_ = [f"{_image_name(view, a)} to {_image_name(view, b)}" for a, b in ends]
    yield (
        f"{stem}-interpolation",
        plots.side_by_side(*lines, titles=titles, title=title, row_labels=names_, apart="ends"),
    )
    order = _informative(view.at("best"))[:4]
    moved = [[side.decoded(traversal(_start(side), z, 3.0, 9)) for z in order] for side in sides]
    names_ = [f"z{z}, -3 to 3" for z in order]
    yield f"{stem}-traversal", plots.side_by_side(*moved, titles=titles, title=title, row_labels=names_)
    yield from _latents_side_by_side(sides, titles, title, f"{stem}-latents")


def _latents_side_by_side(sides: tuple[View, View], titles: tuple[str, str], title: str, stem: str) -> Drawn:
    """The plane itself when Z = 2, otherwise principal axes, and t-SNE of at most 2,000 images."""
    known: dict[str, Any] = {"titles": titles, "class_names": _names(sides[0])}
    labels = sides[0].labels_N
    found = [side.z_NZ.numpy() for side in sides]
    if found[0].shape[1] == 2:
        yield stem, plots.two_scatters(found[0], found[1], labels, title=title, **known)
        return
    flat = [plots.project(z_NZ, "pca", max_points=None)[0] for z_NZ in found]
    axes = ("PC 1", "PC 2")
    yield (
        stem,
        plots.two_scatters(
            flat[0], flat[1], labels, title=f"{title} · PCA", axis_labels=(axes, axes), **known
        ),
    )
    close = [plots.project(z_NZ, "tsne", max_points=TSNE_POINTS) for z_NZ in found]
    labels = None if labels is None else labels[close[0][1]]
    words = f"{title} · t-SNE, {len(close[0][1])} images"
    yield (
        f"{stem}-tsne",
        plots.two_scatters(close[0][0], close[1][0], labels, title=words, axis_labels=(None, None), **known),
    )
