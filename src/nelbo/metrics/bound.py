"""The bound and its two halves: logged by training and validation, reported by evaluation, one code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.metrics.base import Split, Value, metric
from nelbo.models import BuiltModel
from nelbo.objectives import ELBO

GREY_NOTE = "cross-entropy of grey pixels: not a likelihood; compare only with numbers of the same kind"
DENSITY_NOTES = {
    "grey": "density of grey levels that were not dequantised: may be negative, is not bits/dim",
    "real": "density of real-valued pixels on the scale the model sees: may be negative, is not bits/dim",
    "binary": "density at pixels that are only 0 and 1: may be negative, is not bits/dim",
}


def quantities(terms: Terms) -> dict[str, Tensor]:
    """What every log line holds, nats an image: the loss, the objective's parts, and the bound if there is one."""
    found = {"total": terms.loss_B, **terms.parts}
    if terms.bound_B is not None:
        found["bound"] = terms.bound_B
    return found


class Means:
    """Means over images of named quantities, by true counts: a short last batch weighs what it holds.

    Sums stay on the device until `result`: adding costs two small kernels and no synchronisation.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: list[Tensor] = []
        self.counts: list[int] = []

    def add(self, found: Mapping[str, Tensor]) -> None:
        self.names = list(found)
        with torch.no_grad():
            first, *rest = found.values()
            columns = [
                first,
                *(column if column.shape == first.shape else column.expand_as(first) for column in rest),
            ]
            self.sums.append(torch.stack(columns).sum(-1))
        self.counts.append(len(first))

    def table(self) -> Tensor:
        """Batch sums, float64 on the CPU: one row a batch, one column a quantity."""
        return torch.stack(self.sums).cpu().double() if self.sums else torch.zeros(0, len(self.names))

    def per_batch(self, name: str) -> list[float]:
        column = self.table()[:, self.names.index(name)]
        return [float(mean) for mean in column / torch.tensor(self.counts)]

    def result(self) -> dict[str, float]:
        means = self.table().sum(0) / max(1, sum(self.counts))
        return dict(zip(self.names, means.tolist(), strict=True))


def elbo(draw: Draw) -> Terms:
    """The yardstick: the ELBO at beta 1, whatever the model was trained on."""
    return ELBO()(draw, Progress())


def bound_of(model: BuiltModel, split: Split) -> dict[str, Tensor]:
    """Each image's reconstruction and, where there is one, KL: nats, float64 (shape N), one sample an image."""
    rows: list[Tensor] = []
    for x_BCHW in split.batches():
        terms = elbo(model.draw(x_BCHW))
        found = [terms.parts[name] for name in ("reconstruction", "kl") if name in terms.parts]
        rows.append(torch.stack(found).cpu().double())
    return dict(zip(("reconstruction", "kl"), torch.cat(rows, dim=1), strict=False))


def not_a_bound(model: BuiltModel, split: Split) -> str | None:
    """Why this model's samples give no bound, or None."""
    reasons = [model.draw(x_BCHW).not_a_bound for x_BCHW in _two_images(split)]
    return reasons[0]


def _two_images(split: Split) -> Iterator[Tensor]:
    return split.of(split.images.select(torch.arange(min(2, len(split.images))))).batches()


def note_for(model: BuiltModel, split: Split) -> str:
    """What has to be said beside a log-probability of these pixels under this likelihood."""
    if not model.binary_likelihood:
        return DENSITY_NOTES[split.pixels]
    return "" if split.pixels == "binary" else GREY_NOTE


def _repaired(model: BuiltModel, x_BCHW: Tensor) -> Tensor:
    """NELBO of each image under the density that the posterior declares, sampled from that density."""
    posterior = model.encode(x_BCHW).with_independent_noise()
    z_KBZ = posterior.rsample(1)
    log_px_KB = model.decode(z_KBZ).log_prob(x_BCHW)
    terms = elbo(Draw(z_KBZ=z_KBZ, log_px_KB=log_px_KB, posterior=posterior, prior=model.prior))
    return terms.loss_B.cpu()


@metric
def bound(model: BuiltModel, split: Split) -> Iterator[tuple[str, Value]]:
    """Reconstruction, KL and their sum, the NELBO: nats an image, at beta 1, one posterior sample an image.

    Binary pixels under a Bernoulli also give bits/dim = NELBO / (D log 2); grey ones the same quotient as
    a grey cross-entropy. Where samples do not come from the density, KL and NELBO do not exist.
    """
    reason = not_a_bound(model, split)
    per_image = bound_of(model, split)
    note = note_for(model, split)
    reconstruction = Value.over_images(per_image["reconstruction"], "nats/image", note)
    if reason:
        yield "nelbo", Value(None, "nats/image", None, f"not a bound: {reason}")
        yield "reconstruction", reconstruction
        yield "kl", Value(None, "nats/image", None, f"infinite: {reason}")
        if not hasattr(model.encode(next(_two_images(split))), "with_independent_noise"):
            return
        repaired_N = torch.cat([_repaired(model, x_BCHW) for x_BCHW in split.batches()])
        words = "what the same networks give when every dimension has its own noise; not what was trained"
        yield "nelbo_independent_noise", Value.over_images(repaired_N, "nats/image", words)
        return
    nelbo_N = per_image["reconstruction"] + per_image["kl"]
    yield "nelbo", Value.over_images(nelbo_N, "nats/image", note)
    yield "reconstruction", reconstruction
    yield "kl", Value.over_images(per_image["kl"], "nats/image")
    if model.binary_likelihood:
        bits = math.prod(split.images.shape) * math.log(2.0)
        name = "bits_per_dim" if split.pixels == "binary" else "grey_cross_entropy"
        unit = "bits/dim" if split.pixels == "binary" else "bits/pixel"
        quotient = note and f"NELBO / (D log 2), whose reconstruction is a {note}"
        yield name, Value.over_images(nelbo_N / bits, unit, quotient)
