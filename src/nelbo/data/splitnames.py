"""Names of folders that stand for splits: train, Training, test_images, valset, dev.

A name is read without case, digits and separators. No list is complete: two names that differ only in a word of
training and a word of testing (`cells train`, `cells test`) are splits too, and a word that nothing is known about
beside a split is refused and not taken for a class. Test images must never join the training ones.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nelbo.data.splits import SplitName
from nelbo.errors import DataError

_FILLER = (
    "(?:the|my|new|all|final|full|raw|original|data|dataset|set|image|img|picture|pic|photo|file|sample|split|"
    "folder|dir|jpg|jpeg|png|part|labeled|labelled)"
)
_WORDS: dict[SplitName, str] = {
    "train": "train(?:ing|val)?|trn",
    "validation": "val(?:id|idate|idating|idation)?|vld|dev(?:el|elop|elopment)?|"
    "eval(?:uate|uation|uating)?|tun(?:e|ing)",
    "test": "test(?:ing)?|tst|hold(?:out|outs)|heldout",
}
_EXACT = {
    split: re.compile(f"(?:{_FILLER}s?)*(?:{word})s?(?:{_FILLER}s?)*") for split, word in _WORDS.items()
}
_INSIDE = {split: re.compile(word) for split, word in _WORDS.items()}
# Neither a class nor a split that is known: beside a training folder they are refused.
_UNCLEAR = re.compile(
    f"(?:{_FILLER}s?)*(?:extra|additional|un(?:labell?ed|seen|known|supervised)|background|query|gallery|probe|"
    f"predict(?:ion)?|inference|submission|augmented|other|rest)s?(?:{_FILLER}s?)*"
)
# Words that classes have too: vehicles, and what passed a check. Alone among other names they are classes.
_ALSO_CLASSES = ("train", "trains", "valid")


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name.lower())


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder of this name is, or None; a word for it may be one of several."""
    words = [_letters(name), *map(str.lower, re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))]
    return next((split for word in words for split, exact in _EXACT.items() if exact.fullmatch(word)), None)


def _paired(names: Sequence[str]) -> dict[str, SplitName]:
    """Return the names that differ in nothing but a word of training and a word of testing."""
    rests: dict[str, dict[str, SplitName]] = {}  # what is left of a name without the word -> the names
    for name in names:
        letters = _letters(name)
        for split, inside in _INSIDE.items():
            if (match := inside.search(letters)) and len(match[0]) > 2:
                rest = letters[: match.start()] + letters[match.end() :]
                rests.setdefault(rest, {}).setdefault(name, split)
    splits: dict[str, SplitName] = {}
    for group in rests.values():
        if len({*group.values(), "train"}) > 1 and "train" in group.values():
            splits |= group
    return splits


def split_folders(
    names: Sequence[str], *, loose: bool, deep: Sequence[str], where: str
) -> dict[SplitName, str]:
    """Return the folder of each split, or nothing where the folders are classes.

    names  all folders with images in them, at one level
    loose  whether there are images beside them
    deep   those of them with folders of images inside
    where  the folder above them, for messages

    Raises DataError where some are splits and the others are unclear.
    """
    splits = {name: split for name in names if (split := split_of(name)) is not None}
    splits = {**splits, **_paired(names)}
    held_out = [name for name, split in splits.items() if split != "train"]
    training = [name for name, split in splits.items() if split == "train"]
    others = [name for name in names if name not in splits]
    if training and held_out:
        if loose or others or len(set(splits.values())) < len(splits):
            raise _unclear(where, list(splits), others, loose)
        by_split = {split: name for name, split in splits.items()}
        return {split: by_split[split] for split in _WORDS if split in by_split}
    certain = [name for name in splits if _EXACT[splits[name]].fullmatch(_letters(name))]
    certain = [name for name in certain if _letters(name) not in _ALSO_CLASSES]
    if held_out:
        alone = len(names) == 1 and not loose
        if [name for name in certain if name in held_out] and not alone:
            raise _unclear(where, held_out, others, loose)
        return {}
    if training:
        unclear = [name for name in others if _UNCLEAR.fullmatch(_letters(name))]
        if unclear or (others and (certain or set(training) & set(deep))):
            raise _unclear(where, training, others, loose)
        if not others and not loose and len(training) == 1:
            return {"train": training[0]}
    return {}


def refuse_nested(files: Sequence[str], folder: Path) -> None:
    """Raise DataError where folders further down are splits: their images would be taken together."""
    inside: dict[str, set[str]] = {}
    for parent in {os.path.dirname(file) for file in files}:
        while parent:
            above, name = os.path.split(parent)
            inside.setdefault(above, set()).add(name)
            parent = above
    for above, names in inside.items():
        splits = {name: split for name in names if (split := split_of(name))} | _paired(sorted(names))
        if "train" in splits.values() and len(set(splits.values())) > 1:
            listed = ", ".join(os.path.join(above, name) for name in sorted(splits))
            raise DataError(
                f"{folder}: holds split folders inside of others ({listed}); put the splits above the classes "
                "(train/CLASS, test/CLASS), or name one folder that has them: data.source"
            )


def refuse_names_of_files(files: Sequence[str], folder: Path) -> None:
    """Raise DataError where the names of files begin with words for training and for another split."""
    begins = Counter(match[0] for file in files if (match := re.match("[A-Za-z]+", os.path.basename(file))))
    splits = {word: split for word in begins if (split := split_of(word))}
    if "train" in splits.values() and len(set(splits.values())) > 1:
        counted = ", ".join(f"{begins[word]} {word}..." for word in sorted(splits))
        raise DataError(
            f"{folder}: names of files begin with words for splits ({counted}), and all of them would be training "
            "images; put each split into a folder of its own: train, val, test"
        )


def _unclear(where: str, splits: Sequence[str], others: Sequence[str], loose: bool) -> DataError:
    beside = [*sorted(others), *(["images outside of them"] if loose else [])]
    return DataError(
        f"{where}: holds split folders ({', '.join(sorted(splits))}) beside other images or folders "
        f"({', '.join(beside or sorted(splits))}); keep one folder a split (train, val, test) and nothing else, "
        "or name the classes otherwise"
    )
