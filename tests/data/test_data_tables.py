"""Labels from a table beside the images, and splits of whole sub-folders."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from nelbo.core.config import build
from nelbo.data import Data
from nelbo.data.folder import load_folder
from nelbo.errors import ConfigError

OWLS = ("owl", "cat", "owl", "cat", "cat", "owl")


@pytest.fixture
def photos(tmp_path, write_image):
    """Six images in a flat folder: 0.png .. 5.png."""
    for i in range(6):
        write_image(tmp_path / "in" / f"{i}.png", value=i)
    return tmp_path / "in"


def labels(folder):
    images = load_folder(folder).train
    return images.labels_N if images.labels_N is None else images.labels_N.tolist(), images.class_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "file,label\n0.png,owl\n1.png,cat\n2.png,owl\n3.png,cat\n4.png,cat\n5.png,owl\n"),
        (
            "metadata.csv",
            "file_name;width;class\n0.png;7;owl\n1.png;7;cat\n2.png;7;owl\n3.png;7;cat\n4.png;7;cat\n5.png;7;owl\n",
        ),
        ("any.tsv", "\ufeffid\twho\n0\towl\n1\tcat\n2\towl\n3\tcat\n4\tcat\n5\towl\n"),
        (
            "metadata.jsonl",
            "".join(
                json.dumps({"file_name": f"{i}.png", "label": "owl" if i in (0, 2, 5) else "cat"}) + "\n"
                for i in range(6)
            ),
        ),
    ],
)
def test_a_table_gives_the_labels(photos, name, text):
    (photos / name).write_text(text, encoding="utf-8")
    assert labels(photos) == ([1, 0, 1, 0, 0, 1], ("cat", "owl"))
    (note,) = load_folder(photos).notes
    assert note.startswith("labels are those of column")
    assert note.endswith(f"of {name}")


def test_what_does_not_match_is_counted(photos):
    (photos / "labels.csv").write_text(
        "image,label\n0.png,2\n./1.png,10\n1.png,3\n2.png,\n9.png,2\n3.png,10\n"
    )
    assert labels(photos) == ([2, -1, -1, 10, -1, -1], None)
    assert load_folder(photos).notes == (
        "labels are those of column 'label' of labels.csv; 4 of 6 images have no label there; 1 rows name no image; "
        "1 images have several labels and get none",
    )


@pytest.mark.parametrize(
    ("tables", "note"),
    [
        ({"a.csv": "x,y\n1,2\n"}, "a.csv is not used: no column of it has names of the images"),
        (
            {"a.csv": "file,width,height\n0.png,7,5\n"},
            r"a.csv is not used: none of its columns \(width, height\)",
        ),
        (
            {"a.csv": "file,label\n0.png,1\n", "b.csv": "file,label\n0.png,2\n"},
            "a.csv and b.csv all give labels",
        ),
        (
            {"a.csv": "file,label\n0.png,1.5\n"},
            "the table beside the images: labels are continuous",
        ),
        ({"a.jsonl": "[1]\n"}, "a.jsonl cannot be read as a table"),
        ({"a.jsonl": "{\n"}, "a.jsonl cannot be read as a table"),
        ({"a.csv": ""}, "a.csv is not used"),
    ],
)
def test_a_table_that_is_not_clear_never_stops_and_is_said(photos, tables, note):
    for name, text in tables.items():
        (photos / name).write_text(text)
    loaded = load_folder(photos)
    assert loaded.train.labels_N is None
    assert len(loaded.notes) == 1
    assert re.match(note, loaded.notes[0]), loaded.notes


def test_a_table_names_images_of_all_splits_and_comes_before_folders(tmp_path, write_image):
    for name in ("train/a/0", "train/b/1", "test/a/2"):
        write_image(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "labels.csv").write_text(
        "path,species\ntrain/a/0.png,x\ntrain/b/1.png,y\ntest/a/2.png,z\n"
    )
    loaded = load_folder(tmp_path / "in")
    assert loaded.train.class_names == loaded.test.class_names == ("x", "y", "z")
    assert (loaded.train.labels_N.tolist(), loaded.test.labels_N.tolist()) == ([0, 1], [2])


# --- whole sub-folders ------------------------------------------------------------------------


@pytest.fixture
def patients(tmp_path, write_image):
    """Thirty patients with one to five images each, and some of them in a folder further down."""
    stream = np.random.RandomState(0)
    for patient in range(30):
        for i in range(stream.randint(1, 6)):
            write_image(
                tmp_path / "in" / f"p{patient:02}" / ("deep" if i % 2 else "") / f"{i}.png", value=patient
            )
    return tmp_path / "in"


def test_no_sub_folder_is_in_two_splits(patients):
    splits = Data(source=str(patients), split_by="folder", validation=0.2).load()
    parts = [
        set(part.pixels_NCHW[:, 0, 0, 0].tolist()) for part in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 30
    n = sum(len(part) for part in (splits.train, splits.validation, splits.test))
    assert all(abs(len(part) - 0.2 * n) <= 5 for part in (splits.test, splits.validation))
    assert splits.train.labels_N is None
    assert splits.notes == ("data.split_by folder: sub-folders are groups, and no classes",)
    again = Data(source=str(patients), split_by="folder", validation=0.2).load()
    assert again.hash == splits.hash
    assert (
        Data(source=str(patients), split_by="folder", validation=0.2, split_seed=1).load().hash != splits.hash
    )


def test_many_classes_are_said(patients):
    (note,) = Data(source=str(patients)).load().notes
    assert re.match("30 sub-folders are taken as 30 classes.*--data.split-by folder", note)


def test_a_split_by_folder_needs_folders(photos, tmp_path, write_image):
    with pytest.raises(ConfigError, match=r"0\.png is in no sub-folder"):
        Data(source=str(photos), split_by="folder").load()
    with pytest.raises(ConfigError, match="these images come from no folder"):
        Data(split_by="folder").load(obj=torch.zeros(10, 1, 4, 4, dtype=torch.uint8))
    for kind in "ab":
        for i in range(5):
            write_image(tmp_path / "few" / kind / f"{i}.png")
    with pytest.raises(ConfigError, match="2 sub-folders for 3 splits"):
        Data(source=str(tmp_path / "few"), split_by="folder", validation=0.2).load()
    with pytest.raises(ConfigError, match="split-by"):
        build(Data, {"split_by": "patient"}, "data")
    with pytest.raises(ConfigError, match="alpha"):
        build(Data, {"alpha": "grey"}, "data")


def test_the_name_of_a_folder_is_whole(tmp_path, write_image):
    for name in ("2024.10", "2024.1"):
        for i in range(5):
            write_image(tmp_path / name / f"{i}.png")
        assert Data(source=str(tmp_path / name)).load().name == name
