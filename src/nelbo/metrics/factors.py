"""Disentanglement: the scores of latent dimensions that each follow one known factor of variation."""

import dataclasses
from collections.abc import Callable

import numpy as np

from nelbo.metrics import disentangle as scores
from nelbo.metrics.base import Missing, Number, Split, Value, Values, metric, nothing
from nelbo.metrics.disentangle import Array
from nelbo.metrics.latent import ACTIVE_VARIANCE, encode
from nelbo.models.base import BuiltModel

LABELS_AND_UNITS = {
    "mig": ("MIG", ""),
    "sap": ("SAP", ""),
    "dci_disentanglement": ("DCI disentanglement", ""),
    "dci_completeness": ("DCI completeness", ""),
    "dci_informativeness": ("DCI informativeness", "share"),
    "factor_vae_score": ("Factor VAE score", "share"),
    "modularity": ("Modularity", ""),
}
UNITS = {name: unit for name, (_, unit) in LABELS_AND_UNITS.items()}
NUMBERS = {name: Number(label, better="higher") for name, (label, _) in LABELS_AND_UNITS.items()}
RESAMPLES = 50  # a standard deviation of 50 numbers errs by a tenth
LEAST_IMAGES = 100
IMAGES_A_VALUE = 10  # on average; a factor with fewer is left out
DCI_IMAGES = 5000  # half of them to learn on


@dataclasses.dataclass(frozen=True, slots=True)
class Codes:
    """The codes that are scored.

    z_NA        the active dimensions, which have these positions among all
    active_A
    factors_NF  each factor's values as 0, 1, ...
    names       of the factors
    dimensions  Z, inactive ones with them
    """

    z_NA: Array
    active_A: Array
    factors_NF: Array
    names: tuple[str, ...]
    dimensions: int

    def padded(self, score_AF: Array, inactive_F: Array | float = 0.0) -> Array:
        """Return the scores of all Z dimensions, with those of an inactive one."""
        shape = (self.dimensions - len(score_AF), score_AF.shape[1])
        return np.vstack([score_AF, np.broadcast_to(inactive_F, shape)])

    def by_factor(self, values_F: Array) -> str:
        """Write one number for each factor."""
        return ", ".join(f"{name} {value:.2f}" for name, value in zip(self.names, values_F, strict=True))

    def mig(self, cells_NA: Array, weights_N: Array | None = None) -> Array:
        shared_AF, entropy_F = scores.information(cells_NA, self.factors_NF, weights_N)
        return scores.mig(self.padded(shared_AF), entropy_F)

    def modularity(self, cells_NA: Array, weights_N: Array | None = None) -> Array:
        return scores.modularity(scores.information(cells_NA, self.factors_NF, weights_N)[0])

    def sap(self, cells_NA: Array, weights_N: Array | None = None) -> Array:
        constant_F = 1.0 / (self.factors_NF.max(0) + 1)  # of K values one is right: a code that says nothing
        accuracy_AF = scores.of_pairs(scores.threshold_accuracy, cells_NA, self.factors_NF, weights_N)
        return scores.gap(self.padded(accuracy_AF, constant_F))


