"""The importance-weighted estimate of the log-likelihood."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nelbo.metrics.base import Split, Value, metric
from nelbo.metrics.bound import not_a_bound, note_for
from nelbo.models.base import BuiltModel, log_mean_weight


@metric
def importance(model: BuiltModel, split: Split) -> Iterator[tuple[str, Value]]:
    """-log 1/K sum_k p(x, z_k) / q(z_k | x), nats an image (Burda et al. 2016, eq. 8).

    An upper bound on the negative log-likelihood in expectation. States K, its standard error over
    images, and the same number at K/10: where the two differ, K is still too small.
    """
    if split.samples < 1:
        return
    reason = not_a_bound(model, split)
    if reason:
        yield "iw_nll", Value(None, "nats/image", None, f"not a bound: {reason}")
        return
    fewer = max(1, split.samples // 10)
    estimates, at_fewer = [], []
    for x_BCHW in split.batches(batch_size=100):
        log_w_KB = model.log_weights(x_BCHW, split.samples)
        estimates.append(-log_mean_weight(log_w_KB).cpu())
        at_fewer.append(-log_mean_weight(log_w_KB[:fewer]).cpu())
    less = float(torch.cat(at_fewer).double().mean())
    note = "; ".join(
        filter(None, [f"K = {split.samples}; {less:.2f} at K = {fewer}", note_for(model, split)])
    )
    yield "iw_nll", Value.over_images(torch.cat(estimates), "nats/image", note)
