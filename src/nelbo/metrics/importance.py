"""The importance-weighted estimate of the log-likelihood."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from nelbo.core import files
from nelbo.errors import RunError
from nelbo.metrics.base import Missing, Number, Split, Value, Values, metric
from nelbo.metrics.bound import bits, draw_of_two, likelihood_kind, note_for
from nelbo.models.base import BuiltModel

DECODED_AT_ONCE = 4096  # images times samples of a piece: few images, so that each is encoded seldom
SAVE_SECONDS = 10.0  # between two savings of what is done


@metric(
    order=20,
    learns=False,
    numbers={
        "iw_nll": Number("IW NLL", better="lower"),
        "iw_bits_per_dim": Number("IW bits per dim", better="lower"),
        "iw_nll_curve": Number("IW NLL curve"),
    },
)
def importance(model: BuiltModel, split: Split) -> Values:
    """-log 1/K sum_k p(x, z_k) / q(z_k | x), nats an image, z_k ~ q(z | x) (Burda et al. 2016, eq. 8).

    An upper bound on the negative log-likelihood in expectation, and below the NELBO. States K, its standard
    error over images, the same number at K/10 (where the two differ, K is still too small) and how many of the
    K samples carry the weight; the curve has the estimate for every K on the way, of nested samples.
    Interrupted, it goes on at the image where it stopped.
    """
    if split.samples < 1:
        return
    if reason := draw_of_two(model, split).not_a_bound:
        yield "iw_nll", Value.none("nats/image", Missing("not a bound", reason))
        return
    at = curve_points(split.samples)
    estimates = Estimates.measured(model, split, at)
    nll_N = estimates.nll_PN[-1]
    fewer = max(1, split.samples // 10)
    less = float(estimates.nll_PN[at.index(fewer)].mean())
    effective = float(estimates.effective_N.median())
    note = f"K = {split.samples}; {less:.2f} at K = {fewer}; effective samples {effective:.1f} of an image (median)"
    kind = likelihood_kind(model, split)
    note = "; ".join(filter(None, [note, note_for(kind)]))
    conditions: dict[str, str | int] = {"likelihood": kind, "K": split.samples}
    details = {"fewer_samples": fewer, "at_fewer_samples": less, "effective_samples": effective}
    value = Value.over_images(nll_N, "nats/image", note, conditions)
    yield "iw_nll", dataclasses.replace(value, details=details)
    in_bits = bits(nll_N, split, model)
    if in_bits and in_bits[0] == "bits_per_dim":  # and no estimate of a grey cross-entropy
        _, unit, bits_N, words = in_bits
        yield "iw_bits_per_dim", Value.over_images(bits_N, unit, words, conditions)
    words = f"at K = {', '.join(map(str, at))}, of nested samples"
    curve = estimates.nll_PN.mean(1).tolist()
    yield "iw_nll_curve", Value(curve, "nats/image", None, words, conditions=conditions)


def curve_points(samples: int) -> list[int]:
    """Return the K of the points of the curve: 1, 2, 5, 10, 20, 50, ... up to `samples`, and a tenth of it."""
    powers = [digit * 10**power for power in range(len(str(samples))) for digit in (1, 2, 5)]
    return sorted({*(k for k in powers if k < samples), max(1, samples // 10), samples})


@dataclasses.dataclass
class Estimates:
    """-log p(x) of each image so far, for P values of K; nats, float64.

    nll_PN       the estimates, shape (P, images done)
    effective_N  (sum w)^2 / sum w^2 at the largest K: how many equal weights would vary as little (Kong 1992)
    """

    nll_PN: Tensor
    effective_N: Tensor

    @classmethod
    def measured(cls, model: BuiltModel, split: Split, at: list[int]) -> Estimates:
        """Measure every image of the split, in batches so small that many samples of each are decoded together."""
        size = max(1, min(500, DECODED_AT_ONCE // min(at[-1], 128)))
        estimates = cls(torch.zeros(len(at), 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        file = None
        if split.scratch is not None:
            # All that the numbers depend on beside weights and data, so that none is taken for another.
            noise = f"{split.device.type}-s{split.seed}"
            name = f"importance-{noise}-n{len(split.images)}-b{size}-k{at[-1]}.safetensors"
            file = split.scratch / name
            with contextlib.suppress(RunError):  # cut off while it was written: measured again
                tensors, _ = files.read_tensors(file) if file.is_file() else ({}, {})
                estimates = cls(tensors["nll"], tensors["effective"]) if tensors else estimates
        saved = time.monotonic()
        try:
            for x_BCHW in split.batches(size, start=len(estimates.effective_N) // size):
                nll_PB, effective_B = _of_batch(model, x_BCHW, at)
                estimates.nll_PN = torch.cat([estimates.nll_PN, nll_PB], 1)
                estimates.effective_N = torch.cat([estimates.effective_N, effective_B])
                split.tell(len(estimates.effective_N), len(split.images))
                if time.monotonic() - saved > SAVE_SECONDS:
                    estimates._save(file)
                    saved = time.monotonic()
        except BaseException:  # KeyboardInterrupt too: no batch is measured twice
            estimates._save(file)
            raise
        return estimates

    def _save(self, file: Path | None) -> None:
        if file is not None and len(self.effective_N):
            files.write_tensors(file, {"nll": self.nll_PN, "effective": self.effective_N}, {})


def _of_batch(model: BuiltModel, x_BCHW: Tensor, at: list[int]) -> tuple[Tensor, Tensor]:
    """Return -log p(x) for each K of `at`, shape (P, B), and the effective sample size, shape B; memory flat in K."""
    total_B = torch.full((len(x_BCHW),), -math.inf, dtype=torch.float64)
    squares_B, count, sums = total_B, 0, []
    for piece_KB in model.log_weight_pieces(x_BCHW, at[-1]):
        log_w_KB = piece_KB.cpu()
        for k in at:  # points within this piece
            if count < k < count + len(log_w_KB):
                sums.append(torch.logaddexp(total_B, log_w_KB[: k - count].logsumexp(0)))
        total_B = torch.logaddexp(total_B, log_w_KB.logsumexp(0))
        squares_B = torch.logaddexp(squares_B, (2.0 * log_w_KB).logsumexp(0))
        count += len(log_w_KB)
        if count in at:  # and one at its end, where the sum of the whole piece is the one that counts
            sums.append(total_B)
    nll_PB = torch.stack([math.log(k) - sum_B for k, sum_B in zip(at, sums, strict=True)])  # eq. 8
    return nll_PB, (2.0 * total_B - squares_B).exp()  # (sum w)^2 / sum w^2, of logarithms
