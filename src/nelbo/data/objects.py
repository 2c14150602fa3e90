"""Whatever Python holds, as images: arrays, tensors, datasets of torch and of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nelbo.data.arrays import IMAGE_KEYS, images_from_array, loaded_from_mapping
from nelbo.data.decode import GREY_MODES, eight_bit, fitted, to_array
from nelbo.data.folder import SPLITS
from nelbo.data.images import Images
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

EXPECTED = (
    "a NumPy array, a tensor, (images, labels), a torch Dataset with a length, a Hugging Face dataset "
    'with an image column, or a dict {"train": ..., "test": ...} of these'
)
IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target")


def from_object(obj: Any, *, size: tuple[int, int] | None = None) -> Loaded:
    """Images of an object in memory; `size` (height, width) resizes Pillow images as they are read.

    Accepts an array or tensor (N, H, W), (N, H, W, C) or (N, C, H, W); a tuple (images, labels); any
    dataset with a length whose items are an image or (image, label); a dataset with an image column;
    a dict of splits of these. Raises DataError for anything else, and for values that are not pixels.
    """
    if isinstance(obj, Loaded):
        return obj
    if isinstance(obj, Mapping):
        return _from_mapping(obj, size)
    return Loaded(_one_split(obj, "data", size))


def _from_mapping(obj: Mapping[str, Any], size: tuple[int, int] | None) -> Loaded:
    if "train" not in obj and any(key in obj for key in IMAGE_KEYS["train"]):
        return loaded_from_mapping({key: _as_numpy(value) for key, value in obj.items()}, "data")
    unknown = [key for key in obj if key not in SPLITS]
    if "train" not in obj or unknown:
        raise DataError(f"a dict of splits has train, validation and test, not {', '.join(map(str, obj))}")
    found = {SPLITS[key]: _one_split(value, key, size) for key, value in obj.items()}
    return Loaded(found["train"], found.get("validation"), found.get("test"))


def _one_split(obj: Any, where: str, size: tuple[int, int] | None) -> Images:
    if isinstance(obj, Images):
        return obj
    if isinstance(obj, np.ndarray | Tensor):
        return images_from_array(_as_numpy(obj), None, where, channels_first=isinstance(obj, Tensor))
    if isinstance(obj, tuple) and len(obj) == 2 and isinstance(obj[0], np.ndarray | Tensor):
        pixels, labels = obj
        first = isinstance(pixels, Tensor)
        return images_from_array(_as_numpy(pixels), _as_numpy(labels), where, channels_first=first)
    if not (hasattr(obj, "__getitem__") and hasattr(obj, "__len__")) or isinstance(obj, str | bytes):
        raise DataError(f"{where}: a {type(obj).__name__} is not images; expected {EXPECTED}")
    if len(obj) == 0:
        raise DataError(f"{where}: the dataset is empty")
    if isinstance(getattr(obj, "features", None), Mapping):
        return _from_columns(obj, where, size)
    return _from_items([_item(obj[i], where) for i in range(len(obj))], where, size)


def _item(item: Any, where: str) -> tuple[Any, Any]:
    if isinstance(item, tuple | list):
        if len(item) not in (1, 2):
            raise DataError(f"{where}: an item of {len(item)} parts; expected image or (image, label)")
        return item[0], item[1] if len(item) == 2 else None
    if isinstance(item, Mapping):
        column = next((name for name in IMAGE_COLUMNS if name in item), None)
        if column is None:
            raise DataError(f"{where}: items have {', '.join(map(str, item))}; expected an 'image'")
        return item[column], next((item[name] for name in LABEL_COLUMNS if name in item), None)
    return item, None


def _from_columns(obj: Any, where: str, size: tuple[int, int] | None) -> Images:
    """A dataset whose `features` describe columns, one of them of class Image or of a usual name."""
    features = obj.features
    named = [name for name in IMAGE_COLUMNS if name in features]
    typed = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if not typed and not named:
        raise DataError(f"{where}: has no image column; its columns are {', '.join(map(str, features))}")
    image = (typed or named)[0]
    label = next((name for name, feature in features.items() if getattr(feature, "names", None)), None)
    label = label or next((name for name in LABEL_COLUMNS if name in features), None)
    rows = [obj[i] for i in range(len(obj))]
    images = _from_items([(row[image], row[label] if label else None) for row in rows], where, size)
    classes = getattr(features[label], "names", None) if label else None
    if classes is None:
        return images
    return Images(images.pixels_NCHW, images.labels_N, tuple(str(name) for name in classes))


def _from_items(items: list[tuple[Any, Any]], where: str, size: tuple[int, int] | None) -> Images:
    from PIL import Image

    pictures = [image for image, _ in items]
    if all(isinstance(picture, Image.Image) for picture in pictures):
        grey = all(picture.mode in GREY_MODES for picture in pictures)
        arrays: list[NDArray[Any]] = [_picture(p, i, where, grey, size) for i, p in enumerate(pictures)]
        first = True
    else:
        first = isinstance(pictures[0], Tensor)
        arrays = [np.asarray(_as_numpy(picture)) for picture in pictures]
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"{where}: images have different shapes: item 0 {arrays[0].shape}, item {i} {array.shape}; "
                "choose one size with --data.size 64 (Pillow images) or resize them first"
            )
    labels = [label for _, label in items]
    known = None if any(label is None for label in labels) else np.array([_as_numpy(lab) for lab in labels])
    return images_from_array(np.stack(arrays), known, where, channels_first=first)


def _picture(picture: Any, i: int, where: str, grey: bool, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    try:
        return to_array(fitted(eight_bit(picture), size), grey=grey)
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: item {i} cannot be read as an image ({error})") from None


def _as_numpy(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
