"""Tables with a row an image, as files that other programs read: .csv, .json, .parquet, .npz.

A table is a mapping of names to arrays of N numbers or texts. One of shape (N, Z) is Z columns, called name_0, name_1
and so on; in an .npz it stays one array.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo.core.files import atomic, finite
from nelbo.errors import ConfigError

Columns = Mapping[str, NDArray[Any]]
AT_ONCE = 10_000  # rows that are texts at a time


def check_file(file: Path, kinds: Sequence[str], *, overwrite: bool) -> None:
    """Raise ConfigError for a file that cannot be written, or is there already, before any work is done for it."""
    if file.suffix not in kinds:
        raise ConfigError(
            f"--out {file}: expected a name that ends in {', '.join(kinds[:-1])} or {kinds[-1]}"
        )
    if file.is_dir():
        raise ConfigError(f"--out {file}: this is a folder; give the name of a file in it")
    if file.exists() and not overwrite:
        raise ConfigError(f"--out {file}: there is such a file already; replace it with --overwrite")
    if file.suffix == ".parquet":
        _pyarrow()


def write(file: Path, columns: Columns, about: Mapping[str, object] | None = None) -> None:
    """Write a table in the format that the file's name says.

    about  plain values that belong to the whole table; only a .json has room for them
    """
    with atomic(file) as temporary:
        match file.suffix:
            case ".csv":
                _write_csv(temporary, dict(single(columns)))
            case ".json":
                table = {name: array.tolist() for name, array in columns.items()}
                rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
                text = json.dumps(finite({**(about or {}), "images": rows}), indent=1, allow_nan=False)
                temporary.write_text(text + "\n", encoding="utf-8")
            case ".parquet":
                arrow, parquet = _pyarrow()
                parquet.write_table(
                    arrow.table({name: list_of(array) for name, array in single(columns)}), temporary
                )
            case ".npz":
                with temporary.open(
                    "wb"
                ) as stream:  # floats hardly compress, and trying takes as long as encoding
                    np.savez(stream, allow_pickle=False, **columns)


def single(columns: Columns) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the columns one by one."""
    for name, array in columns.items():
        if array.ndim == 1:
            yield name, array
        else:
            yield from ((f"{name}_{place}", array[:, place]) for place in range(array.shape[1]))


def list_of(array: NDArray[Any]) -> object:
    """Return numbers as they are, and texts as a list."""
    return array.tolist() if array.dtype.kind == "U" else np.ascontiguousarray(array)


def _write_csv(file: Path, columns: Columns) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for start in range(0, len(next(iter(columns.values()))), AT_ONCE):
            # NumPy writes as few digits as give back the very number: six times fewer bytes than float64 has.
            parts = [array[start : start + AT_ONCE].astype(str) for array in columns.values()]
            writer.writerows(zip(*parts, strict=True))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except (ImportError, RuntimeError, OSError):
        raise ConfigError(
            "a .parquet file needs pyarrow: pip install 'nelbo[files]'; or write .csv, .npz or .json"
        ) from None
    return pyarrow, pyarrow.parquet
