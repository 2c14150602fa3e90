"""Labels of any type as classes, numbered alike in all splits. What cannot be classes is left out, and said."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEW = 20  # labels: of fewer it cannot be said that they are no classes
NONE = -1  # the label of an image that has none

Column = NDArray[np.int64] | NDArray[np.str_]


def as_column(labels: object, n: int, source: str) -> tuple[Column | None, str]:
    """Return the classes of n images, whole numbers or names ("" for none), or None; and a note, or "".

    Accepts whole numbers (below 0: none), floats that are whole (NaN: none), names, Python objects that are all names
    or all numbers (None: none), one column of a table, and one-hot rows (a row of zeros: none).
    """
    array = np.asarray(labels) if not isinstance(labels, list | tuple) else _from_list(labels)
    if array.ndim == 2 and array.shape[1] == 1:  # a column of a table
        array = array[:, 0]
    if len(array.shape) == 0 or len(array) != n:
        return None, _left_out(
            source, f"labels of shape {array.shape} for {n} images", "give one label an image"
        )
    if array.dtype.kind == "O":
        array, why = _from_objects(array)
        if why:
            return None, _left_out(source, f"labels hold {why}", "save names as text: labels.astype(str)")
    if array.ndim != 1:
        return _from_table(array, n, source)
    if array.dtype.kind in "US":
        return np.char.strip(array.astype(np.str_)), ""
    if array.dtype.kind == "f":
        return _from_floats(array, source)
    if array.dtype.kind not in "iub":
        why = f"labels of dtype {array.dtype} are no classes"
        return None, _left_out(source, why, "give whole numbers or names")
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        return array.astype(np.str_), ""
    return array.astype(np.int64), ""


def numbered(columns: Mapping[str, Column | None]) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """Return int64 labels of each split that has some, and the names of the classes of all splits, or None."""
    there = {split: column for split, column in columns.items() if column is not None}
    if not any(column.dtype.kind == "U" for column in there.values()):
        return {split: torch.from_numpy(column.astype(np.int64)) for split, column in there.items()}, None
    texts = {split: column.astype(np.str_) for split, column in there.items()}
    names = np.unique(np.concatenate(list(texts.values())))
    names = names[names != ""]
    coded = {}
    for split, text in texts.items():
        index = np.searchsorted(names, text).astype(np.int64)
        coded[split] = torch.from_numpy(np.where(text == "", NONE, index))
    return coded, tuple(map(str, names))


def without_label(splits: Mapping[str, Tensor | None]) -> str:
    """Return a line that counts the images whose label is below 0, or ""."""
    there = {split: labels for split, labels in splits.items() if labels is not None}
    missing = {split: int((labels < 0).sum()) for split, labels in there.items()}
    n = sum(missing.values())
    if not n:
        return ""
    total = sum(len(labels) for labels in there.values())
    parts = ", ".join(f"{count} {split}" for split, count in missing.items() if count)
    return (
        f"{n} of {total} images have no label, or one below 0, which means none ({parts}): they train the model, and "
        "are left out of probes, classifier and pictures by class. Where that is a class, number the classes from 0"
    )


def like_numbers(labels: Mapping[str, Tensor]) -> str:
    """Return a line about labels that number the images and not their classes, or ""."""
    there = torch.cat([values[values >= 0] for values in labels.values()]) if labels else torch.zeros(0)
    values = len(np.unique(there.numpy()))
    if len(there) < FEW or 2 * values <= len(there):
        return ""
    return (
        f"the labels of {len(there)} images have {values} values, as numbers of images have and not of classes: "
        "probes, classifier and pictures by class mean little with them"
    )


def _left_out(source: str, why: str, way_out: str) -> str:
    return f"{source}: {why}: left out, the images are used without labels. To use them, {way_out}"


def _from_list(labels: Sequence[object]) -> np.ndarray:
    """Return an array of whatever an array can be made of; else one of objects."""
    if any(label is None for label in labels):
        return _objects(labels)
    try:
        return np.asarray(labels)
    except ValueError:  # rows of different lengths
        return _objects(labels)


def _objects(labels: Sequence[object]) -> np.ndarray:
    array = np.empty(len(labels), object)
    array[:] = list(labels)
    return array


def _from_objects(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Return names or numbers, or the types that are neither, in words."""
    if array.ndim != 1:
        return array, "tables of Python objects"
    missing = np.array([label is None or (isinstance(label, float) and np.isnan(label)) for label in array])
    there = array[~missing]
    if all(isinstance(label, str) for label in there):
        return np.array(
            ["" if gone else label for label, gone in zip(array, missing, strict=True)], np.str_
        ), ""
    if all(isinstance(label, int | float | np.number | np.bool_) for label in there):
        return np.array([np.nan if gone else label for label, gone in zip(array, missing, strict=True)]), ""
    types = sorted({type(label).__name__ for label in there})
    return array, f"Python objects ({', '.join(types[:3])})"


def _from_floats(array: np.ndarray, source: str) -> tuple[Column | None, str]:
    values = array[~np.isnan(array)]
    if np.isfinite(values).all() and (values == np.rint(values)).all() and (np.abs(values) < 2**62).all():
        return np.where(np.isnan(array), NONE, array).astype(np.int64), ""
    why = f"labels are continuous ({len(np.unique(values))} values from {values.min():g} to {values.max():g})"
    return None, _left_out(source, why, "cut them into classes, as with numpy.digitize(labels, edges)")


def _from_table(array: np.ndarray, n: int, source: str) -> tuple[Column | None, str]:
    """Return the classes of one-hot rows; a note for anything else with several numbers an image."""
    if array.ndim == 2 and array.dtype.kind in "iubf" and array.size:
        ones = array == 1
        several = int((ones.sum(1) > 1).sum())
        if bool((ones | (array == 0)).all()):
            if not several:
                return np.where(ones.any(1), ones.argmax(1), NONE).astype(np.int64), ""
            why = f"labels of shape {array.shape} have several classes in {several} of {n} images"
            way_out = (
                "give one column of them, or the columns as an array 'factors' where each is an attribute"
            )
            return None, _left_out(source, why, way_out)
    why = f"labels of shape {array.shape} are several numbers an image"
    way_out = "give one class an image: labels.argmax(1) of scores, labels[:, 0] of a table"
    return None, _left_out(source, why, way_out)
