"""Couplings: half of the latents stays, and says how the other half is moved, affinely or by splines."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nelbo.dists.flows.base import Flow
from nelbo.dists.flows.networks import Perceptron

STEEPEST = 5.0  # logarithm of the largest scale of one affine layer; the smallest is its inverse
BOUND = 5.0  # splines map [-BOUND, BOUND] to itself; beyond, nothing changes
SMALLEST = 1e-3  # bin, as a share of the interval, and slope
UNIT = math.log(math.expm1(1.0 - SMALLEST))  # softplus of it, and the smallest slope, are 1


class Coupling(Flow):
    """The first half of the latents stays; `numbers` outputs of a network of it move each of the second half."""

    def __init__(self, latents: int, numbers: int, hidden: Sequence[int], context: int) -> None:
        super().__init__()
        self.staying = latents // 2
        self.network = Perceptron(max(1, self.staying), (latents - self.staying) * numbers, hidden, context)

    def bend(self, bent: Tensor, raw: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        """Return the second half moved by raw numbers (..., bent, numbers), and the logarithm of the slope of each."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def forward(
        self, z: Tensor, context: Tensor | None = None, backwards: bool = False
    ) -> tuple[Tensor, Tensor]:
        inputs, bent = z[..., : self.staying], z[..., self.staying :]
        if not self.staying:  # one latent alone has no other half: what moves it depends on the context only
            inputs = z.new_ones(*(() if context is None else context.shape[:-1]), 1)
        raw = self.network(inputs, context)
        bent, log_slope = self.bend(bent, raw.view(*raw.shape[:-1], bent.shape[-1], -1), backwards)
        stays = z[..., : self.staying].expand(*bent.shape[:-1], -1)
        # The Jacobian is triangular: its determinant is the product of the slopes (Dinh et al. 2017, eq. 6).
        return torch.cat([stays, bent], dim=-1), log_slope.expand_as(bent).sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(y, context, backwards=True)


class AffineCoupling(Coupling):
    """y = z exp(s) + t for the second half, s and t of the first. Dinh et al. 2017, eq. 4 and 5 (inverse: eq. 8).

    s = 5 tanh(. / 5): a layer stretches by e^5 at most.
    """

    def __init__(self, latents: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__(latents, 2, hidden, context)

    def bend(self, bent: Tensor, raw: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        log_scale, shift = limited(raw[..., 0]), raw[..., 1]
        if backwards:
            return (bent - shift) * (-log_scale).exp(), -log_scale  # eq. 8
        return bent * log_scale.exp() + shift, log_scale  # eq. 5


def limited(log_scale: Tensor) -> Tensor:
    """Bend any number into (-5, 5); small ones stay what they are."""
    return STEEPEST * (log_scale / STEEPEST).tanh()


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
