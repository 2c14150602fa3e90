"""Image arrays: checked, tiled, and encoded as PNG and GIF bytes."""

import io
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from nelbo.plots.style import PlotError

SHOWN_PIXELS = 280  # a small image is enlarged to about as many, so that 28 x 28 can be looked at


def as_images(images: ArrayLike, name: str = "images") -> np.ndarray:
    """Return images (..., H, W, C) as float (N, H, W, C) in [0, 1]: uint8 is divided by 255, the rest clipped."""
    array = np.asarray(images)
    if array.ndim < 3 or array.shape[-1] not in (1, 3):
        raise PlotError(f"{name}: expected shape (..., H, W, C) with C = 1 or 3, got {array.shape}")
    if array.size == 0:
        raise PlotError(f"{name}: there is nothing to draw in shape {array.shape}")
    array = array.reshape(-1, *array.shape[-3:])
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255.0
    array = array.astype(np.float32)
    bad = int((~np.isfinite(array)).any(axis=(1, 2, 3)).sum())
    if bad:
        raise PlotError(f"{name}: {bad} of {len(array)} hold values that are not finite")
    return array.clip(0.0, 1.0)


def to_uint8(images: ArrayLike) -> NDArray[np.uint8]:
    """Round images (..., H, W, C) in [0, 1] to bytes of the same shape. Values outside are clipped."""
    shape = np.shape(images)
    return np.rint(as_images(images) * 255.0).astype(np.uint8).reshape(shape)


def default_columns(n: int, height: int, width: int) -> int:
    """Return the columns that make the grid of n images about 4:3, and its last row full where that is near."""
    wide = max(1, min(n, round(math.sqrt(n * height / width * 4 / 3))))
    full = [c for c in range(1, n + 1) if n % c == 0 and 0.7 * wide <= c <= 1.6 * wide]
    return min(full, key=lambda c: abs(math.log(c / wide)), default=wide)


def montage(images_NHWC: ArrayLike, columns: int | None = None, pad: int = 1) -> np.ndarray:
    """Tile images in reading order into one (H', W', C) picture, `pad` pixels apart, no outer border.

    Image i is at row i // columns and column i % columns, its corner at pixel
    (row * (H + pad), column * (W + pad)).
    """
    return tiled(as_images(images_NHWC), columns, (pad, pad))


def tiled(images_NHWC: np.ndarray, columns: int | None, pads: tuple[int, int]) -> np.ndarray:
    """Tile images as `montage` does, with its own vertical and horizontal gap, in pixels."""
    n, height, width, channels = images_NHWC.shape
    columns = columns or default_columns(n, height, width)
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    down, right = height + pads[0], width + pads[1]
    out = np.full((rows * down - pads[0], columns * right - pads[1], channels), 1.0, np.float32)
    for i, image in enumerate(images_NHWC):
        top, left = i // columns * down, i % columns * right
        out[top : top + height, left : left + width] = image
    return out


def png_bytes(image_HWC: ArrayLike, scale: int = 1) -> bytes:
    """Encode one image (H, W, C) in [0, 1] as PNG, each pixel drawn `scale` x `scale`."""
    array = np.asarray(image_HWC)
    if array.ndim != 3:
        raise PlotError(f"a PNG holds one image (H, W, C), got shape {array.shape}; see montage()")
    buffer = io.BytesIO()
    _enlarged(_pillow(to_uint8(array)), scale).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def gif_bytes(
    frames_NHWC: ArrayLike, *, seconds: float = 4.0, scale: int | None = None, ping_pong: bool = True
) -> bytes:
    """Encode frames (N, H, W, C) as a GIF that loops for ever.

    seconds    one whole loop, there and back; longer where frames would be shorter than 20 ms,
               which browsers slow down
    scale      enlargement by nearest neighbour; None makes the longer side about 280 pixels
    ping_pong  plays back to the start instead of jumping there
    """
    frames = to_uint8(as_images(frames_NHWC, "frames"))
    if ping_pong and len(frames) > 2:
        frames = np.concatenate([frames, frames[-2:0:-1]])
    scale = scale or max(1, round(SHOWN_PIXELS / max(frames.shape[1:3])))
    # GIF counts in hundredths of a second; rounding the running time keeps the total exact.
    hundredths = max(round(seconds * 100), 2 * len(frames))
    durations = np.diff(np.rint(np.linspace(0, hundredths, len(frames) + 1))).astype(int) * 10
    pictures = [_pillow(frame) for frame in frames]
    if frames.shape[-1] == 3:  # one palette for all, so that colours do not flicker; grey is exact as it is
        step = max(1, frames.size // 3_000_000)
        sheet = _pillow(frames[::step].reshape(-1, *frames.shape[2:]))
        palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT)
        pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    first, *others = [_enlarged(picture, scale) for picture in pictures]
    buffer, duration = io.BytesIO(), [int(milliseconds) for milliseconds in durations]
    first.save(buffer, format="GIF", save_all=True, append_images=others, loop=0, duration=duration)
    return buffer.getvalue()


def _pillow(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))


def _enlarged(image: Image.Image, scale: int) -> Image.Image:
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
