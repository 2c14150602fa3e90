"""Named data sets. A new one is one class here or in a plug-in: fields, a few facts, and `load`."""

import string
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.data import mirrors
from nelbo.data.download import data_root, is_present, obtain, verified_content, verify
from nelbo.data.idx import gunzip, parse_idx
from nelbo.data.images import Images
from nelbo.data.splits import Loaded
from nelbo.errors import DataError


class Dataset(Spec):
    """A named set. `images` counts all its splits; `remote` names its entry of `mirrors.REMOTES`."""

    axis: ClassVar[str] = "dataset"
    images: ClassVar[int] = 0
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    classes: ClassVar[int] = 10
    remote: ClassVar[str | None] = None

    def load(self, data_dir: Path | None) -> Loaded:
        """Return the images, downloaded into `data_dir` where they are missing; raise DataError."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W) of the images with these very fields; `shape` is that of the defaults."""
        return self.shape

    @classmethod
    def present(cls, data_dir: Path | None = None) -> bool:
        """Return True if it can be loaded without a download."""
        return cls.remote is None or is_present(mirrors.REMOTES[cls.remote], data_root(data_dir))


@dataclass(frozen=True, slots=True)
class Available:
    """A row of `nelbo data list`."""

    name: str
    images: int
    shape: tuple[int, int, int]
    classes: int
    present: bool


def available(data_dir: Path | None = None) -> list[Available]:
    """Return every registered data set, and whether its files are already there."""
    sets = [lookup("dataset", name) for name in names("dataset")]
    return [Available(s.name, s.images, s.shape, s.classes, s.present(data_dir)) for s in sets]


class Digits(Dataset):
    """The 1,797 real 8x8 digits inside scikit-learn; works offline. A fixed 20 % (359) are the test split."""

    images: ClassVar[int] = 1797
    shape: ClassVar[tuple[int, int, int]] = (1, 8, 8)

    def load(self, data_dir: Path | None) -> Loaded:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = np.rint(bunch.images * 255 / 16).astype(np.uint8)  # values are 0..16
        everything = _images(pixels, bunch.target, string.digits).numbered()  # as scikit-learn lists them
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(everything)))
        n_test = round(0.2 * len(everything))
        return Loaded(everything.select(order[:-n_test]), test=everything.select(order[-n_test:]))


class MNIST(Dataset):
    """70,000 handwritten digits, 60,000 for training. LeCun et al. 1998."""

    images: ClassVar[int] = 70_000
    remote: ClassVar[str | None] = "mnist"

    def load(self, data_dir: Path | None) -> Loaded:
        return _load_idx("mnist", data_dir, string.digits)


class FashionMNIST(Dataset):
    """70,000 pictures of clothes, 60,000 for training. Xiao et al. 2017."""

    images: ClassVar[int] = 70_000
    remote: ClassVar[str | None] = "fashion-mnist"

    def load(self, data_dir: Path | None) -> Loaded:
        upper = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
        return _load_idx(
            "fashion-mnist", data_dir, (*upper, "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
        )


class KMNIST(Dataset):
    """70,000 cursive Japanese characters of ten classes, 60,000 for training. Clanuwat et al. 2018."""

    images: ClassVar[int] = 70_000
    remote: ClassVar[str | None] = "kmnist"

    def load(self, data_dir: Path | None) -> Loaded:
        return _load_idx("kmnist", data_dir, ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"))


# The merged splits count a lower-case letter with its upper-case form where the two look alike.
_EMNIST_CLASSES = {
    "balanced": string.digits + string.ascii_uppercase + "abdefghnqrt",
    "bymerge": string.digits + string.ascii_uppercase + "abdefghnqrt",
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "letters": string.ascii_uppercase,
    "digits": string.digits,
    "mnist": string.digits,
}


class EMNIST(Dataset):
    """Handwritten digits and letters, 131,600 in the balanced split. Cohen et al. 2017.

    Labels count from 0 in every split (in the file of `letters` they count from 1).
    """

    scalar: ClassVar[str] = "split"
    images: ClassVar[int] = 131_600
    classes: ClassVar[int] = 47
    remote: ClassVar[str | None] = "emnist"
    split: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] = "balanced"

    def load(self, data_dir: Path | None) -> Loaded:
        remote = mirrors.REMOTES["emnist"]
        path = obtain(remote, data_dir)[0]
        verify(path, remote.files[0])
        arrays = []
        with zipfile.ZipFile(path) as archive:
            for part in ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1"):
                member = f"gzip/emnist-{self.split}-{part}-ubyte.gz"
                try:
                    content = archive.read(member)
                except KeyError:
                    raise DataError(f"{path}: has no {member}; delete the file and run again") from None
                arrays.append(parse_idx(gunzip(content, f"{path}:{member}"), f"{path}:{member}"))
        x_train, y_train, x_test, y_test = arrays
        first, classes = 1 if self.split == "letters" else 0, _EMNIST_CLASSES[self.split]
        # EMNIST's images lie on their side: rows and columns are exchanged in its files.
        train = _images(x_train.swapaxes(1, 2), y_train.astype(np.int64) - first, classes)
        return Loaded(train, test=_images(x_test.swapaxes(1, 2), y_test.astype(np.int64) - first, classes))


def _load_idx(name: str, data_dir: Path | None, classes: Sequence[str]) -> Loaded:
    """Load the four IDX files of a set in MNIST's layout."""
    remote = mirrors.REMOTES[name]
    files = zip(obtain(remote, data_dir), remote.files, strict=True)
    x_train, y_train, x_test, y_test = (parse_idx(verified_content(path, file), path) for path, file in files)
    return Loaded(_images(x_train, y_train, classes), test=_images(x_test, y_test, classes))


def _images(pixels_NHW: np.ndarray, labels_N: np.ndarray, classes: Sequence[str]) -> Images:
    pixels = torch.from_numpy(np.ascontiguousarray(pixels_NHW)).unsqueeze(1)
    return Images(pixels, torch.from_numpy(labels_N.astype(np.int64)), tuple(classes))
