"""Pixels that stay in their file give the numbers that the same pixels give in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nelbo.data import (
    Batches,
    Binarise,
    Data,
    Dequantise,
    DynamicBinarise,
    Images,
    Resize,
    Transform,
    materialise,
    ondisk,
    streaming,
)
from nelbo.data.ondisk import ArrayFile, OnDisk
from nelbo.data.transforms import frozen
from nelbo.doctor import copies
from nelbo.errors import DataError

CPU = torch.device("cpu")
N = 503
GREY = np.random.RandomState(0).randint(0, 256, (N, 6, 5), dtype=np.uint8)


@pytest.fixture
def small(monkeypatch):
    """Everything is large: any .npy stays on the disk, any selection stays in the file, a chunk is a few images."""
    monkeypatch.setattr(ondisk, "THRESHOLD", 0)
    monkeypatch.setattr(ondisk, "RESIDENT", 0)
    monkeypatch.setattr(ondisk, "CHUNK", 700)


def saved(path, array):
    np.save(path, array)
    return str(path)


def both(tmp_path, monkeypatch, array=GREY, **fields):
    """The splits from memory, and from the file."""
    source = saved(tmp_path / "x.npy", array)
    with monkeypatch.context() as patch:
        patch.setattr(ondisk, "THRESHOLD", 1 << 30)
        resident = Data(source=source, **fields).load()
    return resident, Data(source=source, **fields).load()


@pytest.mark.parametrize(
    "array",
    [
        GREY,
        np.stack([GREY, GREY // 2, GREY // 3], 3),
        np.stack([GREY, GREY // 2, GREY // 3], 1),
        GREY > 128,
        (GREY > 128).astype(np.uint8),
        np.where(GREY > 128, np.uint8(255), np.uint8(0)),
        np.zeros_like(GREY),
    ],
    ids=["NHW", "NHWC", "NCHW", "bool", "0 and 1", "0 and 255", "black"],
)
def test_every_layout_and_kind_is_what_it_is_in_memory(tmp_path, monkeypatch, small, array):
    resident, there = both(tmp_path, monkeypatch, array, validation=0.1)
    assert isinstance(resident.train.pixels, torch.Tensor)
    assert isinstance(there.train.pixels, OnDisk)
    assert there.hash == resident.hash
    assert (there.pixels, there.range, there.eight_bit) == (
        resident.pixels,
        resident.range,
        resident.eight_bit,
    )
    for name in ("train", "validation", "test"):
        assert torch.equal(there.split(name).pixels_NCHW, resident.split(name).pixels_NCHW)
        assert there.split(name).hash() == resident.split(name).hash()


@pytest.mark.parametrize(
    "fields",
    [
        {"transforms": (Resize(height=3, width=4),)},
        {"transforms": (Binarise(threshold=90),)},
        {"transforms": (Resize(height=4), Binarise())},
        {"size": 4},
        {"range": (0, 300)},
        {"test": 100, "split_seed": 3},
    ],
    ids=str,
)
def test_what_happens_once_happens_when_they_are_read(tmp_path, monkeypatch, small, fields):
    resident, there = both(tmp_path, monkeypatch, **fields)
    assert isinstance(there.train.pixels, OnDisk)
    assert (there.hash, there.pixels, there.shape) == (resident.hash, resident.pixels, resident.shape)
    assert torch.equal(there.train.pixels_NCHW, resident.train.pixels_NCHW)


def test_batches_are_bit_identical_to_resident_ones(tmp_path, monkeypatch, small):
    transforms = (DynamicBinarise(),)
    resident, there = both(tmp_path, monkeypatch, transforms=transforms)
    for epoch in (1, 2):
        pairs = [
            Batches(splits.train, transforms, 40, device=CPU, shuffle_seed=7, training=True).epoch(
                epoch, start=2
            )
            for splits in (resident, there)
        ]
        batches = list(zip(*pairs, strict=True))
        assert len(batches) == 9
        assert all(torch.equal(a, b) for a, b in batches)


def test_rows_are_found_in_any_order(tmp_path, small):
    file = np.load(saved(tmp_path / "x.npy", GREY), mmap_mode="r")
    images = Images(OnDisk(ArrayFile(tmp_path / "x.npy", (N, 1, 6, 5), file.offset)))
    index = torch.tensor([502, 0, 7, 7, 501])
    assert torch.equal(images.rows(index), torch.from_numpy(GREY[index.numpy()])[:, None])
    twice = images.select(torch.arange(N - 1, -1, -1)).select(torch.tensor([1, 500]))
    assert isinstance(twice.pixels, OnDisk)
    assert torch.equal(twice.pixels_NCHW[:, 0], torch.from_numpy(GREY[[501, 2]]))
    assert images.rows(torch.zeros(0, dtype=torch.int64)).shape == (0, 1, 6, 5)
    for outside in (-1, N):
        with pytest.raises(IndexError):
            images.rows(torch.tensor([0, outside]))


def test_few_images_of_a_file_are_resident(tmp_path, monkeypatch, small):
    monkeypatch.setattr(ondisk, "RESIDENT", 30 * 100)
    _, there = both(tmp_path, monkeypatch, test=100, validation=101)
    assert isinstance(there.test.pixels, torch.Tensor)
    assert isinstance(there.validation.pixels, OnDisk)


@pytest.mark.parametrize("transform", [DynamicBinarise(), DynamicBinarise(seed=1), Dequantise()], ids=repr)
def test_frozen_noise_depends_on_the_position_alone(tmp_path, monkeypatch, small, transform):
    _, there = both(tmp_path, monkeypatch, transforms=(transform,))
    whole = materialise(there.train, (transform,))
    index = torch.tensor([300, 5, 17])
    assert torch.equal(materialise(there.train, (transform,), indices=index), whole[index])
    read = torch.cat(list(Batches(there.train, (transform,), 64, device=CPU).epoch()))
    assert torch.equal(read, whole)
    again = frozen(there.train, (transform,)).select(torch.arange(100, 300)).select(index[1:])
    assert torch.equal(
        again.pixels_NCHW.float() / (255 if again.dtype == torch.uint8 else 1), whole[100 + index[1:]]
    )


def test_frozen_bits_have_the_probability_of_their_pixel():
    """A million bits a level; 0 and 255 are certain. Dequantised levels are found again."""
    for level in (0, 1, 77, 128, 254, 255):
        pixels = torch.full((1000, 1, 25, 40), level, dtype=torch.uint8)
        bits = DynamicBinarise().frozen_at(pixels, torch.arange(5, 1005)).double() / 255
        p = level / 255
        assert abs(float(bits.mean()) - p) <= 5 * (p * (1 - p) / 1e6) ** 0.5
        between = bits.view(1000, -1).mean(1).var() / max(
            p * (1 - p) / 1000, 1e-12
        )  # of images: they are independent
        assert p in (0, 1) or 0.8 < float(between) < 1.2
    levels = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    x = Dequantise().frozen_at(levels, torch.arange(4))
    assert torch.equal((x * 256).floor().to(torch.uint8), levels)
    assert abs(float((x * 256 - levels.float()).mean()) - 0.5) < 0.06


def test_a_transform_of_all_images_together_is_refused(tmp_path, small):
    class Centre(Transform):
        def once(self, pixels_NCHW):
            return pixels_NCHW.float() - pixels_NCHW.float().mean(0)

    class Fixed(Transform):
        def frozen(self, pixels_NCHW):
            return pixels_NCHW

    source = saved(tmp_path / "x.npy", GREY)
    with pytest.raises(DataError, match=r"happens once to all images together.*by_image = True"):
        Data(source=source, transforms=(Centre(),)).load()
    images = Data(source=source).load().train
    with pytest.raises(DataError, match=r"no `frozen_at`.*--data\.validation 10000"):
        materialise(images, (Fixed(),))


def test_a_memory_map_that_is_passed_stays_one(tmp_path, small):
    array = np.load(saved(tmp_path / "x.npy", GREY), mmap_mode="r")
    there = Data().load(obj=array)
    assert isinstance(there.train.pixels, OnDisk)
    assert there.hash == Data().load(obj=GREY).hash
    labelled = Data().load(obj=(array, np.arange(N) % 3))
    assert isinstance(labelled.train.pixels, OnDisk)
    assert torch.equal(labelled.train.labels_N, Data().load(obj=(GREY, np.arange(N) % 3)).train.labels_N)
    part = Data().load(obj=array[10:])  # of which the file's beginning is not known
    assert isinstance(part.train.pixels, torch.Tensor)
    assert part.hash == Data().load(obj=GREY[10:]).hash


def test_other_numbers_are_read_whole_and_explained_where_they_do_not_fit(tmp_path, monkeypatch, small):
    for array in (GREY / np.float32(255), np.asfortranarray(GREY), GREY.astype(np.int64)):
        assert isinstance(Data(source=saved(tmp_path / "x.npy", array)).load().train.pixels, torch.Tensor)
    monkeypatch.setattr(ondisk, "available_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"x\.npy: takes .* of memory.*only \.npy files of uint8"):
        Data(source=str(tmp_path / "x.npy")).load()


def test_all_pixels_at_once_are_refused_where_they_do_not_fit(tmp_path, monkeypatch, small):
    images = Data(source=saved(tmp_path / "x.npy", GREY)).load().train
    monkeypatch.setattr(ondisk, "available_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"402 images .* are asked for at once"):
        _ = images.pixels_NCHW


def test_a_file_that_is_cut_off_is_named(tmp_path, small):
    path = tmp_path / "x.npy"
    saved(path, GREY)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"x\.npy: is cut off"):
        Data(source=str(path)).load()


@pytest.mark.parametrize("shape", [(N, 30), (N, 2, 3, 5), (5, 3, 2, 3)])
def test_shapes_that_are_no_images_are_refused_as_in_memory(tmp_path, monkeypatch, small, shape):
    source = saved(tmp_path / "x.npy", GREY.ravel()[: np.prod(shape)].reshape(shape))
    with pytest.raises(DataError) as there:
        Data(source=source).load()
    monkeypatch.setattr(ondisk, "THRESHOLD", 1 << 30)
    with pytest.raises(DataError) as resident:
        Data(source=source).load()
    assert str(there.value) == str(resident.value)


def test_the_page_says_what_the_limits_are():
    """Fixed, so that the noise of an evaluation, and with it a hash, is the same on every machine."""
    page = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"to {ondisk.THRESHOLD >> 20} MiB of pixels" in page
    assert f"a larger set does above {ondisk.RESIDENT >> 20} MiB" in page.replace("\n", " ")
    assert f"among {copies.COMPARED:,} of them" in page
    assert (streaming.MARGIN, streaming.LEAST_MARGIN >> 30, streaming.FEW) == (0.25, 2, 16)
    assert all(words in page for words in ("a quarter of it, and at least 2 GiB", "less than a sixteenth"))
