"""The bound and its two halves: logged by training and validation, reported by evaluation, one code."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from nelbo.core import Draw, Terms
from nelbo.data.images import LEVELS
from nelbo.metrics.base import Missing, Number, Split, Value, Values, metric
from nelbo.models import BuiltModel
from nelbo.objectives import halves

T = TypeVar("T")
PROBABILITY = "log-probability of the pixels"
GREY = "cross-entropy of grey pixels"
NO_LEVELS = "probability of 8-bit levels at pixels that are none"
DENSITIES = {
    "dequantised": "density of dequantised pixels on the scale the model sees",
    "grey": "density of grey levels that were not dequantised",
    "real": "density of real-valued pixels on the scale the model sees",
    "binary": "density at pixels that are only 0 and 1",
}
"""The kind of number that log p(x | z) is, by the kind of the pixels, where the likelihood is a density."""
WITHOUT_BITS = "may be negative, is not bits/dim"
CAVEATS = dict.fromkeys(DENSITIES.values(), WITHOUT_BITS) | {
    GREY: "not a likelihood; compare only with numbers of the same kind",
    NO_LEVELS: "rounded to them, and no bits/dim",
    DENSITIES["dequantised"]: "may be negative; see bits/dim",
}
IN_WORDS = {
    GREY: "cross-entropy of pixels between black and white",
    DENSITIES["grey"]: "density of pixels that were not dequantised",
}
"""Kinds whose stored name says grey, for people: the images may be in colour. Cards keep the name they always had."""
SAMPLED_KL_NOTE = "by one sample an image: posterior and prior have no closed form"
ONLY_TWO_NOTE = "of 256 levels, of which these pixels have only the first and the last"
DEQUANTISED_NOTE = (
    "of the 8-bit levels, from above: the density of dequantised pixels (Theis et al. 2016), with log2(256) for "
    "the width of a level"
)
NUMBERS = {
    "nelbo": Number("NELBO", better="lower"),
    # Both halves have two names: rate and distortion are those of Alemi et al. 2018.
    "kl": Number("KL", title="KL (rate)"),
    "reconstruction": Number(title="Reconstruction (distortion)"),
    "bits_per_dim": Number(better="lower"),
    "grey_cross_entropy": Number("Cross-entropy a pixel", better="lower"),
    "nelbo_independent_noise": Number("NELBO independent noise"),
}


def quantities(terms: Terms) -> dict[str, Tensor]:
    """Return the quantities of a log line, nats an image: the loss, the objective's parts, and the bound if any."""
    bound = {} if terms.bound_B is None else {"bound": terms.bound_B}
    return {"total": terms.loss_B, **terms.parts, **bound}


def sums(values: Mapping[str, Tensor]) -> Tensor:
    """Return the sum over a batch of each named quantity: shape (Q,). Two small kernels."""
    with torch.no_grad():
        first, *others = values.values()
        # A scalar part is that of every image, so that means over images leave it as it is.
        columns = [column if column.shape == first.shape else column.expand_as(first) for column in others]
        return torch.stack([first, *columns]).sum(-1)


class Means:
    """Means over images of named quantities, by true counts: a short last batch weighs what it holds.

    Sums stay on the device until `result`: adding does not wait for it.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.pieces: list[Tensor] = []
        self.counts: list[int] = []

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the quantities of each image of a batch."""
        self.add_sums(tuple(values), sums(values)[None], [len(next(iter(values.values())))])

    def add_sums(self, names: Sequence[str], sums_SQ: Tensor, counts: Sequence[int]) -> None:
        """Add the sums of several batches, one row a batch, with their numbers of images."""
        self.names = list(names)
        self.pieces.append(sums_SQ)
        self.counts += counts

    def table(self) -> Tensor:
        """Return the sums, float64 on the CPU: one row a batch, one column a quantity."""
        # Concatenated before it is copied: one wait for the device instead of one a batch.
        return torch.cat(self.pieces).cpu().double() if self.pieces else torch.zeros(0, len(self.names))

    def per_batch(self, name: str) -> list[float]:
        column = self.table()[:, self.names.index(name)]
        return [float(mean) for mean in column / torch.tensor(self.counts)]

    def result(self) -> dict[str, float]:
        means = self.table().sum(0) / max(1, sum(self.counts))
        return dict(zip(self.names, means.tolist(), strict=True))


def bound_of(model: BuiltModel, split: Split) -> dict[str, Tensor]:
    """Return each image's reconstruction and its KL, if it has one: nats, float64 (shape N), one sample an image."""
    rows: list[Tensor] = []
    for x_BCHW in split.batches():
        parts, _ = halves(model.draw(x_BCHW))
        named = [parts[name] for name in ("reconstruction", "kl") if name in parts]
        rows.append(torch.stack(named).cpu().double())
    return dict(zip(("reconstruction", "kl"), torch.cat(rows, dim=1), strict=False))


def of_two_images(function: Callable[[Tensor], T], split: Split) -> T:
    """Return what a model gives for the first two images, to be asked for facts about it, not for numbers."""
    two = split.of(split.images.select(torch.arange(min(2, len(split.images)))))
    # Within the loop, with the noise of the split.
    results = [function(x_BCHW) for x_BCHW in two.batches()]
    return results[0]


