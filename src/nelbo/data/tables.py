"""A table beside the images (labels.csv, metadata.jsonl): one row a file, with a label."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_id", "path", "name", "id")
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "class_name",
    "category",
    "target",
    "species",
    "breed",
    "diagnosis",
    "y",
)
LOOKED_AT = 200  # rows in which the column of file names is looked for

Rows = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """The labels that a table gives: one an image, None for an image without a row; and notes for people."""

    labels: list[str | None] | None
    notes: list[str]


def labels_beside(tables: Sequence[Path], names: Sequence[str]) -> Table:
    """Return the labels of images from the one table that names them.

    A label never stops training: a table that is not clear is not used, and that is said.
    """
    keys, matching, notes = _keys(names), [], []
    for path in tables:
        try:
            rows = read_rows(path)
        except (OSError, ValueError, csv.Error) as error:
            notes.append(f"{path.name} cannot be read as a table ({error}), and is not used")
            continue
        column = _file_column(rows, keys)
        if column is None:
            notes.append(f"{path.name} is not used: no column of it has names of the images")
        else:
            matching.append((path, rows, column))
    with_labels = [(*table, label) for table in matching if (label := _label_column(table[1], table[2]))]
    for path, rows, column in matching:
        if path not in [table[0] for table in with_labels]:
            others = ", ".join(name for name in rows[0] if name != column) or "no others"
            notes.append(f"{path.name} is not used: none of its columns ({others}) is called label or class")
    if len(with_labels) > 1:
        listed = " and ".join(path.name for path, *_ in with_labels)
        return Table(None, [*notes, f"{listed} all give labels, so none is used; keep one"])
    if not with_labels:
        return Table(None, notes)
    path, rows, column, label = with_labels[0]
    labels, note = _matched(rows, column, label, keys, len(names))
    return Table(labels, [*notes, f"labels are those of column {label!r} of {path.name}{note}"])


def typed(labels: Sequence[str | None]) -> list[object]:
    """Return labels as whole numbers where all are, else as numbers where all are, else as text; None stays."""
    kinds: tuple[Callable[[str], object], ...] = (int, float)
    for kind in kinds:
        try:
            return [None if text is None else kind(text) for text in labels]
        except ValueError:
            continue
    return list(labels)


def read_rows(path: Path) -> Rows:
    """Return the rows of a .csv, .tsv or .jsonl as text by column; raise ValueError where it is none."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if path.suffix.lower() == ".jsonl":
            records = [json.loads(line) for line in stream if line.strip()]
            if not all(isinstance(record, dict) for record in records):
                raise ValueError("a line is not an object")
            return [
                {key: "" if value is None else str(value) for key, value in row.items()} for row in records
            ]
        head = stream.readline()
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=head.count)
        stream.seek(0)
        reader = csv.reader(stream, delimiter=delimiter)
        columns = next(reader, [])
        return [dict(zip(columns, (text.strip() for text in row), strict=False)) for row in reader if row]


def _keys(names: Sequence[str]) -> dict[str, int]:
    """Return positions of images by path, and by file name and stem where only one image has it."""
    keys: dict[str, int] = {}
    paths = [PurePosixPath(name) for name in names]
    for texts in ([path.name for path in paths], [path.stem for path in paths]):
        counts = Counter(texts)
        keys |= {text: i for i, text in enumerate(texts) if counts[text] == 1}
    return keys | {name: i for i, name in enumerate(names)}


def _key(text: str) -> str:
    return text.replace("\\", "/").removeprefix("./")


def _file_column(rows: Rows, keys: Mapping[str, int]) -> str | None:
    """Return the column that names images in most of the first rows; one of a usual name before others."""
    some = rows[:LOOKED_AT]
    columns = list(dict.fromkeys(column for row in some for column in row))
    usual = [column for column in columns if column.strip().lower() in FILE_COLUMNS]

    def hits(column: str) -> int:
        texts = [_key(row.get(column, "")) for row in some]
        # A count from 0 to 9 is no list of 0.png to 9.png: names without their ending need a column of that name.
        return sum(text in keys and (column in usual or "." in text) for text in texts)

    best = max([*usual, *columns], key=hits, default=None)
    return best if best is not None and hits(best) else None


def _label_column(rows: Rows, file_column: str) -> str | None:
    others = [column for column in rows[0] if column != file_column]
    named = [column for usual in LABEL_COLUMNS for column in others if column.strip().lower() == usual]
    return next(iter(named), others[0] if len(others) == 1 else None)


def _matched(
    rows: Rows, column: str, label: str, keys: Mapping[str, int], n: int
) -> tuple[list[str | None], str]:
    """Return the label of each image, and how many rows and images have no partner."""
    labels: list[str | None] = [None] * n
    strangers, unlike = 0, set()
    for row in rows:
        position, text = keys.get(_key(row.get(column, ""))), row.get(label) or None
        if position is None:
            strangers += 1
        elif labels[position] is not None and text != labels[position]:
            unlike.add(position)
        else:
            labels[position] = text
    for position in unlike:
        labels[position] = None
    missing = sum(text is None for text in labels)
    counts = {
        f"{missing} of {n} images have no label there": missing,
        f"{strangers} rows name no image": strangers,
        f"{len(unlike)} images have several labels and get none": len(unlike),
    }
    return labels, "".join(f"; {words}" for words, count in counts.items() if count)
