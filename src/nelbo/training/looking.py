"""The images that a trained run looks at: those it was trained on, or new ones through the same preprocessing."""

import contextlib
import dataclasses
from pathlib import Path

import torch

from nelbo.core.layout import DataFacts
from nelbo.data import Data, Images, Loaded, Splits
from nelbo.errors import ConfigError, DataError
from nelbo.training import api
from nelbo.training.store import Run

CHANNELS = {1: "grey", 3: "colour", 4: "colour with transparency"}


def open_splits(run: Run, data_dir: str | Path | None = None, data: object | None = None) -> Splits:
    """Return the data of a run, or with `data` whatever that is: see `new_images`."""
    return api.load_same_data(run, data_dir, data) if data is None else new_images(run, data, data_dir)


def new_images(run: Run, source: object, data_dir: str | Path | None = None, name: str = "") -> Splits:
    """Return images as a run takes them: with its range, size and transforms.

    source  a folder, a file or a data set's name, as `data.source`; or images themselves, as `nelbo.train` takes them
    name    a name for images themselves

    Images whose hash is that of the run's own data are that data, with its splits: so data that has moved is known
    again. Others keep the splits that their source has; without any they are one `whole`.

    Raises DataError where they do not fit what the run was trained on, which names both.
    """
    spec, facts = run.recipe.data, _facts(run)
    if isinstance(source, str | Path):
        spec, source = spec.model_copy(update={"source": str(source)}), None
    try:
        read_name, loaded = spec.read(Path(data_dir) if data_dir else None, source)
    except DataError as error:
        raise DataError(f"{error} ({run.name} was trained on {_in_words(tuple(facts['shape']))})") from None
    name = name or read_name
    total = sum(
        len(images) for images in (loaded.train, loaded.validation, loaded.test) if images is not None
    )
    if total == sum(facts.get("n", {}).values()):
        with contextlib.suppress(
            ConfigError, DataError
        ):  # too few to split, for example: then they are others
            splits = spec.prepared(name, loaded, spec.split(loaded))
            if is_own(run, splits):
                return splits
    fitting = loaded.each(lambda images: _in_channels(images, int(facts["shape"][0])))
    return _checked(run, name, spec, facts, fitting)


def is_own(run: Run, splits: Splits) -> bool:
    """Return True if these are the data that a run was trained on; of a run that does not say so, nothing else is."""
    return _facts(run).get("hash") in (None, splits.hash)


def default_split(splits: Splits) -> str:
    """Return the split that is looked at where none is named: test, or all images where they have no splits."""
    return "all" if splits.whole else "test"


def place_of(name: str, data_hash: str) -> str:
    """Return the name of the folder in which a run keeps what it made of other data: never among its own."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
    return f"of-{plain[-40:]}-{data_hash[:8]}"


def folder_of(run: Run, kind: str, splits: Splits) -> Path:
    """Return the folder of this kind (figures, generated, evaluation) for what a run makes of these data."""
    folder = run.path / kind
    return folder if is_own(run, splits) else folder / place_of(splits.name, splits.hash)


def without_images(run: Run) -> Splits | None:
    """Return what is known of a run's data without reading any image, for drawing; None of an older run.

    Its splits are empty; names, range and kind of pixels are those of the data.
    """
    facts = _facts(run)
    if "range" not in facts or "dtype" not in facts:
        return None
    dtype = torch.uint8 if facts["dtype"] == "uint8" else torch.float32
    none = Images(torch.zeros(0, *facts["shape"], dtype=dtype))
    low, high = facts["range"]
    return Splits(
        name=facts["name"], train=none, validation=None, test=none, hash=facts["hash"], pixels=facts["pixels"],
        range=(low, high), transforms=run.recipe.data.transforms,
    )  # fmt: skip


def _facts(run: Run) -> DataFacts:
    facts: DataFacts = run.read_json("env.json", missing={}).get("data", {})
    return facts


def _in_channels(images: Images, channels: int) -> Images:
    """Return images with so many channels where nothing is lost: grey as colour, and colour that is grey everywhere."""
    if images.shape[0] == 1 and channels == 3:
        return images.each(lambda pixels: pixels.expand(-1, 3, -1, -1).contiguous())
    to_grey = images.shape[0] == 3 and channels == 1
    if to_grey and all(bool((part == part[:, :1]).all()) for part in images.chunks()):
        return images.each(lambda pixels: pixels[:, :1].contiguous())
    return images


def _checked(run: Run, name: str, spec: Data, facts: DataFacts, loaded: Loaded) -> Splits:
    """Return other images than the run's own; raise DataError where they do not fit the run."""
    whole = loaded.validation is None and loaded.test is None
    test = loaded.train if whole else loaded.test
    if test is None:
        raise DataError(f"{name} has a validation split and no test split; give one of its splits alone")
    splits = spec.prepared(name, loaded, (loaded.train, loaded.validation, test))
    shape, own_shape = splits.shape, tuple(facts["shape"])
    if shape[0] != own_shape[0]:
        raise DataError(
            f"{name} has {_channels(shape[0])}, but {run.name} was trained on images with {_channels(own_shape[0])}; "
            "convert them first"
        )
    if shape != own_shape:
        raise DataError(
            f"{name} is {shape[1]} x {shape[2]} pixels, but {run.name} was trained on images of {own_shape[1]} x "
            f"{own_shape[2]}; resize it first (a run trained with --data.size resizes what it reads)"
        )
    bounded = (0.0, 1.0)
    for transform in spec.transforms:
        bounded = transform.range(*bounded)
    recorded = facts.get("range", [])
    low, high = (recorded[0], recorded[1]) if recorded else bounded
    least, most = splits.range
    if (low, high) != bounded:  # trained on numbers without a fixed scale, such as standardised ones
        if splits.train.dtype == torch.uint8:
            raise DataError(
                f"{name} holds 8-bit levels, but {run.name} was trained on numbers in [{low:g}, {high:g}], and it is "
                "not known which level is which number; give an array of floats on that scale (.npy)"
            )
    elif (outside := max(low - least, most - high)) > 1e-6 * (high - low):
        raise DataError(
            f"{name}: pixels lie in [{least:g}, {most:g}] after the preprocessing of {run.name}, {outside:g} outside "
            f"of [{low:g}, {high:g}], on which it was trained; give 8-bit images, or floats on that scale"
        )
    if api.observation_kind(run.recipe) == "levels" and not splits.eight_bit:
        raise DataError(
            f"{name}: pixels are floating-point numbers between the 8-bit levels, but the likelihood of {run.name} is "
            "a probability of levels; store the images as uint8"
        )
    # The run's own range, so that decibels and pictures mean the same as on its own data.
    return dataclasses.replace(splits, whole=whole, range=(low, high))


def _channels(n: int) -> str:
    return f"{n} channel{'' if n == 1 else 's'}" + (f" ({CHANNELS[n]})" if n in CHANNELS else "")


def _in_words(shape: tuple[int, ...]) -> str:
    return f"images of {shape[1]} x {shape[2]} pixels with {_channels(shape[0])}"
