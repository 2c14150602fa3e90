"""Progress on stderr and tables on stdout."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from nelbo.core.layout import Card
from nelbo.errors import Interrupted
from nelbo.evaluation import tables
from nelbo.evaluation.tables import NONE, Row, Table
from nelbo.training import events
from nelbo.training.events import Event
from nelbo.training.telling import Lines

if TYPE_CHECKING:
    from nelbo.data import Data

WIDTH = 110  # of output that is not on a terminal, where COLUMNS does not say otherwise
NOTE_WIDTH = 36  # at least, for notes beside their numbers; and of a note that is worth a mark
SLOW = 2.0  # seconds after which a metric is named where there is no bar
ENOUGH = 0.02  # share of a measurement from which the rest is estimated
LISTED = 12  # files named after a verb; the rest is counted


def to_stdout() -> Console:
    """Return a rich console on stdout, as wide as the terminal, COLUMNS or WIDTH."""
    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()  # else rich takes 80 columns
    return Console(width=None if has_width else WIDTH, highlight=False, soft_wrap=False)


def say(message: str) -> None:
    """Print one line on stderr."""
    print(message, file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Print a text on stdout as it is."""
    print(text)


def emit(table: object) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(table, allow_nan=False))  # NaN is no JSON, and other programs refuse it


def show_fields(table: Mapping[str, object]) -> None:
    """Print a table of two columns, field and value."""
    show(["field", "value"], [(key, cell(value)) for key, value in table.items()])


