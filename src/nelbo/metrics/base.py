"""What a metric is: a function of a built model and a split that yields (name, value)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from nelbo.core import register
from nelbo.data import Batches, Images, Transform
from nelbo.engine import Precision, autocast, fixed_seed
from nelbo.models import BuiltModel

EVALUATION_BATCH = 500
EVALUATION_SEED = 20_140_501  # of the posterior samples; fixed, so that the same run gives the same numbers


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """One number and what it means. `value` is None where the number does not exist; `note` says why."""

    value: float | list[float] | None
    unit: str
    standard_error: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain values; a number that is not finite becomes None and says so."""
        table = dataclasses.asdict(self)
        for key in ("value", "standard_error"):
            numbers = table[key] if isinstance(table[key], list) else [table[key]]
            if any(number is not None and not math.isfinite(number) for number in numbers):
                table[key] = None
                table["note"] = f"not finite: {self.note}" if key == "value" else table["note"]
        return table


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """A split of the data as a model is measured on it: fixed order, fixed binarisation, fixed noise."""

    images: Images
    transforms: tuple[Transform, ...]
    pixels: str  # binary, grey or real
    device: torch.device
    precision: Precision = "fp32"
    samples: int = 500  # K of the importance-weighted estimate; 0 leaves it out
    seed: int = EVALUATION_SEED
    batch_size: int = EVALUATION_BATCH

    def batches(self, batch_size: int | None = None) -> Iterator[Tensor]:
        """Every image once, in order, as float32 x_BCHW; without gradients, with the split's own noise."""
        size = batch_size or self.batch_size
        loader = Batches(self.images, self.transforms, size, device=self.device)
        with torch.no_grad(), fixed_seed(self.seed, self.device), autocast(self.device, self.precision):
            yield from loader.epoch()


Metric = Callable[[BuiltModel, Split], Iterator[tuple[str, Value]]]


def metric(function: Metric) -> Metric:
    """Registers a metric under its function's name."""
    return register("metric", function.__name__.replace("_", "-"), function)


def mean_and_error(per_image_N: Tensor) -> tuple[float, float | None]:
    """Mean over images and the standard error of that mean (None for one image), in float64."""
    values = per_image_N.cpu().double()
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return float(values.mean()), error
