"""Other files of images: HDF5, MATLAB, Parquet and ZIP. Readers that need a package say how to install it."""

import hashlib
import importlib
import io
import json
import math
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from nelbo.data.arrayfiles import Entry, load_array_file, loaded_from_entries
from nelbo.data.arraynames import roles
from nelbo.data.arrays import CHANNELS, Reading, images_of
from nelbo.data.objects import IMAGE_COLUMNS, LABEL_COLUMNS, part_of_items
from nelbo.data.ondisk import check_memory
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

HDF5 = (".h5", ".hdf5", ".hdf")
FILES = (".npy", ".npz", *HDF5, ".mat", ".parquet", ".zip")
_ELSEWHERE = "or convert it where that is installed, in Python:"
_CONVERT = {
    ".pt": "import torch, numpy; images, labels = torch.load({source!r}, weights_only=True)[:2]\n"
    "  numpy.savez({target!r}, images=images.numpy(), labels=labels.numpy())",
    ".pkl": "import pickle, numpy; content = pickle.loads(numpy.fromfile({source!r}, 'uint8'))  # if you trust it\n"
    "  numpy.savez({target!r}, images=content['images'], labels=content['labels'])",
    "ubyte": "import numpy; from nelbo.data.idx import parse_idx\n"
    "  numpy.savez({target!r}, images=parse_idx(numpy.fromfile({source!r}, 'uint8').tobytes(), 'images'))",
    ".gz": "import gzip, numpy; from nelbo.data.idx import parse_idx  # of MNIST's format; unpack any other archive\n"
    "  numpy.savez({target!r}, images=parse_idx(gzip.decompress(numpy.fromfile({source!r}, 'uint8')), 'images'))",
    "": "import numpy; images = ...  # read {source!r} as an array (N, height, width) or (N, height, width, channels)\n"
    "  numpy.savez({target!r}, images=images)",
}
_ALIKE = {".tsv": ".csv", ".pth": ".pt", ".pickle": ".pkl"}


def check_file(path: Path) -> None:
    """Raise DataError for a file that no reader takes, with the two lines of Python that convert it."""
    ending = path.suffix.lower()
    if ending not in FILES:
        kind = "ubyte" if path.name.endswith("ubyte") else _ALIKE.get(ending, ending)
        lines = _csv(path) if kind == ".csv" else _CONVERT.get(kind, _CONVERT[""])
        lines = lines.format(source=str(path), target=str(path.with_suffix(".npz")))
        raise DataError(
            f"{path}: expected a folder of images, or a file ending in {', '.join(FILES[:-1])} or {FILES[-1]}; "
            f"convert it in Python:\n  {lines}"
        )


def load_file(path: Path, reading: Reading) -> Loaded:
    """Return the images of a file that `check_file` lets pass, but for .zip; raise DataError naming it."""
    ending = path.suffix.lower()
    if ending in (".npy", ".npz"):
        return load_array_file(path, reading)
    reader = {".mat": _mat, ".parquet": _parquet}.get(ending, _hdf5)
    try:
        return reader(path, reading)
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise DataError(f"{path}: not readable as {ending} ({error}); write it again") from None


