"""Whatever Python holds, as images: arrays, tensors, datasets of torch and of Hugging Face."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from nelbo.data.arrays import IMAGE_KEYS, images_from_array, loaded_from_mapping
from nelbo.data.folder import SPLITS
from nelbo.data.imagefile import GREY_MODES, eight_bit, fitted, to_array
from nelbo.data.images import Images
from nelbo.data.splits import Loaded
from nelbo.errors import DataError

EXPECTED = (
    "a NumPy array, a tensor, (images, labels), a torch Dataset with a length, a Hugging Face dataset "
    'with an image column, or a dict {"train": ..., "test": ...} of these'
)
IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target")


@runtime_checkable
class Items(Protocol):
    """A dataset: it has a length and items, of whatever kind."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def from_object(obj: object, *, size: tuple[int, int] | None = None) -> Loaded:
    """Return the images of an object in memory; `size` (height, width) resizes Pillow images as they are read.

    Accepts an array or tensor (N, H, W), (N, H, W, C) or (N, C, H, W); a tuple (images, labels); any
    dataset with a length whose items are an image or (image, label); a dataset with an image column;
    a dict of splits of these. Raises DataError for anything else, and for values that are not pixels.
    """
    if isinstance(obj, Loaded):
        return obj
    if not isinstance(obj, Mapping):
        return Loaded(_one_split(obj, "data", size))
    if "train" not in obj and any(key in obj for key in IMAGE_KEYS["train"]):
        return loaded_from_mapping({key: _as_numpy(value) for key, value in obj.items()}, "data")
    if "train" not in obj or any(key not in SPLITS for key in obj):
        raise DataError(f"a dict of splits has train, validation and test, not {', '.join(map(str, obj))}")
    return Loaded.of({SPLITS[key]: _one_split(value, key, size) for key, value in obj.items()})


def _one_split(obj: object, source: str, size: tuple[int, int] | None) -> Images:
    if isinstance(obj, Images):
        return obj
    pixels, labels = obj if isinstance(obj, tuple) and len(obj) == 2 else (obj, None)
    if isinstance(pixels, np.ndarray | Tensor):
        array, first = np.asanyarray(_as_numpy(pixels)), isinstance(pixels, Tensor)  # a memory map stays one
        return images_from_array(array, _as_numpy(labels), source, channels_first=first)
    if not isinstance(obj, Items) or isinstance(obj, str | bytes):
        raise DataError(f"{source}: a {type(obj).__name__} is not images; expected {EXPECTED}")
    if len(obj) == 0:
        raise DataError(f"{source}: the dataset is empty")
    if isinstance(features := getattr(obj, "features", None), Mapping):
        return _from_columns(obj, features, source, size)
    return _from_items([_item(obj[i], source) for i in range(len(obj))], source, size)


def _item(item: object, source: str) -> tuple[object, object]:
    """Return image and label of an item; None for a label that it does not have."""
    if isinstance(item, tuple | list):
        if len(item) not in (1, 2):
            raise DataError(f"{source}: an item of {len(item)} parts; expected image or (image, label)")
        return item[0], item[1] if len(item) == 2 else None
    if isinstance(item, Mapping):
        column = next((name for name in IMAGE_COLUMNS if name in item), None)
        if column is None:
            raise DataError(f"{source}: items have {', '.join(map(str, item))}; expected an 'image'")
        return item[column], next((item[name] for name in LABEL_COLUMNS if name in item), None)
    return item, None


def _from_columns(
    obj: Items, features: Mapping[str, object], source: str, size: tuple[int, int] | None
) -> Images:
    """Return the images of a dataset whose `features` describe columns, one of class Image or of a usual name."""
    named = [name for name in IMAGE_COLUMNS if name in features]
    # By the name of its class: Hugging Face's `datasets` is not installed with this package.
    typed = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if not typed and not named:
        raise DataError(f"{source}: has no image column; its columns are {', '.join(map(str, features))}")
    image = (typed or named)[0]
    label = next((name for name, feature in features.items() if getattr(feature, "names", None)), None)
    label = label or next((name for name in LABEL_COLUMNS if name in features), None)
    rows = [obj[i] for i in range(len(obj))]
    images = _from_items([(row[image], row[label] if label else None) for row in rows], source, size)
    classes = getattr(features[label], "names", None) if label else None
    if classes is None:
        return images
    return Images(images.pixels_NCHW, images.labels_N, tuple(str(name) for name in classes))


def _from_items(items: list[tuple[object, object]], source: str, size: tuple[int, int] | None) -> Images:
    from PIL import Image

    pictures = [picture for picture, _ in items if isinstance(picture, Image.Image)]
    if len(pictures) < len(items):
        first = isinstance(items[0][0], Tensor)
        arrays = [np.asarray(_as_numpy(image)) for image, _ in items]
    else:
        first, arrays = True, []
        channels = 1 if all(picture.mode in GREY_MODES for picture in pictures) else 3
        for i, picture in enumerate(pictures):
            try:
                arrays.append(to_array(fitted(eight_bit(picture), size), channels=channels))
            except (OSError, ValueError) as error:
                raise DataError(f"{source}: item {i} cannot be read as an image ({error})") from None
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"{source}: images have different shapes: item 0 {arrays[0].shape}, item {i} {array.shape}; "
                "choose one size with --data.size 64 (Pillow images) or resize them first"
            )
    labels = [_as_numpy(label) for _, label in items]
    labels_N = None if any(label is None for label in labels) else np.array(labels)
    return images_from_array(np.stack(arrays), labels_N, source, channels_first=first)


def _as_numpy(value: object) -> object:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
