"""The survey of a source: what the headers of its files and a few of its images tell, before anything is loaded."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nelbo.core.vocabulary import Shape
from nelbo.data.arrays import images_from_array, load_array_file
from nelbo.data.decode import decode_file, in_order, read_header
from nelbo.data.folder import _splits as split_folders
from nelbo.data.folder import list_images
from nelbo.data.images import Images
from nelbo.data.objects import from_object
from nelbo.data.spec import Data
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

LOOKED_AT = 64  # images that are decoded, evenly over the source

PixelKind = Literal["binary", "levels", "real"]
Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
class Survey:
    """The facts about a source that a recipe is chosen by.

    n                  images that there are to train on, those that validation and test take included
    smallest, largest  height and width of the smallest and of the largest image (by area)
    pixels             "binary": black and white only; "levels": 256 of them; "real": floating point, or on any scale
    low, high          the values of the pixels that were looked at, as a model would see them
    spread             their standard deviation
    classes            how many there are; 0 without labels
    splits             those that the source has itself, beside train
    """

    name: str
    n: int
    channels: int
    smallest: Size
    largest: Size
    pixels: PixelKind
    low: float = 0.0
    high: float = 1.0
    spread: float = 0.25
    classes: int = 0
    splits: tuple[str, ...] = ()

    @property
    def one_size(self) -> bool:
        """True if every image has the same height and width."""
        return self.smallest == self.largest

    @property
    def shape(self) -> Shape:
        """(C, H, W) of the largest image: of all, where they have one size."""
        return (self.channels, *self.largest)

    def __str__(self) -> str:
        colours = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        what = "black and white" if self.pixels == "binary" else colours
        between = f"{self.smallest[0]} x {self.smallest[1]} to {self.largest[0]} x {self.largest[1]}"
        size = f"{self.largest[0]} x {self.largest[1]}" if self.one_size else between
        depth = {"binary": "", "levels": ", 256 levels"}.get(
            self.pixels, f", values from {self.low:.3g} to {self.high:.3g}"
        )
        labels = f"{self.classes} classes" if self.classes else "no labels"
        return f"{self.n:,} {what} images of {size}{depth}, {labels}"


def survey(data: Data, data_dir: Path | None = None, obj: object | None = None) -> Survey:
    """Return the survey of the images in `obj`, or of the source; raise DataError where there are none.

    Of a folder every header is read and 64 images are decoded; of a .npy the header and 64 rows. Other files, and
    objects, are loaded. Nothing is downloaded: of a named set the facts of its class are taken.
    """
    path = data.path()
    if obj is not None:
        return _of_loaded("arrays", from_object(obj, size=data.height_and_width()))
    if path is None:
        return _of_named(data)
    data.check_source()
    if path.is_dir():
        return _of_folder(path, data)
    if path.suffix.lower() == ".npy":
        return _of_npy(path)
    return _of_loaded(path.name, load_array_file(path))


def _of_named(data: Data) -> Survey:
    dataset = data.dataset()
    channels, *size = dataset.image_shape()
    box = (size[0], size[1])
    return Survey(
        dataset.name, dataset.images, channels, box, box, "levels", classes=dataset.classes, splits=("test",)
    )


def _of_folder(folder: Path, data: Data) -> Survey:
    parts = split_folders(folder)
    root = parts.get("train", folder)
    files = list_images(root)
    if not files:
        raise DataError(f"{root}: holds no image files to train on")
    headers = list(in_order(lambda file: read_header(root / file), files))
    sizes = [(header.height, header.width) for header in headers]
    grey = all(header.grey for header in headers)
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    some = [root / files[i] for i in _evenly(len(files))]
    arrays = [decode_file(file, grey=grey, size=data.height_and_width()).ravel() for file in some]
    folders = {file.split("/")[0] for file in files} if all("/" in file for file in files) else set()
    facts = Survey(
        folder.name, len(files), 1 if grey else 3, by_area[0], by_area[-1], "levels", classes=len(folders),
        splits=tuple(sorted(set(parts) - {"train"})),
    )  # fmt: skip
    return _with_pixels(facts, torch.from_numpy(np.concatenate(arrays)))


def _of_npy(path: Path) -> Survey:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # the loader has a message for each kind of damage
        return _of_loaded(path.name, load_array_file(path))
    if array.ndim < 3 or not len(array):
        return _of_loaded(path.name, load_array_file(path))  # which says what is expected
    some = images_from_array(array[_evenly(len(array))], source=str(path))
    return replace(_of_loaded(path.name, Loaded(some)), n=len(array))


def _of_loaded(name: str, loaded: Loaded) -> Survey:
    images = loaded.train
    channels, height, width = images.shape
    splits = {"validation": loaded.validation, "test": loaded.test}
    facts = Survey(
        name, len(images), channels, (height, width), (height, width), "levels", classes=_classes(images),
        splits=tuple(split for split, there in splits.items() if there is not None),
    )  # fmt: skip
    return _with_pixels(facts, images.rows(torch.from_numpy(_evenly(len(images)))))


def _classes(images: Images) -> int:
    return 0 if images.labels_N is None else len(np.unique(images.labels_N.numpy()))


def _evenly(n: int) -> NDArray[np.int64]:
    """Return the positions of the images that are looked at, of n."""
    return np.unique(np.linspace(0, n - 1, LOOKED_AT).round().astype(np.int64))


def _with_pixels(facts: Survey, pixels: torch.Tensor) -> Survey:
    """Return the facts with those of some pixels, uint8 or float32."""
    x = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    low, high = float(x.min()), float(x.max())
    two = bool(((x == 0) | (x == 1)).all())
    kind: PixelKind = "binary" if two else "levels" if pixels.dtype == torch.uint8 else "real"
    return replace(facts, pixels=kind, low=low, high=high, spread=float(x.std(correction=0)))
