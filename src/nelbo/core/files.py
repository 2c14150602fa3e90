"""Files that are written whole or not at all, and tensors in them without pickled code."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nelbo.core.format import with_format, without_format
from nelbo.errors import RunError


def write_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write named tensors, with a table of plain values in the file's metadata."""
    ready = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with atomic(file) as temporary:
        text = json.dumps(finite(with_format(about)), allow_nan=False)
        save_file(ready, temporary, metadata={"nelbo": text})


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file and its table; raise RunError if it cannot be read."""
    try:
        with safe_open(file, framework="pt") as stored:
            about = json.loads((stored.metadata() or {}).get("nelbo", "{}"))
            return {key: stored.get_tensor(key) for key in stored.keys()}, without_format(about, file)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(
            f"{file} cannot be read ({error}); the run is damaged: train again with --overwrite"
        ) from None


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """Give a temporary path beside `file`, and move it into place if the block succeeds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: only within one file system a file is moved at once.
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    try:
        yield Path(temporary)
        os.chmod(temporary, 0o644)  # mkstemp lets nobody but its owner read it
        os.replace(temporary, file)
    finally:
        Path(temporary).unlink(missing_ok=True)


def finite(value: object) -> object:
    """Return plain values with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
