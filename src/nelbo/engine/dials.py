"""Schedules inside a compiled or captured step: numbers that are read from a tensor and set from outside.

A compiled step is made once, and a captured one is replayed without any Python: a number that a schedule gives
must not be built into them. Each schedule of the objective is replaced by a dial on the device.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import torch
from torch import Tensor

from nelbo.core import Progress
from nelbo.core.spec import Spec
from nelbo.schedules import Constant, Schedule

S = TypeVar("S", bound=Spec)
Number = Callable[[Progress], float]  # a schedule, or anything else that changes while training


class NotFixed(Exception):
    """The reason why a step cannot be made once and repeated."""


def dial(number: Tensor) -> Callable[[object], Tensor]:
    """Return a stand-in for a schedule, which gives today's number as a 0-dimensional tensor."""
    return lambda progress: number


class Hidden:
    """A stand-in for the progress of training where only dials may know it; the number of images does not change."""

    def __init__(self, images: int = 1) -> None:
        self.images = images

    def __getattr__(self, name: str) -> NoReturn:
        raise NotFixed(f"the objective reads progress.{name} itself; a schedule as a field would do")


class Dials:
    """The dials of one step: a vector with one number for each schedule, on the device.

    numbers_D   what the step reads
    row(...)    what they should be at a moment of training, as Python numbers
    shown       what they were last set to; whoever sets `numbers_D` otherwise says so here
    """

    def __init__(self, schedules: Sequence[Number], device: torch.device) -> None:
        self.schedules = tuple(dict.fromkeys(schedules))
        self.numbers_D = torch.zeros(len(self.schedules), device=device)
        self.shown: list[float] | None = None

    def of(self, schedule: Number) -> Tensor:
        """Return the dial of a schedule, 0-dimensional; it stays the same tensor."""
        return self.numbers_D[self.schedules.index(schedule)]

    def row(self, progress: Progress) -> list[float]:
        return [schedule(progress) for schedule in self.schedules]

    def turn(self, progress: Progress) -> None:
        """Set every dial; free when nothing has changed."""
        row = self.row(progress)
        if row != self.shown:
            send(row, self.numbers_D)
            self.shown = row


def send(numbers: Sequence[float] | Sequence[Sequence[float]], to: Tensor) -> None:
    """Copy Python numbers into a tensor; does not wait for its device."""
    values = torch.tensor(numbers)
    # From ordinary memory the copy would wait until the device has done everything before it.
    to.copy_(values.pin_memory() if to.is_cuda else values, non_blocking=True)


def moving(spec: Spec) -> list[Schedule]:
    """Return the schedules anywhere in a spec whose number changes."""
    schedules: list[Schedule] = []
    for _, value in spec:
        if isinstance(value, Schedule):
            schedules += [] if isinstance(value, Constant) else [value]  # a constant may be built in
        elif isinstance(value, Spec):
            schedules += moving(value)
    return schedules


def with_dials(spec: S, dials: Dials) -> S:
    """Return the spec with its changing schedules replaced by their dials; a working copy that is never stored."""
    update: dict[str, object] = {}
    for field, value in spec:
        if isinstance(value, Schedule):
            if value in dials.schedules:
                update[field] = dial(dials.of(value))
        elif isinstance(value, Spec):
            update[field] = with_dials(value, dials)
    return spec.model_copy(update=update)  # not validated: a dial is no schedule
