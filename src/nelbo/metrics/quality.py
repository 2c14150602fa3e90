"""Quality of generated images, in the features of a classifier that nelbo trained on the same data set.

Where the data have no labels, in those of the same network without training. Not FID, and not comparable with it: other
features, another scale. `fid.py` is that.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from nelbo.engine import fixed_seed
from nelbo.metrics import classifier as classifiers
from nelbo.metrics import frechet
from nelbo.metrics.base import Missing, Number, Split, Value, Values, choice, exactly, metric, under
from nelbo.metrics.neighbours import FEWEST, K_DENSITY, K_MANIFOLD, neighbourhoods
from nelbo.models import BuiltModel

MOST_IMAGES = 10_000  # on each side of a distance
MOST_POINTS = 5_000  # on each side of precision and recall
UNIT = "feature variance"
MAIN = "frechet_classifier_distance"
UNTRAINED = "frechet_untrained_distance"
Look = Callable[[Tensor], Tensor]
DrawLatents = Callable[[int], Tensor]
NUMBERS = {
    MAIN: Number("Fréchet classifier distance", better="lower"),
    "frechet_classifier_draws": Number("Fréchet classifier draws", better="lower"),
    "frechet_classifier_means": Number("Fréchet classifier means", better="lower"),
    "frechet_classifier_reconstructions": Number("Fréchet classifier reconstructions", better="lower"),
    "frechet_classifier_train": Number("Fréchet classifier train"),
    UNTRAINED: Number("Fréchet distance, untrained features", better="lower"),
    "frechet_untrained_draws": Number("Fréchet draws, untrained features", better="lower"),
    "frechet_untrained_means": Number("Fréchet means, untrained features", better="lower"),
    "frechet_untrained_reconstructions": Number(
        "Fréchet reconstructions, untrained features", better="lower"
    ),
    "frechet_untrained_train": Number("Fréchet train, untrained features"),
}


@metric(order=60, depends_on_k=False, numbers=NUMBERS)
def quality(model: BuiltModel, split: Split) -> Values:
    """Fréchet distances, precision, recall, density and coverage of as many generated images as the split has.

    Generated images are means of p(x | z) for z ~ p(z), as papers show them; where pixels are binary, draws from
    p(x | z), since a classifier of binary images cannot judge grey ones.

    frechet_classifier_distance             of generated images and the split (Heusel et al. 2017)
    frechet_classifier_draws (or _means)    the same of the other kind: draws, or means where pixels are binary
    frechet_classifier_reconstructions      of the split's images, encoded and decoded
    frechet_classifier_train                of training images: what a perfect sampler of these would get
    precision, recall                       of generated images, k = 3 (Kynkäänniemi et al. 2019)
    density, coverage                       of generated images, k = 5 (Naeem et al. 2020)
    classifier_accuracy                     on the split; without a good classifier nothing above means anything

    Without labels, or where the classifier learnt nothing, `untrained` stands for `classifier`: the features are those
    of the same network with random weights (Naeem et al. 2020), by which samplers of one data set can be ordered.
    """
    judge = Judge.of(split)
    if isinstance(judge, Refusal):
        yield MAIN, Value.none(UNIT, judge.reason)
        yield from [] if judge.accuracy is None else [("classifier_accuracy", judge.accuracy)]
        judge = Judge.untrained(split)
        if isinstance(judge, Refusal):
            return
    # Means, draws, reconstructions and training images; the neighbours count as one n more.
    judge = judge.ticking(5 * judge.n)
    sets = judge.generated(model)
    accuracy = [] if judge.accuracy is None else [("classifier_accuracy", judge.accuracy)]
    values = itertools.chain(judge.distances(sets), judge.references(model), judge.neighbours(sets), accuracy)
    yield from under(values, {"classifier": judge.classifier})
    split.tell(1, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why generated images cannot be judged on a split."""

    reason: Missing
    accuracy: Value | None = None


