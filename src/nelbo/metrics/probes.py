"""The labels that can be read from the latents: a linear probe, nearest neighbours, clusters."""

import dataclasses
import warnings

import numpy as np
import torch
from torch import Tensor

from nelbo.metrics.base import Missing, Number, Split, Value, Values, choice, metric, nothing
from nelbo.metrics.latent import encode
from nelbo.models import BuiltModel

MOST_IMAGES = 20_000  # that a probe is trained on, or that are clustered
NEIGHBOURS = 10
RESTARTS = 10  # of k-means
STEPS = 1_000  # of L-BFGS
DISTANCES_AT_ONCE = 2**22
LABELS_AND_UNITS = {
    "linear_probe_accuracy": ("Linear probe accuracy", "share"),
    "knn_accuracy": ("k-NN accuracy", "share"),
    "clustering_nmi": ("Clustering NMI", ""),
    "clustering_accuracy": ("Clustering accuracy", "share"),
}
UNITS = {name: unit for name, (_, unit) in LABELS_AND_UNITS.items()}
NUMBERS = {name: Number(label, better="higher") for name, (label, _) in LABELS_AND_UNITS.items()}


@metric(order=70, depends_on_k=False, numbers=NUMBERS)
def probes(model: BuiltModel, split: Split) -> Values:
    """Linear probe, k-NN and k-means on posterior means: the accuracy with which they give the labels of the split.

    linear_probe_accuracy  logistic regression on standardised latents of the training split (Alain & Bengio 2016)
    knn_accuracy           majority of the 10 nearest training images, Euclidean
    clustering_nmi         2 I(labels; clusters) / (H(labels) + H(clusters)), as many clusters as there are classes
    clustering_accuracy    share of images in the class of their cluster, matched one to one (Xie et al. 2016)
    """
    train, labelled_N = split.data.train, split.images.labelled()
    if len(train.labelled()) < len(train):
        train = train.select(train.labelled())
    if len(train) > MOST_IMAGES:
        train = train.select(choice(len(train), MOST_IMAGES, split.seed))
    if train.labels_N is None or split.images.labels_N is None or not len(train) or not len(labelled_N):
        why = "the data have none; a folder for each class has them, or an .npz with labels"
        yield from nothing(UNITS, Missing("no labels", why))
        return
    labels_train_N, labels_N = train.labels_N, split.images.labels_N[labelled_N]
    if min(len(coded(labels)[0]) for labels in (labels_train_N, labels_N)) < 2:
        yield from nothing(UNITS, Missing("one class", "there is nothing to tell apart"))
        return
    z_train_NZ = encode(model, split.of(train)).double()
    split.tell(1, 4)
    z_NZ = encode(model, split).double()[labelled_N]
    if not (z_train_NZ.isfinite().all() and z_NZ.isfinite().all()):
        yield from nothing(UNITS, Missing("not finite", "some posterior means are not numbers"))
        return
    split.tell(2, 4)
    about = _about(split, labels_train_N, labels_N)
    guess_N, settled = linear_probe(z_train_NZ, labels_train_N, z_NZ)
    words = about if settled else f"not converged in {STEPS} steps; {about}"
    yield "linear_probe_accuracy", _accuracy(split, guess_N == labels_N, words)
    split.tell(3, 4)
    k = min(NEIGHBOURS, len(z_train_NZ))
    guess_N = nearest_neighbours(z_train_NZ, labels_train_N, z_NZ, k)
    yield "knn_accuracy", _accuracy(split, guess_N == labels_N, f"k = {k}; {about}")
    yield from _clustering(split, z_NZ, labels_N)
    split.tell(4, 4)


def _accuracy(split: Split, correct_N: Tensor, note: str) -> Value:
    """Return a share of images; without the number of each where some images are not measured."""
    value = Value.over_images(correct_N, "share", note)
    return value if len(correct_N) == len(split.images) else dataclasses.replace(value, per_image_N=None)


def _about(split: Split, labels_train_N: Tensor, labels_N: Tensor) -> str:
    """Return the note beside an accuracy."""
    learnt, n = len(labels_train_N), len(split.data.train.labelled())
    count = f"{learnt} of {n}" if learnt < n else f"{n}"
    same = ", which are among those measured: not held out" if split.images is split.data.train else ""
    words = [f"trained on {count} training images{same}"]
    largest = labels_train_N.mode().values
    words.append(f"chance {float((labels_N == largest).double().mean()):.3f} (the largest class)")
    without = len(split.images) - len(labels_N)
    if without:
        words.append(f"{without} of {len(split.images)} images have no label and are left out")
    strangers = int((~torch.isin(labels_N, labels_train_N)).sum())
    if strangers:
        words.append(f"{strangers} images are of classes that were not trained on and count as wrong")
    return "; ".join(words)


