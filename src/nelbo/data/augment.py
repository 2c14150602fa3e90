"""Random augmentation: training batches hold each image moved, mirrored or lit a little differently in every epoch.

Evaluation sees the images as they are, so its data and their hash are those without augmentation. An augmented image
is one that the data could hold: where all values of an image are 0 and 1, or 8-bit levels, they stay so (`_as_before`).
"""

import math
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Generator, Tensor

from nelbo.data.images import LEVELS
from nelbo.data.transforms import Transform
from nelbo.errors import DataError

if TYPE_CHECKING:
    from nelbo.data.splits import Pixels

Shape = tuple[int, int, int]


class Flip(Transform):
    """Half of the images mirrored left to right, and with `vertical` half of them upside down, in every epoch anew."""

    random: ClassVar[bool] = True
    same_kind: ClassVar[bool] = True
    horizontal: bool = True
    vertical: bool = False

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.horizontal or self.vertical):
            raise ValueError(
                "horizontal and vertical are both false: nothing would be flipped; leave flip out"
            )
        return self

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        for wanted, dimension in ((self.horizontal, 3), (self.vertical, 2)):
            if wanted:
                mirrored_B = _uniform(x_BCHW, 1, generator)[:, 0] < 0
                x_BCHW = torch.where(mirrored_B.view(-1, 1, 1, 1), x_BCHW.flip(dimension), x_BCHW)
        return x_BCHW


class Shift(Transform):
    """Each image moved by up to so many pixels in both directions; the pixels at its border fill the gap."""

    random: ClassVar[bool] = True
    same_kind: ClassVar[bool] = True
    pixels: int = Field(default=2, ge=1)

    def check(self, shape: Shape, kind: "Pixels") -> None:
        _check_margin("shift", self.pixels, shape)

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        n = self.pixels
        return _windows(F.pad(x_BCHW, (n, n, n, n), mode="replicate"), 2 * n, generator)


class Crop(Transform):
    """A random window of the image with so many black pixels added on each side; the window has the image's size."""

    random: ClassVar[bool] = True
    same_kind: ClassVar[bool] = True
    padding: int = Field(default=4, ge=1)

    def check(self, shape: Shape, kind: "Pixels") -> None:
        if kind == "real":  # of numbers on a scale of their own, 0 is not black
            raise DataError(
                "crop pads with black, which is 0 of pixels in [0, 1]; " + _NO_RANGE.format("shift")
            )
        _check_margin("crop", self.padding, shape)

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        n = self.padding
        return _windows(F.pad(x_BCHW, (n, n, n, n)), 2 * n, generator)


class Affine(Transform):
    """Each image turned by up to `rotation` degrees, resized by a share of up to `scale`, sheared by `shear` degrees.

    All about the centre, with the nearest border pixel outside of it, and pixels interpolated (bilinear).
    """

    random: ClassVar[bool] = True
    same_kind: ClassVar[bool] = True
    rotation: float = Field(default=10.0, ge=0, le=180)
    scale: float = Field(default=0.1, ge=0, lt=1)
    shear: float = Field(default=0.0, ge=0, lt=90)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.rotation == self.scale == self.shear == 0:
            raise ValueError("rotation, scale and shear are all 0: nothing would change; leave affine out")
        return self

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        turn_B, grow_B, lean_B = _uniform(x_BCHW, 3, generator).unbind(1)
        turn_B, lean_B = turn_B * math.radians(self.rotation), (lean_B * math.radians(self.shear)).tan()
        grow_B = 1 + grow_B * self.scale
        cos_B, sin_B = turn_B.cos() / grow_B, turn_B.sin() / grow_B
        # From a pixel of the result to its place in the image: in pixels, hence the ratio of the sides below.
        ratio = x_BCHW.shape[2] / x_BCHW.shape[3]
        zero_B = torch.zeros_like(turn_B)
        across = [cos_B, (lean_B * cos_B - sin_B) * ratio, zero_B]
        down = [sin_B / ratio, lean_B * sin_B + cos_B, zero_B]
        places_B23 = torch.stack([torch.stack(across, 1), torch.stack(down, 1)], 1)
        grid = F.affine_grid(places_B23, list(x_BCHW.shape), align_corners=False)
        moved = F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return _as_before(moved, x_BCHW)


