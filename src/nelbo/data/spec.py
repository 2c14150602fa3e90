"""The `[data]` table of a configuration: where images come from and how they are split."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator

from nelbo.core.config import build, to_dict
from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.data.arrays import load_array_file
from nelbo.data.folder import load_folder
from nelbo.data.images import Images
from nelbo.data.objects import from_object
from nelbo.data.resize import fit_box, resize_pixels
from nelbo.data.sources import Dataset
from nelbo.data.splits import Loaded, Pixels, Splits
from nelbo.data.transforms import Transform, apply_once, check_order, decisive, frozen, prepared
from nelbo.errors import ConfigError, DataError, did_you_mean

ARRAY_FILES = (".npy", ".npz")


class Data(Spec):
    """The images, their splits, and the transforms before the model.

    source      a named set (with its one field after a colon, "emnist:letters"), a folder, .npy or .npz
    size        height and width at load; the centred part of that aspect ratio is kept
    transforms  in the order in which they are applied
    range       smallest and largest value of a pixel, where that is not 0 and 1 (of whole numbers 0 and 255)
    validation  share below 1, or a count, of the training images, where the source has no validation split
    test        the same, where the source has no test split
    split_seed  of the permutation that both are taken from
    """

    scalar: ClassVar[str] = "source"

    source: str = Field(default="digits", coerce_numbers_to_str=True)  # a folder may be called 2024
    size: int | tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    transforms: tuple[Transform, ...] = ()
    validation: float | int = 0
    test: float | int = 0.2
    split_seed: int = Field(default=42, ge=0, le=2**32 - 1)

    @field_validator("range")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError("expected the smallest and the largest value, as in -1,1")
        return value

    @field_validator("transforms", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return value if isinstance(value, tuple | list) else (value,)

    @field_validator("size", mode="before")
    @classmethod
    def _height_and_width(cls, value: object) -> object:
        sides = value if isinstance(value, tuple | list) and len(value) == 2 else (value,)
        good = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides)
        if value is not None and not good:
            raise ValueError("expected one number of pixels, or height and width, each at least 1")
        return value

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _share_or_count(cls, value: object) -> object:
        end = 1 if isinstance(value, float) else math.inf  # a float is a share, a whole number a count
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value >= end:
            raise ValueError("expected a share from 0 up to below 1, or a whole number of images")
        return value

    def check_source(self) -> None:
        """Raise DataError unless the source is a known name or an existing path; reads nothing else."""
        path = self.path()
        if path is None:
            self.dataset()
        elif not path.exists():
            raise DataError(
                f"data.source {self.source!r} is neither a data set nor a path that exists; "
                f"{did_you_mean(self.source, names('dataset'))}"
            )
        elif path.is_file() and path.suffix.lower() not in ARRAY_FILES:
            raise DataError(f"{path}: expected a folder of images, or a file ending in .npy or .npz")

    def present(self, data_dir: Path | None = None) -> bool:
        """Return True if loading needs no download."""
        return self.path() is not None or self.dataset().present(data_dir)

    def shape_of(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, H, W) of what a model sees of images of that shape: after the transforms that happen once."""
        blank = Images(torch.zeros(1, channels, height, width, dtype=torch.uint8))
        return blank.each(lambda pixels: apply_once(pixels, self.transforms)).shape

    def load(self, data_dir: Path | None = None, obj: object | None = None) -> Splits:
        """Read the source (or take `obj`, see `from_object`), split it and apply what applies once.

        Raises DataError for missing or damaged data, ConfigError for settings that leave no images.
        """
        check_order(self.transforms)
        if obj is None:
            self.check_source()
        size = self.height_and_width()
        if obj is not None:
            name, loaded = "object", from_object(obj, size=size)
        elif (path := self.path()) is None:
            name, loaded = self.source, self.dataset().load(data_dir)
        else:
            # A dot is a part of a folder's name: 2024.10 is no 2024.
            name = path.resolve().stem if path.is_file() else path.resolve().name
            loaded = (
                load_array_file(path) if path.is_file() else load_folder(path, size=size, data_dir=data_dir)
            )
        raw = self._split(self._resized(loaded.each(Images.numbered)))
        train, validation, test = (None if images is None else self._once(images) for images in raw)
        assert train is not None
        assert test is not None
        splits = [images for images in (train, validation, test) if images is not None]
        shapes = sorted({images.shape for images in splits})
        if len({channels for channels, *_ in shapes}) > 1:
            raise DataError(
                f"{name}: the splits have different numbers of channels: {shapes} (C, H, W); "
                "make all images grey, or all of them colour"
            )
        if len(shapes) > 1:
            raise DataError(
                f"{name}: the splits have different shapes (C, H, W): {shapes}; "
                "--data.size makes height and width equal"
            )
        low, high = _range(splits, self.transforms)
        last = decisive(self.transforms)
        pixels = _kind(splits, last, low, high)
        # A model sees only level / 255; black and white are the first and the last level.
        levels = last.binary if last else all(images.eight_bit for images in splits)
        if pixels == "dequantised" and not all(images.eight_bit for images in splits):
            raise DataError(
                f"{name}: dequantise needs 8-bit levels, but these pixels are floating-point numbers "
                "between them; store the images as uint8, or drop it from --data.transforms"
            )
        return Splits(
            name=name,
            train=train,
            validation=validation,
            test=test,
            hash=self._hash(raw, test),
            pixels=pixels,
            range=(low, high),
            transforms=self.transforms,
            eight_bit=levels and (low, high) == (0.0, 1.0),
        )

    def height_and_width(self) -> tuple[int, int] | None:
        """Return `size` as height and width, or None where images keep theirs."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def path(self) -> Path | None:
        """Return the source as a path; None where it is a registered name."""
        named = self.source.partition(":")[0].replace("_", "-") in names("dataset")
        return None if named else Path(self.source).expanduser()

    def dataset(self) -> Dataset:
        """Return the named set with its field; raise UnknownName or ConfigError."""
        name, colon, value = self.source.partition(":")
        concrete: type[Dataset] = lookup("dataset", name)
        if not colon:
            return concrete()
        if not concrete.scalar:
            raise ConfigError(f"data.source {self.source!r}: {name} has no variants; write {name!r}")
        return build(concrete, {concrete.scalar: value}, f"data.source {self.source!r}")

    def _resized(self, loaded: Loaded) -> Loaded:
        size = self.height_and_width()
        if size is None:
            return loaded

        def fit(images: Images) -> Images:
            box = fit_box(*images.shape[1:], *size)
            return images.each(lambda pixels: resize_pixels(pixels, *size, box))

        return loaded.each(fit)

    def _split(self, loaded: Loaded) -> tuple[Images, Images | None, Images]:
        """Return train, validation and test; what the source lacks comes from one permutation of its train."""
        n = len(loaded.train)
        n_test = 0 if loaded.test is not None else _count(self.test, n)
        n_validation = 0 if loaded.validation is not None else _count(self.validation, n)
        if loaded.test is None and n_test == 0:
            raise ConfigError("data.test is 0 and the source has no test split; give a share such as 0.2")
        if n_test + n_validation >= n:
            raise ConfigError(
                f"data.validation {self.validation} and data.test {self.test} take {n_validation} and {n_test} "
                f"of {n} images and leave none to train on; give smaller shares or counts"
            )
        order = np.random.RandomState(self.split_seed).permutation(n)
        parts = np.split(order, [n_test, n_test + n_validation])
        for part in parts:  # in place: of ten million images an order takes 80 MB
            part.sort()
        test_index, validation_index, train_index = map(torch.from_numpy, parts)
        everything = loaded.train
        train, validation, test = everything, loaded.validation, loaded.test
        if n_test + n_validation:
            train = everything.select(train_index)
        if n_validation:
            validation = everything.select(validation_index)
        if test is None:
            test = everything.select(test_index)
        return train, validation, test

    def _once(self, images: Images) -> Images:
        if self.range is not None:
            images = _ranged(images, *self.range)
        if images.dtype != torch.uint8 and any(transform.binary for transform in self.transforms):
            low, high = images.extremes()
            if low < 0 or high > 1:
                span = f"{low:.3g},{high:.3g}"
                raise DataError(
                    f"binarising needs pixels in [0, 1], but these lie in [{span}]; say so with --data.range {span}"
                )
        return prepared(images, self.transforms)

    def _hash(self, raw: Sequence[Images | None], test: Images) -> str:
        contents = {
            "splits": [images.hash() if images is not None else None for images in raw],
            "split_seed": self.split_seed,
            "transforms": [to_dict(transform) for transform in self.transforms],
        }
        if self.range is not None:
            contents["range"] = list(self.range)
        if any(transform.random for transform in self.transforms):  # the very bits that are evaluated
            contents["test"] = Images(frozen(test, self.transforms).pixels).hash()
        # 64 bits: two of a million data sets are alike by chance with probability 3e-8.
        return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def _ranged(images: Images, low: float, high: float) -> Images:
    """Map [low, high] to [0, 1]; of whole numbers to 0..255, rounded, where none may lie outside."""
    if images.dtype != torch.uint8:
        return images.each(lambda pixels: (pixels - low) / (high - low))
    least, most = map(int, images.extremes())
    if least < low or most > high:
        raise DataError(f"data.range {low:g},{high:g}: the pixels are whole numbers from {least} to {most}")
    scale = 255.0 / (high - low)
    return images.each(lambda pixels: pixels.float().sub_(low).mul_(scale).round_().to(torch.uint8))


def _count(share: float | int, n: int) -> int:
    return int(share) if isinstance(share, int) or share == 0 else max(1, round(share * n))


def _range(splits: Sequence[Images], transforms: Sequence[Transform]) -> tuple[float, float]:
    """Return [0, 1] after the transforms, or what float pixels outside of it really span."""
    low, high = 0.0, 1.0
    for images in splits:
        if images.dtype != torch.uint8:
            least, most = images.extremes()
            low, high = min(low, least), max(high, most)
    for transform in transforms:
        low, high = transform.range(low, high)
    return low, high


def _kind(splits: Sequence[Images], last: Transform | None, low: float, high: float) -> Pixels:
    """Return the kind of pixels that a model sees; the last decisive transform decides, whatever was before it."""
    if last is not None and last.dequantises:
        return "dequantised"
    if low < 0 or high > 1:
        return "real"
    if (low, high) != (0.0, 1.0):
        return "grey"
    if last is not None:
        return "binary" if last.binary else "grey"
    for images in splits:
        white = 255 if images.dtype == torch.uint8 else 1
        for part in images.chunks():
            if not ((part == 0) | (part == white)).all():  # of most sets in the first few MiB
                return "grey"
    return "binary"