def coded(labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels that occur (C), rising, and the position of each image's label among them (N)."""
    classes, codes = np.unique(labels_N.numpy(), return_inverse=True)
    return torch.from_numpy(classes), torch.from_numpy(codes)


def linear_probe(train_NZ: Tensor, labels_N: Tensor, z_MZ: Tensor) -> tuple[Tensor, bool]:
    """Return the labels (M) of a multinomial logistic regression, and True if its L-BFGS converged.

    Latents are standardised by the training ones; the loss is the summed cross-entropy plus 1/2 |w|^2.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean_Z, std_Z = train_NZ.mean(0), train_NZ.std(0)
    std_Z = torch.where(std_Z > 0, std_Z, torch.ones_like(std_Z))
    # One thread: the order of a parallel sum is not fixed, and the numbers have to be.
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always", ConvergenceWarning)
        probe = LogisticRegression(max_iter=STEPS)
        probe.fit(((train_NZ - mean_Z) / std_Z).numpy(), labels_N.numpy())
        guess_M = torch.from_numpy(probe.predict(((z_MZ - mean_Z) / std_Z).numpy()))
    return guess_M, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def nearest_neighbours(train_NZ: Tensor, labels_N: Tensor, z_MZ: Tensor, k: int) -> Tensor:
    """Return the label (M) that most of the k nearest have; of equally many, the label whose nearest is nearer."""
    classes_C, codes_N = coded(labels_N)
    centre_Z = train_NZ.mean(0)  # distances are expanded into a product: subtract what would cancel
    train_NZ, z_MZ = train_NZ - centre_Z, z_MZ - centre_Z
    squares_N = train_NZ.square().sum(1)
    # 1 + 1/2, 1 + 1/4, ...: the fractions break ties and never add up to another vote
    votes_K = 1.0 + 0.5 ** torch.arange(1, k + 1, dtype=torch.float64)
    guesses = []
    for z_RZ in torch.split(z_MZ, max(1, DISTANCES_AT_ONCE // len(train_NZ))):
        # |a - b|^2 without |a|^2, which is the same for all candidates
        distance_RN = torch.addmm(squares_N, z_RZ, train_NZ.T, alpha=-2.0)
        nearest_RK = distance_RN.topk(k, largest=False).indices
        votes_RC = torch.zeros(len(z_RZ), len(classes_C), dtype=torch.float64)
        votes_RC.scatter_add_(1, codes_N[nearest_RK], votes_K.expand(len(z_RZ), k))
        guesses.append(classes_C[votes_RC.argmax(1)])
    return torch.cat(guesses)


def clusters(z_NZ: Tensor, k: int, seed: int) -> Tensor:
    """Return the k-means cluster (N) of each latent: the best of ten starts, by k-means++."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        # Fewer distinct latents than classes, as after a collapse: empty clusters are the right answer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        cluster_N = KMeans(k, n_init=RESTARTS, random_state=seed).fit_predict(z_NZ.numpy())
    return torch.from_numpy(cluster_N).long()


def agreement(clusters_N: Tensor, labels_N: Tensor) -> tuple[float, Tensor]:
    """Return the normalised mutual information, and True for each image (N) in the class of its cluster."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score

    classes, codes_N = coded(labels_N)
    size = max(len(classes), int(clusters_N.max()) + 1)
    counts = torch.bincount(clusters_N * size + codes_N, minlength=size * size).view(size, size)
    _, class_of_cluster = linear_sum_assignment(counts.numpy(), maximize=True)
    correct_N = torch.from_numpy(class_of_cluster)[clusters_N] == codes_N
    return float(normalized_mutual_info_score(labels_N.numpy(), clusters_N.numpy())), correct_N


def _clustering(split: Split, z_NZ: Tensor, labels_N: Tensor) -> Values:
    n, some, seed = len(z_NZ), "", split.seed
    without = len(split.images) - n
    if n > MOST_IMAGES:
        chosen = choice(n, MOST_IMAGES, seed)
        z_NZ, labels_N, some = z_NZ[chosen], labels_N[chosen], f" of {MOST_IMAGES} of the {n} images"
    k = len(coded(labels_N)[0])
    cluster_N = clusters(z_NZ, k, seed)
    shuffled_N = labels_N[torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))]
    nmi, correct_N = agreement(cluster_N, labels_N)
    chance, chance_N = agreement(cluster_N, shuffled_N)  # the matching alone is better than 1 / k
    about = f"{k} clusters by k-means{some}" + (f" of the {n} images with a label" if without else "")
    yield "clustering_nmi", Value(nmi, "", None, f"{about}; shuffled labels give {chance:.3f}")
    by_chance = f"shuffled labels give {float(chance_N.double().mean()):.3f}"
    words = f"{about}, each matched to one class; {by_chance}; the standard error takes the clusters as given"
    yield "clustering_accuracy", _accuracy(split, correct_N, words)
