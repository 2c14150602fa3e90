"""The events of a training as lines of text: what a terminal, a notebook and a log file show alike."""

import sys
from collections.abc import Sequence

from nelbo.core.layout import LOGGED, EpochRow
from nelbo.training import events
from nelbo.training.events import Event

QUANTITIES = {"total": "loss", "reconstruction": "recon", "kl": "KL"}


class Lines:
    """The words of a training of so many epochs, an event at a time."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bound = "NELBO"

    def of(self, event: Event) -> list[str]:
        """Return the lines of an event: none for a step."""
        match event:
            case events.DataRead():
                self.bound = event.bound
                return _of_data(event)
            case events.ModelBuilt():
                return [str(event)]
            case events.Resumed():
                return [f"going on with epoch {event.epoch}, batch {event.batch + 1}"]
            case events.TrainingBegun(compiles=True):
                return ["compiling the training step: some seconds, and saved for the next run"]
            case events.EpochDone():
                return [self._epoch(event.row)]
            case events.Warned():
                return [f"warning: {event.message}"]
        return []

    def _epoch(self, row: EpochRow) -> str:
        parts = [f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}"]
        if row.get("beta", 1.0) != 1.0:
            parts.append(f"beta {row['beta']:.3g}")
        for split in LOGGED:
            terms = row.get(split, {})
            values = [(name, terms[key]) for key, name in QUANTITIES.items() if key in terms]
            if "bound" in terms:
                values.append((self.bound, -terms["bound"]))
            if values:
                parts.append(f"{split} " + ", ".join(f"{name} {value:.2f}" for name, value in values))
        if "latent" in row:
            parts.append(f"{row['latent']['active_units']}/{row['latent']['dimensions']} active")
        if row.get("best_epoch") == row["epoch"] and "validation" in row:
            parts.append("best")
        return " | ".join(parts)


def _of_data(event: events.DataRead) -> list[str]:
    channels, height, width = event.shape
    lines = [
        f"{event.name}: {event.n['train']} training, {event.n['validation']} validation and "
        f"{event.n['test']} test images, {height} x {width} x {channels}, {event.pixels_in_words} pixels, "
        f"hash {event.hash}"
    ]
    lines += event.notes
    if event.pixels != "binary" and event.observation_kind == "binary":
        lines.append(
            "pixels between black and white under a Bernoulli: "
            "NELBO below is a cross-entropy plus KL, not a likelihood"
        )
    return lines


class OnStderr:
    """The listener of a training in Python that names none: the reasons for what was chosen, then lines, on stderr."""

    def __init__(self, epochs: int, reasons: Sequence[str] = ()) -> None:
        self.lines = Lines(epochs)
        self._write(reasons)

    def __call__(self, event: Event) -> None:
        self._write(self.lines.of(event))

    def _write(self, lines: Sequence[str]) -> None:
        # sys.stderr of now: a notebook puts its own in place. Under pythonw there is none.
        for line in lines if sys.stderr is not None else ():
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
