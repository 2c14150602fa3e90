"""Tables as plain values: a terminal and a page show the same rows in the same words.

`nelbo.cli.console` prints a Table and `nelbo.report` writes it as HTML; neither writes a word of its own into it.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from nelbo.core.catalogue import docline, entries
from nelbo.core.layout import Card, Entry
from nelbo.evaluation import labels

NONE = "-"  # the text of a cell without a value
Kind = Literal["text", "number", "code", "prose", "mark"]


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    spread  the standard error beside a number, as in "± 0.02"
    kind    how a page sets it; prose may hold `code` between backticks
    names   the names that `text` lists; a page can turn each into a link
    """

    text: str
    spread: str = ""
    kind: Kind = "text"
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row; its first cell names it, and `note` says more about it."""

    cells: tuple[Cell, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A group of rows, with a title and a sentence about them where there is room for both."""

    rows: tuple[Row, ...]
    title: str = ""
    about: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table under its caption.

    notes  sentences that explain the marks in it
    whole  columns from the left whose lines a narrow terminal must not break; None for all
    sides  heads of the columns that a narrow terminal spreads over several tables; each table repeats the first
    """

    caption: str
    heads: tuple[str, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    whole: int | None = 1
    sides: tuple[str, ...] = ()


def plain(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Iterable[Cell | str]],
    notes: tuple[str, ...] = (),
    whole: int | None = 1,
    sides: tuple[str, ...] = (),
) -> Table:
    """Return a table of one section; a text stands for a plain cell."""
    lines = tuple(Row(tuple(Cell(one) if isinstance(one, str) else one for one in row)) for row in rows)
    return Table(caption, tuple(heads), (Section(lines),), notes, whole, sides)


def of_card(card: Card) -> Table:
    """Return the table of every number of a card, section by section."""
    metrics, registered = card["metrics"], entries("metric")
    sections = []
    for section, names in card["sections"].items():
        if names:
            rows = tuple(_row(labels.title(name), metrics[name], _number(metrics[name])) for name in names)
            # A card outlives a user's own metric.
            about = docline(registered[section]) if section in registered else ""
            sections.append(Section(rows, labels.section(section), about))
    caption = f"{card['run']} · {_checkpoint(card)} · {_images(card)}, n = {card['n']}"
    return Table(caption, ("metric", "value", "unit"), tuple(sections), whole=None)


def of_two_cards(first: Card, other: Card) -> Table:
    """Return the numbers of two checkpoints of one run side by side; notes are those of the second."""
    rows = []
    for name, entry in other["metrics"].items():
        before = _number(first["metrics"][name]) if name in first["metrics"] else Cell(NONE)
        rows.append(_row(labels.label(name), entry, before, _number(entry)))
    heads = ("metric", _checkpoint(first), _checkpoint(other), "unit")
    caption = f"{other['run']} · {_images(other)}, n = {other['n']}"
    return Table(caption, heads, (Section(tuple(rows)),), whole=None)


def warnings(card: Card) -> list[str]:
    """Return the sentences that are too long for a card's table: posterior collapse."""
    # Entries of older cards have no such key.
    return [entry["warning"] for entry in card["metrics"].values() if entry.get("warning")]


def _images(card: Card) -> str:
    """Return the split; of other data than the run's own their name before it."""
    return f"other data: {card['other_data']} ({card['split']})" if "other_data" in card else card["split"]


def _checkpoint(card: Card) -> str:
    return f"{card['checkpoint']} (epoch {card['epoch']})"


def _row(label: str, entry: Entry, *numbers: Cell) -> Row:
    return Row((Cell(label), *numbers, Cell(entry["unit"])), entry["note"])


def _number(entry: Entry) -> Cell:
    text, spread, _ = labels.shown(entry)
    return Cell(text, spread, "text" if entry["value"] is None else "number")