@dataclasses.dataclass(frozen=True)
class Judge:
    """A split's own images in the features of the data set's classifier: the measure of any generated images.

    look        images in, features out
    classifier  its fingerprint: features of another one have another scale
    index_N     the positions of n of the split's images; as many are generated
    real_NF     their features
    accuracy    the accuracy of the classifier on them; None where it was not trained
    """

    split: Split
    look: Look
    classifier: str
    index_N: Tensor
    real_NF: Tensor
    accuracy: Value | None

    @classmethod
    def of(cls, split: Split) -> Judge | Refusal:
        if reason := classifiers.why_none(split.data):
            return Refusal(reason)
        classifier = classifiers.obtain(split.data, split.tell).to(split.device)
        n = min(len(split.images), MOST_IMAGES)
        index_N = choice(len(split.images), n)
        features, guesses = zip(*map(classifier.look, real(split, index_N)), strict=True)
        learnt = len(split.data.train.labelled())
        note = f"classifier {classifier.fingerprint}, trained on {learnt} images of these data"
        note = f"{note}; {classifier.unkept}".rstrip("; ")
        useless = None
        # Of images without a label nobody knows what they are.
        has_label_N = torch.isin(index_N, split.images.labelled())
        if split.images.labels_N is None or not has_label_N.any():
            accuracy = Value.none("share", Missing("no labels", f"of this split; {note}"))
        else:
            label_N = split.images.labels_N[index_N][has_label_N]
            hits_N = torch.cat(guesses)[has_label_N] == label_N
            accuracy = share(hits_N, note)
            right = float(hits_N.double().mean())
            commonest = float(torch.unique(label_N, return_counts=True)[1].max()) / len(label_N)
            # A classifier that has learnt no more than the commonest label says nothing about images.
            if right <= commonest + 2 * (accuracy.standard_error or 0.0):
                why = f"it gives {right:.3f} of these images their label, the commonest label alone {commonest:.3f}"
                useless = Missing("no classifier", f"{why}, so its features say nothing about them")
        if reason := too_few(n) or useless:
            return Refusal(reason, accuracy)
        look = classifier.look
        return cls(
            split, lambda x_BCHW: look(x_BCHW)[0], classifier.fingerprint, index_N, torch.cat(features), accuracy
        )  # fmt: skip

    @classmethod
    def untrained(cls, split: Split) -> Judge | Refusal:
        """Return the judge that needs no labels: features of the classifier's network with random weights."""
        n = min(len(split.images), MOST_IMAGES)
        if reason := too_few(n):
            return Refusal(reason)
        network = classifiers.untrained(split.data).to(split.device)
        index_N = choice(len(split.images), n)

        def look(x_BCHW: Tensor) -> Tensor:
            return network.look(x_BCHW)[0]

        real_NF = torch.cat([look(x_BCHW) for x_BCHW in real(split, index_N)])
        return cls(split, look, network.fingerprint, index_N, real_NF, None)

    @property
    def stem(self) -> str:
        """Return the beginning of the names of its distances."""
        return "frechet_untrained" if self.accuracy is None else "frechet_classifier"

    @property
    def main(self) -> str:
        """Return the name of the distance that samplers are chosen by."""
        return f"{self.stem}_distance"

    @property
    def n(self) -> int:
        return len(self.index_N)

    @property
    def kinds(self) -> tuple[str, str]:
        """Return the kind of generated images, means of p(x | z) or draws from it, and the other kind."""
        return ("draws", "means") if self.split.pixels == "binary" else ("means", "draws")

    @functools.cached_property
    def train_NF(self) -> Tensor | None:
        """Return features of at most n training images, or None where the split is the training split itself."""
        train = self.split.data.train
        if self.split.images is train or self.split.images.same_pixels(train):
            return None
        images = real(self.split.of(train), choice(len(train), self.n))
        return torch.cat([self.look(x_BCHW) for x_BCHW in images])

    def ticking(self, total: int) -> Judge:
        """Return the same judge, which tells the split how many of `total` images it has looked at."""
        count = 0

        def look(x_BCHW: Tensor) -> Tensor:
            nonlocal count
            count += len(x_BCHW)
            self.split.tell(count, total)
            return self.look(x_BCHW)

        return dataclasses.replace(self, look=look)

    def generated(self, model: BuiltModel, draw: DrawLatents | None = None) -> dict[str, Tensor]:
        """Return features of means and draws of p(x | z) for n latents z of the prior or of `draw(n)`."""
        both = ((self.look(mean), self.look(one)) for mean, one in generated(model, self.split, self.n, draw))
        means, draws = zip(*both, strict=True)
        return {"means": torch.cat(means), "draws": torch.cat(draws)}

    def distances(self, sets: Mapping[str, Tensor], z: str = "z ~ p(z)") -> Values:
        """Yield Fréchet distances of generated images; `z` names the source of their latents in words."""
        kind, other = self.kinds
        words = {"means": f"means of p(x|z), {z}", "draws": f"draws x ~ p(x|z), {z}"}
        yield self.main, fitted(sets[kind], self.real_NF, words[kind], UNIT)
        yield f"{self.stem}_{other}", fitted(sets[other], self.real_NF, words[other], UNIT)

    def references(self, model: BuiltModel) -> Values:
        """Yield the same distance of reconstructions, and of training images."""
        kind = self.kinds[0]
        again = reconstructed(model, self.split, self.index_N, kind)
        again_NF = torch.cat([self.look(x_BCHW) for x_BCHW in again])
        words = f"the split's images, encoded and decoded: {kind}"
        yield f"{self.stem}_reconstructions", fitted(again_NF, self.real_NF, words, UNIT)
        if self.train_NF is None:
            floor = Value.none(UNIT, Missing("no floor", "this split is the training split"))
        else:
            words = "training images: what a perfect sampler of them would get"
            floor = fitted(self.train_NF, self.real_NF, words, UNIT)
        yield f"{self.stem}_train", floor

    def neighbours(self, sets: Mapping[str, Tensor]) -> Values:
        """Yield precision, recall, density and coverage of generated images; those of other sets are in the notes."""
        kind, other = self.kinds
        truth_NF = self.real_NF[choice(self.n, MOST_POINTS)]
        near = {}
        for name, f_NF in {"": sets[kind], other: sets[other], "training images": self.train_NF}.items():
            if f_NF is not None and len(f_NF) >= FEWEST and f_NF.isfinite().all():
                near[name] = neighbourhoods(f_NF[choice(len(f_NF), MOST_POINTS)], truth_NF)
        if "" not in near:
            return
        for name, k in (
            ("precision", K_MANIFOLD), ("recall", K_MANIFOLD), ("density", K_DENSITY), ("coverage", K_DENSITY),
        ):  # fmt: skip
            hits = {of_set: points[name] for of_set, points in near.items()}
            note = f"k = {k}, n = {len(truth_NF)}"
            others = [f"{of_set} {float(hit.double().mean()):.2f}" for of_set, hit in hits.items() if of_set]
            note += f"; {', '.join(others)}" if others else ""
            yield name, share(hits[""], note, "ratio" if name == "density" else "share")


