"""Disentanglement scores against planted codes: what each must say, and that it says it of all codes alike."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nelbo.core.registry import lookup
from nelbo.data import Images, Splits
from nelbo.dists.normal import DiagonalNormal
from nelbo.metrics import Split, disentangle
from nelbo.metrics.factors import UNITS
from nelbo.models import BuiltModel

CPU = torch.device("cpu")
GRID = (3, 4, 5)
NAMES = ("form", "hue", "place")
FULL_NF = np.tile(
    np.indices(GRID).reshape(3, -1).T, (20, 1)
)  # every combination 20 times: exactly independent
EXACT_NZ = (FULL_NF - FULL_NF.mean(0)) / FULL_NF.std(0)
N = len(FULL_NF)
MIXED = (
    np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]) / 2
)  # orthonormal rows
MOST_SAP = np.mean([1 - 1 / values for values in GRID])


def noise(dimensions, seed=0, n=N):
    return np.random.RandomState(seed).standard_normal((n, dimensions))


class Planted(BuiltModel):
    """A model whose posterior means are the pixels."""

    def __init__(self, dimensions) -> None:
        super().__init__()
        self.shape, self.latent_dim = (dimensions, 1, 1), dimensions

    def decode(self, z):
        raise AssertionError("no metric of this file asks for it")

    def encode(self, x_BCHW):
        mean_BZ = x_BCHW.flatten(1)
        std_BZ = torch.ones_like(mean_BZ)
        return DiagonalNormal(mean_BZ, std_BZ, 2 * std_BZ.log())


def card(codes_NZ, factors_NF=FULL_NF, names=NAMES, **more):
    pixels = torch.from_numpy(np.ascontiguousarray(codes_NZ)).float()[:, :, None, None]
    known = None if factors_NF is None else torch.from_numpy(np.ascontiguousarray(factors_NF))
    images = Images(pixels, None, None, known, None if known is None else tuple(names))
    splits = Splits("made", images, None, images, "0" * 16, "real", (-9.0, 9.0))
    measure = lookup("metric", "factors")
    return dict(measure(Planted(codes_NZ.shape[1]), Split(images, splits, CPU, **more)))


def values(codes_NZ, **more):
    return {name: value.value for name, value in card(codes_NZ, **more).items()}


@pytest.fixture(scope="module")
def exact():
    return card(EXACT_NZ)


@pytest.fixture(scope="module")
def mixed():
    return values(EXACT_NZ @ MIXED + 0.05 * noise(4))


@pytest.fixture(scope="module")
def unrelated():
    return card(noise(5))


# --- planted codes ----------------------------------------------------------------------------


def test_one_dimension_a_factor_has_every_score_at_its_greatest(exact):
    assert list(exact) == list(UNITS)
    for name in set(UNITS) - {"sap"}:
        assert exact[name].value == pytest.approx(1.0, abs=1e-6), name
    assert exact["sap"].value == pytest.approx(MOST_SAP, abs=1e-6)
    assert exact["sap"].note.startswith(f"at most {MOST_SAP:.2f}, by factor form 0.67, hue 0.75, place 0.80")
    assert exact["mig"].note.startswith("form 1.00, hue 1.00, place 1.00; 3 of 3 dimensions active")


@pytest.mark.parametrize(
    "make", [lambda v: v**3, lambda v: np.array([2.0, -7.0, 0.3, 11.0, 4.0])[v], lambda v: -v]
)
def test_any_bijective_code_of_each_factor_is_as_good(make):
    found = values(make(FULL_NF).astype(float))
    assert found["mig"] == pytest.approx(1.0, abs=1e-6)
    assert found["modularity"] == pytest.approx(1.0, abs=1e-6)
    assert found["sap"] == pytest.approx(MOST_SAP, abs=1e-6)
    for name in ("dci_disentanglement", "dci_completeness", "dci_informativeness", "factor_vae_score"):
        assert found[name] == pytest.approx(1.0, abs=1e-6), name


def test_mixed_codes_know_the_factors_and_separate_none_of_them(mixed):
    assert mixed["dci_informativeness"] > 0.75
    assert mixed["mig"] < 0.1
    assert mixed["sap"] < 0.1
    assert mixed["dci_disentanglement"] < 0.25
    assert mixed["dci_completeness"] < 0.25
    assert mixed["modularity"] < 0.75


def test_codes_that_know_nothing_score_what_shuffled_ones_do(unrelated):
    at_chance = {"mig": 0.01, "sap": 0.02, "dci_disentanglement": 0.1, "dci_completeness": 0.1}
    for name, limit in at_chance.items():
        assert 0 <= unrelated[name].value < limit, name
    commonest = np.mean([1 / values for values in GRID])
    assert unrelated["dci_informativeness"].value == pytest.approx(commonest, abs=0.06)
    assert "the commonest values give 0.26" in unrelated["dci_informativeness"].note
    assert unrelated["factor_vae_score"].value == pytest.approx(1 / 3, abs=0.06)
    for name in ("mig", "sap", "modularity", "factor_vae_score"):
        shuffled = float(unrelated[name].note.rpartition("shuffled codes give ")[2])
        tolerance = 0.25 if name == "modularity" else 0.05
        assert shuffled == pytest.approx(unrelated[name].value, abs=tolerance), name


def test_one_active_dimension_has_no_gap_to_a_score_below_chance():
    """A dimension that says nothing gets one of K values right: with 0 there, the gap exceeded what it can be."""
    one = card(np.c_[EXACT_NZ[:, 1], 1e-3 * noise(2)])["sap"]
    most = float(one.note.removeprefix("at most ").partition(",")[0])
    assert one.value == pytest.approx((1 - 1 / 4) / 3, abs=0.02), "one factor of three is known"
    assert one.value < most
    assert float(one.note.rpartition("shuffled codes give ")[2]) < 0.05


def test_a_duplicated_code_is_modular_but_has_no_gap():
    found = values(np.c_[EXACT_NZ, EXACT_NZ])
    assert found["mig"] == pytest.approx(0.0, abs=1e-9)
    assert found["sap"] == pytest.approx(0.0, abs=1e-9)
    assert found["modularity"] == pytest.approx(1.0, abs=1e-6)
    assert found["dci_disentanglement"] == pytest.approx(1.0, abs=1e-6)
    assert found["dci_completeness"] < 0.75, "two dimensions share each factor"
    assert found["factor_vae_score"] == 1.0


def test_two_factors_in_one_dimension_are_complete_but_not_disentangled():
    both = FULL_NF[:, 0] * 4 + FULL_NF[:, 1]
    found = values(np.c_[both, EXACT_NZ[:, 2]].astype(float))
    assert found["mig"] == pytest.approx(1.0, abs=1e-6), "a gap between dimensions does not see it"
    assert found["dci_completeness"] == pytest.approx(1.0, abs=1e-6)
    assert found["dci_disentanglement"] == pytest.approx(1 - 2 / 3 * math.log(2) / math.log(3), abs=1e-6)
    small, large = math.log(3), math.log(4)
    expected = (1 - small**2 / (large**2 * 2) + 1) / 2
    assert found["modularity"] == pytest.approx(expected, abs=1e-6)
    assert found["factor_vae_score"] < 0.75, "the dimension is never constant with one of its factors alone"


def test_a_dead_dimension_and_a_constant_one_change_nothing(exact):
    wide = card(np.c_[EXACT_NZ, 0.05 * noise(1), np.full(N, 7.0)])
    assert "3 of 5 dimensions active" in wide["mig"].note
    for name in UNITS:
        assert wide[name].value == pytest.approx(exact[name].value, abs=1e-6), name


def test_a_lively_dimension_of_noise_costs_modularity_alone():
    found = values(np.c_[EXACT_NZ, noise(1)])
    assert found["modularity"] < 0.97
    assert found["mig"] > 0.97
    assert found["dci_disentanglement"] > 0.97
    assert found["factor_vae_score"] == 1.0


# --- invariances ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def halfway():
    """Codes in between: neither separate nor mixed, and noisy."""
    return EXACT_NZ @ (np.eye(3) + 0.4 * MIXED[:, :3]) + 0.3 * noise(3)


@pytest.mark.parametrize("change", ["order", "sign", "scale and place", "images"])
def test_order_sign_scale_and_place_of_codes_and_the_order_of_images_do_not_matter(halfway, change):
    before = values(halfway)
    order = np.random.RandomState(5).permutation(N)
    changed, known = {
        "order": (halfway[:, [2, 0, 1]], FULL_NF),
        "sign": (halfway * [-1, 1, -1], FULL_NF),
        "scale and place": (halfway * [0.3, 7.0, 1.0] + [0.0, 3.0, -1.0], FULL_NF),
        "images": (halfway[order], FULL_NF[order]),
    }[change]
    after = values(changed, factors_NF=known)
    tolerance = {"mig": 1e-3, "modularity": 1e-3, "sap": 0.01, "factor_vae_score": 0.02}
    for name in UNITS:  # forests and votes draw their images by position
        assert after[name] == pytest.approx(before[name], abs=tolerance.get(name, 0.05)), name


def test_the_order_of_factors_does_not_matter(halfway):
    here, there = (
        card(halfway),
        card(halfway, factors_NF=FULL_NF[:, [2, 0, 1]], names=("place", "form", "hue")),
    )
    for name in ("mig", "sap", "modularity"):
        assert there[name].value == pytest.approx(here[name].value, abs=1e-9)
    assert there["factor_vae_score"].value == pytest.approx(here["factor_vae_score"].value, abs=0.02)


def test_values_of_factors_are_names_and_not_numbers():
    relabelled = np.array([9, -4, 70, 2, 1])[FULL_NF]
    assert values(EXACT_NZ + 0.4 * noise(3), factors_NF=relabelled)["sap"] == pytest.approx(
        values(EXACT_NZ + 0.4 * noise(3))["sap"], abs=1e-9
    )


def test_the_same_numbers_twice(halfway):
    first = card(halfway)
    torch.manual_seed(3)
    np.random.seed(3)
    assert card(halfway) == first


# --- what cannot be measured ------------------------------------------------------------------


def test_without_factors_there_is_nothing():
    assert card(EXACT_NZ, factors_NF=None) == {}


def test_a_factor_that_does_not_vary_or_names_each_image_is_left_out_and_named(exact):
    more_NF = np.c_[FULL_NF, np.zeros(N, int), np.arange(N)]
    found = card(EXACT_NZ, factors_NF=more_NF, names=(*NAMES, "light", "number"))
    assert found["mig"].note.split("; ")[2:4] == ["light has one value", "number has too many values"]
    for name in UNITS:
        assert found[name].value == pytest.approx(exact[name].value, abs=1e-6), name


@pytest.mark.parametrize(
    ("codes", "factors", "reason"),
    [
        (EXACT_NZ * 0.05, FULL_NF, "collapsed: 0 of 3 dimensions active"),
        (EXACT_NZ[:, :1], FULL_NF, "too few: a comparison of latent dimensions needs two"),
        (
            EXACT_NZ,
            FULL_NF * [1, 0, 0],
            "too few: a comparison of factors needs two; 3 of 3 dimensions active; hue",
        ),
        (EXACT_NZ[:99], FULL_NF[:99], "too few: 99 images, of 100 at least"),
        (np.where(EXACT_NZ > 1, np.inf, EXACT_NZ), FULL_NF, "not finite"),
    ],
)
def test_a_number_that_does_not_exist_says_why(codes, factors, reason):
    found = card(codes, factors_NF=factors)
    assert list(found) == list(UNITS)
    for name, value in found.items():
        assert value.value is None, name
        assert f"{value.missing}: {value.note}".startswith(reason), name


# --- the pieces -------------------------------------------------------------------------------


def test_mutual_information_is_scikit_learns():
    from sklearn.metrics import mutual_info_score

    stream = np.random.RandomState(0)
    for cells, values_ in ((2, 2), (20, 8), (7, 1), (1, 4)):
        a, b = (
            stream.randint(cells, size=300),
            stream.randint(values_, size=300) * stream.randint(2, size=300),
        )
        found = disentangle.mutual_information(disentangle.contingency(a, b))
        assert found == pytest.approx(mutual_info_score(a, b), abs=1e-12)
        weight = stream.randint(3, size=300)
        found = disentangle.mutual_information(disentangle.contingency(a, b, weight))
        assert found == pytest.approx(
            mutual_info_score(np.repeat(a, weight), np.repeat(b, weight)), abs=1e-12
        )


def test_the_gap_of_a_noisy_channel_is_its_capacity():
    """A bit seen through a symmetric channel that errs one time in ten: I = log 2 - h(1/10)."""
    bit = np.repeat([0, 1], 500)
    seen = np.where(np.arange(1000) % 10 == 0, 1 - bit, bit)
    shared, entropy = disentangle.information(np.c_[seen, np.zeros(1000, int)], bit[:, None])
    entropy_of_error = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert entropy[0] == pytest.approx(math.log(2), abs=1e-12)
    assert disentangle.mig(shared, entropy)[0] == pytest.approx(1 - entropy_of_error / math.log(2), abs=1e-12)


def test_cells_are_those_of_a_histogram_and_few_values_are_kept():
    codes = noise(2)
    cells = disentangle.discretised(codes)
    for code_N, cells_N in zip(codes.T, cells.T, strict=True):
        np.testing.assert_array_equal(np.bincount(cells_N, minlength=20), np.histogram(code_N, 20)[0])
    close = np.array([0.0, 1e-9, 1.0, 50.0])[np.arange(100) % 4]
    np.testing.assert_array_equal(disentangle.discretised(close[:, None])[:, 0], np.arange(100) % 4)


def test_thresholds_are_the_best_there_are():
    """Against every choice of intervals and of what each predicts."""
    stream = np.random.RandomState(1)
    for n_cells, n_values in ((2, 2), (5, 3), (6, 2), (7, 3), (6, 4)):
        table = stream.randint(0, 9, (n_cells, n_values)).astype(float)
        table[0] += 1  # every value occurs
        recall = table / table.sum(0)
        best = 0.0
        for cuts in itertools.combinations_with_replacement(range(n_cells + 1), n_values - 1):
            intervals = np.split(recall, cuts)
            best = max(best, sum(part.sum(0).max() for part in intervals))
        assert disentangle.threshold_accuracy(table) == pytest.approx(best / n_values, abs=1e-12)


def test_thresholds_weigh_values_equally_however_rare():
    rare = np.array([[990.0, 0.0], [0.0, 10.0]])
    assert disentangle.threshold_accuracy(rare) == 1.0
    assert disentangle.threshold_accuracy(np.array([[990.0, 10.0]])) == 0.5


def test_many_values_are_cut_into_hundredths_and_equal_ones_stay_together():
    cells = disentangle.between_cuts(np.c_[noise(1, n=5000), np.r_[np.zeros(4900), np.arange(1, 101)]])
    counts = np.bincount(cells[:, 0])
    assert len(counts) == 100
    assert counts.min() == counts.max() == 50
    assert len(np.unique(cells[:4900, 1])) == 1
    assert (np.diff(cells[4900:, 1]) >= 0).all()


def test_disentanglement_and_completeness_are_their_formulas():
    importance = np.array([[0.8, 0.0], [0.2, 0.5], [0.0, 0.5], [0.0, 0.0]])
    found = disentangle.DCI(importance, np.array([[True, False], [True, True]]))

    def entropy(*p):
        return -sum(x * math.log(x) for x in p if x > 0)

    weights = np.array([0.8, 0.7, 0.5]) / 2
    rows = 1 - np.array([0.0, entropy(2 / 7, 5 / 7), 0.0]) / math.log(2)
    assert found.disentanglement == pytest.approx(float(weights @ rows), abs=1e-12)
    columns = 1 - np.array([entropy(0.8, 0.2), entropy(0.5, 0.5)]) / math.log(4)
    assert found.completeness == pytest.approx(float(columns.mean()), abs=1e-12)
    assert found.informativeness == 0.75


def test_modularity_is_its_formula():
    shared = np.array([[1.0, 0.5, 0.0], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    np.testing.assert_allclose(disentangle.modularity(shared), [1 - 0.25 / 2, 0.0, 0.0, 1.0], atol=1e-12)


def test_every_vote_is_counted_and_goes_to_the_dimension_that_stays():
    stream = np.random.RandomState(0)
    found = disentangle.votes(EXACT_NZ[:, [1, 2, 0]], FULL_NF, 3000, stream)
    assert found.sum() == 3000
    np.testing.assert_array_equal(found > 0, np.eye(3, dtype=bool)[[1, 2, 0]])
    assert found.sum(0).min() > 850, "every factor is held equally often"


def test_the_error_is_the_spread_over_other_images():
    """The bootstrap of one data set against the standard deviation over many."""
    found = []
    for seed in range(40):
        stream = np.random.RandomState(seed)
        known = stream.randint(0, GRID, (400, 3))
        codes = known + 0.7 * stream.standard_normal((400, 3))
        cells = disentangle.discretised(codes)
        found.append(disentangle.mig(*disentangle.information(cells, known)).mean())
    error = card(codes, factors_NF=known)["mig"].standard_error
    assert error == pytest.approx(np.std(found, ddof=1), rel=0.5)


def test_what_has_no_error_says_so_and_the_others_have_one(unrelated):
    without = {name for name, value in unrelated.items() if value.standard_error is None}
    assert without == {"dci_disentanglement", "dci_completeness"}
    share = unrelated["factor_vae_score"].value
    assert unrelated["factor_vae_score"].standard_error == pytest.approx(
        math.sqrt(share * (1 - share) / 5000)
    )
