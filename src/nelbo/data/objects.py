"""Whatever Python holds, as images: arrays, tensors, datasets of torch and of Hugging Face."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nelbo.data.arrayfiles import loaded_from_mapping
from nelbo.data.arraynames import roles
from nelbo.data.arrays import Part, Reading, images_of
from nelbo.data.folder import SPLITS
from nelbo.data.images import Images
from nelbo.data.levels import ranged
from nelbo.data.ondisk import check_memory
from nelbo.data.pillow import arrays_of
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

Pair = tuple[object, object]  # image and label
READ_TWICE = 16  # items; a change at random in one of two would escape them once in 65,536 times
EXPECTED = (
    "a NumPy array, a tensor, (images, labels), a torch Dataset with a length, a Hugging Face dataset "
    'with an image column, or a dict {"train": ..., "test": ...} of these'
)
IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target")


@runtime_checkable
class Items(Protocol):
    """A dataset: it has a length and items, of whatever kind."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def from_object(obj: object, reading: Reading | None = None) -> Loaded:
    """Return the images of an object in memory; `reading.size` resizes Pillow images as they are read.

    Accepts an array or tensor (N, H, W), (N, H, W, C) or (N, C, H, W); a tuple (images, labels); any
    dataset with a length whose items are an image or (image, label); a dataset with an image column;
    a dict of splits of these, or of arrays under usual names. Raises DataError for anything else, and for values that
    are not pixels.
    """
    reading = reading or Reading()
    if isinstance(obj, Loaded):
        return obj
    notes: list[str] = []
    if not isinstance(obj, Mapping):
        return _together({"train": _one_split(obj, "data", reading, notes)}, reading, notes)
    names = [str(name) for name in obj]
    chosen = roles(names)
    named = set(chosen.values()) == set(names) and not set(names) <= set(SPLITS)  # no array without a role
    if ("images", "train") in chosen and (named or "train" not in obj):
        return loaded_from_mapping(
            {str(key): _as_numpy(value) for key, value in obj.items()}, "data", reading
        )
    if "train" not in obj or any(key not in SPLITS for key in obj):
        raise DataError(
            f"a dict of splits has train, validation and test, one of arrays has images and labels; not "
            f"{', '.join(map(str, obj))}"
        )
    splits = {SPLITS[key]: _one_split(value, key, reading, notes) for key, value in obj.items()}
    return _together(splits, reading, notes)


def _together(splits: Mapping[str, Part | Images], reading: Reading, notes: list[str]) -> Loaded:
    """Return the splits as images, numbers decided for all of them together; images that are some already stay."""
    parts = {split: part for split, part in splits.items() if isinstance(part, Part)}
    images = {split: part for split, part in splits.items() if isinstance(part, Images)}
    if not parts:
        return Loaded.of(images)
    loaded = images_of(parts, reading)
    if reading.span is not None and loaded.ranged:
        images = {split: ranged(part, reading.span, split) for split, part in images.items()}
    made = {"train": loaded.train, "validation": loaded.validation, "test": loaded.test} | images
    there = {split: part for split, part in made.items() if part is not None}
    return Loaded.of(there, notes=(*notes, *loaded.notes), ranged=loaded.ranged)


def _one_split(obj: object, source: str, reading: Reading, notes: list[str]) -> Part | Images:
    if isinstance(obj, Images):
        return obj
    pixels, labels = obj if isinstance(obj, tuple) and len(obj) == 2 else (obj, None)
    if isinstance(pixels, np.ndarray | Tensor):
        array = np.asanyarray(_as_numpy(pixels))  # a memory map stays one
        labels = _as_numpy(labels)
        if isinstance(labels, np.ndarray) and labels.ndim >= 3:
            raise DataError(
                f"{source}: (images, labels) with labels of shape {labels.shape}, which are images; "
                'give splits as {"train": ..., "test": ...}'
            )
        return Part(array, source, labels, tensor=isinstance(pixels, Tensor))
    if not isinstance(obj, Items) or isinstance(obj, str | bytes):
        raise DataError(f"{source}: a {type(obj).__name__} is not images; expected {EXPECTED}")
    if len(obj) == 0:
        raise DataError(f"{source}: the dataset is empty")
    if isinstance(features := getattr(obj, "features", None), Mapping):
        return _from_columns(obj, features, source, reading, notes)
    return part_of_items(_read(obj, lambda item: _item(item, source), source, notes), source, reading, notes)


