"""The latent space: the information in each dimension, and the places of images."""

import numpy as np
import torch

from nelbo import plots
from nelbo.dists.normal import StandardNormalModule
from nelbo.metrics.latent import ACTIVE_VARIANCE
from nelbo.pictures.base import Drawn, picture
from nelbo.pictures.view import NotApplicable, View


@picture(group="latent", order=1, in_report="both")
def kl(view: View) -> Drawn:
    """KL of each latent dimension, sorted, and its history over training."""
    statistics = view.statistics
    if statistics.kl_Z is None:
        raise NotApplicable(f"{view.run.name} has no KL of each dimension ({statistics.why_no_kl})")
    active = statistics.mean_variance_Z.numpy() > ACTIVE_VARIANCE
    yield "kl", plots.kl_per_dimension(statistics.kl_Z.numpy(), title=view.title, active=active)
    rows = [row for row in view.run.history() if row.get("latent", {}).get("kl_per_dimension")]
    if len(rows) > 1:
        table = np.array([row["latent"]["kl_per_dimension"] for row in rows], dtype=float)
        yield "kl-history", plots.kl_heatmap(table, [row["epoch"] for row in rows], title=view.run.name)


@picture(group="latent", order=2)
def posterior(view: View) -> Drawn:
    """Distribution of posterior means and standard deviations against the prior."""
    posterior = view.posterior(view.images_at(slice(2000)))  # more would not change what histograms show
    std = posterior.std
    if std is None:
        raise NotApplicable(f"{view.run.name}: this posterior has no standard deviation")
    mean = posterior.mean.float().cpu().numpy()
    yield "posterior", plots.posterior_statistics(mean, std.abs().float().cpu().numpy(), title=view.title)


@picture(group="latent", order=3)
def scatter(view: View) -> Drawn:
    """Posterior means by class: the latent plane itself when Z = 2, otherwise its first two principal axes."""
    z_NZ, labels, names = view.z_NZ.numpy(), view.labels_N, view.split.images.class_names
    if z_NZ.shape[1] == 2:
        circles = isinstance(view.model.prior, StandardNormalModule)
        figure = plots.scatter(z_NZ, labels, title=view.title, class_names=names, prior_circles=circles)
    else:
        flat, _ = plots.project(z_NZ, "pca", max_points=None)
        title, axes = f"{view.title} · PCA", ("PC 1", "PC 2")
        figure = plots.scatter(flat, labels, title=title, class_names=names, axis_labels=axes)
    yield "scatter", figure


@picture(group="latent", order=4)
def tsne(view: View) -> Drawn:
    """Posterior means by class: principal axes beside t-SNE, at most 2,000 images."""
    if view.z_NZ.shape[1] == 2:
        raise NotApplicable("t-SNE of a latent plane shows less than the plane itself; see scatter")
    flat, index = view.tsne
    pca, _ = plots.project(view.z_NZ.numpy()[index], "pca", max_points=None)
    labels = None if view.labels_N is None else view.labels_N[index]
    names, axes = view.split.images.class_names, (("PC 1", "PC 2"), None)
    title = f"{view.title} · {len(index)} images"
    figure = plots.two_scatters(
        pca, flat, labels, titles=("PCA", "t-SNE"), title=title, class_names=names, axis_labels=axes
    )
    yield "tsne", figure


@picture(group="latent", order=5)
def manifold(view: View) -> Drawn:
    """The decoded latent plane: both dimensions of a standard normal with Z = 2, or the first two principal axes."""
    if view.z_NZ.shape[1] < 2:
        raise NotApplicable("a plane needs two latent dimensions")
    if (space := view.model.latent_space).space != "real":
        raise NotApplicable(f"no plane lies in the latent's space: latents are {space.words}")
    size = 20
    centre, first, second, labels = _plane(view)
    ticks = torch.linspace(-2.5, 2.5, size)  # of a normal, 99 % lie within 2.5 standard deviations
    grid = centre + ticks[None, :, None] * first + ticks[:, None, None] * second
    decoded = view.decoded(grid.flatten(0, 1))
    images = decoded.reshape(size, size, *decoded.shape[1:])
    title = f"{view.title} · decoded plane"
    yield "manifold", plots.manifold(images, title=title, extent=(-2.5, 2.5, -2.5, 2.5), axis_labels=labels)


def _plane(view: View) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[str, str]]:
    """Return the centre, two directions of one unit (a standard deviation on a principal axis), and their names."""
    z_NZ = view.z_NZ
    # How far latents reach is known beforehand for the standard normal only.
    if z_NZ.shape[1] == 2 and isinstance(view.model.prior, StandardNormalModule):
        return torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), ("z0", "z1")
    if len(z_NZ) < 3:  # two points have one principal axis
        raise NotApplicable(
            f"principal axes of a plane need three images; the {view.split_name} split has {len(z_NZ)}"
        )
    centre = z_NZ.mean(0)
    _, spread, axes = torch.linalg.svd(z_NZ - centre, full_matrices=False)  # principal axes, largest first
    scale = spread / max(1, len(z_NZ) - 1) ** 0.5
    return centre, scale[0] * axes[0], scale[1] * axes[1], ("PC 1, standard deviations", "PC 2")
