"""The axis of metrics: functions of a built model and a split that yield (name, value)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nelbo.core.registry import register
from nelbo.data import Batches, Images, Splits, Transform
from nelbo.engine import fixed_seed, products, seed_streams
from nelbo.models import BuiltModel

EVALUATION_BATCH = 500
EVALUATION_SEED = 20_140_501  # of the posterior samples; fixed, so that the same run gives the same numbers


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """One number and what it means. `value` is None where the number does not exist; `note` says why.

    per_image_N  the number of each image where `value` is their mean: kept beside the card, so that two runs
                 can be compared image by image
    """

    value: float | list[float] | None
    unit: str
    standard_error: float | None = None
    note: str = ""
    per_image_N: Tensor | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def over_images(cls, per_image_N: Tensor, unit: str, note: str = "") -> Self:
        """The mean over images, in float64, with its standard error (None for one image)."""
        values = per_image_N.cpu().double()
        error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
        return cls(float(values.mean()), unit, error, note, values)

    def to_dict(self) -> dict[str, Any]:
        """As plain values; a number that is not finite becomes None and says so."""
        table: dict[str, Any] = {
            "value": self.value,
            "unit": self.unit,
            "standard_error": self.standard_error,
            "note": self.note,
        }
        for key in ("value", "standard_error"):
            numbers = table[key] if isinstance(table[key], list) else [table[key]]
            if any(number is not None and not math.isfinite(number) for number in numbers):
                table[key] = None
                table["note"] = f"not finite: {self.note}" if key == "value" else table["note"]
        return table


@contextlib.contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Measure inside this block without gradients, in float32 whatever precision trained the networks.

    So runs that were trained in other arithmetic are measured alike, and their numbers can be compared.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False), products():
        yield


def unheard(done: int, total: int) -> None:
    """Hear how far a measurement is and says nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """A split of the data as a model is measured on it: fixed order, fixed binarisation, fixed noise.

    images    the split itself
    data      all splits of the data: what a probe or a classifier is trained on, the range of the pixels, the hash
    samples   K of the importance-weighted estimate; 0 leaves it out
    seed      of the posterior samples
    scratch   a folder in which a long measurement keeps what it has done, to go on after an interruption;
              what is there belongs to these very weights. None keeps nothing
    tell      hears (done, total) of the measurement that runs
    asked     the metric was named by the user: one that would otherwise be silent says why it has nothing to say
    """

    images: Images
    data: Splits
    device: torch.device
    _: dataclasses.KW_ONLY
    samples: int = 500
    seed: int = EVALUATION_SEED
    batch_size: int = EVALUATION_BATCH
    scratch: Path | None = None
    tell: Callable[[int, int], None] = unheard
    asked: bool = False

    @property
    def transforms(self) -> tuple[Transform, ...]:
        return self.data.transforms

    @property
    def pixels(self) -> str:
        """binary, dequantised, grey or real."""
        return self.data.pixels

    def of(self, images: Images) -> Self:
        """The same view of other images."""
        return dataclasses.replace(self, images=images)

    def batches(self, batch_size: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """Every image once, in order, as float32 x_BCHW; measured `exactly`, with the split's own noise.

        `start` counts batches. Each has a seed of its own, so that what is drawn for it does not depend on
        what was drawn before: a measurement that goes on at a later batch gets the same numbers.
        """
        size = batch_size or self.batch_size
        loader = Batches(self.images, self.transforms, size, device=self.device)
        with exactly(self.device), fixed_seed(self.seed, self.device):
            for index, x_BCHW in enumerate(loader.epoch(start=start), start):
                seed_streams(self.seed + index, self.device)
                yield x_BCHW


Metric = Callable[[BuiltModel, Split], Iterator[tuple[str, Value]]]


def metric(function: Metric) -> Metric:
    """Register a metric under its function's name."""
    return register("metric", function.__name__.replace("_", "-"), function)
