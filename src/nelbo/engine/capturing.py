"""Capture: several steps recorded once as a CUDA graph and launched together, without any Python between them."""

import functools
import gc
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from nelbo.engine.dials import Dials, send

STEPS_AT_ONCE = 16  # a launch costs about ten microseconds, a small VAE's step about a hundred
WARM_UP = 3  # steps before capture: libraries choose their kernels and optimisers make their state

T = TypeVar("T")
One = Callable[[Tensor], tuple[tuple[str, ...], Tensor]]


class Recorder(Protocol):
    """A recorder of what a function launches, which launches it again. The tests have one that needs no GPU."""

    def record(self, function: Callable[[], T]) -> T: ...
    def replay(self) -> None: ...


class CUDARecorder:
    """A CUDA graph with its own memory. A recording that fails leaves streams and random numbers as they were."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graph = torch.cuda.CUDAGraph()

    def record(self, function: Callable[[], T]) -> T:
        torch.cuda.synchronize(self.device)
        with torch.cuda.device(self.device):
            index = torch.cuda.current_device()
            stream, generator = _side_stream(index), torch.cuda.default_generators[index]
            before = generator.clone_state()
            # thread_local: readers may pin memory meanwhile (data/streaming.py). The stream is also set here, as
            # torch.cuda.graph leaves it set when what was recorded is not valid.
            recording = torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local")
            try:
                with torch.cuda.stream(stream), recording:
                    return function()
            except BaseException:
                generator.graphsafe_set_state(before)  # until torch 2.12 it would stay in the recording
                raise

    def replay(self) -> None:
        self.graph.replay()


@functools.cache
def _side_stream(index: int) -> torch.cuda.Stream:
    """Return the stream on which a device records: one, as each has work space of its own that is never given back."""
    # Not torch's own, which is on whichever device was recorded first in this process.
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


class Captured:
    """A launch of `steps` steps of training.

    one       a whole step: rows of a batch -> names and sums of what it measured; updates weights and optimiser
    rows      an example of the rows of one batch
    dials     the numbers that change between steps

    A graph reads the addresses it was recorded with. Whatever it reads is kept here for as long as it lives: the
    step's closure (weights, optimiser state, compiled kernels), its inputs and its outputs.
    """

    def __init__(self, one: One, rows: Tensor, steps: int, dials: Dials, recorder: Recorder) -> None:
        self.names: tuple[str, ...] = ()
        self._one, self._dials, self._recorder = one, dials, recorder
        self._rows = torch.zeros((steps, *rows.shape), dtype=rows.dtype, device=rows.device)
        self._table_SD = torch.zeros((steps, len(dials.schedules)), device=rows.device)

        def all_steps() -> Tensor:
            sums = []
            for index in range(steps):
                if dials.schedules:  # the copy is recorded too: each step of a launch reads its own row
                    dials.numbers_D.copy_(self._table_SD[index])
                self.names, sums_Q = one(self._rows[index])
                sums.append(sums_Q)
            return torch.stack(sums)

        # Garbage may be a graph or a compiled kernel of an earlier run, and to unload one ends a recording.
        gc.collect()
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._sums_SQ: Tensor = recorder.record(all_steps)
        finally:
            if collecting:
                gc.enable()

    def __call__(self, rows: Tensor, table: list[list[float]]) -> Tensor:
        """Do the steps on `steps` batches of rows; one row of the table for each. Sums, shape (steps, Q)."""
        self._rows.copy_(rows.view_as(self._rows), non_blocking=True)
        if self._dials.schedules:
            send(table, self._table_SD)
            self._dials.shown = table[-1]
        self._recorder.replay()
        return self._sums_SQ.clone()  # the next launch writes into the same memory
