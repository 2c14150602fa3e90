"""The IDX format of MNIST and its relatives.

Big-endian: two zero bytes, a type code, the number of dimensions, each dimension as uint32, the data.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nelbo.errors import DataError

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # type code -> NumPy dtype


def read_bytes(path: Path) -> bytes:
    """Return the file's bytes; raise DataError naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def gunzip(content: bytes, path: Path | str) -> bytes:
    """Return the content, uncompressed if it is gzip; raise DataError naming the file it came from."""
    if content[:2] != b"\x1f\x8b":  # how every gzip stream begins
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, f"the gzip stream is broken ({error})") from None


def parse_idx(content: bytes, path: Path | str) -> NDArray[np.generic]:
    """Return the array in uncompressed IDX bytes; `path` is what messages name."""
    if len(content) < 4:
        raise _damaged(path, f"{len(content)} bytes are too few for an IDX header")
    zero, code, ndim = struct.unpack(">HBB", content[:4])
    if zero != 0 or code not in TYPES:
        begins = content[:4].hex()
        raise _damaged(path, f"not an IDX file: it starts with {begins}, not with 0000 and a type code")
    start = 4 + 4 * ndim
    if len(content) < start:
        raise _damaged(path, f"the header is cut off: {len(content)} bytes of {start}")
    shape = struct.unpack(f">{ndim}I", content[4:start])
    dtype = np.dtype(TYPES[code])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise _damaged(path, f"{len(content):,} bytes, but its header {shape} asks for {expected:,}")
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))  # torch takes no other byte order than the machine's


def _damaged(path: Path | str, why: str) -> DataError:
    return DataError(f"{path}: {why}. Delete the file and run again to download it anew")