def _read(obj: Items, pair: Callable[[Any], Pair], source: str, notes: list[str]) -> list[Pair]:
    """Read all items, and some of them once more: a note says where the second reading gives something else."""
    n = len(obj)
    item = obj[0]
    first = pair(item)
    image = first[0]
    if isinstance(image, np.ndarray | Tensor):
        check_memory(
            2 * n * image.nbytes, source, "pass the path of a .npy of uint8, which stays on the disk"
        )
    items = [first, *(pair(obj[i]) for i in range(1, n))]
    if isinstance(item, tuple | list) and len(item) > 2:
        notes.append(f"{source}: items have {len(item)} parts; the first is the image, the second its label")
    again = range(0, n, max(1, n // READ_TWICE))[:READ_TWICE]
    with _same_streams():
        differ = sum(not _alike(items[i][0], pair(obj[i])[0]) for i in again)
    if differ:
        notes.append(
            f"{source}: {differ} of {len(again)} items were others when read once more. Each was read once, and "
            "training sees that version in every epoch, and another one when the data are read again: switch random "
            "changes off in the dataset"
        )
    return items


@contextlib.contextmanager
def _same_streams() -> Iterator[None]:
    """Put the random streams of Python, NumPy and torch back afterwards: a second reading leaves nothing behind."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _alike(a: object, b: object) -> bool:
    left, right = (np.asarray(_as_numpy(image)) for image in (a, b))
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


def _item(item: object, source: str) -> Pair:
    """Return image and label of an item; None for a label that it does not have."""
    if isinstance(item, tuple | list):
        if not item:
            raise DataError(f"{source}: an item of no parts; expected image or (image, label)")
        return item[0], item[1] if len(item) > 1 else None
    if isinstance(item, Mapping):
        column = next((name for name in IMAGE_COLUMNS if name in item), None)
        if column is None:
            raise DataError(f"{source}: items have {', '.join(map(str, item))}; expected an 'image'")
        return item[column], next((item[name] for name in LABEL_COLUMNS if name in item), None)
    return item, None


def _from_columns(
    obj: Items, features: Mapping[str, object], source: str, reading: Reading, notes: list[str]
) -> Part:
    """Return the images of a dataset whose `features` describe columns, one of class Image or of a usual name."""
    named = [name for name in IMAGE_COLUMNS if name in features]
    # By the name of its class: Hugging Face's `datasets` is not installed with this package.
    typed = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if not typed and not named:
        raise DataError(f"{source}: has no image column; its columns are {', '.join(map(str, features))}")
    image = (typed or named)[0]
    label = next((name for name, feature in features.items() if getattr(feature, "names", None)), None)
    label = label or next((name for name in LABEL_COLUMNS if name in features), None)
    pairs = _read(obj, lambda row: (row[image], row[label] if label else None), source, notes)
    part = part_of_items(pairs, source, reading, notes)
    classes = getattr(features[label], "names", None) if label else None
    return replace(part, class_names=None if classes is None else tuple(map(str, classes)))


def part_of_items(items: Sequence[Pair], source: str, reading: Reading, notes: list[str]) -> Part:
    """Return images and labels of items (image, label), and add notes; raise DataError where images do not fit."""
    from PIL import Image

    pictures = [picture for picture, _ in items if isinstance(picture, Image.Image)]
    mapped = False
    if len(pictures) < len(items):
        tensor = isinstance(items[0][0], Tensor)
        arrays = [np.asarray(_as_numpy(image)) for image, _ in items]
    else:
        tensor = True
        arrays, mapped = arrays_of(pictures, source, reading, notes)
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"{source}: images have different shapes: item 0 {arrays[0].shape}, item {i} {array.shape}; "
                "choose one size with --data.size 64 (Pillow images) or resize them first"
            )
    labels = [_as_numpy(label) for _, label in items]
    column = None if all(label is None for label in labels) else labels
    return Part(np.stack(arrays), source, column, tensor=tensor, mapped=mapped)


def _as_numpy(value: object) -> object:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
