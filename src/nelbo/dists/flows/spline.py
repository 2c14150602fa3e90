"""Monotonic rational-quadratic splines, and the coupling of half of the latents to the other half by them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nelbo.dists.flows.coupling import Coupling

BOUND = 5.0  # splines map [-BOUND, BOUND] to itself; beyond, nothing changes
SMALLEST = 1e-3  # bin, as a share of the interval, and slope
UNIT = math.log(math.expm1(1.0 - SMALLEST))  # softplus of it, and the smallest slope, are 1


class SplineCoupling(Coupling):
    """The first half of the latents stays, and says by which splines the second half is bent. Durkan et al. 2019.

    Each latent of the second half has a monotonic rational-quadratic spline of its own (eq. 4-8) on [-5, 5], whose
    bin widths, bin heights and slopes at the inner knots are outputs of a network of the first half and the context;
    at the ends the slope is 1 and beyond them the map is the identity. Both directions have closed forms.
    """

    def __init__(self, latents: int, bins: int, hidden: int, context: int) -> None:
        super().__init__(latents, 3 * bins - 1, (hidden, hidden), context)
        self.bins = bins

    def bend(self, bent: Tensor, raw: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        knots = Knots(raw, self.bins)
        return knots.inverse(bent) if backwards else knots.forward(bent)


class Knots:
    """A spline for each element, from 3 K - 1 free numbers: x, y and slope of K + 1 knots, (..., 3, K + 1)."""

    def __init__(self, raw: Tensor, bins: int) -> None:
        widths, heights, slopes = torch.split(raw, [bins, bins, bins - 1], dim=-1)
        slopes = F.pad(F.softplus(slopes + UNIT) + SMALLEST, (1, 1), value=1.0)
        self.at = torch.stack([_edges(widths), _edges(heights), slopes], dim=-2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values, and logarithms of slopes (eq. 4 and 5)."""
        inside = x.abs() < BOUND
        safe = torch.where(inside, x, 0.0)  # outside no number may overflow: 0 times its slope would be NaN
        (start, low, first), (width, height, last) = self._bin(safe, 0)
        place, steep = (safe - start) / width, height / width
        above, below, log_slope = _bend(place, steep, first, last)
        return torch.where(inside, low + height * above / below, x), torch.where(inside, log_slope, 0.0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same backwards: the root of a quadratic (eq. 6-8)."""
        inside = y.abs() < BOUND
        safe = torch.where(inside, y, 0.0)
        (start, low, first), (width, height, last) = self._bin(safe, 1)
        up, steep = safe - low, height / width
        bow = up * (first + last - 2.0 * steep)
        a, b, c = height * (steep - first) + bow, height * first - bow, -steep * up  # eq. 6-8
        root = (b.square() - 4.0 * a * c).clamp_min(torch.finfo(y.dtype).tiny).sqrt()
        place = 2.0 * c / (-b - root)  # this form of the root does not cancel where a is near 0
        log_slope = _bend(place, steep, first, last)[2]
        return torch.where(inside, start + width * place, y), torch.where(inside, -log_slope, 0.0)

    def _bin(self, value: Tensor, row: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return for the bin of each value: x, y and slope where it begins; width, height and slope where it ends."""
        # A sum of comparisons: `searchsorted` would have to copy the edges for each of K samples.
        number = (value[..., None] >= self.at[..., row, 1:-1]).sum(-1)[..., None, None]
        knots = self.at.expand(*number.shape[:-2], *self.at.shape[-2:])
        place = number.expand(*number.shape[:-2], 3, 1)
        x, y, first = knots.gather(-1, place).squeeze(-1).unbind(-1)
        end, top, last = knots.gather(-1, place + 1).squeeze(-1).unbind(-1)
        return (x, y, first), (end - x, top - y, last)


def _bend(place: Tensor, steep: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numerator and denominator of a spline inside a bin, and its log slope, at a place in [0, 1] of it.

    steep is the bin's own slope, first and last are those at its ends.
    """
    hump = place * (1.0 - place)
    below = steep + (first + last - 2.0 * steep) * hump
    # Of the derivative steep^2 slope / below^2, Durkan et al. 2019, eq. 5.
    slope = last * place.square() + 2.0 * steep * hump + first * (1.0 - place).square()
    return steep * place.square() + first * hump, below, 2.0 * (steep / below).log() + slope.log()


def _edges(raw: Tensor) -> Tensor:
    """Return K + 1 rising edges from -BOUND to BOUND, made of K free numbers."""
    share = SMALLEST + (1.0 - SMALLEST * raw.shape[-1]) * raw.softmax(-1)
    inner = BOUND * (2.0 * share.cumsum(-1)[..., :-1] - 1.0)
    return F.pad(F.pad(inner, (1, 0), value=-BOUND), (0, 1), value=BOUND)
