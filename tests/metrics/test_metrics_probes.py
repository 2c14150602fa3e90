"""Probes on planted latents: what is there is found, what is not there is not, and the small print is true."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nelbo.core.registry import lookup
from nelbo.data import Images, Splits
from nelbo.metrics import Split, probes
from nelbo.metrics.probes import UNITS, agreement, clusters, linear_probe, nearest_neighbours
from nelbo.models import BuiltModel

CPU = torch.device("cpu")


class Told(BuiltModel):
    """A model whose posterior means are the pixels."""

    def decode(self, z):
        raise AssertionError("no metric of this file asks for it")

    def encode(self, x_BCHW):
        return SimpleNamespace(mean=x_BCHW.flatten(1), mean_is="posterior mean")


def images_of(latents_NZ, labels_N) -> Images:
    labels = None if labels_N is None else torch.as_tensor(labels_N)
    return Images(latents_NZ.float()[:, None, None], labels)


def split_of(train, test, **more) -> Split:
    train, test = images_of(*train), images_of(*test)
    splits = Splits("told", train, None, test, "0" * 16, "real", (0.0, 1.0))
    return Split(test, splits, CPU, **more)


def measured(train, test, **more):
    return dict(lookup("metric", "probes")(Told(), split_of(train, test, **more)))


def planted(n, seed, spread=0.1, classes=3, dimensions=4):
    """Latents around one corner a class, and the labels 0, 1, 2, ... in turn."""
    stream = torch.Generator().manual_seed(seed)
    labels_N = torch.arange(n) % classes
    corners = 3.0 * torch.eye(max(classes, dimensions))[:classes, :dimensions]
    return corners[labels_N] + spread * torch.randn(n, dimensions, generator=stream), labels_N


# --- known answers ----------------------------------------------------------------------------


def test_classes_apart_are_read_without_error():
    found = measured(planted(90, 0), planted(60, 1))
    assert list(found) == list(UNITS)
    for name, value in found.items():
        assert value.value == pytest.approx(1.0, abs=1e-12), name
        assert value.unit == UNITS[name]
        if name != "clustering_nmi":
            assert value.per_image_N.tolist() == [1.0] * 60, name
            assert value.standard_error == 0.0


def test_labels_that_are_not_in_the_latents_are_not_read():
    stream = torch.Generator().manual_seed(5)
    (z_train, _), (z, _) = planted(900, 0), planted(900, 1)
    noise = [torch.randint(0, 3, (900,), generator=stream) for _ in range(2)]
    found = measured((z_train, noise[0]), (z, noise[1]))
    for name in ("linear_probe_accuracy", "knn_accuracy"):
        value = found[name]
        assert abs(value.value - 1 / 3) < 4 * value.standard_error, name
        assert value.standard_error == pytest.approx(
            math.sqrt(value.value * (1 - value.value) / 899), rel=1e-9
        )
    assert 0 <= found["clustering_nmi"].value < 0.01
    assert 1 / 3 <= found["clustering_accuracy"].value < 0.4


def test_what_only_neighbours_can_read():
    """Two classes on the four corners of a square, crosswise: no line parts them."""

    def crossed(n, seed):
        stream = torch.Generator().manual_seed(seed)
        corner = torch.randint(0, 2, (n, 2), generator=stream)
        return corner + 0.05 * torch.randn(n, 2, generator=stream), corner[:, 0] ^ corner[:, 1]

    found = measured(crossed(400, 0), crossed(400, 1))
    assert found["knn_accuracy"].value == 1.0
    assert 0.3 < found["linear_probe_accuracy"].value < 0.8


def test_what_only_a_line_can_read():
    """One dimension tells the classes apart; another, a hundred times as wide, drowns it for distances."""

    def drowned(n, seed):
        stream = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 2, (n,), generator=stream)
        wide = 100 * torch.randn(n, 3, generator=stream)
        return torch.cat([labels[:, None] + 0.05 * torch.randn(n, 1, generator=stream), wide], 1), labels

    found = measured(drowned(400, 0), drowned(400, 1))
    assert found["linear_probe_accuracy"].value > 0.99
    assert found["knn_accuracy"].value < 0.7


# --- the linear probe -------------------------------------------------------------------------


def test_the_linear_probe_is_the_minimum_of_its_formula():
    """Summed cross-entropy + 1/2 |w|^2 on standardised latents, minimised here in another way."""
    (z_train, labels), (z, _) = planted(60, 0, spread=2.5), planted(400, 1, spread=2.5)
    z_train, z = z_train.double() * torch.tensor([1.0, 50.0, 0.02, 3.0]) + 7, z.double()
    z = z * torch.tensor([1.0, 50.0, 0.02, 3.0]) + 7
    guess, settled = linear_probe(z_train, labels, z)
    mean, std = z_train.mean(0), z_train.std(0)
    w = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        logits = (z_train - mean) / std @ w + b
        value = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") + 0.5 * w.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    expected = (((z - mean) / std) @ w + b).argmax(1)
    assert settled
    assert (guess == expected).double().mean() >= 0.995
    assert 0.5 < (guess == torch.arange(400) % 3).double().mean() < 0.95


def test_the_linear_probe_does_not_see_the_scale_of_a_dimension():
    (z_train, labels), (z, _) = (planted(200, seed, spread=2.0) for seed in (0, 1))
    scale, constant = torch.tensor([1e-3, 1.0, 1e3, 40.0]).double(), torch.ones(200, 1).double()
    plain, _ = linear_probe(z_train.double(), labels, z.double())
    guess, _ = linear_probe(
        torch.cat([z_train * scale, constant], 1), labels, torch.cat([z * scale, constant], 1)
    )
    assert (guess == plain).double().mean() >= 0.995


def test_a_linear_probe_that_has_not_converged_says_so(monkeypatch):
    monkeypatch.setattr(probes, "STEPS", 1)
    found = measured(planted(90, 0), planted(60, 1))
    assert found["linear_probe_accuracy"].note.startswith("not converged in 1 steps; trained on 90")
    assert "converged" not in found["knn_accuracy"].note


# --- nearest neighbours -----------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 7 * 300, 10**9])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_nearest_neighbours_are_found_by_distance(at_once, offset, monkeypatch):
    monkeypatch.setattr(probes, "DISTANCES_AT_ONCE", at_once)
    stream = torch.Generator().manual_seed(0)
    train, z = (torch.randn(n, 3, generator=stream).double() for n in (300, 100))
    labels = torch.randint(0, 2, (300,), generator=stream)
    nearest = (
        torch.cdist(z, train, compute_mode="donot_use_mm_for_euclid_dist").topk(7, largest=False).indices
    )
    expected = (labels[nearest].sum(1) > 3).long()  # seven neighbours, two classes: no ties
    assert torch.equal(nearest_neighbours(train + offset, labels, z + offset, 7), expected)
    assert 0 < expected.sum() < 100


def test_of_equally_many_neighbours_the_nearer_ones_decide():
    train = torch.tensor([[1.0], [2.0], [3.0], [4.0], [9.0]]).double()
    z = torch.zeros(1, 1).double()

    def guess(labels, k):
        return int(nearest_neighbours(train, torch.tensor(labels), z, k))

    assert guess([8, 5, 5, 8, 0], 4) == 8
    assert guess([5, 8, 8, 5, 0], 4) == 5
    assert guess([8, 5, 5, 0, 0], 3) == 5  # a majority is never overruled
    assert guess([9, 5, 7, 5, 5], 5) == 5
    assert guess([3, 2, 1, 0, 4], 5) == 3  # all different: the nearest


# --- clusters ---------------------------------------------------------------------------------


def test_clusters_are_compared_with_labels_by_the_formulas():
    stream = np.random.RandomState(0)
    labels, found = stream.randint(0, 3, 80) * 10 + 4, stream.randint(0, 4, 80)
    found[labels == 14] = stream.randint(0, 2, int((labels == 14).sum()))
    nmi, correct_N = agreement(torch.from_numpy(found), torch.from_numpy(labels))
    joint = np.array([[np.mean((labels == a) & (found == b)) for b in range(4)] for a in (4, 14, 24)])
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    mutual = np.sum(joint[joint > 0] * np.log(joint[joint > 0] / independent[joint > 0]))
    entropies = [-np.sum(p * np.log(p)) for p in (joint.sum(0), joint.sum(1))]
    assert nmi == pytest.approx(2 * mutual / sum(entropies), rel=1e-9)
    matchings = itertools.permutations(range(4), 3)
    best = max(sum(joint[a, b] for a, b in enumerate(order)) for order in matchings)
    assert float(correct_N.double().mean()) == pytest.approx(best, rel=1e-12)
    assert 0.05 < nmi < 0.95


def test_there_are_as_many_clusters_as_classes_in_the_split():
    found = measured(planted(90, 0, classes=4), planted(60, 1, classes=3))
    assert found["clustering_nmi"].note.startswith("3 clusters by k-means; shuffled labels give 0.0")
    assert found["clustering_nmi"].value == pytest.approx(1.0)
    shuffled = float(found["clustering_accuracy"].note.partition("give ")[2][:5])
    assert 1 / 3 <= shuffled < 0.6
    assert len(clusters(planted(60, 1)[0].double(), 3, 0).unique()) == 3


def test_clusters_are_the_same_every_time():
    noise_NZ = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double()
    np.random.seed(0)
    a = clusters(noise_NZ, 9, 0)
    np.random.seed(1)
    assert torch.equal(clusters(noise_NZ, 9, 0), a)
    assert not torch.equal(clusters(noise_NZ, 9, 1), a)


def test_latents_that_have_collapsed_cluster_into_one():
    train, test = ((torch.zeros(60, 4), torch.arange(60) % 3) for _ in range(2))
    found = measured(train, test)
    assert found["clustering_nmi"].value == pytest.approx(0.0, abs=1e-12)
    for name in ("linear_probe_accuracy", "knn_accuracy", "clustering_accuracy"):
        assert found[name].value == pytest.approx(1 / 3, abs=1e-12), name


# --- labels -----------------------------------------------------------------------------------


def test_the_names_of_the_classes_do_not_matter():
    (z_train, a), (z, b) = (planted(150, seed, spread=1.5) for seed in (0, 1))
    plain = measured((z_train, a), (z, b))
    renamed = torch.tensor([70, 4, 9])
    other = measured((z_train, renamed[a]), (z, renamed[b]))
    for name, value in plain.items():
        assert 0.4 < value.value < 0.99, name
        assert other[name].value == pytest.approx(value.value, abs=0.02 if "linear" in name else 1e-9), name


def test_a_class_that_was_not_trained_on_counts_as_wrong_and_is_said():
    z_train, labels = planted(90, 0)
    known = labels != 2
    found = measured((z_train[known], labels[known]), planted(60, 1))
    for name in ("linear_probe_accuracy", "knn_accuracy"):
        assert found[name].value == pytest.approx(2 / 3), name
        assert "20 images are of classes that were not trained on and count as wrong" in found[name].note
    assert found["clustering_nmi"].value == pytest.approx(1.0)


def test_a_class_that_is_not_tested_is_no_matter():
    z, labels = planted(60, 1)
    found = measured(planted(90, 0), (z[labels != 1], labels[labels != 1]))
    for name, value in found.items():
        assert value.value == pytest.approx(1.0), name
        assert "not trained on" not in value.note


def test_chance_is_the_share_of_the_largest_training_class():
    (z_train, _), (z, _) = planted(90, 0), planted(60, 1)
    many_of_one = torch.tensor([1] * 50 + [0] * 40)
    found = measured((z_train, many_of_one), (z, torch.tensor([1] * 15 + [0] * 45)))
    assert "chance 0.250 (the largest class)" in found["knn_accuracy"].note
    assert "chance 0.250 (the largest class)" in found["linear_probe_accuracy"].note


@pytest.mark.parametrize(
    ("unlabelled", "word"), [((0, 1), "no labels"), ((0,), "no labels"), ((1,), "no labels")]
)
def test_without_labels_there_is_nothing_to_read(unlabelled, word):
    sides = [list(planted(90, 0)), list(planted(60, 1))]
    for side in unlabelled:
        sides[side][1] = None
    found = measured(*sides)
    assert list(found) == list(UNITS)
    assert {value.value for value in found.values()} == {None}
    assert {value.missing for value in found.values()} == {word}


@pytest.mark.parametrize("side", [0, 1])
def test_of_one_class_there_is_nothing_to_read(side):
    sides = [list(planted(90, 0)), list(planted(60, 1))]
    sides[side][1] = torch.ones(len(sides[side][0]), dtype=torch.int64)
    found = measured(*sides)
    assert {value.missing for value in found.values()} == {"one class"}
    assert {value.value for value in found.values()} == {None}


def test_latents_that_are_not_numbers_are_not_probed():
    z, labels = planted(60, 1)
    z[7, 2] = math.nan
    for sides in [(planted(90, 0), (z, labels)), ((z, labels), planted(60, 1))]:
        found = measured(*sides)
        assert list(found) == list(UNITS)
        assert {value.value for value in found.values()} == {None}
        assert all(value.missing == "not finite" for value in found.values())


# --- how many, which, and how often -----------------------------------------------------------


def test_many_images_are_chosen_from_and_the_choice_is_said(monkeypatch):
    monkeypatch.setattr(probes, "MOST_IMAGES", 50)
    sides = planted(90, 0), planted(80, 1)
    found = measured(*sides)
    for name in ("linear_probe_accuracy", "knn_accuracy"):
        assert "trained on 50 of 90 training images" in found[name].note
        assert len(found[name].per_image_N) == 80  # all of the split is measured
    for name in ("clustering_nmi", "clustering_accuracy"):
        assert "3 clusters by k-means of 50 of the 80 images" in found[name].note
        assert found[name].value == pytest.approx(1.0)
        assert found[name].per_image_N is None
    assert measured(*sides) == found


def test_fewer_training_images_than_neighbours():
    found = measured(planted(6, 0), planted(60, 1))
    assert found["knn_accuracy"].note.startswith("k = 6; trained on 6 training images")


def test_measuring_the_training_images_themselves_is_said():
    split = split_of(planted(90, 0), planted(60, 1))
    measure = lookup("metric", "probes")
    found = dict(measure(Told(), split.of(split.data.train)))
    for name in ("linear_probe_accuracy", "knn_accuracy"):
        assert "among those measured: not held out" in found[name].note
    assert all("not held out" not in value.note for value in dict(measure(Told(), split)).values())


def test_the_same_numbers_twice_whatever_the_seed_of_the_caller():
    sides = planted(90, 0, spread=1.5), planted(60, 1, spread=1.5)
    torch.manual_seed(0)
    np.random.seed(0)
    a = measured(*sides)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(0)
    np.random.seed(0)
    b = measured(*sides, batch_size=7)
    assert a == b
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_progress_is_told():
    heard = []
    measured(planted(90, 0), planted(60, 1), tell=lambda *row: heard.append(row))
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_images_without_a_label_are_left_out_and_counted():
    (train, train_labels), (test, test_labels) = planted(90, 0), planted(60, 1)
    some_train, some = train_labels.clone(), test_labels.clone()
    some_train[45:], some[::2] = -1, -3
    found = measured((train, some_train), (test, some))
    assert found["linear_probe_accuracy"].value == found["clustering_accuracy"].value == 1.0
    assert found["linear_probe_accuracy"].per_image_N is None  # there is no number for each image
    note = found["linear_probe_accuracy"].note
    assert note.startswith("trained on 45 training images; chance 0.333")
    assert note.endswith("30 of 60 images have no label and are left out")
    assert "3 clusters by k-means of the 30 images with a label" in found["clustering_nmi"].note
    for nothing_train, nothing in ((-torch.ones(90), some), (some_train, -torch.ones(60))):
        found = measured((train, nothing_train.long()), (test, nothing.long()))
        assert {value.missing for value in found.values()} == {"no labels"}
