"""The splits of a data set: as a source has them, and as training and evaluation read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from nelbo.data.images import Images
from nelbo.data.transforms import Transform
from nelbo.errors import ConfigError, did_you_mean

SplitName = Literal["train", "validation", "test"]
Pixels = Literal["binary", "dequantised", "grey", "real"]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The images of a source, before validation is split off and transforms are applied.

    notes   lines for people: what was left out, not used, or taken to mean one thing of two
    ranged  True where `Data.range` has been applied already
    unreadable  files that were left out because they cannot be read
    """

    train: Images
    validation: Images | None = None
    test: Images | None = None
    notes: tuple[str, ...] = ()
    ranged: bool = False
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of(cls, splits: Mapping[str, Images], *, notes: tuple[str, ...] = (), ranged: bool = False) -> Loaded:
        """Return the splits called train and, where they are there, validation and test."""
        return cls(splits["train"], splits.get("validation"), splits.get("test"), notes, ranged)

    def each(self, function: Callable[[Images], Images]) -> Loaded:
        """Return the splits after a function of each."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        changed = {name: function(images) for name, images in splits.items() if images is not None}
        return replace(Loaded.of(changed, notes=self.notes, ranged=self.ranged), unreadable=self.unreadable)


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The splits of one data set, after the transforms that apply once.

    hash        16 hex digits over the source's bytes in split order, the split seed and the transforms
    pixels      "binary": only 0 and 1; "dequantised": 8-bit levels with uniform noise of a level's width, on any
                scale; "grey": other values inside [0, 1]; "real": anything else
    eight_bit   whether every value that a model sees is a level / 255: then a probability of levels is one of them
    range       (low, high) of the values that a model sees
    transforms  those that `Batches` and `materialise` still have to apply to each batch
    notes       lines for people about the data: what is left out, what is taken to mean what, where the pixels stay
    unreadable  files that were left out because they cannot be read
    """

    name: str
    train: Images
    validation: Images | None
    test: Images | None
    hash: str
    pixels: Pixels
    range: tuple[float, float]
    transforms: tuple[Transform, ...] = ()
    eight_bit: bool = False
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every split."""
        return self.train.shape

    def span_before_transforms(self) -> tuple[float, float]:
        """Return [0, 1], or what the pixels of all splits span where that is more, before transforms of batches."""
        return span_of(images for images in (self.train, self.validation, self.test) if images is not None)

    def split(self, name: str) -> Images:
        """Return the split called train, validation or test; raise ConfigError for another or an absent one."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise ConfigError(f"no split is called {name!r}; {did_you_mean(name, splits)}")
        images = splits[name]
        if images is None and name == "test":  # of a run that is trained on everything
            raise ConfigError(
                f"{self.name} has no test split (data.test is 0); name another, as in --split {self.measured}, "
                "or train with --data.test 0.2"
            )
        if images is None:
            raise ConfigError(
                f"{self.name} has no {name} split; take one from the training images with "
                "--data.validation 0.1 (a share) or --data.validation 5000 (a count)"
            )
        return images

    @property
    def measured(self) -> SplitName:
        """The split that is measured where none is named: test, or where there is none validation, or train."""
        if self.test is not None:
            return "test"
        return "train" if self.validation is None else "validation"


def span_of(splits: Iterable[Images]) -> tuple[float, float]:
    """Return [0, 1], or what the pixels of all these images span where that is more."""
    low, high = 0.0, 1.0
    for images in splits:
        if images.dtype != torch.uint8:
            least, most = images.extremes()
            low, high = min(low, least), max(high, most)
    return low, high
