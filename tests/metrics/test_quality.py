"""Image quality: exact distances, neighbours against their definitions, a classifier that is made once."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from nelbo.core import files
from nelbo.core.registry import lookup
from nelbo.data import Binarise, Data, DynamicBinarise, Images, Scale, Splits, materialise
from nelbo.evaluation import card as card_of
from nelbo.metrics import Split, classifier, frechet
from nelbo.metrics.neighbours import neighbourhoods
from nelbo.metrics.quality import generated, real, share
from nelbo.models import BuiltModel

CPU = torch.device("cpu")
MAIN = "frechet_classifier_distance"
UNTRAINED = "frechet_untrained_distance"
DISTANCES = {MAIN, *(f"frechet_classifier_{name}" for name in ("draws", "reconstructions", "train"))}
NEAR = {"precision", "recall", "density", "coverage"}


def quiet(done: int, total: int) -> None:
    pass


def noise(n: int, features: int, seed: int = 0) -> Tensor:
    return torch.randn(n, features, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def points_with(mean_F: Tensor, root_FF: Tensor, n: int = 60, seed: int = 0) -> Tensor:
    """n points whose mean and covariance root root^T are exactly these."""
    white = noise(n, len(mean_F), seed)
    white = white - white.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.T.cov())).T
    return white @ root_FF.T + mean_F


# --- the Fréchet distance ---------------------------------------------------------------------


def test_the_distance_of_gaussians_with_the_same_axes():
    a, b = torch.tensor([0.5, 2.0, 3.0]).double(), torch.tensor([1.5, 2.0, 0.1]).double()
    mean = torch.tensor([1.0, -2.0, 0.5]).double()
    f, g = points_with(torch.zeros(3).double(), a.diag()), points_with(mean, b.diag(), n=90, seed=1)
    assert frechet.distance(f, g) == pytest.approx(
        float((a - b).square().sum() + mean.square().sum()), rel=1e-12
    )


def test_the_distance_of_gaussians_with_other_axes():
    """For two dimensions tr (AB)^(1/2) = sqrt(tr AB + 2 sqrt(det AB))."""
    root_a = torch.tensor([[1.0, 0.0], [0.8, 0.6]]).double()
    root_b = torch.tensor([[2.0, 0.0], [-1.5, 0.3]]).double()
    a, b = root_a @ root_a.T, root_b @ root_b.T
    overlap = (torch.trace(a @ b) + 2 * torch.det(a @ b).sqrt()).sqrt()
    expected = float(torch.trace(a) + torch.trace(b) - 2 * overlap)
    zero = torch.zeros(2).double()
    found = frechet.distance(points_with(zero, root_a), points_with(zero, root_b, seed=1))
    assert found == pytest.approx(expected, rel=1e-11)


def test_the_distance_is_the_published_formula():
    """The reference implementation takes scipy's root of a product that is not symmetric."""
    from scipy.linalg import sqrtm

    f, g = noise(300, 7) @ noise(7, 7, 1) + 3.0, noise(200, 7, 2) @ noise(7, 7, 3)
    s_f, s_g = np.cov(f.numpy().T), np.cov(g.numpy().T)
    shift = (f.mean(0) - g.mean(0)).square().sum()
    expected = float(shift) + np.trace(s_f + s_g - 2 * sqrtm(s_f @ s_g).real)
    assert frechet.distance(f, g) == pytest.approx(float(expected), rel=1e-9)
    assert frechet.distance(f, g) == pytest.approx(frechet.distance(g, f), rel=1e-12)