class Jitter(Transform):
    """Each image's light: multiplied by 1 +- `brightness`, then its distance to its mean by 1 +- `contrast`."""

    random: ClassVar[bool] = True
    same_kind: ClassVar[bool] = True
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.brightness == self.contrast == 0:
            raise ValueError("brightness and contrast are both 0: nothing would change; leave jitter out")
        return self

    def check(self, shape: Shape, kind: "Pixels") -> None:
        if kind == "binary":
            raise DataError(
                "jitter changes the light of an image, and these are only black and white; leave it out"
            )
        if kind == "real":
            raise DataError("jitter needs to know black and white; " + _NO_RANGE.format("flip or shift"))

    def batch(self, x_BCHW: Tensor, generator: Generator | None) -> Tensor:
        light_B, spread_B = _uniform(x_BCHW, 2, generator).view(-1, 2, 1, 1, 1).unbind(1)
        lit = (x_BCHW * (1 + light_B * self.brightness)).clamp(0, 1)
        mean = lit.mean((1, 2, 3), keepdim=True)
        return _as_before(((lit - mean) * (1 + spread_B * self.contrast) + mean).clamp(0, 1), x_BCHW)


_NO_RANGE = "these lie outside: say the smallest and largest with --data.range, or use {} alone"


def _uniform(x_BCHW: Tensor, numbers: int, generator: Generator | None) -> Tensor:
    """Draw some numbers an image, uniform on [-1, 1), shape (B, numbers)."""
    return torch.rand(len(x_BCHW), numbers, generator=generator, device=x_BCHW.device) * 2 - 1


def _windows(padded_BCHW: Tensor, spare: int, generator: Generator | None) -> Tensor:
    """Return a random window of each image, `spare` pixels less in height and width; the values are exact."""
    n, channels, height, width = padded_BCHW.shape
    device = padded_BCHW.device
    first_B2 = torch.randint(spare + 1, (n, 2), generator=generator, device=device)
    rows_BH = first_B2[:, :1] + torch.arange(height - spare, device=device)
    columns_BW = first_B2[:, 1:] + torch.arange(width - spare, device=device)
    # Gathered rows first, then columns of them: one copy each, whatever the number of images.
    rows = rows_BH.view(n, 1, -1, 1).expand(-1, channels, -1, width)
    columns = columns_BW.view(n, 1, 1, -1).expand(-1, channels, height - spare, -1)
    return padded_BCHW.gather(2, rows).gather(3, columns)


def _as_before(changed_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Round each image back to the values that its pixels had before: 0 and 1, or levels / 255, else not at all.

    Otherwise a likelihood of black and white, or of levels, would be asked about pixels that it gives no probability.
    """
    flat_BD = x_BCHW.flatten(1)  # asked of each image: what becomes of it depends on no other in its batch
    levels_BD = flat_BD.mul(LEVELS - 1).round_().div_(LEVELS - 1)
    # Devices may divide by 255 in their own way, with another last bit.
    of_levels = ((levels_BD - flat_BD).abs() < 1e-6).all(1).view(-1, 1, 1, 1)
    binary = ((flat_BD == 0) | (flat_BD == 1)).all(1).view(-1, 1, 1, 1)
    rounded = changed_BCHW.mul(LEVELS - 1).round_().div_(LEVELS - 1)
    kept = torch.where(of_levels, rounded, changed_BCHW)
    return torch.where(binary, (changed_BCHW > 0.5).to(x_BCHW.dtype), kept)


def _check_margin(name: str, pixels: int, shape: Shape) -> None:
    _, height, width = shape
    if pixels >= min(height, width):
        raise DataError(
            f"{name}: {pixels} pixels would move an image of {height} x {width} out of sight; "
            f"give at most {min(height, width) - 1}"
        )
