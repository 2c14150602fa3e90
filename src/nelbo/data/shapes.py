"""Factor images: every combination of six known factors of variation, drawn on the fly."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from nelbo.data.images import Images
from nelbo.data.sources import Dataset
from nelbo.data.splits import Loaded

COLOURS = {"yellow": (1, 1, 0), "green": (0, 1, 0), "cyan": (0, 1, 1), "blue": (0, 0, 1)}
RADII = (1.9, 2.6, 3.3, 4.0)  # in sixteenths of the image's side, as are the places
TURNS = tuple(12 * step for step in range(8))  # degrees, anticlockwise
PLACES = tuple(range(8))
FACTORS = {
    "form": 3,
    "colour": len(COLOURS),
    "size": len(RADII),
    "orientation": len(TURNS),
    "position x": len(PLACES),
    "position y": len(PLACES),
}
PATCH = 9  # sixteenths: holds the largest form however it is turned; 7 more for the places fill the image
TEST = 4096
SAMPLES = 16  # to a pixel and axis: coverage is right to a few grey levels of 255


HALF = math.sqrt(math.pi) / 2.0  # half of the rectangle's length
FLAT = 4.0 / (3.0 * math.pi)  # from the centroid of the half disc down to its flat side
# True where a point (x to the right, y upwards) is inside. Each form has its centroid at 0, its long axis across and
# the area pi/2, so that neither size nor position depends on it.
FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ellipse": lambda x, y: x**2 + (2.0 * y) ** 2 <= 1.0,
    "rectangle": lambda x, y: (np.abs(x) <= HALF) & (np.abs(y) <= HALF / 2.0),
    "half disc": lambda x, y: (y + FLAT >= 0.0) & (x**2 + (y + FLAT) ** 2 <= 1.0),
}


class Shapes(Dataset):
    """24,576 images of one form on black: 3 forms x 4 colours x 4 sizes x 8 orientations x 8 x 8 positions.

    Every combination once, drawn when loaded, identical on every machine; a fixed random 4,096 are the test split.

        form         ellipse, rectangle, half disc, each twice as long as wide; also the label
        colour       yellow, green, cyan, blue: an open arc of hues
        size         area pi/2 r^2 with r = 1.9, 2.6, 3.3, 4 sixteenths of the side, whatever the form
        orientation  0, 12, ..., 84 degrees anticlockwise
        position x   8 places of the centroid, a sixteenth of the side apart, from left to right
        position y   the same, from top to bottom

    Ellipse and rectangle look the same after 180 degrees, the half disc only after 360. The range of 84 degrees is
    below half of the shorter period: no two orientations look alike, and they differ the more the further apart they
    are. Hues and orientations are thus open lines like sizes and places, which one latent dimension can follow
    without a jump; only the form is a choice of three. `side`, height and width in pixels, is a multiple of 16.
    """

    scalar: ClassVar[str] = "side"
    images: ClassVar[int] = math.prod(FACTORS.values())
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    classes: ClassVar[int] = len(FORMS)
    side: int = Field(default=32, ge=32, le=128, multiple_of=16)

    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.side, self.side

    def load(self, data_dir: Path | None) -> Loaded:
        pixels = torch.from_numpy(draw(self.side))
        factors_NF = torch.from_numpy(np.indices(tuple(FACTORS.values())).reshape(len(FACTORS), -1).T.copy())
        everything = Images(pixels, factors_NF[:, 0].clone(), tuple(FORMS), factors_NF, tuple(FACTORS))
        # RandomState, because NumPy promises never to change its stream.
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(everything)))
        return Loaded(everything.select(order[:-TEST]), test=everything.select(order[-TEST:]))


def draw(side: int) -> NDArray[np.uint8]:
    """Draw all images (N, 3, side, side), uint8, the last factor of `FACTORS` fastest; `side` a multiple of 16."""
    sixteenth = side // 16
    patch = PATCH * sixteenth
    masks = np.stack(
        [
            [[_coverage(inside, radius, degrees, patch) for degrees in TURNS] for radius in RADII]
            for inside in FORMS.values()
        ]
    )
    colours = np.array(list(COLOURS.values()), dtype=np.uint8)
    painted = masks[:, None, :, :, None] * colours[None, :, None, None, :, None, None]
    images = np.zeros((*FACTORS.values(), 3, side, side), np.uint8)
    # Places are whole pixels apart, so each mask is drawn once and put in all of them.
    for column in PLACES:
        for row in PLACES:
            top, left = row * sixteenth, column * sixteenth
            images[:, :, :, :, column, row, :, top : top + patch, left : left + patch] = painted
    return images.reshape(-1, 3, side, side)


def _coverage(
    inside: Callable[[np.ndarray, np.ndarray], np.ndarray], radius: float, degrees: float, patch: int
) -> NDArray[np.uint8]:
    """Return the share of each pixel that the form covers, 0..255, by SAMPLES x SAMPLES points: (patch, patch)."""
    n = patch * SAMPLES
    at = ((np.arange(n) + 0.5) / n - 0.5) * PATCH / radius  # where samples lie in the form of radius 1
    right, up = at[None, :], -at[:, None]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    hit = inside(cos * right + sin * up, cos * up - sin * right)  # the points are turned back, not the form
    share = hit.reshape(patch, SAMPLES, patch, SAMPLES).mean((1, 3))
    return np.asarray(np.rint(255.0 * share), np.uint8)
