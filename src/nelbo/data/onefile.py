"""An image file given to a trained run: the same steps from its numbers to pixels as for the images of training."""

from dataclasses import replace
from pathlib import Path

import torch

from nelbo.data.imagefile import Header, decode_file, read_headers
from nelbo.data.images import Images
from nelbo.data.spec import Data
from nelbo.data.splits import Splits
from nelbo.data.transforms import apply_once
from nelbo.errors import DataError


def read_like(file: Path, data: Data, splits: Splits, name: str) -> Images:
    """Return the one image of a file as `splits` holds its images: before the transforms of batches.

    Size, range, alpha, channels and transforms are those of the run called `name`. Raises DataError naming the file
    and both sides where it does not fit, or where no mapping from its numbers to those of training is known.
    """
    header, channels = read_headers(file)[0], splits.shape[0]
    how = data.decoding()
    if (has := _channels(header, channels, data)) != channels:
        raise DataError(
            f"{file} has {_counted(has)}, but {name} was trained on images of {_counted(channels)}"
        )
    floats = splits.train.dtype == torch.float32
    if header.numbers == "floating-point":
        if not floats:
            raise DataError(
                f"{file} holds floating-point numbers, but {name} was trained on whole ones; save it with 8 bits"
            )
        how = replace(how, range=None)  # applied below
    elif floats:
        low, high = splits.train.extremes()
        if data.range is not None or low < 0 or high > 1:
            known = "" if data.range is None else " and their data.range"
            raise DataError(
                f"{file} holds {header.numbers} numbers, but {name} was trained on floating-point ones{known}: no "
                "mapping between the two is known. Map them as the others were, and save a floating-point .tif"
            )
    read = channels + 2 if channels < 3 and not header.grey else channels
    pixels = torch.from_numpy(decode_file(file, read, how).copy())[None]  # Pillow's memory is read-only
    if read != channels:
        if not (pixels[:, :3] == pixels[:, :1]).all():
            raise DataError(f"{file} is in colour, but {name} was trained on grey images; save it as grey")
        pixels = pixels[:, 2:]  # grey that is written as colour
    if floats:
        pixels = pixels.float() / (255 if pixels.dtype == torch.uint8 else 1)
        if data.range is not None:
            pixels = (pixels - data.range[0]) / (data.range[1] - data.range[0])
    elif how.range is None and splits.pixels == "binary" and int(pixels.max()) == 1:
        pixels = pixels * 255  # masks of 0 and 1, as in a folder of them
    images = Images(apply_once(pixels, data.transforms), names=(file.name,))
    if images.shape != splits.shape:
        (_, height, width), (_, *wanted) = images.shape, splits.shape
        raise DataError(
            f"{file} is {height} x {width} pixels, but {name} was trained on images of {wanted[0]} x {wanted[1]}; "
            "resize it first"
        )
    return images


def _counted(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def _channels(header: Header, wanted: int, data: Data) -> int:
    """Return the number of channels that the file becomes: as many as the run's where a folder would give them."""
    if wanted > 4:
        return (1 if header.grey else 3) + header.alpha
    colours = 1 if wanted in (1, 2) else 3
    opaque = data.alpha == "keep"  # in a folder of images with alpha, one without is opaque
    return colours + (wanted in (2, 4) and (header.alpha or opaque))
