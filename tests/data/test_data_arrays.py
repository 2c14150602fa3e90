from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.data import Data, from_object
from nelbo.errors import DataError

RANDOM = np.random.RandomState(0)
GREY = RANDOM.randint(0, 256, (10, 5, 6)).astype(np.uint8)
COLOUR = RANDOM.randint(0, 256, (10, 5, 6, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (GREY, (1, 5, 6)),
        (COLOUR, (3, 5, 6)),
        (COLOUR.transpose(0, 3, 1, 2), (3, 5, 6)),
        (GREY[..., None], (1, 5, 6)),
    ],
)
def test_axes_are_found(tmp_path, array, shape):
    np.save(tmp_path / "x.npy", array)
    splits = Data(source=str(tmp_path / "x.npy")).load()
    assert splits.shape == shape
    assert (len(splits.train), len(splits.test)) == (8, 2)


def test_npz_keys(tmp_path):
    np.savez(
        tmp_path / "x.npz", x_train=GREY, y_train=np.arange(10), x_test=GREY[:3], y_test=np.arange(3)[:, None]
    )
    splits = Data(source=str(tmp_path / "x.npz")).load()
    assert (len(splits.train), len(splits.test)) == (10, 3)
    assert splits.test.labels_N.tolist() == [0, 1, 2]
    np.savez(tmp_path / "y.npz", images=GREY, labels=np.array(["cat", "ant"] * 5))
    images = from_object(dict(np.load(tmp_path / "y.npz"))).train
    assert images.class_names == ("ant", "cat")
    assert images.labels_N[:2].tolist() == [1, 0]
    np.savez(tmp_path / "z.npz", anything=GREY)
    assert len(Data(source=str(tmp_path / "z.npz")).load().train) == 8


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 9)), r"shape \(4, 9\) is not .*reshape the rows"),
        (np.zeros((4, 2, 2, 2), np.uint8), "neither axis 1 nor axis 3"),
        (np.zeros((4, 3, 8, 3), np.uint8), "both axis 1 and axis 3"),
        (np.zeros((0, 3, 3), np.uint8), "holds no pixels"),
        (np.full((4, 3, 3), 300), r"36 whole numbers lie outside 0\.\.255 \(from 300 to 300\)"),
        (np.full((4, 3, 3), -1), "outside 0..255"),
        (np.zeros((4, 3, 3), complex), "dtype complex128 is not pixels"),
        (np.array([["a"]]), "not"),
    ],
)
def test_what_is_not_images_is_refused(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(DataError, match=message) as raised:
        Data(source=str(tmp_path / "bad.npy")).load()
    assert "bad.npy" in str(raised.value)


def test_not_a_number_is_counted_and_located(tmp_path):
    array = np.zeros((6, 3, 3))
    array[4, 1, 1], array[5, 0, 0], array[5, 0, 1] = np.nan, np.inf, 1e300
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(DataError, match="3 values are not finite, the first in image 4"):
        Data(source=str(tmp_path / "bad.npy")).load()


def test_objects_and_rubbish_are_never_unpickled(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "r.npz").write_bytes(b"rubbish")
    for name in ("o.npy", "r.npz"):
        with pytest.raises(DataError, match=f"{name}: not readable as an array"):
            Data(source=str(tmp_path / name)).load()
    np.savez(tmp_path / "k.npz", foo=GREY, bar=GREY)
    with pytest.raises(
        DataError,
        match=r"no training images under any usual name .images, x_train.*it has bar \(uint8.*, foo",
    ):
        Data(source=str(tmp_path / "k.npz")).load()


def test_dtypes_become_pixels():
    half = GREY > 128
    for array in (half, half.astype(np.uint8), half.astype(np.int64), half.astype(np.float64)):
        splits = Data().load(obj=array)
        assert (splits.pixels, splits.range) == ("binary", (0.0, 1.0))
    assert Data().load(obj=GREY / 255).pixels == "grey"
    assert Data().load(obj=GREY.astype(np.int32)).train.pixels_NCHW.dtype == torch.uint8
    real = Data().load(obj=torch.randn(20, 2, 5, 6, dtype=torch.bfloat16))
    assert real.pixels == "real"
    assert real.shape == (2, 5, 6)
    assert real.range[0] < 0 < 1 < real.range[1]


class Items(torch.utils.data.Dataset):
    def __init__(self, make, n=6):
        self.make, self.n = make, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(i)


@pytest.mark.parametrize(
    "make",
    [
        lambda i: (Image.fromarray(GREY[i]), i % 3),
        lambda i: (GREY[i], i % 3),
        lambda i: (torch.from_numpy(GREY[i])[None], torch.tensor(i % 3)),
        lambda i: {"image": GREY[i], "label": i % 3},
        lambda i: [GREY[i][..., None], np.int64(i % 3)],
    ],
)
def test_torch_datasets(make):
    images = from_object(Items(make)).train
    np.testing.assert_array_equal(images.pixels_NCHW[:, 0].numpy(), GREY[:6])
    assert images.labels_N.tolist() == [0, 1, 2, 0, 1, 2]


def test_items_without_labels_tuples_tensors_and_splits():
    assert from_object(Items(lambda i: Image.fromarray(COLOUR[i]))).train.shape == (3, 5, 6)
    assert from_object(Items(lambda i: torch.rand(1, 4, 4))).train.labels_N is None
    assert from_object((torch.from_numpy(GREY), torch.arange(10))).train.labels_N.tolist() == list(range(10))
    dataset = torch.utils.data.TensorDataset(torch.rand(5, 1, 4, 4), torch.arange(5))
    assert from_object(dataset).train.labels_N.tolist() == [0, 1, 2, 3, 4]
    both = from_object({"train": GREY, "validation": GREY[:2], "test": (GREY[:4], np.arange(4))})
    assert (len(both.train), len(both.validation), len(both.test)) == (10, 2, 4)


def test_a_dataset_with_an_image_column():
    class ClassLabel:
        names = ["ant", "cat"]

    class Columns(Items):
        features = {"id": object(), "picture": type("Image", (), {})(), "kind": ClassLabel()}

    images = from_object(
        Columns(lambda i: {"id": i, "picture": Image.fromarray(GREY[i]), "kind": i % 2})
    ).train
    assert images.class_names == ("ant", "cat")
    assert images.labels_N.tolist() == [0, 1] * 3


def test_mixed_items_and_other_objects_are_refused():
    mixed = Items(lambda i: np.zeros((4, 4 + i % 2), np.uint8))
    with pytest.raises(DataError, match=r"item 0 \(4, 4\), item 1 \(4, 5\)"):
        from_object(mixed)
    sized = Data(size=6).load(obj=Items(lambda i: Image.new("L", (8 + i, 8), i)))
    assert sized.shape == (1, 6, 6)
    for other in (3, "mnist", iter([1]), {"train": GREY, "other": GREY}, [], (GREY, GREY, GREY, GREY[:2])):
        with pytest.raises(DataError):
            from_object(other)
    with pytest.raises(DataError, match=r"labels of shape \(10, 5, 6\), which are images; give splits"):
        from_object((GREY, GREY))
