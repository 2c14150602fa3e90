"""The overview of all verbs, read from the sources in this folder without importing them, for `nelbo --help`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from nelbo import cli

HEAD = "nelbo: train, measure and explore variational autoencoders\n"
FOOT = """\
A RUN is a run folder, its name under runs/, or latest. Start with: nelbo train digits
nelbo VERB --help says more; nelbo --version prints the version.
"""
FACTS = {"usage", "summary", "order"}


class Entry(NamedTuple):
    """A verb in the overview: its place, its name, the name of its class, and its row."""

    order: int
    name: str
    kind: str
    usage: str
    summary: str


def verbs() -> dict[str, Entry]:
    """Return every verb in the order of the overview: a module of this package with a class that has FACTS."""
    files = [file for folder in cli.__path__ for file in Path(folder).glob("*.py")]
    entries = sorted(entry for entry in map(_entry, files) if entry is not None)
    return {entry.name: entry for entry in entries}


def _entry(file: Path) -> Entry | None:
    text = file.read_text(encoding="utf-8")
    if "\n    usage = " not in text:  # parsing costs a millisecond a file
        return None
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            facts = {
                target.id: ast.literal_eval(line.value)
                for line in node.body
                if isinstance(line, ast.Assign)
                for target in line.targets
                if isinstance(target, ast.Name) and target.id in FACTS
            }
            if facts.keys() == FACTS:
                return Entry(name=file.stem, kind=node.name, **facts)
    return None


def overview() -> str:
    """Return the text of `nelbo --help`."""
    rows = [f"  nelbo {entry.usage:<27} {entry.summary}" for entry in verbs().values()]
    return "\n".join([HEAD, *rows, "", FOOT])
