"""The base of every verb: the flags that verbs share, and the way from flags to an answer. Imports no torch.

A verb is one file in this folder, `nelbo/cli/NAME.py`, with one dataclass in it:

    @dataclass
    class Hello(Measuring):
        '''Greet a data set.'''                                  the first line of `nelbo hello --help`

        usage = "hello NAME"                                     its row in `nelbo --help`:
        summary = "a greeting"                                   at most 62 characters
        order = 55                                               rows are sorted by it

        who: Positional[Annotated[str, plain("a name", metavar="NAME")]]

        def run(self) -> Answer:
            return Answer({"hello": self.who}, lambda: print(f"hello {self.who}"))

Nothing else has to be edited. `nelbo --help` reads the three facts from the source: each is a literal on one line.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from nelbo.cli import flags


class Answer(NamedTuple):
    """A verb's result: the JSON object of `--json`, and a function that prints it for a person instead."""

    table: object
    show: Callable[[], None]


@dataclass(kw_only=True)
class Verb(ABC):
    """A verb: its fields are its flags."""

    usage: ClassVar[str]
    summary: ClassVar[str]
    order: ClassVar[int]

    json: flags.Json = False

    @classmethod
    def settings(cls, unknown: list[str]) -> flags.Settings:
        """Split flags that are no fields of the verb into values of `overrides` and words to be refused."""
        return {}, unknown

    @classmethod
    def stands_alone(cls, flag: str) -> bool:
        """Return True for a flag that is no field of the verb and needs no value: `--data.skip-unreadable`."""
        return "." in flag and flags.true_or_false(flag)

    def prepare(self) -> None:
        """Do what has to be done before `run`; most verbs need nothing."""
        return

    @abstractmethod
    def run(self) -> Answer:
        """Do the work and return its answer; progress goes to stderr."""

    def execute(self) -> None:
        """Prepare, run, and print the answer in the form that was chosen."""
        from nelbo.cli import console  # here: it imports rich, which `--help` does without

        self.prepare()
        answer = self.run()
        if self.json:
            console.emit(answer.table)
        else:
            answer.show()


@dataclass(kw_only=True)
class Importing(Verb):
    """A verb that knows components from the user's own files."""

    import_: flags.Imports = ()

    def prepare(self) -> None:
        """Import the user's files, once: they register what the other flags may name."""
        from nelbo.core.catalogue import import_files

        import_files(self.import_)


@dataclass(kw_only=True)
class Measuring(Importing):
    """A verb that computes on data."""

    data_dir: flags.DataDir = None
    device: flags.Device = "auto"


@dataclass(kw_only=True)
class OnRuns(Measuring):
    """A verb that reads or writes runs."""

    runs: flags.Runs = Path("runs")


@dataclass(kw_only=True)
class Looking(OnRuns):
    """A verb that shows images to a run: its own, or others."""

    data: flags.LookedAt = None
