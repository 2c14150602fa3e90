from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nelbo.core.config import build, override, to_dict
from nelbo.data import Data, Images
from nelbo.errors import ConfigError, DataError

# 100 different images: image i is recognised by its first pixel.
PIXELS = np.random.RandomState(0).randint(0, 256, (100, 4, 4)).astype(np.uint8)
PIXELS[:, 0, 0] = np.arange(100)
LABELS = np.arange(100) % 10


def ids(images):
    return images.pixels_NCHW[:, 0, 0, 0].tolist()


def load(pixels=PIXELS, labels=LABELS, **fields):
    return Data(**fields).load(obj=(pixels, labels))


def test_splits_are_disjoint_complete_and_seeded():
    splits = load(validation=0.1, test=30)
    parts = [ids(images) for images in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [60, 10, 30]
    assert sorted(itertools.chain(*parts)) == list(range(100))
    assert ids(load(validation=0.1, test=30).train) == parts[0]
    assert ids(load(validation=0.1, test=30, split_seed=1).train) != parts[0]
    for images in (splits.train, splits.validation, splits.test):
        assert [i % 10 for i in ids(images)] == images.labels_N.tolist()


def test_a_source_with_a_test_split_keeps_it():
    both = {"train": PIXELS, "test": PIXELS[:7]}
    splits = Data(test=0.9, validation=5).load(obj=both)
    assert ids(splits.test) == list(range(7))
    assert (len(splits.train), len(splits.validation)) == (95, 5)
    own = {**both, "validation": PIXELS[:3]}
    assert len(Data().load(obj=own).validation) == 3
    kept = Data(validation=8).load(obj=own)  # an official split is never cut up again
    assert (len(kept.train), len(kept.validation)) == (100, 3)


def test_the_hash_changes_with_everything_that_matters():
    pixel = PIXELS.copy()
    pixel[50, 1, 1] ^= 1
    reordered = LABELS.copy()
    reordered[[3, 4]] = reordered[[4, 3]]
    variants = [
        load(),
        load(pixel),
        load(labels=reordered),
        load(split_seed=1),
        load(validation=0.1),
        load(validation=0.2),
        load(test=0.3),
        load(size=3),
        load(transforms="binarise"),
        load(transforms={"name": "binarise", "threshold": 3}),
        load(transforms="dynamic-binarise"),
        load(transforms={"name": "dynamic-binarise", "seed": 1}),
        load(transforms="dequantise"),
        load(transforms={"name": "dequantise", "seed": 1}),
        load(PIXELS / np.float32(255)),
    ]
    hashes = [splits.hash for splits in variants]
    assert len(set(hashes)) == len(hashes)
    assert all(len(h) == 16 for h in hashes)
    assert load().hash == hashes[0]
    # Recorded: a change of this value makes every earlier record incomparable.
    assert hashes[0] == RECORDED


RECORDED = "0a7382ef203a3204"


def test_image_hash_sees_shape_and_labels():
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
    variants = [
        Images(pixels),
        Images(pixels.view(2, 1, 4, 3)),
        Images(pixels, torch.tensor([0, 1])),
        Images(pixels, torch.tensor([1, 0])),
        Images(pixels.float()),
    ]
    assert len({images.hash() for images in variants}) == 5
    assert Images(pixels.transpose(2, 3).contiguous().transpose(2, 3)).hash() == variants[0].hash()


def test_asking_for_a_split():
    splits = load()
    assert splits.split("test") is splits.test
    with pytest.raises(ConfigError, match=r"no validation split.*--data\.validation 0\.1"):
        splits.split("validation")
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        splits.split("tset")


@pytest.mark.parametrize("size", [6, (6, 3)])
def test_size_applies_to_every_source(size):
    assert Data(size=size).load().shape[1:] == ((6, 6) if size == 6 else size)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation": -1}, r"validation: expected a share .*\(got -1\)"),
        ({"validation": 1.5}, "validation: expected a share"),
        ({"validation": True}, "validation: expected another value than true or false"),
        ({"test": "many"}, "test: expected a share"),
        ({"size": 0}, "size: expected one number of pixels, or height and width"),
        ({"size": [3, 4, 5]}, "size: expected one number of pixels"),
        ({"split_seed": -1}, "split-seed:"),
        ({"transforms": ["binarize"]}, "did you mean 'binarise'"),
        ({"validaton": 1}, "did you mean 'validation'"),
    ],
)
def test_wrong_fields_are_explained(fields, message):
    with pytest.raises(ConfigError, match=message):
        build(Data, fields, "data")


def test_splits_that_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match="take 80 and 20 of 100 images and leave none to train on"):
        load(validation=80)
    with pytest.raises(DataError, match="different shapes"):
        Data().load(obj={"train": PIXELS, "test": np.zeros((2, 3, 3), np.uint8)})


def test_an_unknown_source_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(
        DataError, match="'minst' is neither a data set nor a path that exists; did you mean 'mnist'"
    ):
        Data(source="minst").check_source()
    (tmp_path / "x.csv").write_text("1")
    with pytest.raises(DataError, match="expected a folder of images, or a file ending in"):
        Data(source=str(tmp_path / "x.csv")).check_source()
    with pytest.raises(ConfigError, match="mnist has no variants"):
        Data(source="mnist:letters").check_source()
    with pytest.raises(ConfigError, match=r"emnist:leters' cannot be used:\s+split: .*'letters'"):
        Data(source="emnist:leters").check_source()
    for source in ("digits", "fashion_mnist", "emnist:letters", str(tmp_path)):
        Data(source=source).check_source()


def test_a_table_comes_back_and_flags_change_it():
    data = Data(source="mnist", size=(8, 9), validation=0.1, transforms=({"name": "resize", "height": 4},))
    assert build(Data, to_dict(data)) == data
    changed = override(data, {"transforms": ["binarise", "scale"], "validation": 5000, "size": None})
    assert [t.name for t in changed.transforms] == ["binarise", "scale"]
    assert (changed.validation, changed.size) == (5000, None)
    assert isinstance(changed.validation, int)
    assert build(Data, "mnist") == Data(source="mnist")


def test_arrays_have_positions_and_no_names():
    splits = load(validation=10)
    assert splits.train.names is None
    parts = [splits.train, splits.validation, splits.test]
    assert sorted(torch.cat([part.positions_N for part in parts]).tolist()) == list(range(100))
    assert torch.equal(splits.test.pixels_NCHW[:, 0], torch.from_numpy(PIXELS)[splits.test.positions_N])


@pytest.mark.parametrize("field", [{"names": ("a",)}, {"positions_N": torch.arange(3)}])
def test_names_and_positions_are_one_an_image(field):
    with pytest.raises(DataError, match=r"2 images but \d (names|positions); give one an image"):
        Images(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), **field)


@pytest.mark.parametrize(("validation", "measured"), [(10, "validation"), (0, "train")])
def test_without_a_test_split_everything_is_trained_on(validation, measured):
    splits = load(validation=validation, test=0, transforms="dynamic-binarise")
    assert (len(splits.train), splits.test, splits.measured) == (100 - validation, None, measured)
    assert splits.notes[-1].startswith("no test split (data.test is 0): the model is measured on the")
    with pytest.raises(
        ConfigError, match=rf"no test split .*--split {measured}, or train with --data\.test 0\.2"
    ):
        splits.split("test")
    assert (
        Data(test=0).load(obj={"train": PIXELS, "test": PIXELS[:3]}).measured == "test"
    )  # the source has one