def show_files(files: Sequence[Path]) -> None:
    """Print the names of files that were written, on stdout; of many files the first ones."""
    for file in files[:LISTED]:
        print(f"  {file}")
    if len(files) > LISTED:
        print(f"  and {len(files) - LISTED} more in {files[-1].parent}")


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", fixed: int = 1) -> None:
    """Print a table on stdout; the lines of its first `fixed` columns are not broken."""
    table = RichTable(
        title=escape(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for position, name in enumerate(columns):
        table.add_column(name, no_wrap=position < fixed, overflow="ellipsis" if position < fixed else "fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console = to_stdout()
    with console.capture() as captured:  # rich fills every line with spaces to its end
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_table(table: Table, gap: bool = False) -> None:
    """Print a table, after an empty line with `gap`; columns that have no room go into further tables."""
    columns = zip(*(row.cells for section in table.sections for row in section.rows), strict=True)
    # Numbers of a column are equally wide, so that the ± stand below each other.
    widths = [max((len(cell.text) for cell in column if cell.spread), default=0) for column in columns]
    lines = [[_cells(row, widths) for row in section.rows] for section in table.sections]
    every = [line for section in lines for line in section]
    for places in _portions(table, every, to_stdout().width):
        sides = [place for place in places if table.heads[place] in table.sides]
        rows: list[list[str]] = []
        notes: list[str] = []
        for section, cells in zip(table.sections, lines, strict=True):
            used = [i for i, line in enumerate(cells) if not sides or any(line[p] != NONE for p in sides)]
            if rows and used:  # an empty line between sections
                rows.append([""] * len(places))
                notes.append("")
            rows += [[cells[i][place] for place in places] for i in used]
            notes += [section.rows[i].note for i in used]
        title = f"\n{table.caption}" if gap else table.caption
        whole = len(places) if table.whole is None else table.whole
        _show_noted([table.heads[place] for place in places], rows, notes, title, whole)
        gap = True


def _cells(row: Row, widths: Sequence[int]) -> list[str]:
    return [
        f"{cell.text:<{width}} {cell.spread}" if cell.spread else cell.text
        for cell, width in zip(row.cells, widths, strict=True)
    ]


def _portions(table: Table, lines: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yield the columns of one printed table after another: the first side, and as many others as have room."""
    room_of = [2 + max(map(len, column)) for column in zip(table.heads, *lines, strict=True)]
    sides = [place for place, head in enumerate(table.heads) if head in table.sides]
    always = [place for place in range(len(table.heads)) if place not in sides[1:]]
    chosen = list(always)
    for place in sides[1:]:
        if len(chosen) > len(always) and sum(room_of[i] for i in [*chosen, place]) - 2 > width:
            yield sorted(chosen)
            chosen = list(always)
        chosen.append(place)
    yield sorted(chosen)


def _show_noted(
    heads: Sequence[str], rows: Sequence[list[str]], notes: Sequence[str], title: str, whole: int
) -> None:
    """Print rows with a column of notes. Notes that several rows share, or all on a narrow screen, go below."""
    if not any(notes):
        show(heads, rows, title, fixed=whole)
        return
    taken = sum(2 + max(map(len, cells)) for cells in zip(heads, *rows, strict=True))
    narrow = to_stdout().width - taken < NOTE_WIDTH
    clauses_of = [[note] if narrow else note.split("; ") for note in notes]
    counts = Counter(clause for clauses in clauses_of for clause in clauses)
    below: dict[str, str] = {}
    cells = []
    for row, clauses in zip(rows, clauses_of, strict=True):
        for clause in clauses:
            if clause and (narrow or (counts[clause] > 1 and len(clause) >= NOTE_WIDTH)):
                below.setdefault(clause, f"[{len(below) + 1}]")
        cells.append([*row, "; ".join(below.get(clause, clause) for clause in clauses)])
    show([*heads, "" if narrow else "note"], cells, title, fixed=whole + narrow)
    if below:
        show(["", ""], [(mark, clause) for clause, mark in below.items()])


def show_card(card: Card) -> None:
    """Print the result of an evaluation as a table."""
    show_table(tables.of_card(card))


def warn(card: Card) -> None:
    """Print on stderr the warnings of a card that are too long for its table."""
    for message in tables.warnings(card):
        say(f"warning: {card['checkpoint']}: {message}")


class Training:
    """A listener to training: a bar and a line an epoch on a terminal, a line an epoch elsewhere."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.lines = Lines(epochs)
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.read_at = 0.0
        if sys.stderr.isatty():
            loss = TextColumn("{task.fields[loss]}")
            columns = (TextColumn("{task.description}"), BarColumn(), loss, TimeRemainingColumn())
            # Transient: the bar goes away in the end, and the lines of the epochs stay.
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8)
            self.task = self.bar.add_task("epoch 1", loss="")

    def __enter__(self) -> Training:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, event: Event) -> None:
        for line in self.lines.of(event):
            self._say(line)
        match event:
            case events.StepDone() if self.bar:
                self.bar.update(self.task, completed=event.batch, total=event.batches)
                # Reading a loss waits for the device, so it is read four times a second and only for a person.
                if time.monotonic() - self.read_at > 0.25:
                    self.read_at = time.monotonic()
                    loss = float(event.measured.sums_SQ[-1, 0]) / event.measured.counts[-1]
                    self.bar.update(self.task, loss=f"loss {loss:.2f}")
            case events.EpochDone() if self.bar:
                following = min(event.row["epoch"] + 1, self.epochs)
                self.bar.update(self.task, description=f"epoch {following}", completed=0)

    def _say(self, line: str) -> None:
        if self.bar:
            self.bar.console.print(line, markup=False, highlight=False)  # above the bar, not through it
        else:
            say(line)


def announce_download(data: Data, data_dir: Path | None) -> None:
    """Print a line before a download that may take minutes."""
    if not data.present(data_dir):
        say(f"{data.source} is not here yet; downloading it, which may take a while")


class Measuring:
    """A listener to an evaluation: on a terminal a bar, elsewhere a line for each metric that takes long.

    resumes   the work with which the same command goes on after an interruption; "" leaves that to others
    """

    def __init__(self, resumes: str = "") -> None:
        self.resumes = resumes
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.quiet = not sys.stderr.isatty()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=self.quiet)
        self.task = self.bar.add_task("measuring")
        self.lines = SlowLines()

    def __enter__(self) -> Measuring:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bar.stop()
        self.lines.end()
        if self.resumes and kind is KeyboardInterrupt:
            raise Interrupted(f"interrupted; the same command goes on with {self.resumes}") from None

    def __call__(self, event: Event) -> None:
        match event:
            case events.MetricBegun() if self.quiet:
                self.lines.begin(event.name)
            case events.MetricGoesOn() if self.quiet:
                self.lines.go_on(event.done, event.total)
            case events.MetricBegun():
                self.bar.reset(self.task, description=f"measuring {event.name}", total=None)
            case events.MetricGoesOn():
                self.bar.update(self.task, completed=event.done, total=event.total)
            case events.Warned():
                self.bar.console.print(event.message, markup=False, highlight=False, soft_wrap=True)


class SlowLines:
    """Lines on stderr about a metric that takes more than SLOW seconds: that it runs, and how long it will take."""

    def __init__(self) -> None:
        self.timer: threading.Timer | None = None
        self.name = ""
        self.begun = self.part_begun = self.next_at = 0.0
        self.done = 0

    def begin(self, name: str) -> None:
        """Begin a metric, and end the one before."""
        self.end()
        self.name, self.begun, self.done = name, time.monotonic(), 0
        self.part_begun = self.begun
        self.next_at = SLOW
        # A metric that tells nothing on its way is named by another thread, and by none when it is fast.
        self.timer = threading.Timer(SLOW, say, [f"measuring {name} ..."])
        self.timer.daemon = True
        self.timer.start()

    def go_on(self, done: int, total: int) -> None:
        """Say how long the metric will take, at SLOW seconds and at twice, four times, ... as many."""
        seconds = time.monotonic() - self.begun
        if done < self.done:  # another part of the same metric: what is left is that of the part
            self.part_begun = time.monotonic()
        self.done = done
        # The first steps warm up: what they take says little about the others.
        if ENOUGH * total <= done < total and seconds > self.next_at:
            self.next_at = 2 * max(seconds, self.next_at)
            left = (time.monotonic() - self.part_begun) * (total - done) / done
            say(f"measuring {self.name}: {done / total:.0%} after {seconds:.0f} s, about {left:.0f} s left")

    def end(self) -> None:
        """End the metric that runs."""
        if self.timer is not None:
            self.timer.cancel()


def cell(value: object) -> str:
    """Return a value as the text of one cell of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        is_shape = value and all(isinstance(item, int) for item in value)
        return (" x " if is_shape else ", ").join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
