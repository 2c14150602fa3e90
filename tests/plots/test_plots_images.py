"""Arrays and encoded bytes: every pixel where it belongs, every frame as long as it should be."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from nelbo.errors import NelboError
from nelbo.plots import PlotError, gif_bytes, montage, png_bytes, to_uint8


def images(n=7, height=5, width=3, channels=1, seed=0):
    return np.random.default_rng(seed).random((n, height, width, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_montage_puts_every_image_at_its_place(channels, pad):
    x = images(7, 5, 3, channels)
    picture = montage(x, columns=4, pad=pad)
    assert picture.shape == (2 * 5 + pad, 4 * 3 + 3 * pad, channels)
    covered = np.zeros(picture.shape, bool)
    for i in range(7):
        top, left = i // 4 * (5 + pad), i % 4 * (3 + pad)
        np.testing.assert_array_equal(picture[top : top + 5, left : left + 3], x[i])
        covered[top : top + 5, left : left + 3] = True
    assert (picture[~covered] == 1.0).all()


def test_montage_of_one_image_is_that_image():
    x = images(1)
    np.testing.assert_array_equal(montage(x), x[0])


@pytest.mark.parametrize("n", [1, 2, 3, 16, 25, 40, 64, 100])
def test_default_columns_fill_the_last_row_of_round_numbers(n):
    high, wide, _ = montage(np.zeros((n, 4, 4, 1)), pad=0).shape
    assert high // 4 * (wide // 4) == n
    assert wide >= high or n == 2


def test_to_uint8_rounds_clips_and_keeps_shape():
    x = np.array([-0.2, 0.0, 0.5, 1.0, 1.7, 100 / 255]).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(to_uint8(x).ravel(), [0, 0, 128, 255, 255, 100])
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(to_uint8(every), every)
    assert to_uint8(np.zeros((2, 3, 4, 5, 1))).shape == (2, 3, 4, 5, 1)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((2, 4, 4, 2)), np.zeros((0, 4, 4, 1))])
def test_wrong_shapes_are_named(bad):
    with pytest.raises(PlotError, match=r"shape"):
        to_uint8(bad)


def test_images_that_are_not_finite_are_counted():
    x = images(5)
    x[1, 0, 0, 0], x[3] = np.nan, np.inf
    with pytest.raises(NelboError, match="2 of 5"):
        montage(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_image(channels):
    x = images(1, 5, 3, channels)[0]
    with Image.open(io.BytesIO(png_bytes(x, scale=4))) as png:
        assert png.format == "PNG"
        assert png.size == (12, 20)
        read = np.asarray(png).reshape(20, 12, channels)
    np.testing.assert_array_equal(read, np.kron(to_uint8(x), np.ones((4, 4, 1), np.uint8)))
    with pytest.raises(PlotError, match="one image"):
        png_bytes(images(2))


def frames_of(data):
    with Image.open(io.BytesIO(data)) as gif:
        frames, durations = [], []
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")))
            durations.append(gif.info.get("duration", 0))
        return np.stack(frames), durations, gif.info.get("loop")


def test_gif_goes_there_and_back_in_the_time_asked():
    x = np.linspace(0, 1, 6).reshape(6, 1, 1, 1) * np.ones((6, 4, 7, 1))
    frames, durations, loop = frames_of(gif_bytes(x, seconds=1.0, scale=2))
    assert frames.shape == (10, 8, 14, 3)
    assert sum(durations) == 1000
    assert max(durations) - min(durations) <= 10
    assert loop == 0
    np.testing.assert_array_equal(frames[:, 0, 0, 0], to_uint8(x)[[0, 1, 2, 3, 4, 5, 4, 3, 2, 1], 0, 0, 0])
    frames, durations, _ = frames_of(gif_bytes(x, seconds=3.0, scale=1, ping_pong=False))
    assert len(frames) == 6
    assert sum(durations) == 3000


def test_gif_frames_are_never_shorter_than_browsers_play():
    x = np.linspace(0, 1, 100).reshape(100, 1, 1, 1) * np.ones((100, 2, 2, 1))
    _, durations, _ = frames_of(gif_bytes(x, seconds=0.5))
    assert len(durations) == 198
    assert min(durations) >= 20


@pytest.mark.parametrize(
    ("shape", "longer"), [((28, 28), 280), ((8, 8), 280), ((64, 64), 256), ((14, 28), 280)]
)
def test_small_gifs_are_enlarged(shape, longer):
    frames, _, _ = frames_of(gif_bytes(images(2, *shape)))
    assert max(frames.shape[1:3]) == longer


def test_colour_gif_keeps_its_colours_and_single_frames_work():
    x = images(3, 6, 6, 3)
    frames, _, _ = frames_of(gif_bytes(x, scale=1, ping_pong=False))
    assert np.abs(frames / 255 - x).max() < 0.05
    assert len(frames_of(gif_bytes(images(1)))[0]) == 1
