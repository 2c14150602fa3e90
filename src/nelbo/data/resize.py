"""Resizing with Pillow's antialiased bilinear filter."""

import numpy as np
import torch
from torch import Tensor

Box = tuple[float, float, float, float]


def fit_box(height: int, width: int, to_height: int, to_width: int) -> Box:
    """Return the largest centred part of an image with the target's aspect ratio: (left, top, right, bottom)."""
    scale = min(height / to_height, width / to_width)
    crop_height, crop_width = scale * to_height, scale * to_width
    top, left = (height - crop_height) / 2, (width - crop_width) / 2
    # Rounding must not put the box outside the image: Pillow refuses that.
    return max(left, 0.0), max(top, 0.0), min(left + crop_width, width), min(top + crop_height, height)


def resize_pixels(pixels_NCHW: Tensor, height: int, width: int, box: Box | None = None) -> Tensor:
    """Resize each channel as Pillow's `resize((width, height), BILINEAR, box)` does; uint8 or float32."""
    from PIL import Image

    n, channels, old_height, old_width = pixels_NCHW.shape
    if (old_height, old_width) == (height, width):
        return pixels_NCHW
    planes = pixels_NCHW.contiguous().view(-1, old_height, old_width).numpy()
    out = np.empty((n * channels, height, width), dtype=planes.dtype)
    for i, plane in enumerate(planes):
        out[i] = Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR, box)
    return torch.from_numpy(out).view(n, channels, height, width)
