"""The `[data]` table of a configuration: where images come from and how they are split."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from nelbo.core.config import build, to_dict
from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.data.arrays import Reading
from nelbo.data.download import data_root
from nelbo.data.folder import load_folder
from nelbo.data.formats import check_file, load_file, unpacked
from nelbo.data.grouping import by_folder
from nelbo.data.imagefile import Alpha, Decoding
from nelbo.data.images import Images
from nelbo.data.labels import without_label
from nelbo.data.levels import range_flag, ranged
from nelbo.data.objects import from_object
from nelbo.data.ondisk import OnDisk
from nelbo.data.resize import fit_box, resize_pixels
from nelbo.data.sources import Dataset
from nelbo.data.splits import Loaded, Pixels, Splits, span_of
from nelbo.data.transforms import Transform, apply_once, check_order, decisive, frozen, prepared
from nelbo.errors import ConfigError, DataError, did_you_mean


class Data(Spec):
    """The images, their splits, and the transforms before the model.

    source      a named set (with its one field after a colon, "emnist:letters"), a folder, or a file: .npy, .npz, .h5,
                .mat, .parquet, a .zip of images
    size        height and width at load; the centred part of that aspect ratio is kept
    transforms  in the order in which they are applied
    range       smallest and largest value of a pixel, where that is not 0 and 1 (of whole numbers 0 and 255)
    channels_last   true for arrays (N, H, W, C), false for (N, C, H, W), where the shape does not say: 13 channels
    validation  share below 1, or a count, of the training images, where the source has no validation split
    test        the same, where the source has no test split; 0 trains on everything
    split_seed  of the permutation that both are taken from
    split_by    image, or folder: then all images of a sub-folder (a patient, a scene) go to one split
    alpha       what transparency of image files becomes: white, black, or a channel of its own (keep)
    skip_unreadable  image files that cannot be read are left out, and not an error
    """

    scalar: ClassVar[str] = "source"

    source: str = Field(default="digits", coerce_numbers_to_str=True)  # a folder may be called 2024
    size: int | tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    channels_last: bool | None = None
    transforms: tuple[Transform, ...] = ()
    validation: float | int = 0
    test: float | int = 0.2
    split_seed: int = Field(default=42, ge=0, le=2**32 - 1)
    split_by: Literal["image", "folder"] = "image"
    alpha: Alpha = "white"
    skip_unreadable: bool = False

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
        elif path.is_file():
            check_file(path)

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
        name, loaded = self.read(data_dir, obj)
        loaded = self._resized(loaded.each(Images.numbered), name)
        raw = self._split(loaded)
        splits = self._once([images for images in raw if images is not None], name, done=loaded.ranged)
        train, *others = splits
        validation, test = (None if images is None else others.pop(0) for images in raw[1:])
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
            notes=(*loaded.notes, *_notes(train, validation, test)),
            unreadable=loaded.unreadable,
        )

    def read(self, data_dir: Path | None, obj: object | None) -> tuple[str, Loaded]:
        """Return the name of the data and its images as the source has them."""
        reading = Reading(self.range, self.channels_last, self.height_and_width(), self.alpha)
        if obj is not None:
            return "object", from_object(obj, reading)
        path = self.path()
        if self.channels_last is not None and (
            path is None or path.is_dir() or path.suffix.lower() == ".zip"
        ):
            raise ConfigError(f"data.channels-last is about arrays, and {self.source} is none; leave it out")
        if path is None:
            return self.source, self.dataset().load(data_dir)
        # Of a folder the whole name: 2024.1 and 2024.10 are two.
        name = path.resolve().name if path.is_dir() else path.resolve().stem
        if path.suffix.lower() == ".zip" and path.is_file():
            path = unpacked(path, data_root(data_dir) / "unpacked")
        if path.is_file():
            return name, load_file(path, reading)
        loaded = load_folder(
            path,
            self.decoding(),
            skip_unreadable=self.skip_unreadable,
            folders_are_classes=self.split_by == "image",
            data_dir=data_dir,
        )
        return name, loaded

    def decoding(self) -> Decoding:
        """Return the choices that image files are decoded by."""
        return Decoding(self.height_and_width(), self.range, self.alpha)

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

    def _resized(self, loaded: Loaded, name: str = "") -> Loaded:
        size = self.height_and_width()
        if size is None:
            return loaded
        if self.range is not None and not loaded.ranged and loaded.train.shape[1:] != size:
            # Before resizing, which rounds. Otherwise it waits: so runs of earlier versions keep their hashes.
            span = self.range
            loaded = replace(loaded.each(lambda images: ranged(images, span, name)), ranged=True)

        def fit(images: Images) -> Images:
            box = fit_box(*images.shape[1:], *size)
            return images.each(lambda pixels: resize_pixels(pixels, *size, box))

        return loaded.each(fit)

    def _split(self, loaded: Loaded) -> tuple[Images, Images | None, Images | None]:
        """Return train, validation and test; what the source lacks comes from one permutation of its train."""
        n = len(loaded.train)
        n_test = 0 if loaded.test is not None else _count(self.test, n)
        n_validation = 0 if loaded.validation is not None else _count(self.validation, n)
        if n_test + n_validation >= n:
            raise ConfigError(
                f"data.validation {self.validation} and data.test {self.test} take {n_validation} and {n_test} "
                f"of {n} images and leave none to train on; give smaller shares or counts"
            )
        if self.split_by == "folder":
            parts = by_folder(loaded.train, n_test, n_validation, self.split_seed)
        else:
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
        if n_test:
            test = everything.select(test_index)
        return train, validation, test

    def _once(self, splits: Sequence[Images], name: str, *, done: bool) -> list[Images]:
        """Return the splits after the range, where it is still to come, and after what happens once."""
        if self.range is not None and not done:
            splits = [ranged(images, self.range, name) for images in splits]
        if any(transform.binary for transform in self.transforms):
            low, high = span_of(splits)
            if low < 0 or high > 1:
                raise DataError(
                    f"{name}: binarising needs pixels in [0, 1], but these lie in [{low:.4g}, {high:.4g}]; "
                    f"{self.way_into_range(low, high)}"
                )
        return [prepared(images, self.transforms) for images in splits]

    def way_into_range(self, low: float, high: float) -> str:
        """Return what brings pixels that lie in [low, high] before the transforms into [0, 1], in words."""
        if self.range is None:
            return f"say what is black and white: {range_flag(low, high)}"
        black, white = self.range  # back to the numbers of the source
        least, most = (black + value * (white - black) for value in (low, high))
        return (
            f"data.range {black:g},{white:g} leaves numbers from {least:.6g} to {most:.6g} outside; "
            f"all of them are inside of {range_flag(min(black, least), max(white, most))}"
        )

    def _hash(self, raw: Sequence[Images | None], test: Images | None) -> str:
        contents = {
            "splits": [images.hash() if images is not None else None for images in raw],
            "split_seed": self.split_seed,
            "transforms": [to_dict(transform) for transform in self.transforms],
        }
        if self.range is not None:
            contents["range"] = list(self.range)
        # The very bits that are evaluated.
        if test is not None and any(transform.random for transform in self.transforms):
            contents["test"] = Images(frozen(test, self.transforms).pixels).hash()
        # 64 bits: two of a million data sets are alike by chance with probability 3e-8.
        return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def _notes(train: Images, validation: Images | None, test: Images | None) -> list[str]:
    """Return lines about the splits: images without a label, no test split, pixels that stay on the disk."""
    named = {"training": train, "test": test, "validation": validation}
    lines = [without_label({name: images.labels_N for name, images in named.items() if images is not None})]
    if test is None:
        instead = "training" if validation is None else "validation"
        lines.append(f"no test split (data.test is 0): the model is measured on the {instead} images")
    if isinstance(pixels := train.pixels, OnDisk):
        lines.append(f"{pixels.nbytes / 1e9:,.1f} GB of training images stay on the disk, {pixels.note}")
    return [line for line in lines if line]


def _count(share: float | int, n: int) -> int:
    return int(share) if isinstance(share, int) or share == 0 else max(1, round(share * n))


def _range(splits: Sequence[Images], transforms: Sequence[Transform]) -> tuple[float, float]:
    """Return [0, 1] after the transforms, or what float pixels outside of it really span."""
    low, high = span_of(splits)
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
