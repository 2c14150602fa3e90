"""Labels of any type: classes where they can be some, else left out with a line; never the end of a training."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.data import Data, from_object
from nelbo.doctor.copies import distinct, write_npz
from nelbo.errors import DataError

RANDOM = np.random.default_rng(0)
N = 12
BYTES = RANDOM.integers(0, 256, (N, 4, 4)).astype(np.uint8)


def labelled(labels):
    loaded = from_object((BYTES, labels))
    return loaded.train, loaded.notes


ONE_HOT = np.eye(3)[np.arange(N) % 3]
TEXT = np.array(["dog", "cat", "ant"] * 4)


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        (np.arange(N) % 3, [0, 1, 2], None),
        ((np.arange(N) % 3).astype(np.uint8)[:, None], [0, 1, 2], None),
        ((np.arange(N) % 3).tolist(), [0, 1, 2], None),
        (np.array([0.0, np.nan, 2.0] * 4), [0, -1, 2], None),
        (np.array([True, False, True] * 4), [1, 0, 1], None),
        (torch.arange(N) % 3, [0, 1, 2], None),
        (ONE_HOT, [0, 1, 2], None),
        (ONE_HOT.astype(bool), [0, 1, 2], None),
        (np.eye(3, dtype=np.int8)[np.arange(N) % 3] * (np.arange(N) > 0)[:, None], [-1, 1, 2], None),
        (TEXT, [2, 1, 0], ("ant", "cat", "dog")),
        (TEXT.astype(object), [2, 1, 0], ("ant", "cat", "dog")),
        (TEXT.astype("S"), [2, 1, 0], ("ant", "cat", "dog")),
        (["dog", None, "ant"] * 4, [1, -1, 0], ("ant", "dog")),
        (np.array([3, None, 5.0] * 4, object), [3, -1, 5], None),
        (np.array([2**64 - 1, 1, 2] * 4, np.uint64), [1, 0, 2], ("1", str(2**64 - 1), "2")),
    ],
)
def test_classes(labels, expected, names):
    images, notes = labelled(labels)
    assert (images.labels_N[:3].tolist(), images.class_names, notes) == (expected, names, ())
    assert images.labels_N.dtype == torch.int64


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (RANDOM.normal(size=N), r"labels are continuous \(12 values from .*numpy\.digitize"),
        (np.full(N, np.inf), "labels are continuous"),
        (ONE_HOT + np.eye(3)[1], "several numbers an image"),
        (np.ones((N, 3), int), r"labels of shape \(12, 3\) have several classes in 12 of 12 images"),
        (RANDOM.uniform(size=(N, 3)), r"several numbers an image: .*labels\.argmax\(1\)"),
        (np.arange(9), r"labels of shape \(9,\) for 12 images"),
        (np.array(3), r"labels of shape \(\) for 12 images"),
        ([{"box": 3}] * N, r"Python objects \(dict\): .*labels\.astype\(str\)"),
        ([[1], [1, 2], [0]] * 4, r"Python objects \(list\)"),
        (np.zeros(N, complex), "labels of dtype complex128 are no classes"),
        (np.array(["2020-01-01"] * N, "M8[D]"), "labels of dtype datetime64"),
    ],
)
def test_what_cannot_be_classes_is_left_out_and_said(labels, note):
    images, notes = labelled(labels)
    assert images.labels_N is None
    assert len(notes) == 1
    with pytest.raises(AssertionError, match=note):
        raise AssertionError(notes[0])
    assert "left out, the images are used without labels" in notes[0]


def test_images_without_a_label_keep_none_when_the_doctor_writes_them(tmp_path):
    pixels = RANDOM.integers(0, 256, (40, 4, 4)).astype(np.uint8)
    names = np.array(["cat", "", "dog", ""] * 10)
    splits = Data().load(obj=(pixels, names))
    write_npz(distinct(splits), tmp_path / "new.npz")
    again = Data(source=str(tmp_path / "new.npz")).load()
    assert again.train.labels_N.tolist() == splits.train.labels_N.tolist()
    assert (again.train.class_names, again.notes) == (("cat", "dog"), splits.notes)


def test_splits_number_their_classes_alike():
    loaded = from_object({"train": (BYTES, TEXT), "test": (BYTES[:2], np.array(["dog", "cat"]))})
    assert (loaded.test.labels_N.tolist(), loaded.test.class_names) == ([2, 1], ("ant", "cat", "dog"))


def test_images_without_a_label_are_counted(tmp_path):
    labels = RANDOM.integers(0, 3, 60)
    labels[:50] = -1
    np.savez(tmp_path / "few.npz", images=np.repeat(BYTES, 5, 0), labels=labels)
    splits = Data(source=str(tmp_path / "few.npz")).load()
    assert len(splits.notes) == 1
    assert "50 of 60 images have no label, or one below 0, which means none (" in splits.notes[0]


# --- the names of arrays ----------------------------------------------------------------------

TWO = BYTES[:2]


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "y_train", "X_test", "y_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("images_train", "labels_train", "images_test", "labels_test"),
        ("train/images", "train/targets", "test/images", "test/targets"),
        ("training_set", "training_labels", "test_set", "test_labels"),
        ("data", "target", "test_data", "test_target"),
        ("pixels", "label", "pixels_test", "label_test"),
        ("Xtr", "Ytr", "Xte", "Yte"),
        ("train", "train_labels", "test", "test_labels"),
        ("train", "train-class", "test", "test-class"),
    ],
)
def test_arrays_have_any_usual_name(names):
    arrays = dict(zip(names, (BYTES, np.arange(N), TWO, np.arange(2)), strict=True))
    loaded = from_object(arrays)
    assert (len(loaded.train), len(loaded.test), loaded.notes) == (N, 2, ())
    assert loaded.train.labels_N.tolist() == list(range(N))
    assert loaded.test.labels_N.tolist() == [0, 1]


def test_arrays_without_names_and_arrays_that_are_not_used(tmp_path):
    np.savez(tmp_path / "a.npz", BYTES, np.arange(N))
    splits = Data(source=str(tmp_path / "a.npz")).load()
    assert (len(splits.train), splits.train.labels_N is None, splits.notes) == (10, False, ())
    np.savez(tmp_path / "b.npz", images=BYTES, mask=RANDOM.random((N, 4, 4)), about=np.array([{}], object))
    splits = Data(source=str(tmp_path / "b.npz")).load()
    assert splits.notes[0].endswith("b.npz: not used: mask (float64 (12, 4, 4)), about (Python objects)")


def test_python_objects_are_refused_or_said_by_name(tmp_path):
    ragged = np.empty(20, dtype=object)
    ragged[:] = [np.zeros((8 + i % 2, 8), np.uint8) for i in range(20)]
    np.savez(tmp_path / "a.npz", images=ragged, mask=RANDOM.random((20, 8, 8)))
    np.savez(tmp_path / "b.npz", x_train=RANDOM.random((20, 8, 8)), x_test=ragged)
    for file, name in (("a.npz", "images"), ("b.npz", "x_test")):
        with pytest.raises(DataError, match=rf"{file}\[{name}\]: holds Python objects"):
            Data(source=str(tmp_path / file)).load()
    np.savez(tmp_path / "c.npz", images=BYTES, labels=np.array(["cat", "dog"] * 6, dtype=object))
    splits = Data(source=str(tmp_path / "c.npz")).load()
    assert splits.train.labels_N is None
    assert (
        "labels holds Python objects and was left out; save them with labels.astype(str)" in splits.notes[0]
    )
    np.savez(tmp_path / "d.npz", mask=BYTES, names=ragged)  # two arrays, so neither is the only one
    with pytest.raises(
        DataError, match=r"no training images .*mask \(uint8 \(12, 4, 4\)\), names \(Python objects\)"
    ):
        Data(source=str(tmp_path / "d.npz")).load()


# --- data sets ---------------------------------------------------------------------------------


class Items(torch.utils.data.Dataset):
    def __init__(self, make):
        self.make = make

    def __len__(self):
        return N

    def __getitem__(self, i):
        return self.make(i)


def test_items_that_differ_when_read_twice_are_said():
    noisy = Items(lambda i: torch.rand(1, 4, 4))
    torch.manual_seed(3)
    expected = torch.stack([torch.rand(1, 4, 4) for _ in range(N)])
    torch.manual_seed(3)
    loaded = from_object(noisy)
    assert torch.equal(loaded.train.pixels_NCHW, expected)  # the first reading is the one that is kept
    after = torch.rand(1)
    torch.manual_seed(3)
    [torch.rand(1, 4, 4) for _ in range(N)]
    assert torch.equal(torch.rand(1), after)  # and the second leaves the caller's stream as it was
    assert "12 of 12 items were others when read once more" in loaded.notes[0]
    flips = Items(lambda i: Image.fromarray(BYTES[i] if random.random() < 0.5 else BYTES[i, ::-1].copy()))
    assert "items were others when read once more" in from_object(flips).notes[0]
    assert from_object(Items(lambda i: BYTES[i])).notes == ()


def test_items_of_more_parts_and_with_some_labels():
    loaded = from_object(Items(lambda i: (BYTES[i], i % 2, f"{i}.png")))
    assert loaded.train.labels_N.tolist() == [0, 1] * 6
    assert "items have 3 parts; the first is the image, the second its label" in loaded.notes[0]
    some = from_object(Items(lambda i: {"image": BYTES[i], "label": i if i > 5 else None})).train
    assert some.labels_N.tolist() == [-1] * 6 + [6, 7, 8, 9, 10, 11]
    boxes = from_object(Items(lambda i: (BYTES[i], {"boxes": [i]})))
    assert boxes.train.labels_N is None
    assert "Python objects (dict)" in boxes.notes[0]


def test_labels_that_number_the_images_are_said():
    many = np.repeat(BYTES, 2, 0)
    loaded = from_object((many, np.arange(2 * N)))
    assert loaded.notes[0].startswith("the labels of 24 images have 24 values, as numbers of images have")
    assert len(loaded.train.labels_N) == 24
    assert from_object((many, np.arange(2 * N) // 2)).notes == ()
