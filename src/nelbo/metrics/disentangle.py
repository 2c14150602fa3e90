"""Disentanglement scores of codes z_NZ against known factors: arrays in, numbers out.

There are F factors, each an index into its values; all logarithms are natural. Codes are float64 arrays (N, Z).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo.metrics.base import TellCount

Array = NDArray[Any]  # of int64 or float64

BINS = 20  # of the discretised codes, as in Locatello et al. 2019
CUTS = 100  # where a threshold may lie, in order of the codes
GROUP = 64  # images of a FactorVAE vote; this and the votes as in Locatello et al. 2019
VOTES_TO_LEARN, VOTES_TO_SCORE = 10_000, 5_000
VOTES_AT_ONCE = 500
TREES = 50
SMALLEST_LEAF = 0.01  # of the images learnt on


# --- mutual information -----------------------------------------------------------------------


def discretised(codes_NZ: Array, bins: int = BINS) -> Array:
    """Return the cells 0..bins-1 of equal width over the range of each dimension; int64 (N, Z).

    A dimension of no more than `bins` different values keeps them as they are.
    """
    cells = []
    for code_N in codes_NZ.T:
        different, index_N = np.unique(code_N, return_inverse=True)
        if len(different) > bins:
            low, high = different[0], different[-1]
            index_N = np.minimum((bins * ((code_N - low) / (high - low))).astype(np.int64), bins - 1)
        cells.append(index_N)
    return np.stack(cells, axis=1)


def contingency(cells_N: Array, values_N: Array, weights_N: Array | None = None) -> Array:
    """Count how often each cell meets each value, float64 (cells, values); every image counts `weights_N` times."""
    cells, values = int(cells_N.max()) + 1, int(values_N.max()) + 1
    counts = np.bincount(cells_N * values + values_N, weights_N, minlength=cells * values)
    return counts.astype(np.float64).reshape(cells, values)


def mutual_information(table: Array) -> float:
    """Return I = sum p(a, b) log p(a, b) / (p(a) p(b)) of a contingency table, nats: the plug-in estimate.

    It is too large by about (cells - 1)(values - 1) / 2N.
    """
    p = table / table.sum()
    expected = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    at = p > 0
    return float((p[at] * np.log(p[at] / expected[at])).sum())


def information(cells_NZ: Array, factors_NF: Array, weights_N: Array | None = None) -> tuple[Array, Array]:
    """Return I(z_j; v_k) of every dimension and factor (Z, F), and the entropies H(v_k) (F,), nats."""
    shared_ZF = of_pairs(mutual_information, cells_NZ, factors_NF, weights_N)
    # H(v) = I(v; v)
    entropy_F = np.array([mutual_information(contingency(v_N, v_N, weights_N)) for v_N in factors_NF.T])
    return shared_ZF, entropy_F


def of_pairs(
    score: Callable[[Array], float], cells_NZ: Array, factors_NF: Array, weights_N: Array | None = None
) -> Array:
    """Return the score of the contingency table of every dimension and factor (Z, F)."""
    return np.array([[score(contingency(z_N, v_N, weights_N)) for v_N in factors_NF.T] for z_N in cells_NZ.T])


def gap(score_ZF: Array) -> Array:
    """Return for each factor the best dimension's score less the second best's (F,)."""
    ranked = np.sort(score_ZF, axis=0)
    return np.asarray(ranked[-1] - ranked[-2])


def mig(shared_ZF: Array, entropy_F: Array) -> Array:
    """Return the mutual information gap of each factor. Chen et al. 2018, section 4."""
    # (I(z_1st; v) - I(z_2nd; v)) / H(v)
    return gap(shared_ZF) / entropy_F


def modularity(shared_ZF: Array) -> Array:
    """Return 1 - sum_{k != best} I_jk^2 / (I_j,best^2 (F - 1)) of each dimension; 0 of one without information.

    See Ridgeway & Mozer 2018, section 3.
    """
    square_ZF = shared_ZF**2
    best_Z = square_ZF.max(1)
    others_Z = square_ZF.sum(1) - best_Z
    informed_Z = best_Z > 0
    template_Z = np.where(informed_Z, best_Z, 1.0) * (square_ZF.shape[1] - 1)  # 1 avoids a division by zero
    return np.where(informed_Z, 1.0 - others_Z / template_Z, 0.0)


# --- thresholds -------------------------------------------------------------------------------


def between_cuts(codes_NZ: Array, cuts: int = CUTS) -> Array:
    """Return cells of about equally many images, in order, for `threshold_accuracy`; int64 (N, Z).

    Equal codes share a cell. A dimension of no more than `cuts` different values keeps them.
    """
    cells = []
    for code_N in codes_NZ.T:
        different, index_N = np.unique(code_N, return_inverse=True)
        if len(different) > cuts:
            edges = np.unique(np.sort(code_N)[np.arange(1, cuts) * len(code_N) // cuts])
            index_N = np.searchsorted(edges, code_N, side="right")
        cells.append(index_N)
    return np.stack(cells, axis=1)


def threshold_accuracy(table: Array) -> float:
    """Return the best balanced accuracy (mean recall over K values) of K - 1 thresholds on one dimension.

    `table` counts images by cell, in order, and value. The K intervals are found by dynamic programming over all
    places between cells; each predicts the value that gains most, so that none need come in order.
    """
    present = table[:, table.sum(0) > 0]
    recall = np.vstack([np.zeros(present.shape[1]), np.cumsum(present / present.sum(0), axis=0)])
    # gain[i, j]: recall, summed over values, of the interval of cells i to j - 1
    gain = (recall[None, :, :] - recall[:, None, :]).max(2)
    # An interval does not end before it begins.
    gain = np.where(np.tri(len(gain), k=-1, dtype=bool), -np.inf, gain)
    best = gain[0]  # best[j]: the most that one interval gives up to cell j; each turn adds one
    for _ in range(present.shape[1] - 1):
        best = (best[:, None] + gain).max(0)
    return float(best[-1] / present.shape[1])


# --- importance -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class DCI:
    """Disentanglement, completeness and informativeness; Eastwood & Williams 2018, section 2.

    importance_ZF  R: how much each dimension serves to predict each factor; every factor's sum to 1
    correct_MF     which of the M held-out images have which factor predicted right
    """

    importance_ZF: Array
    correct_MF: Array

    @property
    def disentanglement(self) -> float:
        """Return sum_j rho_j (1 - H_F(R_j / sum_k R_jk)), with rho_j the share of dimension j in all importance."""
        weight_Z = self.importance_ZF.sum(1)
        return float((weight_Z * (1.0 - _entropy(self.importance_ZF))).sum() / weight_Z.sum())

    @property
    def completeness(self) -> float:
        """Return the mean over factors of 1 - H_Z(R_k / sum_j R_jk)."""
        return float((1.0 - _entropy(self.importance_ZF.T)).mean())

    @property
    def informativeness(self) -> float:
        """Return the mean accuracy over factors on held-out images."""
        return float(self.correct_MF.mean())


def _entropy(rows: Array) -> Array:
    """Return the entropy of each row, normalised to a distribution, in units of the logarithm of its length."""
    total = rows.sum(1, keepdims=True)
    p = rows / np.where(total > 0, total, 1.0)  # a dimension without any importance counts with weight 0
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(1) / np.log(rows.shape[1]))


def dci(codes_NZ: Array, factors_NF: Array, seed: int, tell: TellCount) -> DCI:
    """Learn one random forest a factor on the first half of the images; its accuracy is that on the second half.

    Importance is the mean decrease in Gini impurity. `tell` hears (factors done, factors).
    """
    from sklearn.ensemble import RandomForestClassifier

    half = len(codes_NZ) // 2
    importance, correct = [], []
    for k, value_N in enumerate(factors_NF.T):
        # Every split may choose among all dimensions: with a random part of them the right one is often not on offer.
        # Leaves hold a hundredth of the images or more: smaller ones split on noise, which then has importance.
        forest = RandomForestClassifier(
            TREES, max_features=None, min_samples_leaf=SMALLEST_LEAF, random_state=seed, n_jobs=1
        )
        forest.fit(codes_NZ[:half], value_N[:half])
        importance.append(forest.feature_importances_)
        correct.append(forest.predict(codes_NZ[half:]) == value_N[half:])
        tell(k + 1, factors_NF.shape[1])
    return DCI(np.stack(importance, axis=1), np.stack(correct, axis=1))


# --- the dimension that stays the same --------------------------------------------------------


def votes(codes_NZ: Array, factors_NF: Array, n: int, stream: np.random.RandomState) -> Array:
    """Draw n votes, and count them by dimension and factor (Z, F). Kim & Mnih 2018, section 4.

    For a vote one factor is drawn, and one image; of the images that share its value of that factor GROUP are
    drawn with replacement; the dimension whose variance over them is the least share of its variance over all
    images has the vote.
    """
    dimensions, factors = codes_NZ.shape[1], factors_NF.shape[1]
    scaled_NZ = codes_NZ / codes_NZ.std(0)  # so that variances compare as shares of the whole
    drawn = stream.randint(factors, size=n)
    counts_ZF = np.zeros((dimensions, factors), np.int64)
    for k in range(factors):
        order_N = np.argsort(factors_NF[:, k], kind="stable")  # images of one value stand together
        _, value_N, count = np.unique(factors_NF[:, k], return_inverse=True, return_counts=True)
        first = np.cumsum(count) - count
        values = value_N[stream.randint(len(value_N), size=int((drawn == k).sum()))]
        for value in np.array_split(values, max(1, len(values) // VOTES_AT_ONCE)):
            place = (stream.random_sample((len(value), GROUP)) * count[value][:, None]).astype(np.int64)
            group_VGZ = scaled_NZ[order_N[first[value][:, None] + place]]
            least_V = group_VGZ.var(1).argmin(1)
            counts_ZF[:, k] += np.bincount(least_V, minlength=dimensions)
    return counts_ZF


def factor_vae_score(codes_NZ: Array, factors_NF: Array, stream: np.random.RandomState) -> float:
    """Return the share of new votes whose dimension names, by majority, the factor that was held."""
    # New votes: those of the majority would agree with it even if dimensions were drawn at random.
    learnt = votes(codes_NZ, factors_NF, VOTES_TO_LEARN, stream).argmax(1)
    scored = votes(codes_NZ, factors_NF, VOTES_TO_SCORE, stream)
    return float(scored[np.arange(len(learnt)), learnt].sum() / scored.sum())
