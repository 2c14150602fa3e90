"""Events: what a call that takes long tells its listener, as typed values.

`train`, `evaluate`, `compare`, `samplers.compare`, `report.write` and `bench` take `tell`, a function of one event:

    def tell(event):
        match event:
            case EpochDone(row=row):
                print(row["epoch"], row["validation"]["bound"])

A listener ignores the events that it does not know: more of them may come.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from nelbo import engine
from nelbo.core.layout import EpochRow
from nelbo.core.vocabulary import Shape


class Event:
    """Something that happened in a call that takes long."""


Tell = Callable[[Event], None]


def quiet(event: Event) -> None:
    """Ignore an event."""


# --- training ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class DataRead(Event):
    """The data are there.

    n                 images by split
    observation_kind  the set that the likelihood is a probability on, or None for a model without one
    bound             what the objective's bound is called
    notes             lines about the data for people: what is left out or not used, where the pixels stay
    """

    name: str
    shape: Shape
    n: Mapping[str, int]
    pixels: str
    hash: str
    observation_kind: str | None
    bound: str
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ModelBuilt(Event):
    """The model is built: the shapes of its input, of its latent and of its output, and its number of weights."""

    input: tuple[int, ...]
    latent: tuple[int, ...]
    output: tuple[int, ...]
    weights: int

    def __str__(self) -> str:
        shapes = " -> ".join(" x ".join(map(str, shape)) for shape in (self.input, self.latent, self.output))
        return f"network: {shapes} (channels, height, width; latent between), {self.weights:,} weights"


@dataclasses.dataclass(frozen=True, slots=True)
class Resumed(Event):
    """An interrupted run goes on in this epoch, behind this batch."""

    epoch: int
    batch: int


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingBegun(Event):
    """The first step follows; where it is compiled, that takes some seconds."""

    compiles: bool


@dataclasses.dataclass(frozen=True, slots=True)
class StepDone(Event):
    """One or more steps are done, up to this batch of the epoch. Reading what they measured waits for the device."""

    batch: int
    batches: int
    measured: engine.Measured


@dataclasses.dataclass(frozen=True, slots=True)
class EpochDone(Event):
    """An epoch is done; its row is that of metrics.jsonl."""

    row: EpochRow


@dataclasses.dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something that a person should read, and that does not stop the run."""

    message: str


# --- after training ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class MetricBegun(Event):
    """A metric, or a sampler, begins to be measured."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class MetricGoesOn(Event):
    """So much of a metric, or of a sampler, is measured."""

    name: str
    done: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class RunMeasured(Event):
    """A run of a comparison lacks these metrics, and is measured now."""

    run: str
    metrics: tuple[str, ...]
    samples: int


@dataclasses.dataclass(frozen=True, slots=True)
class RunOpened(Event):
    """A report comes to this run."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class PictureBegun(Event):
    """A report draws this picture."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class BenchBegun(Event):
    """A recipe is timed on these sides, each so many times."""

    recipe: str
    sides: Sequence[str]
    repeat: int


@dataclasses.dataclass(frozen=True, slots=True)
class LapDone(Event):
    """One side was timed once: the seconds of each epoch."""

    side: str
    turn: int
    epochs: Sequence[float]


@dataclasses.dataclass(frozen=True, slots=True)
class SideLeftOut(Event):
    """One side cannot train this recipe."""

    side: str
    why: str