def not_a_bound(model: BuiltModel, split: Split) -> str | None:
    """Return the reason why this model's samples give no bound, or None."""
    return of_two_images(model.draw, split).not_a_bound


def likelihood_kind(model: BuiltModel, split: Split) -> str:
    """Return the kind of log p(x | z) of these pixels under this likelihood: numbers of two kinds are not compared."""
    match model.observation_kind:
        case "binary":
            return PROBABILITY if split.pixels == "binary" else GREY
        case "levels":
            return PROBABILITY if split.data.eight_bit else NO_LEVELS
    return DENSITIES[split.pixels]


def note_for(kind: str) -> str:
    """Return the note beside a number of this kind; none beside a log-probability."""
    return f"{in_words(kind)}: {CAVEATS[kind]}" if kind in CAVEATS else ""


def in_words(kind: str) -> str:
    """Return the kind of a number as people read it."""
    return IN_WORDS.get(kind, kind)


def bits(nats_N: Tensor, split: Split, model: BuiltModel) -> tuple[str, str, Tensor, str] | None:
    """Return nats of whole images, of -log p, as bits a dimension: (name, unit, bits of each image, note).

        a probability of pixels (binary, levels)      nats / (D log 2)
        a density of dequantised pixels in [a, b]     (nats + D log(256 / (b - a))) / (D log 2)

    D = C H W. The second is the density of 256 x, whose integral over a level's bin is at least exp of the mean
    log-density in it, so that it bounds bits/dim of the 8-bit levels from above (Theis et al. 2016). Pixels between 0
    and 1 under a Bernoulli have the first quotient as a cross-entropy; other densities have none: None.
    """
    dimensions = math.prod(split.images.shape)
    bits_N = nats_N / (dimensions * math.log(2.0))
    match model.observation_kind, split.pixels:
        case ("binary", "binary"):
            return "bits_per_dim", "bits/dim", bits_N, ""
        case ("binary", _):
            return "grey_cross_entropy", "bits/pixel", bits_N, f"nats / (D log 2) of a {note_for(GREY)}"
        case ("levels", pixels) if split.data.eight_bit:
            return "bits_per_dim", "bits/dim", bits_N, ONLY_TWO_NOTE if pixels == "binary" else ""
        case ("density", "dequantised"):
            low, high = split.data.range
            return "bits_per_dim", "bits/dim", bits_N + math.log2(LEVELS / (high - low)), DEQUANTISED_NOTE
    return None


def _repaired(model: BuiltModel, x_BCHW: Tensor) -> Tensor:
    """Return the NELBO of each image under the density that the posterior declares, with samples of that density."""
    posterior = model.encode(x_BCHW).with_independent_noise()
    assert posterior is not None
    z_KBZ = posterior.rsample(1)
    log_px_KB = model.decode(z_KBZ).log_prob(x_BCHW)
    _, bound_B = halves(Draw(z_KBZ=z_KBZ, log_px_KB=log_px_KB, posterior=posterior, prior=model.prior))
    assert bound_B is not None
    return -bound_B.cpu()


@metric(order=10, quick=True, depends_on_k=False, learns=False, numbers=NUMBERS)
def bound(model: BuiltModel, split: Split) -> Values:
    """Reconstruction, KL and their sum, the NELBO: nats an image, at beta 1, one posterior sample an image.

    Where a likelihood is a probability of these pixels, or a density of dequantised ones, also bits/dim; pixels
    between 0 and 1 under a Bernoulli give a cross-entropy (`bits`). Where samples do not come from the density, KL
    and NELBO do not exist.
    """
    draw = of_two_images(model.draw, split)
    per_image = bound_of(model, split)
    kind = likelihood_kind(model, split)
    note, conditions = note_for(kind), {"likelihood": kind}
    reconstruction = Value.over_images(per_image["reconstruction"], "nats/image", note, conditions)
    if reason := draw.not_a_bound:
        yield "nelbo", Value.none("nats/image", Missing("not a bound", reason))
        yield "reconstruction", reconstruction
        yield "kl", Value.none("nats/image", Missing("infinite", reason))
        if draw.posterior.with_independent_noise() is None:
            return
        repaired_N = torch.cat([_repaired(model, x_BCHW) for x_BCHW in split.batches()])
        words = "what the same networks give when every dimension has its own noise; not what was trained"
        yield "nelbo_independent_noise", Value.over_images(repaired_N, "nats/image", words, conditions)
        return
    nelbo_N = per_image["reconstruction"] + per_image["kl"]
    yield "nelbo", Value.over_images(nelbo_N, "nats/image", note, conditions)
    yield "reconstruction", reconstruction
    about_kl = SAMPLED_KL_NOTE if draw.kl_BG is None else draw.posterior.kl_is(draw.prior)
    yield "kl", Value.over_images(per_image["kl"], "nats/image", about_kl)
    if in_bits := bits(nelbo_N, split, model):
        name, unit, bits_N, words = in_bits
        yield name, Value.over_images(bits_N, unit, words, conditions)
