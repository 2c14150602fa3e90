"""The verb `nelbo compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, OnRuns
from nelbo.errors import ConfigError

if TYPE_CHECKING:
    from nelbo.evaluation.comparison import Comparison
    from nelbo.training.events import Event

FORMATS = (".png", ".pdf", ".svg")


@dataclass
class Compare(OnRuns):
    """Compare runs and seeds: settings that differ, metrics, paired differences with intervals.

    Runs that differ only in the seed are one group; the group of the first run is the baseline. Without --samples and
    --metrics the numbers are those of the runs' cards; with them, missing numbers are measured.
    """

    usage = "compare RUN RUN ..."
    summary = "several runs and seeds side by side, with confidence intervals"
    order = 40

    names: flags.RunNames = ()
    checkpoint: flags.Checkpoint = "best"
    split: flags.SplitName = "test"
    samples: Annotated[
        int | None,
        plain("K of the importance-weighted NLL; default: that of each run's fullest card", metavar="INT"),
    ] = None
    metrics: Annotated[
        str | None, plain("all, or some: bound,importance; default: those of the cards", metavar="NAMES")
    ] = None
    out: Annotated[
        Path | None, plain("the rate-distortion plot (.png, .pdf, .svg); default: in comparisons/ beside the runs",
                           metavar="FILE")
    ] = None  # fmt: skip

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.core import files
        from nelbo.core.registry import names
        from nelbo.evaluation import comparison
        from nelbo.training import store
        from nelbo.training.events import RunMeasured

        if self.out is not None:
            if self.out.suffix.lower() not in FORMATS:  # before minutes of measuring
                raise ConfigError(f"--out {self.out}: expected a file that ends in {', '.join(FORMATS)}")
            store.check_folder(self.out.parent, "--out")
        chosen = None
        if self.metrics is not None:
            every = self.metrics == "all"
            chosen = names("metric") if every else [word.strip() for word in self.metrics.split(",")]

        with console.Measuring() as listener:

            def tell(event: Event) -> None:
                if isinstance(event, RunMeasured):
                    k = f", K = {event.samples}" if "importance" in event.metrics else ""
                    console.say(f"measuring {', '.join(event.metrics)} of {event.run}{k}")
                listener(event)

            compared = comparison.compare(
                self.names, split=self.split, checkpoint=self.checkpoint, samples=self.samples, metrics=chosen,
                device=self.device, runs=self.runs, data_dir=self.data_dir, tell=tell,
            )  # fmt: skip
        for name, why in compared.left_out.items():
            console.say(f"left out {name}: {why}")
        figure, why_not = comparison.draw(compared)
        file = None
        if figure is not None:
            file = self.out or comparison.default_file(compared)
            with files.atomic(file) as temporary:  # a name without the suffix, so the format is named
                figure.savefig(temporary, format=file.suffix[1:].lower())

        def show_all() -> None:
            show(compared)
            if file:
                console.show_files([file])
            else:
                console.say(why_not)

        return Answer(compared.to_dict() | {"figure": file and str(file), "figure_note": why_not}, show_all)


def show(comparison: Comparison) -> None:
    """Print the tables of a comparison, then the meaning of their marks and the warnings."""
    from nelbo.cli import console
    from nelbo.evaluation.comparison import tables

    configuration = tables.configuration(comparison)
    printed = [
        tables.groups(comparison),
        *([configuration] if configuration else []),
        tables.metrics(comparison),
        *tables.paired(comparison),
    ]
    for place, table in enumerate(printed):
        console.show_table(table, gap=place > 0)
    notes = [note for table in printed for note in table.notes]
    notes += [f"warning: {caution.message}" for caution in comparison.warnings]
    if notes:
        console.show([""], [[note] for note in notes], fixed=0)
