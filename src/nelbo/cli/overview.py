"""The overview of all verbs, read from the sources in this folder without importing them, for `nelbo --help`."""

import re
from pathlib import Path
from typing import NamedTuple

from nelbo import cli

HEAD = "nelbo: train, measure and explore variational autoencoders\n"
FOOT = """\
A RUN is a run folder, its name under runs/, or latest. Start with: nelbo train digits
nelbo VERB --help says more; nelbo --version prints the version.
"""
FACT = re.compile(r'^class (\w+)|^    (usage|summary|order) = (?:"(.*)"|(\d+))$', re.MULTILINE)


class Entry(NamedTuple):
    """A verb in the overview: its place, its name, the name of its class, and its row."""

    order: int
    name: str
    kind: str
    usage: str
    summary: str


def verbs() -> dict[str, Entry]:
    """Return every verb in the order of the overview: a module of this package whose class has every FACT."""
    files = [
        file for folder in cli.__path__ for file in Path(folder).glob("*.py")
    ]  # a plug-in may add a folder
    entries = []
    for file in files:
        kind = ""
        facts: dict[str, str] = {}
        # A pattern is ten times faster than Python's own parser.
        for name_of_class, fact, text, number in FACT.findall(file.read_text(encoding="utf-8")):
            if name_of_class:
                kind, facts = name_of_class, {}
            else:
                facts[fact] = text or number
            if len(facts) == 3:
                entries.append(Entry(int(facts["order"]), file.stem, kind, facts["usage"], facts["summary"]))
                break
    return {entry.name: entry for entry in sorted(entries)}


def overview() -> str:
    """Return the text of `nelbo --help`."""
    rows = [f"  nelbo {entry.usage:<27} {entry.summary}" for entry in verbs().values()]
    return "\n".join([HEAD, *rows, "", FOOT])
