"""Images that are the same, or nearly: how they are found, and data without them.

Exact copies have the same bytes. Near copies are closer than 1.5 % of the distance of two images taken at random, after
shrinking to 14 x 14: what a re-encoded file or the next frame of a film is, and two handwritten ones are not.
"""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nelbo.core.files import atomic
from nelbo.data import Data, Images, Loaded, Splits, materialise
from nelbo.data.arraynames import IMAGE_KEYS, LABEL_KEYS

NEAR = 0.015  # of the distance of two images taken at random; 0.05 is the closest pair of 1,000 in MNIST
COMPARED = 100_000  # images among which near copies are looked for, evenly spaced where there are more
QUERIES = 1000  # images whose nearest neighbour is looked for
SIDE = 14  # height and width that images shrink to before they are compared
PIXELS = 4_000_000  # pixels that are shrunk at a time: 16 MB
AT_ONCE = 10_000  # images compared at a time


def fingerprints(images: Images) -> NDArray[np.uint64]:
    """Return 8 bytes of each image, equal where the pixels are."""
    # Of ten million different images two are taken for equal once in 400,000 times.
    parts = (part.flatten(1).contiguous().numpy() for part in images.chunks())
    hashes = (hashlib.blake2b(row.data, digest_size=8) for rows in parts for row in rows)
    return np.fromiter((int.from_bytes(h.digest(), "little") for h in hashes), np.uint64, len(images))


def exact_copies(images: Images) -> list[int]:
    """Return the positions of images that are the same as an earlier one."""
    first = np.unique(fingerprints(images), return_index=True)[1]
    return np.setdiff1d(np.arange(len(images)), first, assume_unique=True).tolist()  # type: ignore[no-any-return]


def shrunk(images: Images) -> Tensor:
    """Return the images at no more than SIDE x SIDE, one row each: float32 (N, D)."""
    height, width = (min(SIDE, size) for size in images.shape[1:])
    at_once = max(1, min(1000, PIXELS // math.prod(images.shape)))
    # Filled in place: parts that are joined would be scattered over the heap.
    out_ND = torch.empty(len(images), images.shape[0] * height * width)
    for index in torch.split(torch.arange(len(images)), at_once):
        x_BCHW = materialise(images, (), indices=index)
        out_ND[index] = F.adaptive_avg_pool2d(x_BCHW, (height, width)).flatten(1)
    return out_ND


def typical(rows_ND: Tensor) -> float:
    """Return the root mean square distance of two rows taken at random; 0 where there is one."""
    if len(rows_ND) < 2:
        return 0.0
    return float((2.0 * rows_ND.var(0).sum()).sqrt())  # E|x - y|^2 = 2 (E|x|^2 - |E x|^2)


def nearest(query_QD: Tensor, rows_ND: Tensor, without_Q: Tensor | None = None) -> Tensor:
    """Return the distance of each query to the nearest row, leaving out the row at its own position: Q."""
    best_Q = torch.full((len(query_QD),), float("inf"))
    for start in range(0, len(rows_ND), AT_ONCE):
        block = rows_ND[start : start + AT_ONCE]
        distances = torch.cdist(query_QD, block)
        if without_Q is not None:
            queries = torch.nonzero((without_Q >= start) & (without_Q < start + len(block))).flatten()
            distances[queries, without_Q[queries] - start] = float("inf")
        best_Q = torch.minimum(best_Q, distances.amin(1))
    return best_Q


def distinct(data: object) -> Loaded:
    """Return images without blank ones, and with training images only that are new.

    `data` is whatever `nelbo.train` takes. A training image is dropped where it is a copy or near copy of one that is
    kept, or of a validation or test image; those two splits lose nothing but blanks. What has no test split gets one,
    as in training.
    """
    splits = data if isinstance(data, Splits) else Data(source="python").load(obj=data)
    held_out = [_no_blanks(images) for images in (splits.validation, splits.test) if images is not None]
    train = _no_blanks(splits.train)
    rows_ND = shrunk(train)
    known_MD = torch.cat([rows_ND[:0], *map(shrunk, held_out)])
    new = torch.tensor(new_rows(rows_ND, known_MD, NEAR * typical(rows_ND)), dtype=torch.int64)
    validation = held_out[0] if splits.validation is not None else None
    return Loaded(train.select(new), validation, held_out[-1] if splits.test is not None else None)


def new_rows(rows_ND: Tensor, known_MD: Tensor, closest: float) -> list[int]:
    """Return the positions of rows that are farther than `closest` from all known rows and from those before."""
    positions: list[int] = []
    for index in torch.split(torch.arange(len(rows_ND)), 500):
        new = index[nearest(rows_ND[index], known_MD) > closest]
        # Within a block one after the other: what is dropped is no reason to drop what comes after it.
        within = torch.cdist(rows_ND[new], rows_ND[new])
        block: list[int] = []
        for i in range(len(new)):
            if not block or float(within[i, block].min()) > closest:
                block.append(i)
        positions += new[block].tolist()
        known_MD = torch.cat([known_MD, rows_ND[new[block]]])
    return positions


def blank(images: Images) -> Tensor:
    """Return True for each image whose pixels are all equal: bool of shape N."""
    parts = (part.flatten(1) for part in images.chunks())
    return torch.cat([rows_ND.amax(1) == rows_ND.amin(1) for rows_ND in parts])


def _no_blanks(images: Images) -> Images:
    return images.select(torch.nonzero(~blank(images)).flatten())


def write_npz(splits: Loaded, file: Path) -> None:
    """Write the splits as an .npz that `--data` reads: images, and labels (their names, where classes have any)."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    arrays: dict[str, Any] = {}
    for split, images in parts.items():
        if images is None:
            continue
        pixels = images.pixels_NCHW.permute(0, 2, 3, 1).numpy()
        arrays[IMAGE_KEYS[split][0]] = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        if images.labels_N is not None:
            labels = images.labels_N.numpy()
            names = images.class_names
            # The empty name stands for no label, as a label below 0 does.
            arrays[LABEL_KEYS[split][0]] = np.array([*names, ""])[labels.clip(-1)] if names else labels
    with atomic(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
