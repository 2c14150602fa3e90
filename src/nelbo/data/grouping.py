"""Splits of whole sub-folders: no patient, scene or recording is in two splits."""

from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nelbo.data.images import Images
from nelbo.errors import ConfigError

Index = NDArray[np.int64]


def by_folder(images: Images, n_test: int, n_validation: int, seed: int) -> list[Index]:
    """Return positions of test, validation and training images: about as many as asked for, by whole sub-folders.

    Raises ConfigError where images have no sub-folders, or too few of them.
    """
    groups = folders_of(images)
    names = sorted(set(groups))
    wanted = [n for n in (n_test, n_validation) if n]
    if len(names) < len(wanted) + 1:
        raise ConfigError(
            f"data.split_by folder: {len(names)} sub-folders for {len(wanted) + 1} splits; each split needs one, "
            "so give a folder with more of them, or --data.split-by image"
        )
    members: dict[str, list[int]] = {name: [] for name in names}
    for position, group in enumerate(groups):
        members[group].append(position)
    left = [names[i] for i in np.random.RandomState(seed).permutation(len(names))]
    parts = []
    for count, later in ((n_test, bool(n_validation) + 1), (n_validation, 1)):
        taken = _taken(left, members, count, later)
        left = [name for name in left if name not in taken]
        parts.append(taken)
    return [np.array(sorted(i for name in part for i in members[name]), np.int64) for part in (*parts, left)]


def folders_of(images: Images) -> list[str]:
    """Return the first sub-folder of each image, below the folders that all have in common; raise ConfigError."""
    if images.names is None:
        raise ConfigError("data.split_by folder: these images come from no folder; use --data.split-by image")
    parents = [PurePosixPath(name).parent.parts for name in images.names]
    if not all(parents):
        raise ConfigError(
            f"data.split_by folder: {images.names[[*map(bool, parents)].index(False)]} is in no sub-folder; put every "
            "image into one, or use --data.split-by image"
        )
    common = 0
    while (
        all(len(parent) > common + 1 for parent in parents)
        and len({parent[common] for parent in parents}) == 1
    ):
        common += 1
    return [parent[common] for parent in parents]


def _taken(left: list[str], members: dict[str, list[int]], count: int, later: int) -> set[str]:
    """Return groups of about `count` images, at least one group, that leave `later` groups over."""
    taken: set[str] = set()
    missing = count
    for name in left:
        # A group is taken where that comes closer to the count; a large one may be passed over.
        if len(left) - len(taken) > later and len(members[name]) < 2 * missing:
            taken.add(name)
            missing -= len(members[name])
    if count and not taken:
        taken.add(min(left, key=lambda name: len(members[name])))
    return taken
