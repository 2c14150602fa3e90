"""The plain values of a comparison: for tables, JSON and the report."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from nelbo.evaluation.comparison.intervals import Interval


@dataclasses.dataclass(frozen=True, slots=True)
class RunRow:
    """One run: what it cost, on what, by what code. `name` is unique within the comparison."""

    name: str
    path: str
    seed: int
    epochs: int
    best_epoch: int | None
    epoch: int
    weights: int
    train_seconds: float
    images_per_second: float
    hardware: str
    code: str


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Runs whose configuration differs only in the seed. `name` is a letter, `label` says what is special.

    log_px  the kind of log p(x | z): cross-entropy of grey pixels, density, ...; "" for a probability
    """

    name: str
    label: str
    log_px: str
    runs: tuple[RunRow, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def title(self) -> str:
        return f"{self.name}: {self.label}"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A metric of a group: the mean over seeds, its standard error (None for one seed), and each run's number.

    mean        None without a number; `missing` is then the word for it, and `note` says why
    comparable  with the baseline: same images, same kind of number, same estimator
    """

    mean: float | None
    standard_error: float | None
    values: tuple[float | None, ...]
    note: str
    comparable: bool
    missing: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric over all groups.

    better   lower, higher, or "" where neither is better in itself
    best     the group that is better than every other one, or None where an interval contains zero
    best_of  the variation in the intervals behind it: seeds, or only the images of single runs
    classes  groups whose numbers can be compared with each other
    """

    name: str
    section: str
    unit: str
    better: Literal["lower", "higher", ""]
    cells: dict[str, Cell]
    classes: tuple[tuple[str, ...], ...]
    best: str | None = None
    best_of: Literal["seeds", "images", ""] = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """A group minus the baseline in one metric, on the same images, and how sure that is.

    over_images  None where the metric is no mean over images; `note` says why
    over_seeds   None unless both groups have several seeds that differ
    """

    metric: str
    group: str
    baseline: str
    value: float
    over_images: Interval | None
    over_seeds: Interval | None
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Caution:
    """A caution to read before numbers are compared.

    about    images, likelihood, K, ...: one word for programs
    metrics  the metrics that cannot be compared because of it; empty where all can, with care
    values   the value of each group
    """

    about: str
    message: str
    metrics: tuple[str, ...] = ()
    values: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs side by side.

    n            images of the split; None where the groups were measured on different ones
    samples      K of importance-weighted numbers; None where there are none, or not all have the same
    baseline     the group of the run that was given first: the others are compared with it
    differences  configuration fields that are not the same in all groups: {field: {group: value}}
    left_out     runs that could not be compared: {name: why}
    """

    split: str
    checkpoint: str
    n: int | None
    samples: int | None
    baseline: str
    groups: tuple[Group, ...]
    differences: dict[str, dict[str, object]]
    metrics: tuple[MetricRow, ...]
    paired: tuple[Difference, ...]
    warnings: tuple[Caution, ...]
    left_out: dict[str, str]

    def group(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)

    def metric(self, name: str) -> MetricRow | None:
        return next((row for row in self.metrics if row.name == name), None)

    def to_dict(self) -> dict[str, object]:
        """Return plain tables and lists, for JSON."""
        # asdict leaves out properties, and a reader of the JSON wants the seeds.
        groups = [dataclasses.asdict(group) | {"seeds": list(group.seeds)} for group in self.groups]
        return dataclasses.asdict(self) | {"groups": groups}
