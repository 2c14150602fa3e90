"""The training of this project, as a user starts it, timed by the clocks that every run logs."""

import contextlib
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nelbo.bench.lap import Lap, Memory, seconds_to_target
from nelbo.core.layout import Execution
from nelbo.errors import Interrupted
from nelbo.training import api, events
from nelbo.training.recipe import Recipe, resolve


class Enough(Exception):
    """The signal that enough epochs have been timed."""


class Listener:
    """The listener to a training: collects its clocks and bounds, and ends it after `epochs`."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.images = 0
        self.clocks: list[dict[str, float]] = []
        self.bounds: list[list[float]] = []
        self.how = Execution()
        self.notes: list[str] = []
        self._sums: list[Tensor] = []
        self._counts: list[int] = []

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.DataRead():
                self.images = event.n["train"]
            case events.StepDone(measured=measured):
                if "bound" in measured.names:  # kept on the device: reading it would wait
                    self._sums.append(measured.sums_SQ[:, measured.names.index("bound")])
                    self._counts += measured.counts
            case events.Warned():
                self.notes.append(event.message)
            case events.EpochDone():
                self.clocks.append(event.row["seconds"])
                self.how = event.row["how"]
                sums_S = torch.cat(self._sums).tolist() if self._sums else []
                self.bounds.append([total / n for total, n in zip(sums_S, self._counts, strict=True)])
                self._sums, self._counts = [], []
                if len(self.clocks) == self.epochs:
                    raise Enough


def run(
    recipe: Recipe,
    overrides: Mapping[str, object],
    *,
    epochs: int,
    device: torch.device,
    data_dir: Path | None = None,
    target: float | None = None,
) -> Lap:
    """Train the first `epochs` epochs of the recipe, with schedules and choices of its whole length, and time them.

    `overrides` are dotted fields of the recipe. The clock `train` holds neither compilation, validation, latent
    statistics nor checkpoints. Where a step could not be compiled, `notes` say why. Raises what `nelbo.train` does.
    """
    # All epochs of the recipe, although training ends before: schedules and what `auto` chooses depend on them.
    plan = resolve(recipe, {**overrides, "epochs": max(epochs, recipe.epochs), "patience": None})
    memory = Memory(device)
    listener = Listener(epochs)
    with tempfile.TemporaryDirectory() as runs, contextlib.suppress(Enough):
        try:
            api.train(plan, runs=runs, name="bench", device=str(device), data_dir=data_dir, tell=listener)
        except Interrupted:  # whose message promises that the run goes on; its folder is about to go
            raise KeyboardInterrupt from None
    train = [clock["train"] for clock in listener.clocks]  # since the beginning, at the end of each epoch
    seconds = [after - before for before, after in itertools.pairwise([0.0, *train])]
    return Lap(
        epochs=tuple(seconds[1:]),
        images=listener.images,
        precision=listener.how["precision"],
        how=words(listener.how),
        threads=listener.how["threads"],
        compile_seconds=listener.clocks[-1].get("compile", 0.0),
        target_seconds=seconds_to_target(listener.bounds, seconds, target),
        peak_mb=memory.peak_mb(),
        notes=tuple(listener.notes),
    )


def words(ran: Execution) -> str:
    """Return in words how the steps were run."""
    ways = ["compiled"] if ran["compiled"] else []
    if (at_once := ran["steps_at_once"]) > 1:
        ways.append(f"captured, {at_once} steps at once")
    return ", ".join(ways) or "eager"
