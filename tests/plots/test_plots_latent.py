"""Scatters draw every point in its class's colour; projections are deterministic and honest."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from nelbo.errors import NelboError
from nelbo.plots import class_colours, project, scatter, two_scatters

TITLE = "fashion-mlp-s0 · best · test"
NAMES = ["T-shirt/top", "Trouser", "_$under$", "Dress"]


def points(n=200, dims=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dims))


def drawn(ax):
    return np.asarray(ax.collections[0].get_offsets())


def legend_of(figure):
    return [text.get_text().strip() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("n", [1, 60, 10_000])
def test_every_point_is_drawn_in_its_colour(n):
    x = points(n)
    labels = np.arange(n) % 4
    figure = scatter(x, labels, title=TITLE, class_names=NAMES)
    figure.canvas.draw()
    (ax,) = figure.axes
    order = np.lexsort(x.T)
    at = drawn(ax)
    np.testing.assert_array_equal(at[np.lexsort(at.T)], x[order])
    colours = ax.collections[0].get_facecolors()[np.lexsort(at.T)][:, :3]
    expected = np.array([to_rgba(class_colours(4)[i])[:3] for i in labels[order]])
    np.testing.assert_allclose(np.broadcast_to(colours, expected.shape), expected)
    assert ax.get_aspect() == 1.0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z0", "z1")
    assert figure.get_suptitle() == TITLE
    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert (at > [low, bottom]).all()
    assert (at < [high, top]).all()


def test_names_stand_in_the_legend_and_at_the_medians():
    centres = np.array([[-9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, -9.0]])
    labels = np.repeat(np.arange(4), 50)
    figure = scatter(points() * 0.1 + centres[labels], labels, title=TITLE, class_names=NAMES)
    assert legend_of(figure) == NAMES
    for text, centre in zip(figure.axes[0].texts, centres, strict=True):
        np.testing.assert_allclose(text.get_position(), centre, atol=0.2)


def test_names_at_one_place_are_moved_apart():
    labels = np.arange(200) % 10
    figure = scatter(np.zeros((200, 2)) + points() * 0.01, labels, title=TITLE)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:i]) == 0


def test_a_class_keeps_its_colour_where_others_are_missing():
    full, part = (
        scatter(points(8), y, title=TITLE, class_names=NAMES) for y in (np.arange(8) % 4, np.full(8, 2))
    )
    colour = {text.get_text(): text.get_color() for text in full.axes[0].texts}
    assert [text.get_color() for text in part.axes[0].texts] == [colour["_$under$"]]
    assert legend_of(part) == ["_$under$"]


@pytest.mark.parametrize("labels", [None, np.arange(30), np.full(30, -1), np.arange(30) * 100])
def test_labels_of_every_kind(labels):
    figure = scatter(points(30), labels, title=TITLE, axis_labels=None, prior_circles=True)
    figure.canvas.draw()
    ax = figure.axes[0]
    assert len(drawn(ax)) == 30
    assert [patch.radius for patch in ax.patches] == [1, 2]
    assert len(ax.get_xticks()) == 0
    assert len(figure.axes) == 1


def test_colours_differ():
    for n in (1, 10, 47):
        assert len(set(class_colours(n))) == n


def test_two_scatters_share_one_legend_and_their_colours():
    left, right = points(100), points(100, seed=1)
    figure = two_scatters(
        left,
        right,
        np.arange(100) % 4,
        titles=("PCA", "t-SNE"),
        title=TITLE,
        class_names=NAMES,
        axis_labels=(("PC 1", "PC 2"), None),
    )
    figure.canvas.draw()
    assert [len(drawn(ax)) for ax in figure.axes] == [100, 100]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["PCA", "t-SNE"]
    assert len(figure.legends) == 1
    assert legend_of(figure) == NAMES
    one, other = ({text.get_text(): text.get_color() for text in ax.texts} for ax in figure.axes)
    assert one == other
    assert list(other) == NAMES
    two_scatters(left, left, None, titles=("first", "best"), title=TITLE).canvas.draw()


def test_scatter_names_what_is_wrong():
    with pytest.raises(NelboError, match=r"\(N, 2\)"):
        scatter(points(5, 3), None, title=TITLE)
    with pytest.raises(NelboError, match="5 points need 5 labels, got 4"):
        scatter(points(5), [0, 1, 2, 3], title=TITLE)
    bad = points(5)
    bad[2] = np.nan
    with pytest.raises(NelboError, match="1 are not finite"):
        scatter(bad, None, title=TITLE)


def test_pca_keeps_the_widest_directions():
    x = points(300, 6) * [1, 9, 1, 1, 4, 1]
    plane, index = project(x, "pca")
    np.testing.assert_array_equal(index, np.arange(300))
    assert abs(np.corrcoef(plane[:, 0], x[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(plane[:, 1], x[:, 4])[0, 1]) > 0.99


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize(("n", "dims"), [(5, 2), (6, 1), (40, 32)])
def test_projections_are_deterministic_at_any_size(method, n, dims):
    x = points(n, dims)
    plane, index = project(x, method, seed=3)
    assert plane.shape == (n, 2)
    assert np.isfinite(plane).all()
    again, same = project(x, method, seed=3)
    np.testing.assert_array_equal(plane, again)
    np.testing.assert_array_equal(index, same)


def test_tsne_separates_what_is_apart():
    labels = np.repeat([0, 1], 40)
    plane, _ = project(points(80, 8) + 20.0 * labels[:, None], "tsne")
    centres = np.stack([plane[labels == i].mean(0) for i in (0, 1)])
    nearest = np.linalg.norm(plane[:, None] - centres, axis=-1).argmin(1)
    assert (nearest == labels).all()


def neighbours_kept(x, plane, k=10):
    """The share of each point's k nearest that are among its k nearest in the plane."""
    near = [
        NearestNeighbors(n_neighbors=k + 1).fit(at).kneighbors(at, return_distance=False)[:, 1:]
        for at in (x, plane)
    ]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])


def test_tsne_of_many_points_keeps_as_many_neighbours_in_half_the_steps():
    x = PCA(16).fit_transform(load_digits().data[:1000])
    quick, _ = project(x, "tsne")
    usual = TSNE(2, init="pca", perplexity=30, random_state=0).fit_transform(x.astype(np.float32))
    assert neighbours_kept(x, quick) > neighbours_kept(x, usual) - 0.01
    assert neighbours_kept(x, project(x, "pca")[0]) < neighbours_kept(x, usual) - 0.2, "it can fail"


def test_projections_are_thinned_by_the_seed():
    x = points(300, 4)
    plane, index = project(x, "pca", seed=1, max_points=50)
    assert plane.shape == (50, 2)
    assert len(set(index)) == 50
    assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(index, project(x, "pca", seed=1, max_points=50)[1])
    assert (index != project(x, "pca", seed=2, max_points=50)[1]).any()
    assert len(project(x, "pca", max_points=None)[0]) == 300


def test_projections_refuse_and_survive_what_they_should():
    with pytest.raises(NelboError, match="at least 5 points, got 4"):
        project(points(4), "tsne")
    with pytest.raises(ValueError, match="finite"):
        project(points(9) * np.nan, "pca")
    with pytest.raises(NelboError, match="known: pca, tsne"):
        project(points(9), "umap")  # type: ignore[arg-type]
    for method in ("pca", "tsne"):  # a collapsed encoder sends everything to one point
        np.testing.assert_array_equal(project(np.ones((20, 8)), method)[0], np.zeros((20, 2)))
