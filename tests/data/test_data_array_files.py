"""Files of other programs: HDF5, MATLAB, Parquet, ZIP; and what is said of files that no reader takes."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from nelbo.data import Data, ondisk
from nelbo.errors import DataError

RANDOM = np.random.default_rng(0)
N = 10
GREY = RANDOM.integers(0, 256, (N, 6, 5)).astype(np.uint8)
COLOUR = RANDOM.integers(0, 256, (N, 6, 5, 3)).astype(np.uint8)
LABELS = np.arange(N) % 3


def load(path, **fields):
    return Data(source=str(path), test=2, **fields).load()


def everything(splits):
    """The pixels of both splits in the order of the source, (N, C, H, W)."""
    pixels = np.concatenate([splits.train.pixels_NCHW.numpy(), splits.test.pixels_NCHW.numpy()])
    order = np.concatenate([splits.train.positions_N.numpy(), splits.test.positions_N.numpy()])
    return pixels[np.argsort(order)]


def labels(splits):
    return dict(zip(splits.train.positions_N.tolist(), splits.train.labels_N.tolist(), strict=True))


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/images"], file["train/labels"] = COLOUR, LABELS
        file["test/images"] = COLOUR[:4]
        file["about"] = "made by hand"
    splits = load(tmp_path / "x.h5")
    np.testing.assert_array_equal(splits.train.pixels_NCHW.numpy(), COLOUR.transpose(0, 3, 1, 2))
    assert (splits.train.labels_N.tolist(), len(splits.test)) == (LABELS.tolist(), 4)
    assert "not used: about" in splits.notes[0]
    with h5py.File(tmp_path / "wide.hdf5", "w") as file:
        file["data"] = np.linspace(-100, 900, N * 30).astype(np.int16).reshape(N, 6, 5)
        file["label"] = np.array(["cat", "dog"] * 5, dtype=h5py.string_dtype())
    wide = load(tmp_path / "wide.hdf5", range=(-100, 900))
    assert (wide.range, wide.train.class_names) == ((0, 1), ("cat", "dog"))
    (tmp_path / "bad.h5").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"bad\.h5: not readable as \.h5 "):
        load(tmp_path / "bad.h5")


@pytest.mark.parametrize("last", [False, True])
def test_matlab(tmp_path, last):
    images = COLOUR.transpose(1, 2, 3, 0) if last else COLOUR
    savemat(tmp_path / "x.mat", {"X": images, "y": LABELS[:, None] + 1, "about": {"made": "by hand"}})
    splits = load(tmp_path / "x.mat")
    np.testing.assert_array_equal(everything(splits), COLOUR.transpose(0, 3, 1, 2))
    assert labels(splits).items() <= dict(enumerate((LABELS + 1).tolist())).items()
    assert ("the last axis counts the images in X (6, 5, 3, 10)" in splits.notes[0]) == last
    assert "not used: about (Python objects)" in splits.notes[-1]
    savemat(tmp_path / "row.mat", {"images": np.moveaxis(GREY, 0, -1), "labels": LABELS[None]})
    assert labels(load(tmp_path / "row.mat")).items() <= dict(enumerate(LABELS.tolist())).items()
    savemat(tmp_path / "cell.mat", {"images": np.array([GREY[0], GREY[1][:4]], dtype=object)})
    with pytest.raises(DataError, match=r"cell\.mat\[images\]: holds Python objects"):
        load(tmp_path / "cell.mat")
    (tmp_path / "bad.mat").write_bytes(b"rubbish" * 50)
    with pytest.raises(DataError, match=r"bad\.mat: not readable as \.mat"):
        load(tmp_path / "bad.mat")


def test_matlab_in_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file["X"] = COLOUR.transpose(1, 2, 3, 0).T  # MATLAB writes its axes in reverse
        file["y"] = LABELS[None]
    content = bytearray((tmp_path / "x.mat").read_bytes())
    content[:128] = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "x.mat").write_bytes(content)
    splits = load(tmp_path / "x.mat")
    np.testing.assert_array_equal(everything(splits), COLOUR.transpose(0, 3, 1, 2))
    assert labels(splits).items() <= dict(enumerate(LABELS.tolist())).items()


def encoded(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return {"bytes": stream.getvalue(), "path": None}


def test_parquet_as_hugging_face_writes_it(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    rows = pa.table({"image": [encoded(image) for image in COLOUR], "label": LABELS, "id": np.arange(N)})
    features = {"label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(rows.replace_schema_metadata(about), tmp_path / "x.parquet")
    splits = load(tmp_path / "x.parquet")
    np.testing.assert_array_equal(everything(splits), COLOUR.transpose(0, 3, 1, 2))
    assert splits.train.class_names == ("ant", "bee", "cat")
    assert labels(splits).items() <= dict(enumerate(LABELS.tolist())).items()
    assert splits.notes[0].endswith("not used: id")
    parquet.write_table(pa.table({"pixels": [GREY[0].tolist()]}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"no column of images .*it has pixels"):
        load(tmp_path / "none.parquet")
    parquet.write_table(pa.table({"image": [{"bytes": b"rubbish", "path": None}]}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"bad\.parquet: row 0 cannot be read as an image"):
        load(tmp_path / "bad.parquet")
    nested = pa.table({"image": [image.tolist() for image in GREY], "label": LABELS})
    parquet.write_table(nested, tmp_path / "lists.parquet")
    np.testing.assert_array_equal(everything(load(tmp_path / "lists.parquet"))[:, 0], GREY)


def test_a_zip_of_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for i, image in enumerate(GREY):
            archive.writestr(f"photos/{'cat' if i % 2 else 'ant'}/{i}.png", encoded(image)["bytes"])
        archive.writestr("__MACOSX/photos/._0.png", b"")
    splits = load(tmp_path / "photos.zip")
    np.testing.assert_array_equal(everything(splits)[:, 0], np.concatenate([GREY[::2], GREY[1::2]]))
    assert (splits.name, splits.train.class_names) == ("photos", ("ant", "cat"))
    assert set(splits.train.names) < {f"{'cat' if i % 2 else 'ant'}/{i}.png" for i in range(N)}
    unpacked = tmp_path / "cache" / "unpacked"
    assert len(list(unpacked.iterdir())) == 1
    load(tmp_path / "photos.zip")
    assert len(list(unpacked.iterdir())) == 1


def test_a_zip_that_cannot_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../escaped.png", encoded(GREY[0])["bytes"])
        archive.writestr("1.png", encoded(GREY[1])["bytes"])
        archive.writestr("2.png", encoded(GREY[1])["bytes"])
    Data(source=str(tmp_path / "out.zip"), test=1).load()
    assert not list((tmp_path / "cache").glob("escaped.png")) + list(tmp_path.glob("escaped.png"))
    (tmp_path / "bad.zip").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"bad\.zip: cannot be unpacked into .*unpack it and name the folder"):
        load(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("about.txt", "no image")
    with pytest.raises(DataError, match="holds no image files"):
        load(tmp_path / "text.zip")


def test_a_package_that_is_missing_is_named_with_its_way_out(tmp_path, monkeypatch):
    for name, package in (("x.h5", "h5py"), ("x.parquet", "pyarrow")):
        for module in (package, f"{package}.parquet"):
            monkeypatch.setitem(sys.modules, module, None)
        (tmp_path / name).write_bytes(b"never read")
        with pytest.raises(
            DataError, match=rf"pip install {package}; or convert it .*\n +import .*\n +numpy\.savez"
        ):
            load(tmp_path / name)


def test_files_that_no_reader_takes_come_with_the_lines_that_convert_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.hstack([LABELS[:, None], RANDOM.integers(0, 256, (N, 784))])
    np.savetxt("digits.csv", rows, "%d", ",", header="label,pixels")
    torch.save((torch.from_numpy(GREY), torch.from_numpy(LABELS)), "set.pt")
    header = bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in GREY.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + GREY.tobytes())
    (tmp_path / "train-images.gz").write_bytes(gzip.compress(header + GREY.tobytes()))
    for name in ("digits.csv", "set.pt", "train-images-idx3-ubyte", "train-images.gz"):
        with pytest.raises(
            DataError, match=r"expected a folder of images, or a file ending in \.npy, .*convert"
        ) as error:
            Data(source=name).check_source()
        exec("\n".join(line.strip() for line in str(error.value).splitlines()[1:]))  # as printed
        splits = load(f"{name.partition('.')[0]}.npz")
        if name.startswith("train"):
            np.testing.assert_array_equal(everything(splits)[:, 0], GREY)
        else:
            assert labels(splits).items() <= dict(enumerate(LABELS.tolist())).items()
    (tmp_path / "x.docx").write_bytes(b"")
    with pytest.raises(DataError, match=r"numpy\.savez\('x\.npz', images=images\)"):
        Data(source="x.docx").check_source()


def test_memory_is_checked_by_what_arrays_take(tmp_path, monkeypatch):
    flat = np.zeros((N, 100, 100), np.int64)  # 800,000 bytes, which compress to next to none
    np.savez_compressed(tmp_path / "x.npz", images=flat, other=flat)
    assert (tmp_path / "x.npz").stat().st_size < 10_000
    monkeypatch.setattr(ondisk, "available_memory", lambda: 850_000)
    with pytest.raises(DataError, match=r"x\.npz: takes .* of memory and .* are available"):
        load(tmp_path / "x.npz")
    monkeypatch.setattr(ondisk, "available_memory", lambda: 950_000)  # what is not used is not read
    assert load(tmp_path / "x.npz").shape == (1, 100, 100)
    np.save(tmp_path / "x.npy", flat)
    monkeypatch.setattr(ondisk, "available_memory", lambda: 850_000)
    with pytest.raises(DataError, match=r"x\.npy: takes .* of memory"):
        load(tmp_path / "x.npy")
