"""The names under which people keep arrays: which array is the images of which split, and which its labels."""

import re
from collections.abc import Collection
from typing import Literal

Kind = Literal["images", "labels", "factors"]
Role = tuple[Kind, str]  # kind and split

# The first of these that is there is taken, before any other spelling.
IMAGE_KEYS = {
    "train": ("images", "x_train", "train_images", "train", "imgs"),
    "validation": ("x_val", "x_valid", "val_images", "validation_images", "validation"),
    "test": ("x_test", "test_images", "test"),
}
LABEL_KEYS = {
    "train": ("labels", "y_train", "train_labels"),
    "validation": ("y_val", "y_valid", "val_labels", "validation_labels"),
    "test": ("y_test", "test_labels"),
}
FACTOR_KEYS = {
    "train": ("factors", "latents_classes", "train_factors", "factors_train"),
    "validation": ("validation_factors", "val_factors", "factors_validation", "factors_val"),
    "test": ("test_factors", "factors_test"),
}
_WORDS = {
    "images": (
        "images?",
        "x",
        "imgs?",
        "pictures?",
        "photos?",
        "pixels?",
        "data",
        "inputs?",
        "samples?",
        "arr0",
    ),
    "labels": ("labels?", "y", "targets?", "class(?:es)?", "categor(?:y|ies)", "arr1"),
}
_SPLITS = {
    "train": "(?:train(?:ing)?|tr)(?:set)?",
    "validation": "(?:val(?:id(?:ation)?)?|dev)(?:set)?",
    "test": "(?:test(?:ing)?|te)(?:set)?",
}
USUAL = "images, x_train, X, data, pixels, train_images"  # in messages


def roles(names: Collection[str]) -> dict[Role, str]:
    """Return the name of the array in each role that one has; letter case, `_`, `-` and `/` make no difference."""
    chosen: dict[Role, str] = {}
    plain = {name: re.sub(r"[^a-z0-9]", "", name.lower()) for name in names}
    for split, pattern in _SPLITS.items():
        keys: tuple[tuple[Kind, tuple[str, ...]], ...] = (
            ("images", IMAGE_KEYS[split]),
            ("labels", LABEL_KEYS[split]),
            ("factors", FACTOR_KEYS[split]),
        )
        for kind, usual in keys:
            patterns = [re.escape(re.sub("_", "", key)) for key in usual]
            for word in _WORDS.get(kind, ()):
                patterns += [f"{pattern}{word}", f"{word}{pattern}"] + ([word] if split == "train" else [])
            patterns += [pattern] if kind == "images" else []
            exact = [name for key in usual for name in names if name == key]
            near = [name for p in patterns for name in names if re.fullmatch(p, plain[name])]
            if exact or near:
                chosen[kind, split] = (exact + near)[0]
    return chosen
