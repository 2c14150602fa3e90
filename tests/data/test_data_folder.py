from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nelbo.data import Data, decode, filelist
from nelbo.data.folder import load_folder
from nelbo.data.imagefile import Decoding, read_headers
from nelbo.errors import DataError


def test_grey_non_square_without_classes(tmp_path, write_image):
    for i in range(3):
        write_image(tmp_path / "in" / f"{i}.png", 5, 7, "L", i)
    write_image(tmp_path / "in" / ".hidden.png")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    images = load_folder(tmp_path / "in").train
    assert images.pixels_NCHW.shape == (3, 1, 5, 7)
    assert images.pixels_NCHW[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert images.labels_N is None


def test_one_coloured_image_makes_all_rgb_and_folders_are_classes(tmp_path, write_image):
    write_image(tmp_path / "in" / "cat" / "deep" / "b.PNG", mode="RGB", value=9)
    write_image(tmp_path / "in" / "ant" / "a.bmp", mode="L", value=3)
    images = load_folder(tmp_path / "in").train
    assert images.shape == (3, 5, 7)
    assert images.pixels_NCHW[:, :, 0, 0].tolist() == [[3, 3, 3], [9, 10, 20]]
    assert images.class_names == ("ant", "cat")
    assert images.labels_N.tolist() == [0, 1]


def test_train_and_test_folders_are_splits(tmp_path, write_image):
    for split, n in (("train", 3), ("test", 2), ("val", 1)):
        for i in range(n):
            write_image(tmp_path / "in" / split / "cat" / f"{i}.png")
    splits = Data(source=str(tmp_path / "in")).load()
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (3, 1, 2)
    assert splits.train.class_names == ("cat",)


def test_odd_modes(tmp_path):
    picture = tmp_path / "in"
    picture.mkdir()
    Image.fromarray(np.array([[0, 65535], [32896, 257]], np.uint16)).save(picture / "deep.png")
    Image.new("1", (2, 2), 1).save(picture / "one-bit.png")
    Image.new("LA", (2, 2), (0, 0)).save(picture / "transparent.png")
    images = load_folder(picture).train
    assert images.pixels_NCHW[0, 0].tolist() == [[0, 255], [128, 1]]
    assert images.pixels_NCHW[1:, 0].unique().tolist() == [255]


def test_turned_photographs_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", (16, 8), "red").save(tmp_path / "in" / "turned.jpg", exif=exif)
    Image.new("RGB", (16, 8), "red").save(tmp_path / "in" / "turned.png", exif=exif)
    assert load_folder(tmp_path / "in").train.shape == (3, 16, 8)


def test_headers_are_read_without_decoding(tmp_path, monkeypatch, write_image):
    files = [
        write_image(tmp_path / f"image.{kind}", 5, 7, "RGB") for kind in ("png", "jpg", "bmp", "webp", "tif")
    ]

    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", refuse)
    headers = [header for file in files for header in read_headers(file)]
    assert [(header.height, header.width, header.grey) for header in headers] == [(5, 7, False)] * 5


def test_mixed_sizes_need_a_size(tmp_path, write_image):
    write_image(tmp_path / "in" / "a.png", 5, 7)
    write_image(tmp_path / "in" / "b.png", 9, 9)
    with pytest.raises(DataError, match=r"a\.png is 5 x 7 and .*b\.png is 9 x 9.*--data\.size 64"):
        load_folder(tmp_path / "in")
    assert load_folder(tmp_path / "in", Decoding((4, 6))).train.shape == (1, 4, 6)


def test_size_keeps_the_aspect_ratio(tmp_path):
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    (tmp_path / "in").mkdir()
    Image.fromarray(wide).save(tmp_path / "in" / "wide.png")
    pixels = load_folder(tmp_path / "in", Decoding((4, 4))).train.pixels_NCHW
    assert pixels[0, 0, :, 1:3].unique().tolist() == [200]


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_image_is_named(tmp_path, write_image, content):
    write_image(tmp_path / "in" / "a.png")
    bad = write_image(tmp_path / "in" / "b.png", 64, 64)
    bad.write_bytes(bad.read_bytes()[:60] if content is None else content)
    with pytest.raises(DataError, match=r"b\.png: cannot be read as an image"):
        load_folder(tmp_path / "in", Decoding((5, 7)))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no image files; expected jpg"):
        load_folder(tmp_path)


def test_the_second_load_decodes_nothing(tmp_path, write_image, monkeypatch):
    for i in range(3):
        write_image(tmp_path / "in" / f"{i}.png", value=i)
    first = Data(source=str(tmp_path / "in")).load()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "decode_pages", refuse)
    monkeypatch.setattr(filelist, "read_headers", refuse)
    assert Data(source=str(tmp_path / "in")).load().hash == first.hash
    cached = list((tmp_path / "cache" / "folders").iterdir())
    assert len(cached) == 1


def test_a_changed_file_or_a_damaged_cache_is_decoded_again(tmp_path, write_image):
    path = write_image(tmp_path / "in" / "a.png", value=1)
    load_folder(tmp_path / "in")
    write_image(path, value=2)
    os.utime(path, ns=(1, 1))
    assert load_folder(tmp_path / "in").train.pixels_NCHW.unique().tolist() == [2]
    (cached,) = (tmp_path / "cache" / "folders").iterdir()  # the old entry is gone
    cached.write_bytes(b"damaged")
    assert load_folder(tmp_path / "in").train.pixels_NCHW.unique().tolist() == [2]


def test_the_hash_does_not_depend_on_the_path(tmp_path, write_image):
    for i in range(4):
        write_image(tmp_path / "in" / "c" / f"{i}.png", value=i)
    shutil.copytree(tmp_path / "in", tmp_path / "elsewhere")
    here, there = (Data(source=str(tmp_path / name)).load() for name in ("in", "elsewhere"))
    assert here.hash == there.hash
    assert (here.name, there.name) == ("in", "elsewhere")


def test_images_keep_file_and_position_through_splits(tmp_path, write_image):
    for i in range(20):
        write_image(tmp_path / "in" / ("a" if i % 2 else "b") / f"{i:02}.png", value=i)
    source = load_folder(tmp_path / "in").train
    splits = Data(source=str(tmp_path / "in"), validation=4, test=5).load()
    parts = (splits.train, splits.validation, splits.test)
    assert sorted(position for part in parts for position in part.positions_N.tolist()) == list(range(20))
    for part in parts:
        assert part.names == tuple(source.names[i] for i in part.positions_N.tolist())
        for name, value in zip(part.names, part.pixels_NCHW[:, 0, 0, 0].tolist(), strict=True):
            assert name == f"{'a' if value % 2 else 'b'}/{value:02}.png"
    assert splits.train.hash() == replace(splits.train, names=None, positions_N=None).hash()
