"""Pixel errors of the reconstruction."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nelbo.metrics.base import Split, Value, metric
from nelbo.models import BuiltModel


@metric
def error(model: BuiltModel, split: Split) -> Iterator[tuple[str, Value]]:
    """Mean squared error a pixel between an image and the decoded posterior mean, on the scale the model sees."""
    rows = [
        (model.reconstruct(x_BCHW) - x_BCHW).float().square().flatten(1).mean(1).cpu()
        for x_BCHW in split.batches()
    ]
    note = "from the posterior mean, on the scale the model sees"
    yield "mse", Value.over_images(torch.cat(rows), "squared/pixel", note)
