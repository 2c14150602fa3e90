"""The splits of a data set: as a source has them, and as training and evaluation read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nelbo.data.images import Images
from nelbo.data.ondisk import OnDisk
from nelbo.data.transforms import Transform
from nelbo.errors import ConfigError, did_you_mean

Pixels = Literal["binary", "dequantised", "grey", "real"]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The images of a source, before validation is split off and transforms are applied."""

    train: Images
    validation: Images | None = None
    test: Images | None = None

    def each(self, function: Callable[[Images], Images]) -> Loaded:
        """Return the splits after a function of each."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return Loaded(**{name: function(images) for name, images in splits.items() if images is not None})


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The splits of one data set, after the transforms that apply once.

    hash        16 hex digits over the source's bytes in split order, the split seed and the transforms
    pixels      "binary": only 0 and 1; "dequantised": 8-bit levels with uniform noise of a level's width, on any
                scale; "grey": other values inside [0, 1]; "real": anything else
    eight_bit   whether every value that a model sees is a level / 255: then a probability of levels is one of them
    range       (low, high) of the values that a model sees
    transforms  those that `Batches` and `materialise` still have to apply to each batch
    whole       images that were not split: `train` and `test` are all of them, and the one split is called all
    """

    name: str
    train: Images
    validation: Images | None
    test: Images
    hash: str
    pixels: Pixels
    range: tuple[float, float]
    transforms: tuple[Transform, ...] = ()
    eight_bit: bool = False
    whole: bool = False

    @property
    def note(self) -> str:
        """Return the place of training images that do not stay in memory; empty where they do."""
        pixels = self.train.pixels
        if not isinstance(pixels, OnDisk):
            return ""
        return f"{pixels.nbytes / 1e9:,.1f} GB of training images stay on the disk, {pixels.note}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every split."""
        return self.train.shape

    def split(self, name: str) -> Images:
        """Return the split called train, validation or test; raise ConfigError for another or an absent one.

        Images that are a `whole` have one split, called all.
        """
        if self.whole:
            if name != "all":
                raise ConfigError(
                    f"{self.name} has no splits, and so no {name} split; leave --split out, or say all"
                )
            return self.train
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise ConfigError(f"no split is called {name!r}; {did_you_mean(name, splits)}")
        images = splits[name]
        if images is None:
            raise ConfigError(
                f"{self.name} has no {name} split; take one from the training images with "
                "--data.validation 0.1 (a share) or --data.validation 5000 (a count)"
            )
        return images
