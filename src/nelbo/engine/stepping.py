"""A step of training, run the fastest way that this device and this run allow: plain, compiled, captured."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nelbo.core import Progress
from nelbo.core.layout import Execution
from nelbo.engine.capturing import STEPS_AT_ONCE, WARM_UP, Captured, CUDARecorder, Recorder
from nelbo.engine.compiling import Compiled, compiling
from nelbo.engine.dials import Dials, Hidden, NotFixed, Number, moving, with_dials
from nelbo.engine.precision import products

if TYPE_CHECKING:
    from nelbo.objectives import Objective


@dataclasses.dataclass(frozen=True, slots=True)
class Now:
    """The moment of a step: the objective, the progress, and the share of the weight average.

    In a step that is made once and repeated, schedules are dials, the share is a tensor, and progress is hidden.
    """

    objective: Objective
    progress: Any  # a Progress, or Hidden, which has none of its numbers
    share: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of consecutive steps: the sum of each named quantity over each batch, on the device."""

    names: tuple[str, ...]
    sums_SQ: Tensor
    counts: list[int]


# names and sums of the quantities, and the gradients of the parameters
Gradient = tuple[tuple[str, ...], Tensor, Sequence[Tensor | None]]
Gradients = Callable[[Tensor, Now], Gradient]  # from rows of pixels
# the gradients and the moment -> new weights
Update = Callable[[Sequence[Tensor | None], Now], None]


class Step:
    """Steps of training on rows of pixels.

    gradients, update   the two halves of a step, as plain functions
    objective, share    what schedules are found in; the share of the weight average, where there is one
    images              of the training set: the one thing about progress that does not change
    compiled            whether `gradients` is compiled
    clock               a context in which the time spent on compiling and capturing is counted
    tell                hears, once, what could not be done and why

    at_once             batches that are best given together
    A batch that is shorter than `batch_size` is run as it is. On a device that records, every step reads dials:
    which steps are recorded, and so where a run was interrupted, does not show in its numbers.
    """

    def __init__(
        self,
        gradients: Gradients,
        update: Update,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        device: torch.device,
        rate: Number | None,
        share: Number | None,
        images: int,
        compiled: bool,
        clock: Callable[[str], contextlib.AbstractContextManager[None]],
        tell: Callable[[str], None],
        recorder: Callable[[torch.device], Recorder] | None = None,
    ) -> None:
        self.gradients, self.update = gradients, update
        self.objective, self.share = objective, share
        self.batch_size, self.device = batch_size, device
        self.clock, self.tell = clock, tell
        self.recorder = recorder or (CUDARecorder if device.type == "cuda" else None)
        self.by_dials = self.recorder is not None
        self.at_once = STEPS_AT_ONCE if self.recorder else 1
        self._compiled = Compiled(gradients, device) if compiled else None
        self._graphs: dict[int, Captured] = {}
        self._most_at_once = 1
        self._warm = 0
        numbers: list[Number] = [*moving(objective), *([share] if share else [])]
        if self.by_dials and rate:
            numbers.append(rate)
        self.dials = Dials(numbers, device)
        dial = self.dials.of(share) if share else None
        self.fixed = Now(with_dials(objective, self.dials), Hidden(images), dial)
        if self.by_dials and rate:
            optimizer.param_groups[0]["lr"] = self.dials.of(rate)

    @property
    def compiles(self) -> bool:
        """True if the first step compiles: a few seconds in which nothing else happens."""
        return self._compiled is not None

    @property
    def how(self) -> Execution:
        """The way that steps really ran, for the run's summary."""
        compiled = self._compiled is not None and self._compiled.ready
        return {"compiled": compiled, "steps_at_once": self._most_at_once}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Set what these steps need of torch; put it back afterwards, and give back the graphs' memory."""
        try:
            with products(), compiling() if self._compiled else contextlib.nullcontext():
                yield
        finally:
            self._graphs.clear()  # each holds this step, which holds it: the memory would wait for a collection

    def __call__(self, rows: Tensor, moments: Sequence[Progress]) -> Measured:
        """Do one step for each of `moments`; `rows` holds their batches one after the other."""
        warm = self.recorder and self._warm >= WARM_UP
        if warm and len(rows) in (self.batch_size, self.at_once * self.batch_size):
            return self._launch(rows, moments, len(moments))
        if len(moments) == 1:
            names, sums_Q = self._directly(rows, moments[0])
            return Measured(names, sums_Q[None], [len(rows)])
        batches = zip(torch.split(rows, self.batch_size), moments, strict=True)
        parts = [self(batch, [progress]) for batch, progress in batches]
        counts = [count for part in parts for count in part.counts]
        return Measured(parts[0].names, torch.cat([part.sums_SQ for part in parts]), counts)

    def _directly(self, rows: Tensor, progress: Progress) -> tuple[tuple[str, ...], Tensor]:
        """Do one step without a graph."""
        full = len(rows) == self.batch_size
        self._warm += full
        if self._compiled or self.by_dials:
            self.dials.turn(progress)
        if self.by_dials:
            now = dataclasses.replace(self.fixed, progress=progress)
        else:
            now = Now(self.objective, progress, self.share(progress) if self.share else None)
        if self._compiled and full:
            try:
                with contextlib.nullcontext() if self._compiled.ready else self.clock("compile"):
                    names, sums_Q, gradients = self._compiled(rows, self.fixed)
                self.update(gradients, now)
                return names, sums_Q
            except NotFixed as error:
                self._compiled = None
                self.tell(f"the step could not be compiled and runs as it is: {error}")
        names, sums_Q, gradients = self.gradients(rows, now)
        self.update(gradients, now)
        return names, sums_Q

    def _fixed(self, rows: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """Do a step that knows no moment: what is captured."""
        names, sums_Q, gradients = (self._compiled or self.gradients)(rows, self.fixed)
        self.update(gradients, self.fixed)
        return names, sums_Q

    def _launch(self, rows: Tensor, moments: Sequence[Progress], steps: int) -> Measured:
        """Do steps by a graph, recorded when first needed."""
        if steps not in self._graphs:
            assert self.recorder
            try:
                batch = rows[: self.batch_size]
                with self.clock("compile"):
                    recorder = self.recorder(self.device)
                    self._graphs[steps] = Captured(self._fixed, batch, steps, self.dials, recorder)
            except Exception as error:  # from now on no graphs
                # What ends a recording complains that something went wrong before; that is what was raised before.
                reason = str(error.__context__ or error).partition("\n")[0]
                self.tell(
                    f"the step could not be captured as a CUDA graph and is launched kernel by kernel: {reason}"
                )
                self.recorder, self.at_once, self._most_at_once = None, 1, 1
                self._graphs.clear()
                return self(rows, moments)
        self._most_at_once = max(self._most_at_once, steps)
        graph = self._graphs[steps]
        sums_SQ = graph(rows, [self.dials.row(progress) for progress in moments])
        return Measured(graph.names, sums_SQ, [self.batch_size] * steps)
