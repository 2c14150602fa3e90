from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from nelbo.data.idx import gunzip, parse_idx, read_bytes
from nelbo.errors import DataError


def read_idx(path: Path) -> np.ndarray:
    """The three steps that downloads and sources take."""
    return parse_idx(gunzip(read_bytes(path), path), path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("compress", [False, True])
def test_every_type_comes_back_as_it_was_written(tmp_path, idx_bytes, dtype, compress):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype) * 5
    path = tmp_path / "x.idx"
    path.write_bytes(idx_bytes(array, compress))
    back = read_idx(path)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, array)


def test_bytes_are_big_endian(tmp_path):
    (tmp_path / "x").write_bytes(bytes([0, 0, 11, 1, 0, 0, 0, 2, 1, 0, 255, 254]))
    assert read_idx(tmp_path / "x").tolist() == [256, -2]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("keep", [2, 6, 17, -1])
def test_a_truncated_file_is_named_with_the_remedy(tmp_path, idx_bytes, keep, compress):
    path = tmp_path / "cut-idx3-ubyte"
    whole = idx_bytes(np.random.RandomState(0).randint(0, 255, (4, 5, 5)).astype("u1"), compress)
    path.write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"cut-idx3-ubyte.*Delete the file"):
        read_idx(path)


@pytest.mark.parametrize(
    "content", [b"\x00\x01\x08\x01", b"\x00\x00\x07\x01\x00\x00\x00\x00", b"PK\x03\x04abc"]
)
def test_another_magic_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="not an IDX file"):
        read_idx(tmp_path / "x")


def test_trailing_bytes_are_refused(tmp_path, idx_bytes):
    (tmp_path / "x").write_bytes(gzip.compress(idx_bytes(np.zeros(3, "u1")) + b"!"))
    with pytest.raises(DataError, match="12 bytes, but its header"):
        read_idx(tmp_path / "x")


def test_a_missing_file_is_a_data_error():
    with pytest.raises(DataError, match="no-such"):
        read_idx(Path("no-such"))