def unpacked(path: Path, folder: Path) -> Path:
    """Return the folder into which a .zip of images was unpacked, below `folder`: once, until the file changes."""
    stat = path.stat()
    version = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    target = folder / f"{path.stem}-{hashlib.sha256(version.encode()).hexdigest()[:16]}"
    if not target.is_dir():
        part = folder / f".{target.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            with zipfile.ZipFile(path) as archive:
                _check_room(archive, path, folder)
                archive.extractall(part)  # keeps every member below the folder, whatever its name
            part.rename(target)
        except (OSError, zipfile.BadZipFile, RuntimeError) as error:
            shutil.rmtree(part, ignore_errors=True)
            raise DataError(
                f"{path}: cannot be unpacked into {folder} ({error}); unpack it and name the folder"
            ) from None
    inside = [entry for entry in target.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    # An archive of one folder: its name is no class.
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _csv(path: Path) -> str:
    """Return the lines of Python that convert rows of pixels; the first rows say whether they begin with a label."""
    between = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8", errors="replace") as file:
        first, second = file.readline(), file.readline()
    named = int(any(letter.isalpha() for letter in first))
    columns = (second or first).count(between) + 1
    label = 0 if math.isqrt(columns) ** 2 == columns else 1
    side = math.isqrt(columns - label)
    shape = f"{side}, {side}" if side**2 == columns - label else "HEIGHT, WIDTH"
    keep = (
        f"labels=rows[:, 0], images=rows[:, 1:].reshape(-1, {shape})"
        if label
        else f"images=rows.reshape(-1, {shape})"
    )
    return (
        f"import numpy; rows = numpy.loadtxt({{source!r}}, int, delimiter={between!r}, skiprows={named})\n"
        f"  numpy.savez({{target!r}}, {keep})"
    )


def _check_room(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(member.file_size for member in archive.infolist()), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"takes {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free")


def _needed(package: str, path: Path, lines: str) -> ModuleType:
    """Return a package that is not required; raise DataError that says how to install it, or what else to do."""
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError, OSError):
        install = package.partition(".")[0]
        lines = lines.format(source=str(path), target=str(path.with_suffix(".npz")))
        raise DataError(f"{path}: needs a package: pip install {install}; {_ELSEWHERE}\n  {lines}") from None


def _hdf5(path: Path, reading: Reading, *, matlab: bool = False) -> Loaded:
    h5py = _needed(
        "h5py",
        path,
        "import h5py, numpy; content = h5py.File({source!r})\n"
        "  numpy.savez({target!r}, images=content['images'][()], labels=content['labels'][()])",
    )
    with h5py.File(path, "r") as file:
        entries: dict[str, Entry] = {}

        def visit(name: str, item: object) -> None:
            if not isinstance(item, h5py.Dataset) or item.shape is None or name.startswith("#"):
                return
            text = h5py.check_string_dtype(item.dtype) is not None
            if text:
                entries[name] = Entry(
                    item.shape, np.dtype(np.str_), lambda: np.asarray(item.asstr()[()], np.str_)
                )
            elif item.dtype.hasobject:
                entries[name] = Entry(item.shape, item.dtype, None)
            elif matlab:  # MATLAB writes its axes in reverse
                entries[name] = Entry(item.shape[::-1], item.dtype, lambda: np.asarray(item[()]).T)
            else:
                entries[name] = Entry(item.shape, item.dtype, lambda: np.asarray(item[()]))

        file.visititems(visit)
        entries, note = _images_first(entries) if matlab else (entries, "")
        return loaded_from_entries(entries, str(path), reading, note=note)


def _mat(path: Path, reading: Reading) -> Loaded:
    from scipy.io import loadmat, whosmat

    try:
        listed = whosmat(path)
    except NotImplementedError:  # version 7.3 is HDF5
        return _hdf5(path, reading, matlab=True)
    except Exception as error:  # of a damaged file scipy raises what comes
        raise ValueError(error) from None
    types = {name: kind for name, _, kind in listed}

    def read(name: str) -> np.ndarray:
        return np.asarray(loadmat(path, variable_names=[name], chars_as_strings=True)[name])

    entries = {}
    for name, shape, _ in listed:
        dtype = _matlab_type(types[name])
        entries[name] = Entry(shape, dtype, None if dtype.hasobject else partial(read, name))
    entries, note = _images_first(entries)
    return loaded_from_entries(entries, str(path), reading, note=note)


def _matlab_type(kind: str) -> np.dtype:
    """Return NumPy's type for a class of MATLAB; object for cells, structures and what else is no array of numbers."""
    names = {"double": "f8", "single": "f4", "logical": "?", "char": "U"}
    if kind in names:
        return np.dtype(names[kind])
    return np.dtype(kind) if kind.startswith(("int", "uint")) else np.dtype(object)