# --- images -----------------------------------------------------------------------------------


def real(split: Split, index_N: Tensor) -> Iterator[Tensor]:
    """Yield the split's images at these rising positions: the same pixels that every other metric sees there."""
    chosen_N = torch.zeros(len(split.images), dtype=torch.bool)
    chosen_N[index_N] = True
    start = 0
    for x_BCHW in split.batches():  # of all images: with others in its batch an image would get other noise
        chosen_B = chosen_N[start : start + len(x_BCHW)].to(x_BCHW.device)
        start += len(x_BCHW)
        if chosen_B.any():
            yield x_BCHW[chosen_B]


def generated(
    model: BuiltModel, split: Split, n: int, draw: DrawLatents | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for n draws z ~ p(z) the mean of p(x | z) and one draw from it, within the range of the data's pixels.

    draw   gives n latents from elsewhere
    """
    low, high = split.data.range
    with exactly(split.device), fixed_seed(split.seed, split.device):
        for z_BZ in torch.split((draw or model.sample_prior)(n), split.batch_size):
            decoded = model.decode(z_BZ)
            yield decoded.mean.clamp(low, high), decoded.sample().clamp(low, high)


def reconstructed(model: BuiltModel, split: Split, index_N: Tensor, kind: str = "means") -> Iterator[Tensor]:
    """Yield the mean of p(x | z) or a draw from it, at the posterior mean of these images, within the pixels' range."""
    low, high = split.data.range
    for x_BCHW in real(split, index_N):
        if kind == "means":
            yield model.reconstruct(x_BCHW).clamp(low, high)
        else:
            yield model.decode(model.encode(x_BCHW).mean).sample().clamp(low, high)


# --- values -----------------------------------------------------------------------------------


def too_few(n: int) -> Missing | None:
    """Return the reason why nothing can be said of so small a split, or None."""
    return None if n >= FEWEST else Missing("too few images", f"{n}, at least {FEWEST} are needed")


def fitted(f_NF: Tensor, real_NF: Tensor, words: str, unit: str) -> Value:
    """Return the Fréchet distance of two sets of features, with its jackknifed error and bias."""
    if not f_NF.isfinite().all():
        return Value.none(unit, Missing("not finite", "the decoder gives pixels that are not numbers"))
    distance = frechet.measure(f_NF, real_NF)
    n, features = f_NF.shape
    note = f"{words}; n = {n}" + (f" against {len(real_NF)}" if n != len(real_NF) else "")
    if distance.bias is not None:
        note += f" (bias about {distance.bias:.2g})"
    if min(n, len(real_NF)) <= features:  # the covariance of so few is singular
        note += f"; fewer images than the {features} features have dimensions"
    return Value(distance.value, unit, distance.standard_error, note)


def share(hit_N: Tensor, note: str, unit: str = "share") -> Value:
    """Return a mean over the points of one set, the other set held fixed."""
    # No point has a counterpart in another run, so that there is nothing to pair.
    value = dataclasses.replace(Value.over_images(hit_N, unit, note), per_image_N=None)
    if unit != "share" or value.value not in (0.0, 1.0):
        return value
    # No point of n: the share may still be up to 3 / n, at 95 % confidence (Hanley & Lippman-Hand 1983).
    count = f"{'none' if value.value == 0.0 else 'all'} of {len(hit_N)}"
    note = f"{note}; {count}: within {3 / len(hit_N):.1g} of it (95 %)"
    return dataclasses.replace(value, standard_error=None, note=note)
