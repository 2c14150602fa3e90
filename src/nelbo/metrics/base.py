"""The axis of metrics: functions of a built model and a split that yield (name, value)."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from nelbo.core.layout import Entry
from nelbo.core.registry import register
from nelbo.data import Batches, Images, Splits, Transform
from nelbo.engine import fixed_seed, products, seed_streams
from nelbo.models import BuiltModel

EVALUATION_BATCH = 500
EVALUATION_SEED = 20_140_501  # of the posterior samples; fixed, so that the same run gives the same numbers
TellCount = Callable[[int, int], None]  # hears (count, total) of a measurement that runs
CHOICE_SEED = 20_190_415  # of the images where there are more than are measured


class Missing(NamedTuple):
    """The reason why a number does not exist: a few words for a cell of a table, and the whole of it."""

    word: str
    why: str

    def __str__(self) -> str:
        return f"{self.word}: {self.why}"


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """One number and what it means. Programs read the other fields; `note` and `warning` are for people alone.

    value        None where the number does not exist
    missing      then: what a table shows in its place, as "infinite" or "not measured"; `note` says why
    conditions   what must be equal in two runs for this number to be compared, as {"K": 500}
    details      more about it, by name: numbers that stand beside it
    warning      a sentence that is too long for a table
    per_image_N  the number of each image where `value` is their mean: kept beside the card, so that two runs
                 can be compared image by image
    """

    value: float | list[float] | None
    unit: str
    standard_error: float | None = None
    note: str = ""
    _: dataclasses.KW_ONLY
    missing: str = ""
    conditions: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    details: Mapping[str, float] = dataclasses.field(default_factory=dict)
    warning: str = ""
    per_image_N: Tensor | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def over_images(
        cls, per_image_N: Tensor, unit: str, note: str = "", conditions: Mapping[str, str | int] | None = None
    ) -> Self:
        """Return the mean over images, in float64, with its standard error (None for one image)."""
        values = per_image_N.cpu().double()
        error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
        return cls(float(values.mean()), unit, error, note, conditions=conditions or {}, per_image_N=values)

    @classmethod
    def none(cls, unit: str, reason: Missing) -> Self:
        """Return the value of a number that does not exist."""
        return cls(None, unit, None, reason.why, missing=reason.word)

    def to_dict(self) -> Entry:
        """Return plain values; a number that is not finite becomes None and says so."""
        table: Entry = {
            "value": self.value if _finite(self.value) else None,
            "unit": self.unit,
            "standard_error": self.standard_error if _finite(self.standard_error) else None,
            "note": self.note,
            "missing": self.missing,
            "conditions": dict(self.conditions),
            "details": dict(self.details),
            "warning": self.warning,
        }
        if table["value"] is None and not self.missing:
            table["missing"] = "not finite"
        return table


def _finite(value: float | list[float] | None) -> bool:
    return all(one is None or math.isfinite(one) for one in (value if isinstance(value, list) else [value]))


@contextlib.contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Measure inside this block without gradients, in float32 whatever precision trained the networks.

    So runs that were trained in other arithmetic are measured alike, and their numbers can be compared.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False), products():
        yield


def choice(n: int, most: int, seed: int = CHOICE_SEED) -> Tensor:
    """Return a fixed choice of at most so many of n positions, rising."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def unheard(count: int, total: int) -> None:
    """Hear the progress of a measurement and say nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """A split of the data as a model is measured on it: fixed order, fixed binarisation, fixed noise.

    images    the split itself
    data      all splits of the data: what a probe or a classifier is trained on, the range of the pixels, the hash
    samples   K of the importance-weighted estimate; 0 leaves it out
    seed      of the posterior samples
    scratch   a folder in which a long measurement keeps its finished part, to go on after an interruption;
              its files belong to these very weights. None keeps nothing
    tell      hears (count, total) of the measurement that runs
    named     the metric was named by the user: one that would otherwise be silent says why it has nothing to say
    """

    images: Images
    data: Splits
    device: torch.device
    _: dataclasses.KW_ONLY
    samples: int = 500
    seed: int = EVALUATION_SEED
    batch_size: int = EVALUATION_BATCH
    scratch: Path | None = None
    tell: TellCount = unheard
    named: bool = False

    @property
    def transforms(self) -> tuple[Transform, ...]:
        return self.data.transforms

    @property
    def pixels(self) -> str:
        """The kind of the pixels: binary, dequantised, grey or real."""
        return self.data.pixels

    def of(self, images: Images) -> Self:
        """Return the same view of other images."""
        return dataclasses.replace(self, images=images)

    def batches(self, batch_size: int | None = None, start: int = 0) -> Iterator[Tensor]:
        """Yield every image once, in order, as float32 x_BCHW; measured `exactly`, with the split's own noise.

        `start` counts batches. Each has a seed of its own, so that its noise does not depend on the batches before:
        a measurement that goes on at a later batch gets the same numbers.
        """
        size = batch_size or self.batch_size
        loader = Batches(self.images, self.transforms, size, device=self.device)
        with exactly(self.device), fixed_seed(self.seed, self.device):
            for index, x_BCHW in enumerate(loader.epoch(start=start), start):
                seed_streams(self.seed + index, self.device)
                yield x_BCHW


Values = Iterator[tuple[str, Value]]
Measure = Callable[[BuiltModel, Split], Values]
Better = Literal["lower", "higher", ""]


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """Facts about one number that a metric yields.

    label   its name in tables; "" makes one of its key: `active_units` becomes "Active units"
    title   its name on the card of a single run, where that is longer than the label
    better  the direction that is better in itself; "" where it is traded against others, as reconstruction and KL
    """

    label: str = ""
    title: str = ""
    better: Better = ""


def nothing(units: Mapping[str, str], reason: Missing) -> Values:
    """Yield numbers that do not exist, all for one reason; `units` has their names."""
    for name, unit in units.items():
        yield name, Value.none(unit, reason)


def under(values: Values, conditions: Mapping[str, str | int]) -> Values:
    """Yield the same values under more conditions."""
    for name, value in values:
        yield name, dataclasses.replace(value, conditions={**value.conditions, **conditions})


@dataclasses.dataclass
class Metric:
    """A registered metric: a function of a model and a split that yields (name, Value), and the facts about it.

    order         place of its section on a card; sections of equal order follow by name
    quick         measured at the end of training; `nelbo evaluate` measures all
    depends_on_k  its numbers may change with the number of samples K, so that no card of another K can give them
    learns        it also learns from the training images (a classifier, a probe): its numbers are compared only
                  between runs of the same training images
    label         the name of its section; "" makes one of its own
    numbers       facts about its numbers, by name; those without any need not be named
    """

    function: Measure
    order: int
    quick: bool
    depends_on_k: bool
    learns: bool
    label: str
    numbers: Mapping[str, Number]

    def __post_init__(self) -> None:
        functools.update_wrapper(self, self.function)  # its name and its docstring, which is the help text

    def __call__(self, model: BuiltModel, split: Split) -> Values:
        return self.function(model, split)


def metric(
    *,
    order: int = 100,
    quick: bool = False,
    depends_on_k: bool = True,
    learns: bool = True,
    label: str = "",
    numbers: Mapping[str, Number] | None = None,
) -> Callable[[Measure], Metric]:
    """Register a function as the metric of its name, with underscores as hyphens; see `Metric` for the facts.

    The defaults are the careful ones: a number of an unknown metric is measured again for every K, and is compared
    only between runs of the same training images.
    """

    def registered(function: Measure) -> Metric:
        name = function.__name__.replace("_", "-")
        facts = Metric(function, order, quick, depends_on_k, learns, label, numbers or {})
        return register("metric", name, facts)

    return registered
