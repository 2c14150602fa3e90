from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch

from nelbo.data import Data, available, mirrors
from nelbo.data.download import Remote, RemoteFile
from nelbo.errors import DataError


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    splits = Data().load()
    assert (len(splits.train), len(splits.test)) == (1438, 359)
    assert splits.shape == (1, 8, 8)
    assert (splits.pixels, splits.range) == ("grey", (0.0, 1.0))
    both = torch.cat([splits.train.pixels_NCHW, splits.test.pixels_NCHW]).view(1797, -1).numpy()
    expected = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(np.sort(both.view("V64").ravel()), np.sort(expected.view("V64").ravel()))


def test_digits_have_one_test_split_whatever_the_seed():
    first, second = Data(split_seed=1).load(), Data(split_seed=2, validation=0.1).load()
    assert first.test.hash() == second.test.hash()


@pytest.fixture
def tiny_emnist(monkeypatch, tmp_path, idx_bytes):
    """gzip.zip of a `letters` and a `balanced` split with 3 + 2 images of 28 x 28."""
    buffer = io.BytesIO()
    pixels = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype("u1")
    with zipfile.ZipFile(buffer, "w") as archive:
        for split, labels in (("letters", [1, 26, 3]), ("balanced", [0, 46, 2])):
            for part, n in (("train", 3), ("test", 2)):
                stem = f"gzip/emnist-{split}-{part}"
                archive.writestr(f"{stem}-images-idx3-ubyte.gz", idx_bytes(pixels[:n], True))
                labels_N = np.array(labels[:n], "u1")
                archive.writestr(f"{stem}-labels-idx1-ubyte.gz", idx_bytes(labels_N, True))
    content = buffer.getvalue()
    (tmp_path / "emnist").mkdir()
    (tmp_path / "emnist" / "gzip.zip").write_bytes(content)
    tiny = Remote("emnist", (RemoteFile("gzip.zip", hashlib.sha256(content).hexdigest()),), ())
    monkeypatch.setitem(mirrors.REMOTES, "emnist", tiny)
    return pixels


def test_emnist_is_transposed_and_letters_count_from_zero(tiny_emnist, tmp_path):
    letters = Data(source="emnist:letters").load(tmp_path)
    np.testing.assert_array_equal(letters.train.pixels_NCHW[:, 0].numpy(), tiny_emnist.swapaxes(1, 2))
    assert [letters.train.class_names[i] for i in letters.train.labels_N] == ["A", "Z", "C"]
    balanced = Data(source="emnist").load(tmp_path)
    assert [balanced.train.class_names[i] for i in balanced.train.labels_N] == ["0", "t", "2"]


def test_emnist_is_checked_and_its_splits_are_named(tiny_emnist, tmp_path):
    with pytest.raises(DataError, match="emnist-digits-train"):
        Data(source="emnist:digits").load(tmp_path)
    with (tmp_path / "emnist" / "gzip.zip").open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(DataError, match="not the published file"):
        Data(source="emnist").load(tmp_path)


def test_available_says_what_is_there(tiny_emnist, tmp_path):
    rows = {row.name: row for row in available(tmp_path)}
    assert {"digits", "mnist", "fashion-mnist", "kmnist", "emnist"} <= set(rows)
    assert rows["digits"].present
    assert rows["emnist"].present
    assert not rows["kmnist"].present
    assert (rows["mnist"].images, rows["mnist"].shape, rows["mnist"].classes) == (70_000, (1, 28, 28), 10)


def test_real_mnist(real_data):
    splits = Data(source="mnist", validation=10_000, transforms=("dynamic-binarise",)).load(real_data)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (50_000, 10_000, 10_000)
    assert splits.pixels == "binary"
    assert splits.test.labels_N[:5].tolist() == [7, 2, 1, 0, 4]
    mean = torch.cat([splits.train.pixels_NCHW, splits.validation.pixels_NCHW]).double().mean() / 255
    assert float(mean) == pytest.approx(0.1307, abs=5e-5)  # the mean that tutorials normalise with
