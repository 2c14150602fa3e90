"""The tables in the files of a run folder, key by key: `env.json`, `summary.json`, `metrics.jsonl`, `evaluation/`."""

from __future__ import annotations

from typing import Literal, TypedDict

Logged = Literal["train", "validation"]
LOGGED: tuple[Logged, ...] = ("train", "validation")
"""The splits of which an epoch has means."""


class DataFacts(TypedDict, total=False):
    """The data of a run; `n` counts the images of each split, `factors` the values of each known factor.

    range  the smallest and the largest value that a model may see, and `dtype` that of the pixels before transforms of
           batches; older runs have neither
    notes  lines for people: what of the data is left out or not used, and where large ones stay
    unreadable  image files that were left out because they cannot be read
    """

    name: str
    hash: str
    shape: list[int]
    pixels: Literal["binary", "dequantised", "grey", "real"]
    range: list[float]
    dtype: str
    n: dict[str, int]
    class_names: list[str] | None
    factors: dict[str, int] | None
    notes: list[str]
    unreadable: list[str]


class Environment(TypedDict, total=False):
    """The machine and the code. `uncommitted` is true where `git` is not all of the code."""

    platform: str
    python: str
    processor: str
    cores: int | None
    threads: int
    packages: dict[str, str]
    gpus: list[str]
    device: str
    git: str
    uncommitted: bool
    command: str
    data: DataFacts
    earlier: list[Environment]


class LatentRow(TypedDict):
    """The latent after an epoch; nats for each dimension, or None where dimensions have no KL of their own."""

    active_units: int
    dimensions: int
    kl_per_dimension: list[float] | None


class EpochRow(TypedDict, total=False):
    """One epoch: means over images of each logged quantity, and seconds by clock since training began."""

    event: str
    epoch: int
    step: int
    beta: float
    train: dict[str, float]
    validation: dict[str, float]
    latent: LatentRow
    seconds: dict[str, float]
    best_epoch: int
    how: Execution  # part of the format of files: not to be renamed
    warning: str


class Execution(TypedDict, total=False):
    """The way that steps really ran."""

    precision: str
    compiled: bool
    steps_at_once: int
    threads: int


class Summary(Execution, total=False):
    """A finished training."""

    finished: bool
    epochs: int
    best_epoch: int
    selection: str
    images_per_second: float
    seconds: dict[str, float]
    device: str
    batch_size: int
    metrics: dict[str, Entry]


class Entry(TypedDict):
    """One number of a card; see `nelbo.metrics.Value` for the keys."""

    value: float | list[float] | None
    unit: str
    standard_error: float | None
    note: str
    missing: str
    conditions: dict[str, str | int]
    details: dict[str, float]
    warning: str


class Measurement(TypedDict, total=False):
    """The weights that were measured, and how and where."""

    run: str
    checkpoint: str
    epoch: int
    weights: str
    data_hash: str
    seed: int
    precision: str
    environment: Environment


class Card(Measurement, total=False):
    """An evaluation; see `nelbo.evaluate`. `earlier` holds the environment of sections that were measured before.

    `other_data` is the name of data that the run was not trained on; it is absent on a card of the run's own.
    """

    split: str
    other_data: str
    n: int
    samples: int
    images_hash: str
    log_px: str
    seconds: float
    metrics: dict[str, Entry]
    sections: dict[str, list[str]]
    earlier: dict[str, Environment]


class SamplerRow(TypedDict, total=False):
    """One sampler on the validation images: its configuration and its numbers, or the reason for a refusal."""

    config: dict[str, object]
    copies: bool
    seconds: dict[str, float]
    metrics: dict[str, Entry]
    refused: str


class OnSplit(TypedDict, total=False):
    """The distances on one split: of the chosen sampler, and of references."""

    n: int
    metrics: dict[str, Entry]
    references: dict[str, Entry]


class SamplerChoice(Measurement, total=False):
    """Samplers of a run side by side; `by` is the number that chose one."""

    by: str
    samplers: dict[str, SamplerRow]
    chosen: str
    validation: OnSplit
    test: OnSplit


def number(entry: Entry | None) -> float | None:
    """Return the value of an entry that is a single number, None for a list and where there is no value."""
    value = entry["value"] if entry else None
    return None if isinstance(value, list) else value


def numbers(entry: Entry | None) -> list[float]:
    """Return the value of an entry that is a list of numbers, an empty one for a single number and without a value."""
    value = entry["value"] if entry else None
    return value if isinstance(value, list) else []
