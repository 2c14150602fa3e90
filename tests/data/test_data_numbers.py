"""Numbers of any type as pixels: the range before rounding, one rule for all splits, ranges that work as printed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.cli import main
from nelbo.data import Data, from_object
from nelbo.data.arrays import Reading
from nelbo.errors import ConfigError, DataError
from nelbo.training import api
from nelbo.training.recipe import resolve

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (20, 8, 8)).astype(np.uint8)


def ramp(low, high, dtype):
    """Images that hold both ends and everything between them."""
    return np.linspace(low, high, 20 * 16 * 16).reshape(20, 16, 16).astype(dtype)


def saved(tmp_path, array, name="x.npy"):
    np.save(tmp_path / name, array)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-1000, 400, np.int16),
        (-1000, 400, np.int32),
        (0, 4095, np.uint16),
        (0, 65535, np.uint16),
        (0, 10**12, np.int64),
        (-7, 2**63, np.float64),
    ],
)
def test_a_range_is_applied_before_numbers_are_rounded(tmp_path, low, high, dtype):
    source = saved(tmp_path, ramp(low, high, dtype))
    splits = Data(source=source, range=(low, high)).load()
    everything = torch.cat([splits.train.pixels_NCHW, splits.test.pixels_NCHW])
    assert splits.range == (0.0, 1.0)
    if dtype == np.float64:
        assert everything.dtype == torch.float32
    else:
        assert everything.dtype == torch.uint8
        assert everything.unique().tolist() == list(range(256))
    # Resizing rounds, so it comes after the range.
    small = Data(source=source, range=(low, high), size=8).load()
    assert len(small.train.pixels_NCHW.unique()) > 100


def test_a_float64_range_far_from_zero_is_applied_before_float32():
    array = ramp(1e9, 1e9 + 1, np.float64)
    (note,) = from_object(array).notes
    assert note.startswith("data: float32 has few steps between 1000000000 and 1000000001, and rounds")
    splits = Data(range=(1e9, 1e9 + 1)).load(obj=array)
    assert len(splits.train.pixels_NCHW.unique()) > 3000


def test_without_a_range_wide_numbers_are_refused_with_the_flag_that_works(tmp_path):
    for low, high, dtype in ((-1000, 400, np.int16), (0, 4095, np.uint16), (300, 300, np.int64)):
        source = saved(tmp_path, ramp(low, high, dtype))
        with pytest.raises(DataError, match=r"x\.npy: .* whole numbers lie outside 0\.\.255") as refused:
            Data(source=source).load()
        ends = re.search(r"--data\.range (\S+),(\S+)$", str(refused.value))
        assert Data(source=source, range=(float(ends[1]), float(ends[2]))).load().range == (0.0, 1.0)
    np.savez(tmp_path / "two.npz", x_train=ramp(0, 300, np.int16), x_test=ramp(-9, 500, np.int16))
    with pytest.raises(DataError, match=r"two\.npz\[x_train\]: .*--data\.range -9,500$"):  # of all splits
        Data(source=str(tmp_path / "two.npz")).load()
    with pytest.raises(DataError, match=r"range 0,100: .*from 0 to 4095; .* --data\.range 0,4095$"):
        Data(source=saved(tmp_path, ramp(0, 4095, np.uint16)), range=(0, 100)).load()


def test_one_is_white_only_where_no_split_goes_further(tmp_path):
    train, test = RANDOM.integers(0, 3, (200, 8, 8)), RANDOM.integers(0, 2, (50, 8, 8))
    np.savez(tmp_path / "l.npz", x_train=train, x_test=test)
    splits = Data(source=str(tmp_path / "l.npz")).load()
    assert (splits.train.extremes(), splits.test.extremes()) == ((0, 2), (0, 1))
    assert re.search(r"l\.npz\[x_test\] holds only 0 and 1", splits.notes[0])
    spread = Data(source=str(tmp_path / "l.npz"), range=(0, 2)).load()
    assert (spread.train.extremes(), spread.test.extremes()) == ((0, 255), (0, 128))
    for whole in (train, 100 * train):  # the ambiguous neighbours: decided together, and said
        both = Data().load(obj={"train": test, "test": whole})
        assert (both.train.extremes(), len(both.notes)) == ((0, 1), 1)
    mask = Data().load(obj={"train": test, "test": test[:9].astype(np.int8)})
    assert (mask.train.extremes(), mask.test.extremes(), mask.notes) == ((0, 255), (0, 255), ())
    assert Data(range=(0, 1)).load(obj=test).train.extremes() == (0, 255)
    assert Data(range=(0, 1)).load(obj=test > 0).train.extremes() == (0, 255)


def test_splits_of_different_types_have_one_range():
    wide = {"train": BYTES, "test": RANDOM.uniform(0, 255, (9, 8, 8))}
    with pytest.raises(
        DataError, match=r"test holds floating-point numbers .* train whole numbers.*--data\.range"
    ):
        Data().load(obj=wide)
    assert Data(range=(0, 255)).load(obj=wide).range == (0.0, 1.0)
    # One split needs the range before its numbers are rounded: then all get it, once.
    mixed = {
        "train": BYTES,
        "validation": from_object(BYTES[:5]).train,
        "test": ramp(0, 510, np.int32)[:, 8:, 8:],
    }
    splits = Data(range=(0, 510)).load(obj=mixed)
    assert splits.test.extremes()[1] == 255
    for images in (splits.train, splits.validation):
        assert 120 <= images.extremes()[1] <= 128


# --- ranges in messages -----------------------------------------------------------------------

DISTRIBUTIONS = {
    "normal": lambda rng: rng.normal(size=(12, 4, 4)),
    "uniform": lambda rng: rng.uniform(0, 300, (12, 4, 4)),
    "large": lambda rng: rng.uniform(0, 1.2e6, (12, 4, 4)),
    "scanner": lambda rng: rng.uniform(-1024, 3071, (12, 4, 4)),
    "far": lambda rng: 1e6 + rng.uniform(0, 1, (12, 4, 4)),
    "constant": lambda rng: np.full((12, 4, 4), 5.0),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("transforms", ["none", "binarise"])
def test_the_range_that_a_message_prints_is_accepted(name, transforms):
    plain = resolve("digits", {"data.transforms": [] if transforms == "none" else [transforms]})
    for seed in range(12):
        array = DISTRIBUTIONS[name](np.random.default_rng(seed)).astype(np.float32)
        with pytest.raises(DataError) as refused:
            api.load_data(plain, data=array)
        low, high = re.search(
            r"--data\.range ([-+.e\d]+),([-+.e\d]+)(?: \(or|$)", str(refused.value)
        ).groups()
        splits = api.load_data(resolve(plain, {"data.range": [float(low), float(high)]}), data=array)
        assert splits.range == (0.0, 1.0)


def test_the_exact_ends_are_accepted_although_float32_rounds_them():
    for seed in range(50):
        array = np.random.default_rng(seed).normal(size=(12, 4, 4)) * 10.0 ** (seed % 7 - 3)
        assert Data(range=(array.min(), array.max())).load(obj=array).range == (0.0, 1.0)


def test_a_range_that_is_too_small_is_answered_in_the_numbers_of_the_source():
    array = np.random.default_rng(0).uniform(-3, 5, (12, 4, 4))
    for transforms in ([], ["binarise"]):
        recipe = resolve("digits", {"data.transforms": transforms, "data.range": [-2.0, 2.0]})
        with pytest.raises(
            DataError, match=r"data\.range -2,2 leaves numbers from -2\.\d+ to 4\.\d+ outside"
        ) as refused:
            api.load_data(recipe, data=array)
        low, high = re.search(r"--data\.range (\S+?),([-.\d]+)(?: \(or|$)", str(refused.value)).groups()
        assert api.load_data(
            resolve(recipe, {"data.range": [float(low), float(high)]}), data=array
        ).range == (0, 1)


# --- axes -------------------------------------------------------------------------------------


def test_channels_that_are_not_1_3_or_4(tmp_path):
    array = RANDOM.integers(0, 256, (20, 8, 8, 13)).astype(np.uint8)
    message = r"--data\.channels-last true for 13 channels of 8 x 8 pixels, --data\.channels-last false for 8 channels"
    source = saved(tmp_path, array)
    for obj in (None, torch.from_numpy(array), array):
        with pytest.raises(DataError, match=message):
            Data(source=source).load(obj=obj)
        last = Data(source=source, channels_last=True).load(obj=obj)
        assert last.shape == (13, 8, 8)
        assert Data(source=source, channels_last=False).load(obj=obj).shape == (8, 8, 13)
    assert Data(channels_last=False).load(obj=np.zeros((20, 1, 9, 1), np.uint8)).shape == (1, 9, 1)
    assert Data().load(obj=torch.rand(20, 2, 5, 6)).shape == (2, 5, 6)
    tall = Data().load(obj=torch.rand(20, 32, 5, 6))
    assert (tall.shape, "32 channels of 5 x 6 pixels" in tall.notes[0]) == ((32, 5, 6), True)
    one = Data().load(obj=np.zeros((32, 32, 3), np.uint8))
    assert "read as 32 grey images of 32 x 3 pixels" in one.notes[0]


def test_pillow_images_of_16_bits_take_the_range_before_they_are_rounded():
    deep = [Image.fromarray(image) for image in ramp(0, 4095, np.uint16)]
    images = from_object(deep, Reading(span=(0, 4095))).train
    assert images.pixels_NCHW.unique().tolist() == list(range(256))
    with pytest.raises(DataError, match=r"whole numbers from 0 to 4095, .*--data\.range 0,4095$"):
        from_object(deep)
    with pytest.raises(DataError, match=r"data: .*whole numbers from -1000 to 400"):
        from_object([Image.fromarray(image) for image in ramp(-1000, 400, np.int32)])
    full = from_object([Image.fromarray(image) for image in ramp(0, 65535, np.uint16)]).train
    assert full.pixels_NCHW.unique().tolist() == list(range(256))
    floating = from_object([Image.fromarray(image) for image in ramp(-2, 2, np.float32)]).train
    assert (floating.dtype, floating.extremes()) == (torch.float32, (-2, 2))
    mixed = [*deep[:-1], Image.fromarray(np.full((16, 16), 255, np.uint8))]
    loaded = from_object(mixed, Reading(span=(0, 4095)))
    assert loaded.ranged
    assert loaded.train.pixels_NCHW[-1].unique().tolist() == [16]  # 255 of 4095, as in the others


def test_check_and_doctor_take_the_flags_that_messages_print(tmp_path, capsys):
    source = saved(tmp_path, ramp(0, 4095, np.uint16))
    for verb in (["data", "check", source], ["doctor", source]):
        assert main(verb) == 2
        flag = re.search(r"(--data\.range) (\S+)$", capsys.readouterr().err.strip()).groups()
        assert main([*verb, *flag, "--json"]) == 0
        capsys.readouterr()
        assert main([*verb, "--model.latent-dim", "3"]) == 2
        assert "--model.latent-dim: only fields of data are known here" in capsys.readouterr().err
    main(["doctor", source, "--data.range", "0,4095", "--distinct", str(tmp_path / "new.npz")])
    assert "leave that out when you train on it" in capsys.readouterr().err


def test_transparency_of_pillow_images_is_a_choice():
    clear = [Image.fromarray(RANDOM.integers(0, 256, (4, 4, 4)).astype(np.uint8)) for _ in range(5)]
    kept = from_object(clear, Reading(alpha="keep"))
    assert (kept.train.shape, kept.notes) == ((4, 4, 4), ())
    blended = [from_object(clear, Reading(alpha=alpha)) for alpha in ("white", "black")]
    for loaded, colour in zip(blended, ("white", "black"), strict=True):
        assert loaded.notes == (f"data: 5 of 5 images have transparency, which becomes {colour}",)
    assert not torch.equal(*(loaded.train.pixels_NCHW for loaded in blended))


def test_channels_last_is_refused_where_there_are_no_arrays():
    with pytest.raises(ConfigError, match=r"data\.channels-last is about arrays, and digits is none"):
        Data(channels_last=True).load()
