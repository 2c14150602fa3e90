"""A folder of image files, decoded once into one array that later runs read from the cache.

Above `ondisk.THRESHOLD` bytes of pixels the array is never in memory: it is decoded into its file and read from there.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from nelbo.data import ondisk
from nelbo.data.cache import cache_path, facts_from_cache, from_cache, keep, written
from nelbo.data.decode import decode_folder, unreadable
from nelbo.data.download import data_root
from nelbo.data.filelist import (
    EXTENSIONS,
    IGNORED,
    Facts,
    Listing,
    Scan,
    check_numbers,
    find_extremes,
    scan,
    slashed,
    tables_in,
    walk,
)
from nelbo.data.imagefile import Decoding, Unreadable
from nelbo.data.images import Images
from nelbo.data.labels import Column, as_column, numbered
from nelbo.data.ondisk import OnDisk, filled
from nelbo.data.splitnames import refuse_names_of_files, refuse_nested, split_folders, split_of
from nelbo.data.splits import Loaded, SplitName
from nelbo.data.tables import labels_beside, typed
from nelbo.errors import DataError

SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
NAMED = 10  # files in a message
MANY_CLASSES = 20

PLAIN = Decoding()
Decoded = tuple[Facts, Tensor | OnDisk]


def load_folder(
    folder: Path,
    how: Decoding = PLAIN,
    *,
    skip_unreadable: bool = False,
    folders_are_classes: bool = True,
    data_dir: Path | None = None,
) -> Loaded:
    """Load the images in a folder; class = first sub-folder. Raises DataError naming folder or file.

    Sub-folders whose names stand for splits (train, Testing, val_images) are splits, with classes inside.
    Grey where every file is grey, else RGB. All images have one size unless `how.size` (height, width) is given.
    Labels of a table beside the images (labels.csv) come before those of sub-folders.
    """
    parts = split_paths(folder)
    listings = {split: Listing.of(path) for split, path in (parts or {"train": folder}).items()}
    for listing in listings.values():
        if not listing.files:
            raise _no_images(listing)
        refuse_nested(listing.files, listing.folder)
        refuse_names_of_files(listing.files, listing.folder)
    cache = data_root(data_dir) / "folders"
    paths = {
        split: cache_path(listing.folder, listing.files, how, cache, skip_unreadable=skip_unreadable)
        for split, listing in listings.items()
    }
    try:
        decoded, ruled, notes = _all_decoded(folder, listings, paths, how)
    except Unreadable:
        _leave_out_unreadable(folder, listings, skip=skip_unreadable)
        decoded, ruled, notes = _all_decoded(folder, listings, paths, how)
    notes = [*_noted(folder, listings, decoded), *notes]
    images: dict[SplitName, Images] = {
        split: _images(folder, listings[split], *decoded[split]) for split in listings
    }
    if not folders_are_classes and images["train"].labels_N is not None:
        notes.append("data.split_by folder: sub-folders are groups, and no classes")
        images = {split: replace(part, labels_N=None, class_names=None) for split, part in images.items()}
    tables = [folder / name for name in tables_in(folder)]
    tables += [listing.folder / name for listing in listings.values() for name in listing.tables]
    notes += _from_tables(images, list(dict.fromkeys(tables))) or _many_classes(images["train"])
    notes += _one_rule(images, [facts for facts, _ in decoded.values()], how)
    left_out = [file for split in listings for file in decoded[split][0].unreadable]
    return Loaded(
        images["train"], images.get("validation"), images.get("test"),
        tuple(notes), ruled.range is not None, tuple(left_out),
    )  # fmt: skip


def split_paths(folder: Path) -> dict[SplitName, Path]:
    """Return the folder of each split; none where sub-folders are classes, or there are none."""
    folders, deep, loose = [], [], False
    with os.scandir(folder) as inside:  # of a million files no list is made
        for entry in inside:
            if entry.name.startswith(IGNORED):
                continue
            loose = loose or entry.name.lower().endswith(EXTENSIONS)
            first = next(walk(Path(entry)), None) if entry.is_dir() else None  # ends at the first image
            if first is not None:
                folders.append(entry.name)
                deep += [entry.name] if os.sep in first else []
    parts = split_folders(folders, loose=loose, deep=deep, where=str(folder))
    if not parts and len(folders) == 1 and not loose and split_of(folders[0]) is None:
        return split_paths(folder / folders[0])  # images/train and images/test
    return {split: folder / name for split, name in parts.items()}


def _no_images(listing: Listing) -> DataError:
    types = " ".join(extension[1:] for extension in EXTENSIONS)
    there = f" (it holds {_counted(listing.others)})" if listing.others else ""
    return DataError(
        f"{listing.folder}: holds no image files{there}; expected {types}, in it or in its sub-folders"
    )


def _counted(others: Counter[str]) -> str:
    return ", ".join(
        f"{count} {ending}" for ending, count in sorted(others.items(), key=lambda item: (-item[1], item[0]))
    )


def _all_decoded(
    folder: Path, listings: Mapping[SplitName, Listing], paths: Mapping[SplitName, Path], how: Decoding
) -> tuple[dict[SplitName, Decoded], Decoding, list[str]]:
    """Return facts and pixels of all splits, from the cache or decoded by one rule; the rule, and notes about it."""
    decoded = {split: _from_cache(listings[split], path) for split, path in paths.items()}
    scans = {split: scan(listings[split], how) for split, cached in decoded.items() if cached is None}
    if how.range is None:
        for split, scanned in scans.items():
            find_extremes(listings[split].folder, scanned)
    facts = [cached[0] if cached else scans[split].facts for split, cached in decoded.items()]
    ruled, notes = check_numbers(folder, facts, how)
    for split, cached in decoded.items():
        if cached is not None and cached[0].range != ruled.range:  # another split made the rule another one
            scans[split] = replace(scan(listings[split], how), facts=cached[0])
            paths[split].unlink(missing_ok=True)
    for split, scanned in scans.items():
        scanned.facts.range = ruled.range
        pixels = _decode(listings[split].folder, scanned, ruled, paths[split])
        decoded[split] = scanned.facts, pixels
    return {split: pair for split, pair in decoded.items() if pair is not None}, ruled, notes


def _from_cache(listing: Listing, path: Path) -> Decoded | None:
    text = facts_from_cache(path)
    try:
        facts = (
            Facts.model_validate_json(text) if text else Facts(numbers={"8-bit": slashed(listing.files[0])})
        )
    except ValidationError:
        return None
    pixels = from_cache(path, len(listing.entries(facts)))
    return None if pixels is None else (facts, pixels)


def _decode(folder: Path, scanned: Scan, how: Decoding, cache: Path) -> Tensor | OnDisk:
    """Return the pixels of all files, and leave them in the cache."""
    entries, shape, dtype = scanned.entries, scanned.shape, scanned.dtype
    everything, facts = (len(entries), *shape), scanned.facts.text()
    if math.prod(everything) * np.dtype(dtype).itemsize > ondisk.THRESHOLD:
        return written(
            cache,
            everything,
            lambda first: decode_folder(folder, entries[first:], shape, how, dtype),
            dtype,
            facts,
        )
    pixels = filled(np.empty(everything, dtype), decode_folder(folder, entries, shape, how, dtype))
    keep(cache, pixels, facts)
    return torch.from_numpy(pixels)


def _leave_out_unreadable(folder: Path, listings: Mapping[SplitName, Listing], *, skip: bool) -> None:
    """Find all files that cannot be read, and leave them out, or raise one DataError that names them."""
    reasons: dict[str, str] = {}
    for listing in listings.values():
        listing.unreadable = unreadable(listing.folder, listing.files)
        inside = listing.folder.relative_to(folder)
        reasons |= {str(inside / file): why for file, why in listing.unreadable.items()}
        if skip and not listing.readable:
            raise DataError(f"{listing.folder}: none of its {len(listing.files)} image files can be read")
    if skip or not reasons:
        return
    total = sum(len(listing.files) for listing in listings.values())
    named = "; ".join(f"{file} ({why})" for file, why in list(reasons.items())[:NAMED])
    way_out = "repair them or take them out of the folder, or leave them out with --data.skip-unreadable true"
    if len(reasons) == 1:
        (file,) = reasons
        raise DataError(
            f"{folder / file}: cannot be read as an image ({reasons[file]}), of {total} files; repair it or take "
            "it out of the folder, or leave it out with --data.skip-unreadable true"
        )
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    raise DataError(
        f"{folder}: {len(reasons)} of {total} image files cannot be read: {named}{more}; {way_out}"
    )


# --- labels, and what is the same for all splits ----------------------------------------------


def _images(folder: Path, listing: Listing, facts: Facts, pixels: Tensor | OnDisk) -> Images:
    """Return the images with their names, and with the first sub-folder as class."""
    entries = listing.entries(facts)
    inside = slashed(os.path.relpath(listing.folder, folder))
    names = []
    for file, page in entries:
        name = slashed(file) if inside == os.curdir else f"{inside}/{slashed(file)}"
        names.append(f"{name}[{page}]" if slashed(file) in facts.pages else name)
    # One image outside of all sub-folders would have no class.
    if any(os.sep not in file for file, _ in entries):
        return Images(pixels, names=tuple(names))
    classes = sorted({file.partition(os.sep)[0] for file, _ in entries})
    number = {name: i for i, name in enumerate(classes)}
    labels_N = torch.tensor([number[file.partition(os.sep)[0]] for file, _ in entries])
    return Images(pixels, labels_N, tuple(classes), names=tuple(names))


def _noted(
    folder: Path, listings: Mapping[SplitName, Listing], decoded: Mapping[SplitName, Decoded]
) -> list[str]:
    """Return what was noticed in the files, of each split where there are several."""
    others: Counter[str] = Counter()  # of all of the source: also beside the folders of splits
    inside = [listing for listing in listings.values() if listing.folder != folder]
    if inside:
        list(walk(folder, others, []))
        others.subtract(os.path.splitext(name)[1].lower() for listing in inside for name in listing.tables)
        others = +others  # without those that are 0 now
    else:
        others = listings["train"].others
    notes = [f"{_counted(others)} not read"] if others else []
    plain = all(SPLITS.get(listing.folder.name.lower()) == split for split, listing in listings.items())
    if len(listings) > 1 and not plain:
        notes.append(", ".join(f"{listing.folder.name} is {split}" for split, listing in listings.items()))
    for split, listing in listings.items():
        facts, where = decoded[split][0], f"{listing.folder.name}: " if len(listings) > 1 else ""
        if facts.unreadable:
            files = list(facts.unreadable)
            more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
            notes.append(
                f"{where}{len(files)} of {len(listing.files)} image files cannot be read and are left out "
                f"(data.skip_unreadable): {', '.join(files[:NAMED])}{more}"
            )
        notes += [where + note for note in facts.notes]
    return notes


def _many_classes(train: Images) -> list[str]:
    classes = train.class_names
    if classes is None or len(classes) <= MANY_CLASSES:
        return []
    return [
        f"{len(classes)} sub-folders are taken as {len(classes)} classes; where they are patients, scenes or "
        "recordings, --data.split-by folder keeps each of them in one split"
    ]


def _from_tables(images: dict[SplitName, Images], tables: Sequence[Path]) -> list[str]:
    """Replace labels by those of a table beside the images, the same classes in all splits; return notes."""
    if not tables:
        return []
    table = labels_beside(tables, [name for part in images.values() for name in part.names or ()])
    if table.labels is None:
        return table.notes
    column, note = as_column(typed(table.labels), len(table.labels), "the table beside the images")
    if column is None:
        return [note]
    columns: dict[str, Column | None] = {}
    first = 0
    for split, part in images.items():
        columns[split] = column[first : first + len(part)]
        first += len(part)
    labels, classes = numbered(columns)
    for split, part in images.items():
        images[split] = replace(part, labels_N=labels[split], class_names=classes)
    return table.notes


def _one_rule(images: dict[SplitName, Images], facts: Sequence[Facts], how: Decoding) -> list[str]:
    """Give all splits the same classes, as many channels and the same white; return notes."""
    notes = _same_classes(images)
    channels = {part.shape[0] for part in images.values()}
    if channels == {1, 3}:
        images.update({split: part.each(_coloured) for split, part in images.items() if part.shape[0] == 1})
    eight_bit = {kind for each in facts for kind in each.numbers} == {"8-bit"}
    if (
        how.range is None
        and eight_bit
        and all(map(_mask, images.values()))
        and not all(map(_black, images.values()))
    ):
        images.update({split: part.each(_one_is_white) for split, part in images.items()})
        notes.append("all pixels are 0 or 1, and 1 is taken for white, as in arrays")
    return notes


def _same_classes(images: dict[SplitName, Images]) -> list[str]:
    """Number the classes of all splits alike; return notes about classes that are not in all."""
    names = {split: part.class_names for split, part in images.items() if part.class_names is not None}
    if len(names) == 0 or (len(set(names.values())) == 1 and len(names) == len(images)):
        return []
    union = tuple(sorted({name for classes in names.values() for name in classes}))
    flat = [split for split in images if split not in names]
    notes = [f"the {split} images are in no class folders: they have no labels" for split in flat]
    for split, classes in names.items():
        number = torch.tensor([union.index(name) for name in classes])
        part = images[split]
        assert part.labels_N is not None
        images[split] = replace(part, labels_N=number[part.labels_N], class_names=union)
        if absent := [name for name in union if name not in classes]:
            notes.append(f"{_some(absent)} {'has' if len(absent) == 1 else 'have'} no {split} images")
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (
        f" and {len(names) - NAMED} more classes" if len(names) > NAMED else ""
    )


def _coloured(pixels: Tensor) -> Tensor:
    return pixels.repeat(1, 3, 1, 1)


def _one_is_white(pixels: Tensor) -> Tensor:
    return pixels * 255


def _mask(images: Images) -> bool:
    return all(int(part.max()) <= 1 for part in images.chunks())  # of most sets it ends in the first few MiB


def _black(images: Images) -> bool:
    return all(int(part.max()) == 0 for part in images.chunks())
