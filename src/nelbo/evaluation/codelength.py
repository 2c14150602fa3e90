"""The length of an image under a general compressor: what of its likelihood says only how simple it is.

Plain likelihood calls simple images typical, whatever a model was trained on (a black one more than any). Taking the
code length away, log p(x) + length, leaves what the model knows beyond a compressor (Serra et al. 2020, eq. 1).
"""

import io
import math
import zlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nelbo.metrics import Split

NATS_A_BYTE = 8 * math.log(2.0)
PNG_OVERHEAD = 57  # bytes of a PNG that are the same for every image: signature, header, ends of the parts
PNG_CHANNELS = (1, 3, 4)


def code_length(x_BCHW: Tensor, split: Split) -> Tensor:
    """Return the code length of each image, nats, float64 (B): of PNG or zlib, whichever is shorter.

    Coded are the 256 levels of the data's range, before dequantisation; of black and white images their bits.
    """
    low, high = split.data.range
    scaled_BCHW = ((x_BCHW.double() - low) / (high - low)).clamp(0.0, 1.0).cpu()
    if split.pixels == "dequantised":  # (level + u) / 256
        levels = (scaled_BCHW * 256.0).floor().clamp_max(255.0)
    else:
        levels = (scaled_BCHW * 255.0).round()
    images_BHWC = levels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    lengths = [_bytes(image, binary=split.pixels == "binary") for image in images_BHWC]
    return x_BCHW.new_tensor(lengths, device="cpu").double() * NATS_A_BYTE


def _bytes(image_HWC: NDArray[np.uint8], *, binary: bool) -> int:
    from PIL import Image

    raw = np.packbits(image_HWC > 127) if binary else image_HWC
    shortest = len(zlib.compress(raw.tobytes(), 9))
    channels = image_HWC.shape[-1]
    if channels in PNG_CHANNELS:
        picture = Image.fromarray(image_HWC[..., 0] if channels == 1 else image_HWC)
        buffer = io.BytesIO()
        (picture.convert("1") if binary and channels == 1 else picture).save(buffer, "PNG", optimize=True)
        shortest = min(shortest, buffer.tell() - PNG_OVERHEAD)
    return shortest