@metric(order=80, depends_on_k=False, learns=False, numbers=NUMBERS)
def factors(model: BuiltModel, split: Split) -> Values:
    """MIG, SAP, DCI, FactorVAE score and modularity, of posterior means, where the factors of the images are known.

    Dimensions whose mean varies by no more than 0.01 over the images are inactive: they have no information, no
    importance and no vote (their noise hides what the mean still says). Locatello et al. 2019 compare the scores.
    """
    images = split.images
    if images.factors_NF is None or images.factor_names is None:
        return
    z_NZ = encode(model, split).flatten(1).double().numpy()
    scored = prepared(z_NZ, images.factors_NF.numpy(), images.factor_names)
    if isinstance(scored, Missing):
        yield from nothing(UNITS, scored)
        return
    codes, about = scored
    binned, ordered = scores.discretised(codes.z_NA), scores.between_cuts(codes.z_NA)
    yield "mig", _resampled(codes.mig, binned, split.seed, f"{codes.by_factor(codes.mig(binned))}; {about}")
    most = float(np.mean([1.0 - 1.0 / (values_N.max() + 1) for values_N in codes.factors_NF.T]))
    words = f"at most {most:.2f}, by factor {codes.by_factor(codes.sap(ordered))}"
    yield "sap", _resampled(codes.sap, ordered, split.seed, words)
    order = np.random.RandomState(split.seed).permutation(len(codes.z_NA))[:DCI_IMAGES]
    active = scores.dci(codes.z_NA[order], codes.factors_NF[order], split.seed, split.tell)
    whole = dataclasses.replace(active, importance_ZF=codes.padded(active.importance_ZF))
    note = f"random forests of {len(order)} images"
    yield "dci_disentanglement", Value(whole.disentanglement, "", None, note)
    yield "dci_completeness", Value(whole.completeness, "", None, note)
    common = np.mean([np.bincount(values_N).max() / len(values_N) for values_N in codes.factors_NF.T])
    accuracy_F, each_M = active.correct_MF.mean(0), active.correct_MF.mean(1)
    error = float(each_M.std(ddof=1) / len(each_M) ** 0.5)
    held_out = f"accuracy on {len(each_M)} images held out: {codes.by_factor(accuracy_F)}"
    words = f"{held_out}; the commonest values give {common:.2f}"
    yield "dci_informativeness", Value(whole.informativeness, "share", error, words)
    stream = np.random.RandomState(split.seed)
    score = scores.factor_vae_score(codes.z_NA, codes.factors_NF, stream)
    shuffled_NA = codes.z_NA[stream.permutation(len(codes.z_NA))]
    chance = scores.factor_vae_score(shuffled_NA, codes.factors_NF, stream)
    error = (score * (1.0 - score) / scores.VOTES_TO_SCORE) ** 0.5  # of a share of independent votes
    words = f"{scores.VOTES_TO_SCORE} votes of {scores.GROUP} images; their error alone"
    note = f"{words}; shuffled codes give {chance:.3f}"
    yield "factor_vae_score", Value(score, "share", error, note)
    words = "mean over active dimensions"
    yield "modularity", _resampled(codes.modularity, binned, split.seed, words)


def prepared(z_NZ: Array, factors_NF: Array, names: tuple[str, ...]) -> tuple[Codes, str] | Missing:
    """Return the codes to score and a note on the rest, or the reason why nothing can be scored.

    A factor with one value in these images, or with fewer than 10 images a value, is left out.
    """
    n, dimensions = z_NZ.shape
    if n < LEAST_IMAGES:
        return Missing("too few", f"{n} images, of {LEAST_IMAGES} at least; try --split train")
    if dimensions < 2:
        return Missing("too few", "a comparison of latent dimensions needs two")
    if not np.isfinite(z_NZ).all():
        return Missing("not finite", "some posterior means are not finite")
    index_NF = np.stack([np.unique(values_N, return_inverse=True)[1] for values_N in factors_NF.T], axis=1)
    count_F = index_NF.max(0) + 1
    constant, many = count_F < 2, count_F * IMAGES_A_VALUE > n
    usable, active = ~constant & ~many, z_NZ.var(0) > ACTIVE_VARIANCE
    reasons = ((constant, "has one value"), (many, "has too many values"))
    left_out = [f"{names[k]} {reason}" for holds, reason in reasons for k in np.flatnonzero(holds)]
    about = "; ".join([f"{active.sum()} of {dimensions} dimensions active", *left_out])
    if usable.sum() < 2:
        return Missing("too few", f"a comparison of factors needs two; {about}")
    if not active.any():
        return Missing("collapsed", about)
    chosen = tuple(names[k] for k in np.flatnonzero(usable))
    return Codes(z_NZ[:, active], np.flatnonzero(active), index_NF[:, usable], chosen, dimensions), about


def _resampled(score: Callable[..., Array], cells_NA: Array, seed: int, note: str) -> Value:
    """Return the mean of a score; its standard deviation over images drawn again with replacement (Efron 1979)."""
    stream = np.random.RandomState(seed)
    n = len(cells_NA)
    chance = score(cells_NA[stream.permutation(n)]).mean()
    # Weights that count how often each image is drawn cost no copy of the codes.
    drawn = [stream.multinomial(n, np.full(n, 1.0 / n)).astype(float) for _ in range(RESAMPLES)]
    error = float(np.std([score(cells_NA, weights_N).mean() for weights_N in drawn], ddof=1))
    return Value(float(score(cells_NA).mean()), "", error, f"{note}; shuffled codes give {chance:.3f}")
