"""The verb `nelbo report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, OnRuns
from nelbo.errors import ConfigError


@dataclass
class Report(OnRuns):
    """Write one HTML page about a run, or about several beside each other; it needs no network and no other file."""

    usage = "report RUN ..."
    summary = "one HTML page of a run, or of several side by side"
    order = 50

    runs_: flags.RunNames
    checkpoint: flags.Checkpoint = "best"
    split: flags.SplitName = "test"
    samples: Annotated[
        int | None,
        plain("K of the importance-weighted NLL; default: the measured one, otherwise 500", metavar="INT"),
    ] = None
    pictures: Annotated[
        str, arg(help="all, none, or some: samples,scatter (see nelbo list picture)", metavar="NAMES")
    ] = "all"
    out: Annotated[
        Path | None,
        plain("the file; default: report.html in the run folder, or here for several runs", metavar="FILE"),
    ] = None

    def run(self) -> Answer:
        from nelbo import report
        from nelbo.cli import console
        from nelbo.core.registry import lookup

        names = [] if self.pictures in ("all", "none") else flags.names_in(self.pictures)
        if not names and self.pictures not in ("all", "none"):
            raise ConfigError("--pictures: expected all, none, or names as in samples,scatter")
        for name in names:
            lookup("picture", name)  # a misspelled name is refused before anything is measured
        request = report.Request(
            checkpoint=self.checkpoint, split=self.split, samples=self.samples, device=self.device,
            data_dir=self.data_dir, imports=tuple(map(str, self.import_)),
            pictures=None if self.pictures == "all" else names,
        )  # fmt: skip
        with console.Measuring() as listener:
            page = report.write(self.runs_, self.out, request=request, folder=self.runs, tell=listener)
        about = {"file": str(page.file), "bytes": page.file.stat().st_size, "runs": list(page.left_out)}
        return Answer(about | {"left_out": page.left_out}, lambda: console.show_files([page.file]))
