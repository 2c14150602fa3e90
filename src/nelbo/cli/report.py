"""The verb `nelbo report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

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

    runs_: Positional[
        Annotated[
            tuple[str, ...],
            plain("run folders, their names under --runs, or latest", name="runs", metavar="RUN ..."),
        ]
    ]
    checkpoint: flags.Checkpoint = "best"
    split: flags.SplitName = "test"
    samples: Annotated[
        int | None,
        plain("K of the importance-weighted NLL; default: what was measured, otherwise 500", metavar="INT"),
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

        request = report.Request(
            checkpoint=self.checkpoint, split=self.split, samples=self.samples, pictures=_names(self.pictures),
            device=self.device, data_dir=self.data_dir, imports=tuple(map(str, self.import_)),
        )  # fmt: skip
        with console.Measuring() as listener:
            done = report.write(self.runs_, self.out, request=request, folder=self.runs, tell=listener)
        about = {"file": str(done.file), "bytes": done.file.stat().st_size, "runs": list(done.left_out)}
        return Answer(about | {"left_out": done.left_out}, lambda: console.show_files([done.file]))


def _names(text: str) -> list[str] | None:
    """Return None for `all` and no name for `none`; a misspelled name is refused with the nearest."""
    from nelbo.core.registry import lookup

    if text == "all":
        return None
    chosen = [] if text == "none" else [word.strip() for word in text.split(",") if word.strip()]
    if not chosen and text != "none":
        raise ConfigError("--pictures: expected all, none, or names as in samples,scatter")
    for name in chosen:
        lookup("picture", name)
    return chosen
