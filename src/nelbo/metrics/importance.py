"""The importance-weighted estimate of the log-likelihood."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time

import torch
from torch import Tensor

from nelbo.core import files
from nelbo.errors import RunError
from nelbo.metrics.base import Missing, Number, Split, Value, Values, metric
from nelbo.metrics.bound import bits, likelihood_kind, not_a_bound, note_for
from nelbo.models.base import BuiltModel

DECODED_AT_ONCE = 4096  # images times samples of a piece: few images, so that each is encoded seldom
SAVE_SECONDS = 10.0  # between two savings of what is done
NUMBERS = {
    "iw_nll": Number("IW NLL", better="lower"),
    "iw_bits_per_dim": Number("IW bits per dim", better="lower"),
    "iw_nll_curve": Number("IW NLL curve"),
}


@metric(order=20, learns=False, numbers=NUMBERS)
def importance(model: BuiltModel, split: Split) -> Values:
    """-log 1/K sum_k p(x, z_k) / q(z_k | x), nats an image, z_k ~ q(z | x) (Burda et al. 2016, eq. 8).

    An upper bound on the negative log-likelihood in expectation, and below the NELBO. States K, its standard
    error over images, the same number at K/10 (where the two differ, K is still too small) and how many of the
    K samples carry the weight; the curve has the estimate for every K on the way, of nested samples.
    Interrupted, it goes on at the image where it stopped.
    """
    if split.samples < 1:
        return
    if reason := not_a_bound(model, split):
        yield "iw_nll", Value.none("nats/image", Missing("not a bound", reason))
        return
    at = curve_points(split.samples)
    nll_PN, effective_N = estimates(model, split, at)
    fewer = max(1, split.samples // 10)
    less = float(nll_PN[at.index(fewer)].mean())
    effective = float(effective_N.median())
    note = f"K = {split.samples}; {less:.2f} at K = {fewer}; effective samples {effective:.1f} of an image (median)"
    kind = likelihood_kind(model, split)
    note = "; ".join(filter(None, [note, note_for(kind)]))
    conditions: dict[str, str | int] = {"likelihood": kind, "K": split.samples}
    details = {"fewer_samples": fewer, "at_fewer_samples": less, "effective_samples": effective}
    value = Value.over_images(nll_PN[-1], "nats/image", note, conditions)
    yield "iw_nll", dataclasses.replace(value, details=details)
    in_bits = bits(nll_PN[-1], split, model)
    if in_bits and in_bits[0] == "bits_per_dim":  # and no estimate of a grey cross-entropy
        _, unit, bits_N, words = in_bits
        yield "iw_bits_per_dim", Value.over_images(bits_N, unit, words, conditions)
    words = f"at K = {', '.join(map(str, at))}, of nested samples"
    curve = nll_PN.mean(1).tolist()
    yield "iw_nll_curve", Value(curve, "nats/image", None, words, conditions=conditions)


def curve_points(samples: int) -> list[int]:
    """Return the K of the points of the curve: 1, 2, 5, 10, 20, 50, ... up to `samples`, and a tenth of it."""
    powers = [digit * 10**power for power in range(len(str(samples))) for digit in (1, 2, 5)]
    return sorted({*(k for k in powers if k < samples), max(1, samples // 10), samples})


def estimates(model: BuiltModel, split: Split, at: list[int]) -> tuple[Tensor, Tensor]:
    """Return -log p(x) of each image for P values of K, nats, shape (P, N), and its effective sample size; float64.

    The effective sample size, shape N, is (sum w)^2 / sum w^2 at the largest K: how many equal weights would vary as
    little (Kong 1992). Batches are so small that many samples of each image are decoded together.
    """
    size = max(1, min(500, DECODED_AT_ONCE // min(at[-1], 128)))
    nll_PN, effective_N = torch.zeros(len(at), 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    # All that the numbers depend on beside weights and data, so that none is taken for another.
    noise = f"{split.device.type}-s{split.seed}"
    name = f"importance-{noise}-n{len(split.images)}-b{size}-k{at[-1]}.safetensors"
    file = None if split.scratch is None else split.scratch / name
    if file is not None and file.is_file():
        with contextlib.suppress(RunError):  # cut off while it was written: measured again
            tensors, _ = files.read_tensors(file)
            nll_PN, effective_N = tensors["nll"], tensors["effective"]

    def save() -> None:
        if file is not None and len(effective_N):
            files.write_tensors(file, {"nll": nll_PN, "effective": effective_N}, {})

    saved = time.monotonic()
    try:
        for x_BCHW in split.batches(size, start=len(effective_N) // size):
            nll_PB, effective_B = _of_batch(model, x_BCHW, at)
            nll_PN = torch.cat([nll_PN, nll_PB], 1)
            effective_N = torch.cat([effective_N, effective_B])
            split.tell(len(effective_N), len(split.images))
            if time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()
    except BaseException:  # KeyboardInterrupt too: no batch is measured twice
        save()
        raise
    return nll_PN, effective_N


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