def _images_first(entries: Mapping[str, Entry]) -> tuple[dict[str, Entry], str]:
    """Return the arrays of MATLAB with vectors of one axis and images along the first axis, and a note where moved."""
    flat = {
        name: _flat(entry) if 1 in entry.shape and len(entry.shape) == 2 else entry
        for name, entry in entries.items()
    }
    chosen = dict.fromkeys([("images", "train")], *flat) if len(flat) == 1 else roles(flat)
    moved = []
    for (kind, split), name in chosen.items():
        if kind != "images":
            continue
        labels = flat.get(chosen.get(("labels", split), ""))
        if _last_axis_is_images(flat[name].shape, len(labels.shape) and labels.shape[0] if labels else None):
            shape = flat[name].shape
            moved.append(f"{name} {shape}")
            flat[name] = _images_moved(flat[name])
    return flat, f"the last axis counts the images in {', '.join(moved)}, as in MATLAB" if moved else ""


def _last_axis_is_images(shape: tuple[int, ...], labels: int | None) -> bool:
    if len(shape) not in (3, 4) or shape[0] == labels:
        return False
    if labels is not None:
        return shape[-1] == labels
    if len(shape) == 4:
        return shape[2] in CHANNELS and shape[1] not in CHANNELS and shape[3] not in CHANNELS
    return shape[0] == shape[1] != shape[2]


def _flat(entry: Entry) -> Entry:
    read = entry.read
    n = max(entry.shape)
    return replace(entry, shape=(n,), read=None if read is None else lambda: read().ravel())


def _images_moved(entry: Entry) -> Entry:
    read = entry.read
    shape = (entry.shape[-1], *entry.shape[:-1])
    return replace(entry, shape=shape, read=None if read is None else lambda: np.moveaxis(read(), -1, 0))


def _parquet(path: Path, reading: Reading) -> Loaded:
    """Return the rows of a table with a column of encoded images, as Hugging Face writes it, or of nested lists."""
    from PIL import Image

    parquet = _needed(
        "pyarrow.parquet",
        path,
        "import io, numpy, pandas, PIL.Image as pil; cells = pandas.read_parquet({source!r}).image\n"
        "  numpy.savez({target!r}, images=numpy.stack([pil.open(io.BytesIO(cell['bytes'])) for cell in cells]))",
    )
    file = parquet.ParquetFile(path)
    columns = list(file.schema_arrow.names)
    column = next((name for name in IMAGE_COLUMNS if name in columns), None)
    if column is None:
        raise DataError(
            f"{path}: has no column of images ({', '.join(IMAGE_COLUMNS)}); it has {', '.join(columns)}"
        )
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    check_memory(path.stat().st_size, str(path), "write it in parts")
    table = file.read([name for name in (column, label) if name is not None])
    cells = table.column(column).to_pylist()
    labels = table.column(label).to_pylist() if label else [None] * len(cells)
    items: list[tuple[object, object]] = []
    for i, (cell, tag) in enumerate(zip(cells, labels, strict=True)):
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None:
            raise DataError(
                f"{path}: row {i} of {column!r} holds no image; take it out, or write the bytes of the image"
            )
        try:
            picture = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else np.asarray(content)
        except OSError as error:
            raise DataError(f"{path}: row {i} cannot be read as an image ({error}); take it out") from None
        items.append((picture, tag))
    notes: list[str] = []
    part = part_of_items(items, str(path), reading, notes)
    unused = [name for name in columns if name not in (column, label)]
    notes += [f"{path}: not used: {', '.join(unused)}"] if unused else []
    loaded = images_of(
        {"train": replace(part, class_names=_class_names(file.schema_arrow.metadata, label))}, reading
    )
    return replace(loaded, notes=(*notes, *loaded.notes))


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str | None) -> tuple[str, ...] | None:
    """Return the names of the classes that Hugging Face wrote beside the columns, or None."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return None