@pytest.mark.parametrize("n", [2, 20, 200])  # of ranks 1, 19 and 30
def test_equal_sets_are_at_distance_zero_in_any_order_and_a_shift_is_its_square(n):
    f = noise(n, 30) @ noise(30, 30, 1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    scale = float(f.square().sum(1).mean())
    assert frechet.distance(f, f) <= 1e-13 * scale
    assert frechet.distance(f, f[order]) <= 1e-12 * scale
    assert frechet.distance(f, f + 5.0) == pytest.approx(30 * 25.0, rel=1e-9)
    g = noise(50, 30, 3)
    assert frechet.distance(f[order], g) == pytest.approx(frechet.distance(f, g), rel=1e-10)


def test_singular_covariances_that_share_no_direction_add_up():
    f, g = torch.zeros(40, 5).double(), torch.zeros(50, 5).double()
    f[:, 0], g[:, 3] = noise(40, 1)[:, 0], noise(50, 1, 1)[:, 0] + 2.0
    expected = f.var(0).sum() + g.var(0).sum() + (f.mean(0) - g.mean(0)).square().sum()
    assert frechet.distance(f, g) == pytest.approx(float(expected), rel=1e-12)
    constant = torch.full((9, 5), 3.0).double()
    assert frechet.distance(constant, constant + 1) == pytest.approx(5.0, rel=1e-12)
    assert frechet.distance(f[:, :1], f[:, :1] + 1) == pytest.approx(1.0, rel=1e-12)


def test_the_jackknife_knows_the_spread_and_the_bias():
    """200 pairs of samples of two known Gaussians, whose distance is 4 x 0.25 + 4 x 0.25 = 2."""
    found = [frechet.measure(noise(150, 4, 2 * i), 1.5 * noise(150, 4, 2 * i + 1) + 0.5) for i in range(200)]
    values = np.array([one.value for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(values.std(ddof=1), rel=0.15)
    bias = np.mean([one.bias for one in found])
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert values.mean() - 2.0 > 3 * error  # small samples really are too far apart
    assert values.mean() - bias == pytest.approx(2.0, abs=3 * error)


def test_samples_of_one_distribution_are_all_bias():
    found = [frechet.measure(noise(400, 6, 2 * i), noise(400, 6, 2 * i + 1)) for i in range(60)]
    assert np.mean([one.bias for one in found]) == pytest.approx(
        np.mean([one.value for one in found]), rel=0.15
    )
    assert np.mean([one.value for one in found]) > 0.02


def test_a_pair_is_jackknifed_as_a_pair():
    """Reconstructions of the same images: what is common to both does not count as spread."""
    f = 10 * noise(400, 5)
    paired, apart = frechet.measure(f, f + 0.1), frechet.measure(f, 10 * noise(400, 5, 1) + 0.1)
    assert paired.value == pytest.approx(0.05, rel=1e-9)
    assert paired.standard_error < 1e-9
    assert apart.standard_error > 0.01


def test_three_images_have_no_error():
    found = frechet.measure(noise(3, 2), noise(9, 2, 1))
    assert found.value > 0
    assert (found.standard_error, found.bias) == (None, None)


# --- neighbours -------------------------------------------------------------------------------


def by_definition(generated_MF: Tensor, real_NF: Tensor) -> dict[str, float]:
    """Loops over points, from the papers' definitions."""

    def away(a: Tensor, b: Tensor) -> float:
        return float((a - b).square().sum().sqrt())

    def ball(points: Tensor, i: int, k: int) -> float:
        return sorted(away(points[i], other) for j, other in enumerate(points) if j != i)[k - 1]

    m, n = range(len(generated_MF)), range(len(real_NF))
    d = [[away(generated_MF[j], real_NF[i]) for i in n] for j in m]
    real3, real5 = ([ball(real_NF, i, k) for i in n] for k in (3, 5))
    made3 = [ball(generated_MF, j, 3) for j in m]
    return {
        "precision": np.mean([any(d[j][i] <= real3[i] for i in n) for j in m]),
        "recall": np.mean([any(d[j][i] <= made3[j] for j in m) for i in n]),
        "density": sum(d[j][i] <= real5[i] for j in m for i in n) / (5 * len(m)),
        "coverage": np.mean([any(d[j][i] <= real5[i] for j in m) for i in n]),
    }


def means_of(generated_MF: Tensor, real_NF: Tensor, **more: int) -> dict[str, float]:
    found = neighbourhoods(generated_MF, real_NF, **more)
    return {name: float(found[name].double().mean()) for name in sorted(NEAR)}


@pytest.mark.parametrize("rows", [1, 7, 500])
def test_neighbourhoods_are_their_definitions_whatever_the_rows(rows):
    made, truth = 1.2 * noise(31, 5) + 0.8, noise(43, 5, 1)
    found = means_of(made, truth, rows=rows)
    assert found == pytest.approx(by_definition(made, truth), rel=1e-12)
    assert 0 < found["precision"] < 1
    assert 0 < found["recall"] < 1
    assert 0 < found["coverage"] < 1


def test_equal_sets_are_perfect():
    assert means_of(noise(50, 4), noise(50, 4)) | {"density": 1} == dict.fromkeys(NEAR, 1.0)


def test_a_dropped_mode_costs_recall_and_coverage_and_no_precision():
    here, there = noise(40, 3), noise(40, 3, 1) + 1000.0
    found = means_of(here, torch.cat([here, there]))
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 0.5, 0.5)


def test_images_off_the_manifold_have_no_precision():
    found = means_of(noise(40, 3) + 1000.0, noise(50, 3, 1))
    assert found == dict.fromkeys(NEAR, 0.0)


def test_a_share_of_none_or_all_claims_no_error_of_zero():
    some = share(torch.tensor([True, False, True, True]), "k = 3")
    assert (some.value, some.note) == (0.75, "k = 3")
    assert some.standard_error > 0.2
    for hits, words in ((torch.zeros(300), "none of 300"), (torch.ones(300), "all of 300")):
        found = share(hits, "k = 3")
        assert found.standard_error is None
        assert found.note == f"k = 3; {words}: within 0.01 of it (95 %)"
    assert share(torch.ones(300), "", "ratio").standard_error == 0.0


def test_scattered_images_have_recall_without_coverage():
    """Balls of far generated points are large and hold all real ones: what coverage was made for."""
    corners = torch.cartesian_prod(*[torch.tensor([-1000.0, 1000.0]).double()] * 3)
    found = means_of(corners, noise(50, 3, 1))
    assert found == {"recall": 1.0, "coverage": 0.0, "precision": 0.0, "density": 0.0}


def test_one_image_over_and_over_recalls_itself_only():
    """Radii of zero: a distance that is rounded would lose or invent neighbours."""
    truth = 1e3 + noise(50, 8)
    found = means_of(truth[7].expand(30, -1), truth)
    assert found["recall"] == 1 / 50
    assert found["precision"] == 1.0
    assert found["coverage"] < 0.5


# --- the classifier ---------------------------------------------------------------------------


def banded(n: int, seed: int, shape=(1, 8, 8), classes=3) -> Images:
    """Noise with a bright row a class."""
    stream = np.random.RandomState(seed)
    labels = stream.randint(0, classes, n)
    pixels = stream.randint(0, 90, (n, *shape))
    pixels[np.arange(n), :, labels % shape[1]] += 150
    return Images(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels))


def splits_of(train: Images, test: Images | None = None, name="a", transforms=()) -> Splits:
    pixels = "binary" if transforms else "grey"
    return Splits("made", train, None, test or train, name * 16, pixels, (0.0, 1.0), transforms)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NELBO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The hashes of the data that classifiers have been trained on since."""
    seen, train = [], classifier.train
    monkeypatch.setattr(
        classifier, "train", lambda splits, tell: seen.append(splits.hash) or train(splits, tell)
    )
    return seen


def test_the_same_data_give_the_same_classifier_and_nothing_of_the_callers_changes(own_cache):
    splits = splits_of(banded(300, 0))
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = classifier.train(splits, quiet)
    torch.manual_seed(99)
    torch.set_num_threads(2)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            second = classifier.train(splits, quiet)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(before)
    assert first.fingerprint == second.fingerprint
    assert not first.training
    assert classifier.train(splits_of(banded(300, 1)), quiet).fingerprint != first.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_trained_once_and_for_its_own_data_only(own_cache, trained):
    data, other = splits_of(banded(120, 0)), splits_of(banded(120, 1), name="b")
    first = classifier.obtain(data, quiet)
    assert trained == ["a" * 16]
    assert classifier.obtain(data, quiet).fingerprint == first.fingerprint
    assert trained == ["a" * 16]
    x_BCHW = materialise(data.test, ())
    for found, again in zip(first.look(x_BCHW), classifier.obtain(data, quiet).look(x_BCHW), strict=True):
        assert torch.equal(found, again)
    assert classifier.obtain(other, quiet).fingerprint != first.fingerprint
    assert trained == ["a" * 16, "b" * 16]
    for changed in (banded(120, 0, shape=(1, 9, 8)), banded(120, 0, classes=2)):
        classifier.obtain(splits_of(changed), quiet)
    assert len(trained) == 4
    files = sorted(path.name for path in (own_cache / "classifiers").iterdir())
    assert files == sorted(f"{a * 16}-{b}-v1.safetensors" for a, b in (
        ("a", "1x8x8-3"), ("b", "1x8x8-3"), ("a", "1x9x8-3"), ("a", "1x8x8-2"),
    ))  # fmt: skip


@pytest.mark.parametrize("damage", ["truncated", "one weight", "other tensors", "empty"])
def test_a_damaged_file_is_replaced(own_cache, trained, damage):
    data = splits_of(banded(120, 0))
    fingerprint = classifier.obtain(data, quiet).fingerprint
    (file,) = (own_cache / "classifiers").iterdir()
    whole = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(whole[:-100])
    elif damage == "one weight":
        file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    elif damage == "other tensors":
        (own_cache / "x").mkdir()
        other = classifier.Classifier((1, 4, 4), (0.0, 1.0), torch.arange(3))
        files.write_tensors(file, other.state_dict(), {"fingerprint": other.fingerprint})
    else:
        file.write_bytes(b"")
    assert classifier.obtain(data, quiet).fingerprint == fingerprint
    assert len(trained) == 2
    assert file.read_bytes() == whole
    assert list(file.parent.iterdir()) == [file]


def test_without_a_cache_it_says_so_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NELBO_CACHE", str(tmp_path / "file"))
    found = classifier.obtain(splits_of(banded(120, 0)), quiet)
    assert found.unkept.startswith("not kept: ")
    assert "NELBO_CACHE" in found.unkept
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_cache_folder_is_not_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NELBO_DATA", str(tmp_path / "read-only"))
    monkeypatch.delenv("NELBO_CACHE")
    assert tmp_path not in classifier.cache_folder().parents
    monkeypatch.setenv("NELBO_CACHE", "~/somewhere")
    assert classifier.cache_folder().parts[-1] == "somewhere"
    assert "~" not in str(classifier.cache_folder())


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 20, 14), (2, 1, 9), (1, 80, 66)])
def test_it_fits_any_image_and_gives_back_the_labels_of_the_data(shape):
    images = banded(30, 0, shape=shape)
    odd = Images(images.pixels_NCHW, images.labels_N * 50 - 7)
    found = classifier.train(splits_of(odd), quiet)
    features_NF, label_N = found.look(materialise(odd, ()))
    assert features_NF.shape == (30, 64)
    assert features_NF.dtype == torch.float64
    assert set(label_N.tolist()) <= {-7, 43, 93}


def test_the_features_are_in_units_of_their_spread_and_always_float32():
    data = splits_of(banded(300, 0))
    found = classifier.train(data, quiet)
    x_BCHW = materialise(data.train, ())
    features_NF, _ = found.look(x_BCHW)
    assert float(features_NF.var(0, correction=0).sum()) == pytest.approx(1.0, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found.look(x_BCHW)[0], features_NF)


@pytest.mark.parametrize(
    ("transforms", "accuracy"), [((), 0.98), ((Binarise(),), 0.95), ((DynamicBinarise(),), 0.88)]
)
def test_it_reads_digits(transforms, accuracy):
    splits = Data(source="digits", transforms=transforms).load()
    found = classifier.train(splits, quiet)
    _, label_N = found.look(materialise(splits.test, splits.transforms))
    assert float((label_N == splits.test.labels_N).double().mean()) > accuracy


def test_it_is_trained_on_what_evaluation_sees(monkeypatch):
    data = splits_of(banded(60, 0), transforms=(DynamicBinarise(), Scale(low=-1.0)))
    seen = materialise(data.train, data.transforms)
    shown = classifier.presented(data.train, data.transforms)(torch.arange(60))
    assert torch.equal(shown, seen)
    assert set(shown.unique().tolist()) == {-1.0, 1.0}


def test_its_steps_are_full_batches_and_their_number_is_bounded():
    def steps(n: int, shape=(1, 28, 28)) -> list[int]:
        blank = Images(torch.zeros(1, *shape, dtype=torch.uint8).expand(n, -1, -1, -1))
        return [len(index) for index in classifier._order(splits_of(blank))]

    assert steps(96) == [12] * 8 * 20
    assert steps(60_000) == [128] * (468 + 468)
    assert 119_000 < sum(steps(50_000)) <= 120_000
    assert set(steps(2)) == {2}
    assert 20_000 - 128 < sum(steps(60_000, (3, 128, 128))) <= 20_000
    assert sorted(torch.cat(list(classifier._order(splits_of(banded(64, 0))))).unique().tolist()) == list(
        range(64)
    )


# --- the metric -------------------------------------------------------------------------------


class Memory(BuiltModel):
    """Generates the images it is given, in turn, and reconstructs by `again`."""

    def __init__(self, pixels_NCHW: Tensor, again=lambda x_BCHW: x_BCHW, draw=lambda x_BCHW: x_BCHW) -> None:
        super().__init__()
        self.pixels_NCHW, self.again, self.draw_of = pixels_NCHW, again, draw
        self.shape, self.latent_dim = tuple(pixels_NCHW.shape[1:]), 1

    def encode(self, x_BCHW):
        raise AssertionError("no metric of this file asks for it")

    def sample_prior(self, n: int) -> Tensor:
        return (torch.arange(n) % len(self.pixels_NCHW)).float()[:, None]

    def decode(self, z: Tensor):
        mean = self.pixels_NCHW[z[:, 0].long()]
        return SimpleNamespace(mean=mean, sample=lambda: self.draw_of(mean))

    def reconstruct(self, x_BCHW: Tensor) -> Tensor:
        return self.again(x_BCHW)


class Grey(Memory):
    """Halfway to white in the mean, and draws of it the very images; encodes an image as itself."""

    def decode(self, z: Tensor):
        image = self.pixels_NCHW[z[:, 0].long()] if z.ndim == 2 else z
        return SimpleNamespace(mean=(image + 1) / 2, sample=lambda: image)

    def encode(self, x_BCHW: Tensor):
        return SimpleNamespace(mean=x_BCHW, mean_is="posterior mean")


TRAIN, TEST, MORE = banded(400, 0), banded(200, 1), banded(200, 2)


def split_of(test: Images = TEST, train: Images = TRAIN, name="q", transforms=(), **more) -> Split:
    return Split(test, splits_of(train, test, name, transforms), CPU, **more)


def measured(model: BuiltModel, split: Split) -> dict:
    return dict(lookup("metric", "quality")(model, split))


def test_a_perfect_sampler_is_at_the_floor_and_a_constant_far_from_it():
    perfect = measured(Memory(materialise(MORE, ())), split_of())
    assert set(perfect) == DISTANCES | NEAR | {"classifier_accuracy"}
    assert perfect["classifier_accuracy"].value == 1.0
    floor = perfect["frechet_classifier_train"]
    for name in (MAIN, "frechet_classifier_draws"):
        assert abs(perfect[name].value - floor.value) < 4 * (
            perfect[name].standard_error + floor.standard_error
        )
    assert perfect[MAIN].value < 0.1
    assert perfect["frechet_classifier_reconstructions"].value < 1e-12
    assert min(perfect[name].value for name in NEAR) > 0.8
    constant = measured(Memory(materialise(MORE, ()).mean(0, keepdim=True)), split_of())
    assert constant[MAIN].value > 0.8  # the spread of the features, 1, and the shift
    assert constant["recall"].value < 0.05
    assert constant["frechet_classifier_train"] == floor


def test_a_class_that_is_never_generated_costs_recall_and_not_precision():
    two = materialise(MORE.select(MORE.labels_N != 1), ())
    found = measured(Memory(two), split_of())
    share = float((TEST.labels_N != 1).double().mean())
    assert found["precision"].value > 0.85
    assert found["recall"].value == pytest.approx(share, abs=0.12)
    assert found["coverage"].value == pytest.approx(share, abs=0.12)
    assert found[MAIN].value > 10 * measured(Memory(materialise(MORE, ())), split_of())[MAIN].value


def test_draws_reconstructions_and_means_are_kept_apart():
    x = materialise(MORE, ())
    found = measured(Memory(x, again=lambda x: x.flip(-2), draw=lambda x: torch.zeros_like(x)), split_of())
    assert found[MAIN].value < 0.1
    assert found["frechet_classifier_draws"].value > 0.8
    assert found["frechet_classifier_reconstructions"].value > 0.1
    assert found["frechet_classifier_draws"].note.startswith("draws x ~ p(x|z)")
    assert found[MAIN].note.startswith("means of p(x|z)")
    assert "draws 0.00" in found["precision"].note
    assert "n = 200 (bias about" in found[MAIN].note
    assert found["precision"].note.startswith("k = 3, n = 200")
    assert found["density"].note.startswith("k = 5, n = 200")


def test_where_pixels_are_binary_images_are_draws():
    split = split_of(name="binary", transforms=(DynamicBinarise(),))
    found = measured(Grey(materialise(MORE, split.transforms)), split)
    assert set(found) == (DISTANCES - {"frechet_classifier_draws"}) | NEAR | {
        "frechet_classifier_means",
        "classifier_accuracy",
    }
    assert found[MAIN].value < 0.1
    assert found[MAIN].note.startswith("draws x ~ p(x|z)")
    assert found["frechet_classifier_means"].value > 3 * found[MAIN].value
    assert found["frechet_classifier_means"].note.startswith("means of p(x|z)")
    assert found["frechet_classifier_reconstructions"].value < 1e-12
    assert found["precision"].value > 0.8
    assert "means 0." in found["precision"].note


def test_what_is_generated_lies_in_the_range_of_the_data():
    wild = Memory(20 * torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    for mean, draw in generated(wild, split_of(), 100):
        assert (float(mean.min()), float(mean.max())) == (0.0, 1.0)
        assert torch.equal(mean, draw)


def test_the_real_images_are_those_of_every_other_metric():
    split = split_of(transforms=(DynamicBinarise(),), batch_size=30)
    seen = torch.cat(list(split.batches()))
    index = torch.tensor([0, 3, 29, 30, 100, 199])
    assert torch.equal(torch.cat(list(real(split, index))), seen[index])
    assert torch.equal(torch.cat(list(real(split, torch.arange(200)))), seen)


def test_more_images_than_are_needed_are_chosen_from_everywhere(monkeypatch):
    monkeypatch.setattr("nelbo.metrics.quality.MOST_IMAGES", 50)
    monkeypatch.setattr("nelbo.metrics.quality.MOST_POINTS", 20)
    order = TEST.labels_N.argsort()  # a split that is sorted by class: its first images are of one
    found = measured(Memory(materialise(MORE, ())), split_of(TEST.select(order)))
    assert "n = 50 " in found[MAIN].note
    assert found["precision"].note.startswith("k = 3, n = 20")
    assert "fewer images than the 64" in found[MAIN].note
    assert found[MAIN].value < 0.3
    assert found["coverage"].value > 0.8


def test_without_labels_the_untrained_network_measures():
    bare = Images(TEST.pixels_NCHW)
    found = measured(Memory(materialise(MORE, ())), split_of(bare, bare, name="u"))
    assert found[UNTRAINED].value > 0
    assert {"precision", "coverage", "frechet_untrained_reconstructions"} <= set(found)
    assert "classifier_accuracy" not in found
    assert found[MAIN].value is None
    assert found[MAIN].missing == "no labels"
    assert "docs/metrics/fid.md" in found[MAIN].note
    one = Images(TEST.pixels_NCHW, torch.zeros(200, dtype=torch.int64))
    assert measured(Memory(materialise(MORE, ())), split_of(one, one))[MAIN].missing == "one class"


def test_untrained_features_order_images_by_their_likeness():
    """Other images of the same distribution are nearer than the same images blurred, and these than noise."""
    data = split_of(Images(TEST.pixels_NCHW), Images(TRAIN.pixels_NCHW), name="u")
    x_NCHW = materialise(MORE, ())
    blurred = torch.nn.functional.avg_pool2d(x_NCHW, 3, stride=1, padding=1)
    noise = torch.rand(x_NCHW.shape, generator=torch.Generator().manual_seed(1))
    distances = [
        float(measured(Memory(images), data)[UNTRAINED].value) for images in (x_NCHW, blurred, noise)
    ]
    assert distances == sorted(distances)
    assert distances[1] > 2 * distances[0]


def test_the_untrained_network_is_always_the_same():
    data = split_of(Images(TEST.pixels_NCHW), Images(TRAIN.pixels_NCHW), name="u").data
    assert classifier.untrained(data).fingerprint == classifier.untrained(data).fingerprint


def test_an_unlabelled_split_of_labelled_data_is_measured():
    found = measured(Memory(materialise(MORE, ())), split_of(Images(TEST.pixels_NCHW)))
    assert found[MAIN].value > 0
    assert found["classifier_accuracy"].value is None
    assert found["classifier_accuracy"].missing == "no labels"


def test_a_classifier_that_learned_nothing_measures_nothing():
    stream = torch.Generator().manual_seed(5)
    train, test = (
        Images(images.pixels_NCHW, torch.randint(0, 3, (len(images),), generator=stream))
        for images in (TRAIN, TEST)
    )
    found = measured(Memory(materialise(MORE, ())), split_of(test, train, name="r"))
    assert list(found)[:2] == [MAIN, "classifier_accuracy"]
    assert found[MAIN].value is None
    assert found[MAIN].missing == "no classifier"
    assert found[UNTRAINED].value > 0
    assert found["classifier_accuracy"].value < 0.5


def test_on_the_training_split_there_is_no_floor():
    found = measured(Memory(materialise(MORE, ())), split_of(TRAIN, TRAIN))
    assert found["frechet_classifier_train"].value is None
    assert found["frechet_classifier_train"].missing == "no floor"
    assert found[MAIN].value > 0
    assert "training images" not in found["precision"].note


@pytest.mark.parametrize("n", [1, 5])
def test_a_few_images_are_too_few(n):
    found = measured(Memory(materialise(MORE, ())), split_of(TEST.select(torch.arange(n))))
    assert list(found) == [MAIN, "classifier_accuracy"]
    assert (found[MAIN].missing, found[MAIN].note) == ("too few images", f"{n}, at least 6 are needed")
    assert measured(Memory(materialise(MORE, ())), split_of(TEST.select(torch.arange(6))))[MAIN].value > 0


def test_a_decoder_that_gives_no_numbers_is_named():
    broken = measured(Memory(torch.full((1, 1, 8, 8), math.nan)), split_of())
    assert broken[MAIN].value is None
    assert broken[MAIN].missing == "not finite"
    assert broken[MAIN].note.startswith("the decoder")
    assert not NEAR & set(broken)
    assert broken["frechet_classifier_reconstructions"].value < 1e-12


def test_it_is_heard_of_and_draws_nothing_from_the_callers_stream(own_cache):
    heard: list[tuple[int, int]] = []
    before = torch.get_rng_state()
    found = measured(Memory(materialise(MORE, ())), split_of(tell=lambda *row: heard.append(row)))
    assert torch.equal(torch.get_rng_state(), before)
    training = [row for row in heard if row[1] == heard[0][1]]
    assert training[-1] == (20 * 400 // 50 * 50, 8000)
    rest = heard[len(training) :]
    assert [done for done, _ in rest] == [*sorted(done for done, _ in rest[:-1]), 1]
    assert rest[-2] == (800, 1000)
    assert measured(Memory(materialise(MORE, ())), split_of()) == found


# --- in the card ------------------------------------------------------------------------------


def test_a_card_has_its_section_and_no_fid(run_copy):
    card = card_of.evaluate(run_copy, samples=0, device="cpu")
    assert set(card["sections"]["quality"]) == DISTANCES | NEAR | {"classifier_accuracy"}
    assert card["sections"]["fid"] == []
    assert card["metrics"]["classifier_accuracy"]["value"] > 0.9
    again = card_of.evaluate(run_copy, samples=0, metrics=["quality", "fid"], device="cpu")
    for name in card["sections"]["quality"]:
        assert again["metrics"][name] == card["metrics"][name]
    assert again["metrics"]["fid"]["value"] is None
    assert again["metrics"]["fid"]["missing"] == "no weights"
    assert again["metrics"]["fid"]["note"].startswith("set NELBO_INCEPTION")
