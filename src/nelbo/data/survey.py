"""The survey of a source: what the headers of its files and a few of its images tell, before anything is loaded."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nelbo.core.vocabulary import Shape
from nelbo.data.decode import Entry, in_order
from nelbo.data.download import data_root
from nelbo.data.filelist import Listing, slashed, tables_in
from nelbo.data.folder import split_paths
from nelbo.data.formats import unpacked
from nelbo.data.imagefile import Header, Unreadable, decode_pages, read_headers
from nelbo.data.images import Images
from nelbo.data.levels import ranged
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
    labels             in words: how many classes there are, or where labels are
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
    labels: str = "no labels"
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
        return f"{self.n:,} {what} images of {size}{depth}, {self.labels}"


def survey(data: Data, data_dir: Path | None = None, obj: object | None = None) -> Survey:
    """Return the survey of the images in `obj`, or of the source; raise DataError where there are none.

    Of a folder, or a .zip, every header is read and 64 images are decoded. Files of arrays, and objects, are opened as
    training opens them. Nothing is downloaded: of a named set the facts of its class are taken.
    """
    path = data.path()
    as_they_are = data.model_copy(update={"size": None})
    if obj is not None:
        return _of_loaded("arrays", as_they_are.read(data_dir, obj)[1], data)
    if path is None:
        return _of_named(data)
    data.check_source()
    if path.is_file() and path.suffix.lower() == ".zip":
        path = unpacked(path, data_root(data_dir) / "unpacked")
    if path.is_dir():
        return _of_folder(path, data)
    return _of_loaded(path.name, as_they_are.read(data_dir, None)[1], data)


def _of_named(data: Data) -> Survey:
    dataset = data.dataset()
    channels, height, width = dataset.image_shape()
    size, labels = (height, width), f"{dataset.classes} classes"
    return Survey(
        dataset.name, dataset.images, channels, size, size, "levels", labels=labels, splits=("test",)
    )


def _of_folder(folder: Path, data: Data) -> Survey:
    parts = split_paths(folder)
    listing = Listing.of(parts.get("train", folder))
    if not listing.files:
        raise DataError(f"{listing.folder}: holds no image files to train on")
    headers: list[tuple[Entry, Header]] = []
    read = in_order(lambda file: _headers(listing.folder / file), listing.files)
    for file, pages in zip(listing.files, read, strict=True):
        headers += [(Entry(file, header.page), header) for header in pages if not header.reduced]
    if not headers:
        raise DataError(f"{listing.folder}: none of its {len(listing.files)} image files can be read")
    sizes = sorted(
        ((header.height, header.width) for _, header in headers), key=lambda size: size[0] * size[1]
    )
    alpha = data.alpha == "keep" and any(header.alpha for _, header in headers)
    channels = (1 if all(header.grey for _, header in headers) else 3) + alpha
    arrays: list[NDArray[np.generic]] = []
    for entry in (headers[i][0] for i in _evenly(len(headers))):
        with contextlib.suppress(Unreadable):  # loading names all such files in one message
            images = decode_pages(listing.folder / entry.file, [entry.page], channels, data.decoding())
            arrays += [image.ravel() for image in images]
    facts = Survey(
        folder.name, len(headers), channels, sizes[0], sizes[-1], "levels", labels=_labels_of(folder, listing),
        splits=tuple(sorted(set(parts) - {"train"})),
    )  # fmt: skip
    return _with_pixels(facts, torch.from_numpy(np.concatenate(arrays))) if arrays else facts


def _headers(file: Path) -> list[Header]:
    """Return the headers of a file, none where it cannot be read: loading names all such files in one message."""
    try:
        return read_headers(file)
    except Unreadable:
        return []


def _labels_of(folder: Path, listing: Listing) -> str:
    if tables := [*tables_in(folder), *listing.tables]:
        return f"{tables[0]} beside them"
    files = [slashed(file) for file in listing.files]
    in_folders = all("/" in file for file in files)
    return f"{len({file.split('/')[0] for file in files})} classes" if in_folders else "no labels"


def _of_loaded(name: str, loaded: Loaded, data: Data) -> Survey:
    images = loaded.train
    channels, height, width = images.shape
    splits = {"validation": loaded.validation, "test": loaded.test}
    facts = Survey(
        name, len(images), channels, (height, width), (height, width), "levels", labels=_classes(images),
        splits=tuple(split for split, there in splits.items() if there is not None),
    )  # fmt: skip
    some = Images(images.rows(torch.from_numpy(_evenly(len(images)))))
    if data.range is not None and not loaded.ranged:
        some = ranged(some, data.range, name)
    return _with_pixels(facts, some.pixels_NCHW)


def _classes(images: Images) -> str:
    labelled = images.labelled()
    if images.labels_N is None or not len(labelled):
        return "no labels"
    return f"{len(np.unique(images.labels_N[labelled].numpy()))} classes"


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
