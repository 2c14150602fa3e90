"""The case that the doctor examines: the parts of a run, a configuration or data that are at hand."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from nelbo.data import Images, Splits
from nelbo.doctor.command import Change, distinct_command
from nelbo.errors import NelboError
from nelbo.metrics import LatentStatistics, Split, latent_statistics
from nelbo.models import BuiltModel
from nelbo.training.api import FROM_PYTHON
from nelbo.training.recipe import Recipe
from nelbo.training.store import Run

T = TypeVar("T")
Row = dict[str, Any]  # a line of metrics.jsonl: numbers, and tables of them by part
Kind = Literal["run", "config", "data"]
Part = Literal["configuration", "data", "history", "weights"]
LOOKED_AT = 2000  # images of a split that a model is looked at with


class NotLooked(NelboError):
    """The reason why a check cannot tell."""


@dataclasses.dataclass(eq=False)
class Case:
    """The subject of a diagnosis. A part that is None is in `missing`, with the reason.

    configuration  what decides what a run is
    data           the splits, as a model sees them
    run            the folder, whose metrics.jsonl is the history
    weights        the model of the run's best checkpoint
    source         what names the subject on a command line (`runs/x/config.toml`, `fashion-mlp`, `photos`); where it
                   has no name there, an expression of Python, and `in_python` is true
    images         those that were passed from Python
    data_fields    the fields of `[data]` with which data alone was read: size, range
    """

    subject: str
    kind: Kind
    source: str
    device: torch.device
    missing: dict[Part, str]
    configuration: Recipe | None = None
    data: Splits | None = None
    run: Run | None = None
    weights: BuiltModel | None = None
    in_python: bool = False
    images: object | None = None
    data_dir: Path | None = None
    data_fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
    imports: tuple[str, ...] = ()
    _results: dict[str, object] = dataclasses.field(default_factory=dict, repr=False)

    def _present(self, part: Part, value: T | None) -> T:
        if value is None:
            raise NotLooked(self.missing[part])
        return value

    @property
    def recipe(self) -> Recipe:
        return self._present("configuration", self.configuration)

    @property
    def splits(self) -> Splits:
        return self._present("data", self.data)

    @property
    def model(self) -> BuiltModel:
        return self._present("weights", self.weights)

    @cached_property
    def raw(self) -> Splits:
        """The images before transforms: binarised ones are often equal where grey ones are not."""
        spec = self.configuration.data if self.configuration is not None else None
        if spec is None or not spec.transforms:
            return self.splits
        return spec.model_copy(update={"transforms": ()}).load(self.data_dir, self.images)

    @cached_property
    def epochs(self) -> list[Row]:
        """The logged epochs, oldest first; empty where there is no history."""
        return self.run.history() if self.run is not None else []

    def view(self, name: str, n: int = LOOKED_AT) -> Split:
        """Return at most n images of a split, evenly spaced through it, as a model is measured on them.

        In place of a test split that is not there it is the one that is measured: validation, or train.
        """
        return Split(some(self.splits.split(self._there(name)), n), self.splits, self.device)

    def _there(self, name: str) -> str:
        return self.splits.measured if name == "test" else name

    def looked(self, name: str) -> str:
        """Return `2,000 of 10,000 test images`."""
        name = self._there(name)
        n = len(self.splits.split(name))
        return f"{n:,} {name} images" if n <= LOOKED_AT else f"{LOOKED_AT:,} of {n:,} {name} images"

    @cached_property
    def statistics(self) -> LatentStatistics:
        """The latent statistics of the test images that are examined."""
        return latent_statistics(self.model, self.view("test"))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return the result of `make`, computed at the first call only."""
        if name not in self._results:
            self._results[name] = make()
        return cast("T", self._results[name])

    def retrain(self, changes: Mapping[str, object], name: str = "") -> Change:
        """Return the training of this subject with some fields changed: {"objective.beta": 1.0}."""
        folder = self.run.path.parent if self.run is not None else Path("runs")
        flags = {"runs": "" if folder == Path("runs") else str(folder), "name": name}
        passed = self._images_are_passed
        return Change(self.source, dict(changes), flags, self.imports, self.in_python, with_images=passed)

    def resume(self) -> Change:
        """Return the training that goes on with this run."""
        assert self.run is not None
        return self.retrain({}, self.run.path.name)

    def with_data(self, changes: Mapping[str, object]) -> Change:
        """Return the training with fields of the data changed; data alone is trained on with the digits' recipe."""
        if self.configuration is not None:
            return self.retrain(changes)
        changes = {"data.transforms": [], **changes}
        if self.in_python:
            return Change("'digits'", changes, in_python=True, with_images=True)
        fields = {f"data.{name}": value for name, value in self.data_fields.items()}
        return Change("digits", {"data": self.source, **fields, **changes}, imports=self.imports)

    def without_copies(self) -> str:
        """Return the line that makes the data without blank and repeated images."""
        if self._images_are_passed:
            return "images = nelbo.doctor.distinct(images)"
        if self.configuration is None:
            return distinct_command(self.source, self.data_fields)
        spec = self.configuration.data
        reading = {"size": spec.size, "channels-last": spec.channels_last}
        return distinct_command(
            spec.source, {name: value for name, value in reading.items() if value is not None}
        )

    @property
    def _images_are_passed(self) -> bool:
        source = self.configuration.data.source if self.configuration is not None else ""
        return self.images is not None or source == FROM_PYTHON


def some(images: Images, n: int) -> Images:
    """Return at most n of these images, evenly spaced: of every class where they are sorted by class."""
    return images if len(images) <= n else images.select(spaced(len(images), n))


def spaced(total: int, n: int) -> Tensor:
    """Return n positions out of `total`, evenly spaced, each once."""
    return torch.arange(n) * total // n
