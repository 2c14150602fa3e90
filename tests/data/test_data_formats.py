"""Image files as people have them: bits, signs, pages, frames, transparency, masks, and files that cannot be read."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.data import Data, ondisk
from nelbo.data.folder import load_folder
from nelbo.data.imagefile import Decoding
from nelbo.errors import DataError

RNG = np.random.default_rng(0)


def save(folder, arrays, ending="png", **more):
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:02}.{ending}", **more)
    return folder


def png_16(path, array):
    """Write colours of 16 bits, which Pillow reads and does not write."""
    height, width, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def whole(low, high, dtype, n=6):
    arrays = RNG.integers(low, high, (n, 32, 32)).astype(dtype)
    arrays[0, 0, :2] = low, high - 1
    return arrays


CT, SCAN = whole(-1000, 401, np.int32), whole(0, 4096, np.uint16)


@pytest.mark.parametrize(
    ("arrays", "ending", "span"),
    [(CT, "tif", (-1000, 400)), (SCAN, "png", (0, 4095)), (SCAN, "tiff", (0, 4095))],
)
def test_a_range_is_applied_before_rounding(tmp_path, arrays, ending, span):
    source = str(save(tmp_path / "in", arrays, ending))
    with pytest.raises(DataError, match=rf"--data\.range {span[0]},{span[1]}"):
        Data(source=source).load()
    splits = Data(source=source, range=span, validation=1, test=1).load()
    parts = (splits.train, splits.validation, splits.test)
    pixels = torch.cat([part.pixels_NCHW for part in parts])
    order = torch.cat([part.positions_N for part in parts])
    expected = np.rint((arrays.astype(float) - span[0]) * 255 / (span[1] - span[0]))
    assert torch.equal(pixels[order.argsort(), 0].long(), torch.from_numpy(expected).long())
    assert len(pixels.unique()) == 256
    assert splits.range == (0.0, 1.0)
    with pytest.raises(DataError, match=r"data\.range 0,17: .*whole numbers from .*--data\.range"):
        Data(source=source, range=(0, 17)).load()


def test_a_range_and_a_size_of_8_bits_round_once(tmp_path):
    board = np.zeros((4, 4), np.uint8)
    board[:, 1::2] = 1
    source = str(save(tmp_path / "in", [board] * 3))
    halves = Data(source=source, range=(0, 1), size=2, test=1).load().train.pixels_NCHW
    assert halves.min() > 0  # rounded first they would be 0 or 1 of 255 before the range
    assert halves.max() < 255
    assert Data(source=source, range=(0, 1), test=1).load().train.pixels_NCHW.unique().tolist() == [0, 255]


def test_all_16_bits_need_no_range_and_half_of_them_are_said(tmp_path):
    full = whole(0, 65536, np.uint16)
    pixels = load_folder(save(tmp_path / "full", full)).train.pixels_NCHW
    assert torch.equal(pixels[:, 0].long(), torch.from_numpy(np.rint(full / 257)).long())
    loaded = load_folder(save(tmp_path / "some", whole(0, 20000, np.uint16)))
    assert loaded.notes == (
        "the largest of the 16-bit numbers is 19999, and 78 is the brightest of 0..255; where 19999 is white: "
        "--data.range 0,19999",
    )
    assert load_folder(tmp_path / "some").notes == loaded.notes  # from the cache too


def test_twelve_bits_that_a_tiff_declares_are_white(tmp_path):
    path = save(tmp_path / "in", [np.full((4, 6), 65535, np.uint16)], "tif") / "00.tif"
    content = path.read_bytes()
    # BitsPerSample 12 instead of 16: all bits are set, so that every number is 4095.
    tag = struct.pack("<HHI", 258, 3, 1)
    at = content.index(tag) + len(tag)
    path.write_bytes(content[:at] + struct.pack("<H", 12) + content[at + 2 :])
    assert load_folder(tmp_path / "in").train.pixels_NCHW.unique().tolist() == [255]


def test_floating_point_stays_and_a_range_maps_it(tmp_path):
    arrays = RNG.normal(size=(6, 8, 8)).astype(np.float32)
    source = save(tmp_path / "in", arrays, "tif")
    assert torch.equal(load_folder(source).train.pixels_NCHW[:, 0], torch.from_numpy(arrays))
    again = load_folder(source).train.pixels_NCHW  # from the cache
    assert torch.equal(again[:, 0], torch.from_numpy(arrays))
    ranged = Data(source=str(source), range=(-5, 5), test=2).load()
    assert (ranged.train.dtype, ranged.pixels, ranged.range) == (torch.float32, "grey", (0.0, 1.0))
    assert load_folder(source, Decoding((4, 4))).train.pixels_NCHW.shape == (6, 1, 4, 4)


def test_floating_point_too_large_for_memory(tmp_path, monkeypatch):
    arrays = RNG.normal(size=(6, 8, 8)).astype(np.float32)
    source = save(tmp_path / "in", arrays, "tif")
    monkeypatch.setattr(ondisk, "THRESHOLD", 0)
    monkeypatch.setattr(ondisk, "RESIDENT", 0)
    for _ in range(2):  # decoded, then from the cache
        images = load_folder(source).train
        assert isinstance(images.pixels, ondisk.OnDisk)
        assert torch.equal(images.pixels_NCHW[:, 0], torch.from_numpy(arrays))


def test_numbers_that_are_not_finite_are_named(tmp_path):
    arrays = np.zeros((2, 4, 4), np.float32)
    arrays[1, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"01\.tif: 1 values are not finite"):
        load_folder(save(tmp_path / "in", arrays, "tif"))


def test_two_kinds_of_numbers_are_refused_by_file(tmp_path):
    save(tmp_path / "in", [np.zeros((4, 4), np.uint8)], "png")
    save(tmp_path / "in", [np.zeros((4, 4), np.float32)], "tif")
    with pytest.raises(DataError, match=r"00\.png \(8-bit\) and 00\.tif \(floating-point\)"):
        load_folder(tmp_path / "in")
    save(tmp_path / "in", [np.full((4, 4), 40000, np.uint16)], "tif")
    assert load_folder(tmp_path / "in").train.pixels_NCHW.unique().tolist() == [0, 156]
    with pytest.raises(DataError, match=r"one data\.range cannot be right for all"):
        load_folder(tmp_path / "in", Decoding(range=(0, 40000)))


def test_colours_of_16_bits(tmp_path):
    png_16(tmp_path / "in" / "a.png", RNG.integers(0, 65536, (8, 8, 3)))
    assert load_folder(tmp_path / "in").notes == ("colours of 16 bits are read with the upper 8 of them",)
    with pytest.raises(DataError, match=r"a\.png: holds colours of 16 bits.*save them as \.npy"):
        load_folder(tmp_path / "in", Decoding(range=(0, 4095)))
    png_16(tmp_path / "dark" / "a.png", RNG.integers(0, 4096, (8, 8, 3)))
    with pytest.raises(DataError, match=r"stay below 16 of 256; save them as \.npy"):
        load_folder(tmp_path / "dark")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_of_0_and_1_are_black_and_white_by_one_rule_for_all_splits(tmp_path, dtype):
    masks = RNG.integers(0, 2, (3, 8, 8)).astype(dtype)
    for split in ("train", "test"):
        save(tmp_path / "in" / split, masks)
    splits = Data(source=str(tmp_path / "in")).load()
    assert (splits.train.extremes(), splits.test.extremes(), splits.pixels) == ((0, 255), (0, 255), "binary")
    save(tmp_path / "in" / "test", masks * (2 if dtype == np.uint8 else 40000))
    if dtype == np.uint16:  # the training images come from the cache, where 1 was white
        splits = Data(source=str(tmp_path / "in")).load()
        assert (splits.train.extremes(), splits.test.extremes()) == ((0, 0), (0, 156))
    else:
        splits = Data(source=str(tmp_path / "in")).load()
        assert (splits.train.extremes(), splits.test.extremes()) == ((0, 1), (0, 2))
        splits = Data(source=str(tmp_path / "in"), range=(0, 2)).load()
        assert (splits.train.extremes(), splits.test.extremes()) == ((0, 128), (0, 255))


def test_pages_of_a_tiff_are_images(tmp_path):
    pages = [Image.fromarray(np.full((4, 4), i, np.uint8)) for i in range(70)]
    (tmp_path / "in" / "a").mkdir(parents=True)
    pages[0].save(tmp_path / "in" / "a" / "stack.tif", save_all=True, append_images=pages[1:])
    pages[9].save(tmp_path / "in" / "a" / "one.tif")
    for _ in range(2):  # decoded, then from the cache
        loaded = load_folder(tmp_path / "in")
        assert loaded.train.pixels_NCHW[:, 0, 0, 0].tolist() == [9, *range(70)]
        assert loaded.train.names[:3] == ("a/one.tif", "a/stack.tif[0]", "a/stack.tif[1]")
        assert loaded.notes == ("1 file of several pages: each page is an image, 71 in all",)
        assert len(loaded.train.labels_N) == 71


def test_pages_of_different_sizes_are_named(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("L", (4, 4)).save(
        tmp_path / "in" / "a.tif", save_all=True, append_images=[Image.new("L", (6, 4))]
    )
    with pytest.raises(DataError, match=r"a\.tif is 4 x 4 and .*a\.tif\[1\] is 4 x 6"):
        load_folder(tmp_path / "in")


def test_the_first_frame_of_an_animation_is_read_and_said(tmp_path):
    (tmp_path / "in").mkdir()
    frames = [Image.fromarray(np.full((4, 4), 60 * i, np.uint8)) for i in range(1, 4)]
    for ending in ("gif", "webp"):
        frames[0].save(
            tmp_path / "in" / f"a.{ending}", save_all=True, append_images=frames[1:], lossless=True
        )
    loaded = load_folder(tmp_path / "in")
    assert loaded.train.pixels_NCHW.unique().tolist() == [60]
    assert loaded.notes == ("2 files with several frames or pictures: the first of each is read",)


@pytest.mark.parametrize("ending", ["gif", "pgm", "ppm", "pnm", "avif", "jfif"])
def test_less_usual_endings(tmp_path, ending):
    (tmp_path / "in").mkdir()
    mode = "L" if ending in ("gif", "pgm") else "RGB"
    file_format = {"pnm": "PPM", "jfif": "JPEG"}.get(ending)
    Image.new(mode, (6, 4), 200 if mode == "L" else (200, 200, 200)).save(
        tmp_path / "in" / f"a.{ending}", file_format
    )
    images = load_folder(tmp_path / "in").train
    assert images.shape == (1 if mode == "L" else 3, 4, 6)
    assert (images.pixels_NCHW.long() - 200).abs().max() <= 2


def test_a_pgm_says_what_is_white_and_keeps_its_numbers(tmp_path):
    (tmp_path / "in").mkdir()
    numbers = np.array([0, 4095, 2048, 16], ">u2")
    (tmp_path / "in" / "a.pgm").write_bytes(b"P5 2 2 4095\n" + numbers.tobytes())
    assert load_folder(tmp_path / "in").train.pixels_NCHW.flatten().tolist() == [0, 255, 128, 1]
    ranged = load_folder(tmp_path / "in", Decoding(range=(0, 8190))).train.pixels_NCHW
    assert ranged.flatten().tolist() == [0, 128, 64, 0]


@pytest.mark.parametrize(
    ("alpha", "value"), [("white", [255] * 3), ("black", [0] * 3), ("keep", [9, 10, 20, 0])]
)
def test_transparency_by_choice(tmp_path, alpha, value):
    (tmp_path / "in").mkdir()
    Image.new("RGBA", (4, 4), (9, 10, 20, 0)).save(tmp_path / "in" / "a.png")
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "in" / "b.png")
    for _ in range(2):
        splits = Data(source=str(tmp_path / "in"), alpha=alpha, test=0.5).load()
        pixels = {
            part.names[0]: part.pixels_NCHW[0, :, 0, 0].tolist() for part in (splits.train, splits.test)
        }
        assert pixels == {"a.png": value, "b.png": [1, 2, 3] + ([255] if alpha == "keep" else [])}
    blended = f"1 of 2 images have transparency, which becomes {alpha} (data.alpha: white, black or keep)"
    assert splits.notes == (() if alpha == "keep" else (blended,))


def test_grey_with_kept_transparency(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("LA", (4, 4), (70, 30)).save(tmp_path / "in" / "a.png")
    images = load_folder(tmp_path / "in", Decoding(alpha="keep")).train
    assert load_folder(tmp_path / "in", Decoding(alpha="keep", size=(2, 2))).train.shape == (2, 2, 2)
    assert images.pixels_NCHW[0, :, 0, 0].tolist() == [70, 30]


def test_what_is_not_read_is_counted_by_kind(tmp_path, write_image):
    write_image(tmp_path / "in" / "a" / "0.png")
    for name in ("a/1.heic", "2.heic", "3.txt", "README", ".hidden"):
        (tmp_path / "in" / name).write_bytes(b"")
    assert load_folder(tmp_path / "in").notes == ("2 .heic, 1 .txt, 1 without an ending not read",)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no image files \(it holds 1 \.txt\)"):
        load_folder(tmp_path / "bare")


@pytest.fixture
def damaged(tmp_path, write_image):
    """Forty files in two splits, of which 13 cannot be read: no image, or cut off behind the header."""
    for i in range(40):
        folder = tmp_path / "in" / ("test" if i % 4 == 0 else "train")
        path = write_image(folder / f"{i:02}.png", 40, 40, value=i)
        if i % 3 == 0:
            path.write_bytes(b"nothing" if i % 2 else path.read_bytes()[:50])
    return tmp_path / "in"


def test_all_unreadable_files_are_in_one_message(damaged):
    with pytest.raises(DataError, match=r"14 of 40 image files cannot be read") as error:
        load_folder(damaged)
    assert str(error.value).count(".png") == 10
    assert str(error.value).endswith(
        "; and 4 more; repair them or take them out of the folder, or leave them out with --data.skip-unreadable true"
    )


@pytest.mark.parametrize("threshold", [0, ondisk.THRESHOLD])
def test_unreadable_files_are_left_out_said_and_recorded(damaged, monkeypatch, threshold):
    monkeypatch.setattr(ondisk, "THRESHOLD", threshold)
    for _ in range(2):  # decoded, then from the cache
        splits = Data(source=str(damaged), skip_unreadable=True, validation=5).load()
        kept = [
            int(name[-6:-4]) for part in (splits.train, splits.validation, splits.test) for name in part.names
        ]
        assert sorted(kept) == [i for i in range(40) if i % 3]
        for part in (splits.train, splits.test):
            assert part.pixels_NCHW[:, 0, 0, 0].tolist() == [int(name[-6:-4]) for name in part.names]
        assert len(splits.unreadable) == 14
        assert splits.notes[0].startswith("train: 10 of 30 image files cannot be read and are left out")
    with pytest.raises(DataError, match="14 of 40"):  # the cache of what was left out is no way around it
        load_folder(damaged)


def test_a_folder_of_nothing_readable(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 1 image files can be read"):
        load_folder(tmp_path / "in", skip_unreadable=True)


def test_a_damaged_cache_of_facts_is_made_anew(tmp_path):
    source = save(tmp_path / "in", whole(0, 20000, np.uint16))
    load_folder(source)
    (facts,) = (tmp_path / "cache" / "folders").glob("*.json")
    assert json.loads(facts.read_text())["extremes"]
    facts.write_text("{}")
    facts.write_text('{"pages": 3}')
    assert load_folder(source).notes[0].startswith("the largest of the 16-bit")
