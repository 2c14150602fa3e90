"""The splits of a data set: as a source has them, and as training and evaluation read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from nelbo.data.images import Images
from nelbo.data.transforms import Transform
from nelbo.errors import ConfigError, did_you_mean

SplitName = Literal["train", "validation", "test"]
Pixels = Literal["binary", "dequantised", "grey", "real"]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The images of a source, before validation is split off and transforms are applied.

    notes       what people should know about how the source was read
    unreadable  files that were left out because they cannot be read
    ranged      whether `data.range` is applied already, because the numbers in the files are finer than 8 bits
    """

    train: Images
    validation: Images | None = None
    test: Images | None = None
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    ranged: bool = False

    @classmethod
    def of(cls, splits: Mapping[str, Images], about: Loaded | None = None) -> Loaded:
        """Return splits by name, with the notes and other facts of `about`."""
        loaded = cls(splits["train"], splits.get("validation"), splits.get("test"))
        if about is None:
            return loaded
        return replace(loaded, notes=about.notes, unreadable=about.unreadable, ranged=about.ranged)

    def each(self, function: Callable[[Images], Images]) -> Loaded:
        """Return the splits after a function of each."""
        splits = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return self.of(
            {name: function(images) for name, images in splits.items() if images is not None}, self
        )


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The splits of one data set, after the transforms that apply once.

    hash        16 hex digits over the source's bytes in split order, the split seed and the transforms
    pixels      "binary": only 0 and 1; "dequantised": 8-bit levels with uniform noise of a level's width, on any
                scale; "grey": other values inside [0, 1]; "real": anything else
    eight_bit   whether every value that a model sees is a level / 255: then a probability of levels is one of them
    range       (low, high) of the values that a model sees
    transforms  those that `Batches` and `materialise` still have to apply to each batch
    notes       what people should know about how the data were read, a sentence each
    unreadable  files that were left out because they cannot be read
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
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every split."""
        return self.train.shape

    def split(self, name: str) -> Images:
        """Return the split called train, validation or test; raise ConfigError for another or an absent one."""
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
