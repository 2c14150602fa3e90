"""Folders of splits in any usual spelling, and the refusals: no test image ever joins training."""

from __future__ import annotations

import itertools

import pytest

from nelbo.data import Data
from nelbo.data.folder import load_folder
from nelbo.data.splitnames import split_folders, split_of
from nelbo.errors import DataError

TRAIN = (
    "train",
    "Training",
    "TRAIN",
    "trainset",
    "train_images",
    "images-train",
    "Train_Set_1",
    "train2017",
    "trn",
)
HELD_OUT = {
    "test": (
        *(
            "test",
            "Testing",
            "TESTS",
            "testset",
            "test_images",
            "imagesTest",
            "test2017",
            "tst",
            "hold-out",
            "Held_Out",
        ),
        *("Test data", "test-split", "my_tests", "seg_test", "asl_alphabet_test"),
    ),
    "validation": (
        *(
            "val",
            "Valid",
            "validation",
            "VAL_images",
            "dev",
            "devset",
            "Development",
            "eval",
            "evaluation",
            "vals",
        ),
    ),
}


@pytest.mark.parametrize("split", HELD_OUT)
def test_every_pair_of_usual_names_is_two_splits(split):
    for train, other in itertools.product(TRAIN, HELD_OUT[split]):
        found = split_folders([train, other], loose=False, deep=[], where="F")
        assert found == {"train": train, split: other}, (train, other)


def test_names_of_classes_are_no_splits():
    for name in (
        "valley",
        "testudo",
        "contest",
        "trainers",
        "devil",
        "developer",
        "valve",
        "bus",
        "protest",
    ):
        assert split_of(name) is None, name
    for classes in (
        ["cat", "dog"],
        ["train", "car", "bus"],
        ["valid", "invalid"],
        ["training shoes", "boots"],
        ["test"],
    ):
        assert split_folders(classes, loose=False, deep=[], where="F") == {}


def test_names_that_differ_in_the_word_alone_are_splits():
    found = split_folders(["dogtrain", "dogtest", "dogval"], loose=False, deep=[], where="F")
    assert found == {"train": "dogtrain", "test": "dogtest", "validation": "dogval"}


@pytest.mark.parametrize(
    ("names", "loose", "deep"),
    [
        (["train", "extra"], False, []),
        (["train", "unlabeled"], False, []),
        (["train", "test", "extra"], False, []),
        (["train", "other"], False, ["train"]),
        (["train_images", "photos"], False, []),
        (["test", "photos"], False, []),
        (["Test Images", "photos"], False, []),
        (["dev", "a", "b"], False, []),
        (["test"], True, []),
        (["train", "test"], True, []),
        (["val", "test"], False, []),
        (["train", "val", "eval"], False, []),
        (["train_1", "train_2", "test"], False, []),
    ],
)
def test_what_is_unclear_is_refused_by_name(names, loose, deep):
    with pytest.raises(DataError, match="holds split folders") as error:
        split_folders(names, loose=loose, deep=deep, where="F")
    assert all(name in str(error.value) for name in names)


def test_training_and_test_with_classes_inside(tmp_path, write_image):
    for split, n in (("Training", 6), ("Test", 2)):
        for kind in ("apple", "pear"):
            for i in range(n):
                write_image(tmp_path / "fruit" / split / kind / f"{i}.png", value=i)
    splits = Data(source=str(tmp_path / "fruit")).load()
    assert (len(splits.train), len(splits.test), splits.train.class_names) == (12, 4, ("apple", "pear"))
    assert splits.test.names[0] == "Test/apple/0.png"
    assert splits.notes == ("Training is train, Test is test",)


def test_splits_one_folder_further_down(tmp_path, write_image):
    for split, kind in itertools.product(("train", "val"), "ab"):
        write_image(tmp_path / "in" / "images" / split / kind / "0.png")
    (tmp_path / "in" / "labels" / "train").mkdir(parents=True)
    loaded = load_folder(tmp_path / "in")
    assert (len(loaded.train), len(loaded.validation), loaded.train.class_names) == (2, 2, ("a", "b"))


@pytest.mark.parametrize(
    "inside", [("bottle/train/good", "bottle/test/broken"), ("train/a/Training", "train/a/Test")]
)
def test_splits_inside_of_classes_are_refused(tmp_path, write_image, inside):
    for i, folder in enumerate((*inside, "screw/x")):
        write_image(tmp_path / "in" / folder / f"{i}.png")
    with pytest.raises(DataError, match="split folders"):
        load_folder(tmp_path / "in")


def test_splits_in_the_names_of_files_are_refused(tmp_path, write_image):
    for name in ("a/train_1", "a/train_2", "b/Test-1", "b/contest_1"):
        write_image(tmp_path / "in" / f"{name}.png")
    with pytest.raises(DataError, match=r"begin with words for splits \(1 Test\.\.\., 2 train\.\.\.\)"):
        load_folder(tmp_path / "in")
    (tmp_path / "in" / "b" / "Test-1.png").unlink()
    assert len(load_folder(tmp_path / "in").train) == 3


def test_a_folder_of_training_images_alone_is_entered(tmp_path, write_image):
    for kind in "ab":
        write_image(tmp_path / "in" / "Train" / kind / "0.png")
    assert load_folder(tmp_path / "in").train.class_names == ("a", "b")


def test_classes_are_numbered_alike_in_all_splits(tmp_path, write_image):
    for name in ("train/a/0", "train/c/1", "test/b/2", "test/c/3", "val/4"):
        write_image(tmp_path / "in" / f"{name}.png", value=int(name[-1]))
    loaded = load_folder(tmp_path / "in")
    assert loaded.train.class_names == loaded.test.class_names == ("a", "b", "c")
    assert (loaded.train.labels_N.tolist(), loaded.test.labels_N.tolist()) == ([0, 2], [1, 2])
    assert loaded.validation.labels_N is None
    assert loaded.notes == (
        "the validation images are in no class folders: they have no labels",
        "b has no train images",
        "a has no test images",
    )


def test_what_is_not_read_is_counted_beside_the_splits_too(tmp_path, write_image):
    for split in ("train", "test"):
        write_image(tmp_path / "in" / split / "a" / "0.png")
        (tmp_path / "in" / split / "list.csv").write_text("a,b\n1,2\n")
    for name in ("read.me", "train/a/more.csv", "labels/0.txt", "boxes.csv"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("")
    assert load_folder(tmp_path / "in").notes[0] == "1 .csv, 1 .me, 1 .txt not read"
