"""The files of a folder before they are decoded: which are images, of which size, mode and kind of numbers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from nelbo.data.decode import Entry, in_order
from nelbo.data.imagefile import (
    CONVERT,
    DEEP,
    Decoding,
    Header,
    Numbers,
    no_white,
    read_headers,
    read_numbers,
)
from nelbo.errors import DataError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".avif", ".pgm", ".ppm", ".pbm", ".pnm"),
)
TABLES = (".csv", ".tsv", ".jsonl")
IGNORED = (".", "__MACOSX")  # hidden, and what macOS adds to archives
TWELVE_BITS, HALF = 4096, 32768


class Facts(BaseModel):
    """Findings in the files of a folder, as it lies beside the decoded images.

    pages       of each file that holds several images or whose image is not its first page
    unreadable  files that were left out, with the reason
    numbers     the kinds of numbers in the files, each with the first file of that kind
    extremes    the smallest and the largest number of a kind of which the largest possible one is not known
    range       the numbers that became black and white, where that was not left to the files
    notes       sentences for people
    """

    pages: dict[str, list[int]] = {}
    unreadable: dict[str, str] = {}
    numbers: dict[Numbers, str] = {}
    extremes: dict[Numbers, tuple[float, float]] = {}
    range: tuple[float, float] | None = None
    notes: list[str] = []

    def text(self) -> str:
        """Return the facts as JSON; nothing where all files are what most are: one image of 8 bits each."""
        plain = self == Facts(numbers={"8-bit": self.numbers.get("8-bit", "")})
        return "" if plain else self.model_dump_json()


@dataclass(slots=True)
class Listing:
    """The files below a folder, relative to it: images in order, tables at its top, and a count of all others."""

    folder: Path
    files: list[str]
    tables: list[str]
    others: Counter[str]
    unreadable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Listing:
        """List a folder; hidden files and folders are left out."""
        others: Counter[str] = Counter()
        tables: list[str] = []
        files = list(walk(folder, others, tables))
        return cls(folder, sorted(files, key=lambda file: file.split(os.sep)), sorted(tables), others)

    @property
    def readable(self) -> list[str]:
        """The images without those that were found to be unreadable."""
        return [file for file in self.files if file not in self.unreadable] if self.unreadable else self.files

    def entries(self, facts: Facts) -> list[Entry]:
        """Return one entry an image, where the facts tell which files hold several."""
        files = (file for file in self.files if slashed(file) not in facts.unreadable)
        return [Entry(file, page) for file in files for page in facts.pages.get(slashed(file), (0,))]


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of reading all headers of a folder: one entry an image, the shape of all, and the facts."""

    entries: list[Entry]
    shape: tuple[int, int, int]
    facts: Facts
    uncertain: Mapping[Numbers, list[Entry]]

    @property
    def dtype(self) -> type[np.generic]:
        """float32 where the files hold floating-point numbers, else uint8."""
        return np.float32 if "floating-point" in self.facts.numbers else np.uint8


def slashed(file: str) -> str:
    """Return a relative path with "/", whatever the system writes."""
    return file.replace(os.sep, "/")


def tables_in(folder: Path) -> list[str]:
    """Return the tables at the top of a folder."""
    return sorted(
        name for name in os.listdir(folder) if name.lower().endswith(TABLES) and not name.startswith(".")
    )


def walk(folder: Path, others: Counter[str] | None = None, tables: list[str] | None = None) -> Iterator[str]:
    """Yield the image files below a folder; count the others by the end of their name, and collect its tables."""
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # a link back to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(IGNORED))
        relative = os.path.relpath(parent, folder)
        for file in files:
            ending = os.path.splitext(file)[1].lower()
            if file.startswith("."):
                continue
            if ending in EXTENSIONS:
                yield file if relative == os.curdir else os.path.join(relative, file)
            elif tables is not None and ending in TABLES and relative == os.curdir:
                tables.append(file)
            elif others is not None:
                others[ending or "without an ending"] += 1


def scan(listing: Listing, how: Decoding) -> Scan:
    """Read the headers of all files; raise DataError where sizes differ and none is given, Unreadable."""
    files = listing.readable
    first: Header | None = None
    grey, alpha = True, 0  # one file in colour makes all of them colour
    counts: Counter[str] = Counter()
    facts, entries = Facts(unreadable={slashed(file): why for file, why in listing.unreadable.items()}), []
    uncertain: dict[Numbers, list[Entry]] = {}
    for file, headers in zip(
        files, in_order(lambda file: read_headers(listing.folder / file), files), strict=True
    ):
        counts["more"] += headers[0].more
        counts["reduced"] += sum(header.reduced for header in headers[1:])
        headers = [headers[0], *(header for header in headers[1:] if not header.reduced)]
        counts["several"] += len(headers) > 1
        if len(headers) > 1:
            facts.pages[slashed(file)] = [header.page for header in headers]
        for header in headers:
            entry = Entry(file, header.page)
            entries.append(entry)
            first, grey, alpha = first or header, grey and header.grey, alpha + header.alpha
            facts.numbers.setdefault(header.numbers, slashed(file))
            if not header.certain:
                uncertain.setdefault(header.numbers, []).append(entry)
            if how.size is None and (header.height, header.width) != (first.height, first.width):
                raise _sizes(listing.folder, entries, first, header)
    assert first is not None
    height, width = how.size or (first.height, first.width)
    channels = (1 if grey else 3) + (how.alpha == "keep" and alpha > 0)
    facts.notes += _notes(counts, alpha, len(entries), how)
    return Scan(entries, (channels, height, width), facts, uncertain)


