"""The verb that says what is wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, OnRuns
from nelbo.errors import ConfigError

if TYPE_CHECKING:
    from nelbo.doctor import Diagnosis


KINDS = {"run": "a run", "config": "a configuration", "data": "a set of images"}


@dataclass
class Doctor(OnRuns):
    """Diagnose a run, a configuration or data: faults with their evidence, and the changes that repair them.

    A name of both a run and something else is the run; a name of both a recipe and data is the recipe.
    The exit code is 0 whatever the findings. docs/doctor.md has a section on each finding.
    """

    usage = "doctor RUN | CONFIG | DATA"
    summary = "faults, with evidence, and the command that repairs each"
    order = 60

    subject: Positional[
        Annotated[
            str,
            plain(
                "a run (folder, name under --runs, latest), a recipe's name or FILE.toml, or data: a folder, "
                "a file of images or a data set's name",
                metavar="RUN|CONFIG|DATA",
            ),
        ]
    ]
    kind: Annotated[
        Literal["auto", "run", "config", "data"], arg(help="meaning of a name that could be several")
    ] = "auto"
    size: flags.Size = None
    distinct: Annotated[
        Path | None,
        plain("file to write: the data without blank and repeated images, for --data", metavar="FILE.npz"),
    ] = None
    overrides: flags.Overrides = field(default_factory=dict)

    @classmethod
    def settings(cls, unknown: list[str]) -> flags.Settings:
        """Take `--data.range 0,4095` and the other fields of data, for data alone."""
        return flags.dotted(unknown)

    def run(self) -> Answer:
        from nelbo import doctor
        from nelbo.cli import console
        from nelbo.doctor.opening import also

        if self.distinct is not None:
            return self._write_distinct(self.distinct)
        diagnosis = doctor.diagnose(
            self.subject, kind=self.kind, runs=self.runs, data_dir=self.data_dir,
            data_fields=flags.data_fields(self.overrides, self.size), device=self.device,
            imports=tuple(map(str, self.import_)),
        )  # fmt: skip

        def show() -> None:
            for other in also(self.subject, diagnosis.kind, self.runs) if self.kind == "auto" else []:
                console.say(f"{self.subject} is read as a {diagnosis.kind}; as {other}: --kind {other}")
            console.write("\n".join(lines(diagnosis)))

        return Answer(diagnosis.to_dict(), show)

    def _write_distinct(self, file: Path) -> Answer:
        from nelbo.cli import console
        from nelbo.core import config
        from nelbo.data import Data
        from nelbo.doctor import copies
        from nelbo.training import store

        if self.kind not in ("auto", "data"):
            raise ConfigError(f"--distinct is about data, not a {self.kind}; leave --kind at data")
        if file.suffix != ".npz":
            raise ConfigError(f"--distinct {file}: expected a file ending in .npz")
        if file.exists():  # perhaps the very data that are read
            raise ConfigError(f"--distinct {file}: there is such a file already; choose another name")
        store.check_folder(file.parent, "--distinct")
        fields = flags.data_fields(self.overrides, self.size)
        before = config.build(Data, {"source": self.subject, **fields}, "data").load(self.data_dir)
        after = copies.distinct(before)
        copies.write_npz(after, file)
        sizes = {"train": len(after.train), "test": len(after.test or ())}

        def show() -> None:
            count = f"{len(after.train):,} of {len(before.train):,}"
            console.say(f"{count} training images are new, and are written")
            console.show_files([file])
            if "range" in fields:
                console.say("its pixels are those after --data.range; leave that out when you train on it")

        dropped = len(before.train) - len(after.train)
        return Answer({"file": str(file), "n": sizes, "dropped": dropped}, show)


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield a diagnosis as text; a command stays on one line, to be copied."""
    yield f"{diagnosis.subject}, {KINDS[diagnosis.kind]}"
    for number, finding in enumerate(diagnosis.findings, 1):
        yield ""
        yield from _wrapped(f"{number}. {finding.what}", "   ", first="")
        yield f"   ({finding.severity}; {finding.check})"
        yield from _wrapped(f"Seen: {finding.evidence}.", "   ")
        yield from _wrapped(f"Do: {finding.remedy}", "   ")
        yield f"     {finding.command}"
    if diagnosis.command:
        yield ""
        yield "All of it at once:"
        yield f"     {diagnosis.command}"
    yield ""
    checks = f"{len(diagnosis.looked_at)}: {', '.join(diagnosis.looked_at)}"
    yield from _wrapped(f"{'' if diagnosis.findings else 'Nothing found. '}Looked at {checks}.", "  ", "")
    reasons: dict[str, list[str]] = {}
    for name, why in diagnosis.not_looked_at.items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        yield from _wrapped(f"Not looked at, because {why}: {', '.join(names)}.", "  ", "")


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text, 110, initial_indent=indent if first is None else first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,  # a path or a name that is broken cannot be copied
    )  # fmt: skip
