"""Files of arrays: .npy, .npz, and whatever else holds arrays under names, with their labels and factors."""

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch

from nelbo.data import ondisk
from nelbo.data.arraynames import USUAL, Role, roles
from nelbo.data.arrays import BYTES, Part, Reading, images_of
from nelbo.data.ondisk import ArrayFile, check_memory
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

CONVERT = "only .npy files of uint8, row by row, are read from the disk as they are needed: save them as that"


@dataclass(frozen=True, slots=True)
class Entry:
    """One array of a file that holds several; `read` is None where it holds Python objects, which stay unread."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] | None

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}" if self.read else "Python objects"


def load_array_file(path: Path, reading: Reading | None = None) -> Loaded:
    """Read a .npy or .npz file (never pickled objects); raise DataError naming the file.

    A .npy of uint8 or bool above `ondisk.THRESHOLD` stays in its file. Other numbers are read whole, since each batch
    would have to be converted anew in every epoch; so is an .npz, whose rows have no place in the file of their own.
    """
    source = str(path)
    try:
        with path.open("rb") as file:  # numpy leaves a handle of its own open where the archive is damaged
            if path.suffix.lower() == ".npy":
                shape, columns_first, dtype = _header(file)
                rows = dtype in BYTES and not columns_first and len(shape) > 1 and 0 not in shape
                if rows and math.prod(shape) > ondisk.THRESHOLD:
                    return images_of({"train": Part(ArrayFile(path, shape, file.tell()), source)}, reading)
                check_memory(bytes_of(shape, dtype), source, CONVERT)
                file.seek(0)  # behind the header
                array = np.load(file, allow_pickle=False)
                return images_of({"train": Part(array, source)}, reading)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):  # a .npy under another name
                return images_of({"train": Part(content, source)}, reading)
            with zipfile.ZipFile(file) as archive:
                entries = dict(_members(content, archive))
            return loaded_from_entries(entries, source, reading)
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and the header's parser each raise their own
        raise DataError(
            f"{path}: not readable as an array ({error}); expected what numpy.save or numpy.savez writes, "
            "without objects"
        ) from None


def loaded_from_mapping(arrays: Mapping[str, object], source: str, reading: Reading | None = None) -> Loaded:
    """Return splits from arrays under usual names, or from a single array of any name."""
    entries = {}
    for name, values in arrays.items():
        array = np.asanyarray(values)
        entries[name] = Entry(array.shape, array.dtype, partial(np.asanyarray, array))
    return loaded_from_entries(entries, source, reading)


def loaded_from_entries(
    entries: Mapping[str, Entry], source: str, reading: Reading | None = None, *, note: str = ""
) -> Loaded:
    """Return splits from the arrays of a file; what is not used is said. Raises DataError naming file and array."""
    reading = reading or Reading()
    chosen = roles(entries)
    if len(entries) == 1:  # all arrays of the file, the unreadable ones too
        chosen = {("images", "train"): next(iter(entries))}
    if ("images", "train") not in chosen:
        listed = ", ".join(f"{name} ({entry})" for name, entry in sorted(entries.items())) or "nothing"
        raise DataError(f"{source}: has no training images under any usual name ({USUAL}); it has {listed}")
    images = {split: name for (kind, split), name in chosen.items() if kind == "images"}
    for name in images.values():
        if entries[name].read is None:
            raise DataError(
                f"{source}[{name}]: holds Python objects, which are never unpickled; save one array of numbers, as "
                "with numpy.stack(list_of_images), where all images have one size"
            )
    chosen = {(kind, split): name for (kind, split), name in chosen.items() if split in images}
    check_memory(
        sum(bytes_of(entries[name].shape, entries[name].dtype) for name in chosen.values()), source, CONVERT
    )
    notes = [note] if note else []
    parts = {split: _part(split, chosen, entries, source, notes) for split in images}
    used = {*chosen.values(), "factor_names"}
    unused = [f"{name} ({entry})" for name, entry in entries.items() if name not in used]
    if unused:
        notes.append(f"{source}: not used: {', '.join(unused)}")
    loaded = images_of(parts, reading)
    return replace(loaded, notes=(*notes, *loaded.notes))


def bytes_of(shape: Sequence[int], dtype: np.dtype) -> int:
    """Return the bytes that an array takes until it is pixels: its own, and those of the pixels."""
    return math.prod(shape) * (dtype.itemsize + (4 if dtype.kind == "f" else 1))


def _members(content: np.lib.npyio.NpzFile, archive: zipfile.ZipFile) -> Iterator[tuple[str, Entry]]:
    """Yield the arrays of an .npz, none of which has been read."""
    for key in content.files:
        name = key if key in archive.namelist() else f"{key}.npy"
        with archive.open(name) as member:
            shape, _, dtype = _header(member)
        yield key, Entry(shape, dtype, None if dtype.hasobject else partial(content.__getitem__, key))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether columns come first, and dtype of a .npy; leave the stream at its numbers."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _part(
    split: str, chosen: Mapping[Role, str], entries: Mapping[str, Entry], source: str, notes: list[str]
) -> Part:
    """Read the images of a split, and what is stored beside them under the names that were chosen."""

    def beside(kind: Literal["labels", "factors"]) -> np.ndarray | None:
        name = chosen.get((kind, split))
        if name is None:
            return None
        read = entries[name].read
        if read is None:
            as_text = f"; save them with {name}.astype(str)" if kind == "labels" else ""
            notes.append(f"{source}: {name} holds Python objects and was left out{as_text}")
        return None if read is None else read()

    name = chosen["images", split]
    read = entries[name].read
    assert read is not None
    array = read()
    part = Part(array, f"{source}[{name}]", beside("labels"))
    factors = beside("factors")
    if factors is None:
        return part
    stored = entries.get("factor_names")
    names = stored.read() if stored is not None and stored.read is not None else None
    return _with_factors(part, factors, names, f"{source}[{chosen['factors', split]}]")


def _with_factors(part: Part, array: np.ndarray, names: np.ndarray | None, source: str) -> Part:
    """Return the part with the factors of variation that are stored beside it: whole numbers (N, F)."""
    n = len(part.array)
    if array.shape[:1] != (n,) or array.ndim != 2 or array.dtype.kind not in "iub":
        raise DataError(
            f"{source}: {array.dtype} of shape {array.shape} for {n} images; expected whole numbers "
            f"({n}, F), the index of each factor's value: numpy.unique(column, return_inverse=True)[1]"
        )
    if names is None:
        names = np.array([f"factor {i}" for i in range(array.shape[1])])
    words = tuple(str(name) for name in names.ravel())
    if not len(words) == len(set(words)) == array.shape[1]:
        raise DataError(
            f"{part.source.partition('[')[0]}[factor_names]: {array.shape[1]} factors need as many different names, "
            f"not {', '.join(words)}"
        )
    return replace(part, factors_NF=torch.from_numpy(array.astype(np.int64)), factor_names=words)