def _sizes(folder: Path, entries: Sequence[Entry], first: Header, header: Header) -> DataError:
    return DataError(
        f"images have different sizes: {folder / entries[0].file} is {first.height} x {first.width} and "
        f"{folder / entries[-1].file}{f'[{header.page}]' if header.page else ''} is {header.height} x {header.width} "
        "(height x width); choose one with --data.size 64 (--size 64 of nelbo data and nelbo doctor)"
    )


def _notes(counts: Counter[str], alpha: int, n: int, how: Decoding) -> list[str]:
    notes = []
    if counts["several"]:
        notes.append(f"{_files(counts['several'])} of several pages: each page is an image, {n} in all")
    if counts["reduced"]:
        notes.append(f"{counts['reduced']} pages that are smaller copies of another page are left out")
    if counts["more"]:
        notes.append(f"{_files(counts['more'])} with several frames or pictures: the first of each is read")
    if alpha and how.alpha != "keep":
        notes.append(
            f"{alpha} of {n} images have transparency, which becomes {how.alpha} (data.alpha: white, black or keep)"
        )
    return notes


def _files(n: int) -> str:
    return f"{n} file" if n == 1 else f"{n} files"


# --- numbers of more than 8 bits --------------------------------------------------------------


def find_extremes(folder: Path, scanned: Scan) -> None:
    """Add the smallest and the largest number to the facts, of kinds of which it is not known what is white."""

    def both(entry: Entry) -> tuple[float, float]:
        values = read_numbers(folder / entry.file, entry.page)
        return float(values.min()), float(values.max())

    for numbers, entries in scanned.uncertain.items():
        least, most = np.inf, -np.inf
        for low, high in in_order(both, entries):
            least, most = min(least, low), max(most, high)
            # The upper half is used, and so every bit; a negative number later on is refused where it is decoded.
            if numbers == "16-bit" and most >= HALF:
                break
        scale = 257 if numbers == "16-bit colour" else 1  # of which the upper 8 bits are read
        scanned.facts.extremes[numbers] = (least * scale, most * scale)


def check_numbers(folder: Path, all_facts: Iterable[Facts], how: Decoding) -> tuple[Decoding, list[str]]:
    """Return how to decode all splits, and notes; raise DataError where it is not known what black and white are."""
    facts = list(all_facts)
    kinds = {numbers: file for each in reversed(facts) for numbers, file in each.numbers.items()}
    whole = {numbers: file for numbers, file in kinds.items() if numbers != "floating-point"}
    if (whole and len(whole) < len(kinds)) or (how.range is not None and len(whole) > 1):
        examples = " and ".join(f"{file} ({numbers})" for numbers, file in kinds.items())
        span = "" if how.range is None else ", and one data.range cannot be right for all"
        raise DataError(
            f"{folder}: files hold different kinds of numbers: {examples}{span}; keep one kind in a folder"
        )
    if how.range is not None:
        # Pixels that 8 bits or float32 hold as they are keep their hash: the range is applied to them after loading.
        later = "floating-point" in kinds or ("8-bit" in kinds and how.size is None)
        return replace(how, range=None) if later else how, []
    notes = []
    for numbers in {numbers: None for each in facts for numbers in each.extremes}:
        pairs = [each.extremes[numbers] for each in facts if numbers in each.extremes]
        least, most = min(low for low, _ in pairs), max(high for _, high in pairs)
        if least < 0 or most > DEEP:
            raise no_white(str(folder), least, most)
        if numbers != "16-bit colour" and most <= 1 and len(kinds) == 1:
            how = replace(how, range=(0.0, 1.0))  # a mask, as in arrays
        elif most < TWELVE_BITS:
            raise _dark(folder, numbers, most)
        elif numbers == "16-bit colour":
            notes.append("colours of 16 bits are read with the upper 8 of them")
        elif most < HALF:
            notes.append(
                f"the largest of the 16-bit numbers is {most:g}, and {round(most / 257)} is the brightest of 0..255; "
                f"where {most:g} is white: --data.range 0,{most:g}"
            )
    return how, notes


def _dark(folder: Path, numbers: Numbers, most: float) -> DataError:
    if numbers == "16-bit colour":
        return DataError(
            f"{folder}: colours of 16 bits are read with the upper 8 of them, and these stay below {most / 257 + 1:g} "
            f"of 256; {CONVERT}, and give --data.range with them"
        )
    white = next(white for white in (255, 1023, TWELVE_BITS - 1) if most <= white)
    return DataError(
        f"{folder}: the pixels are whole numbers up to {most:g} in files of {numbers}, where {DEEP} would be white: "
        f"nearly black. Say what is white: --data.range 0,{white} (or --data.range 0,{DEEP} where they are so dark)"
    )
