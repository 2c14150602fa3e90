"""The Poincare ball of curvature -1: the open unit ball with the metric (2 / (1 - |z|^2))^2 |dz|^2.

Formulas are those of Ganea et al. 2018, sec. 2, written in 1 - |z|^2 and differences of points, which keep their
digits near the boundary. At a distance of r from the origin 1 - |z|^2 is about 4 exp(-r): numbers of float32 lie 1e-4
apart at r = 8 and 1e-2 at r = 12, and end at r = 16.
"""

import math

import torch
from torch import Tensor

from nelbo.dists.base import LOG_2PI

FARTHEST = {torch.float32: 15.0, torch.float64: 30.0}  # distances from the origin that are told apart
SMALL = {torch.float32: 1e-6, torch.float64: 1e-12}  # squares below which a series is exact
SMALLEST = 1e-30


def square(vector: Tensor) -> Tensor:
    """Return |v|^2 with the last axis kept."""
    return vector.square().sum(-1, keepdim=True)


def gap(z: Tensor) -> Tensor:
    """Return 1 - |z|^2 with the last axis kept, at least what is left at the farthest distance.

    In float64 where the device has it: the difference of z as it is, not of its rounded square.
    """
    wide = z if z.device.type == "mps" else z.double()
    return (1.0 - square(wide)).clamp_min(4.0 * math.exp(-FARTHEST[z.dtype])).to(z.dtype)


def inside(z: Tensor) -> Tensor:
    """Return the same point, or the farthest one in its direction: rounding must not leave the open ball."""
    radius = math.sqrt(1.0 - 4.0 * math.exp(-FARTHEST[z.dtype]))
    return z * (radius / square(z).clamp_min(SMALLEST).sqrt()).clamp_max(1.0)


def from_origin(v: Tensor) -> Tensor:
    """Return the exponential map at the origin, for a vector whose length is the distance: tanh(|v| / 2) v / |v|."""
    r2 = square(v)
    r, is_small = _length(r2)
    return v * torch.where(is_small, 0.5 - r2 / 24.0, (0.5 * r).tanh() / r)


def to_origin(z: Tensor) -> Tensor:
    """Return its inverse: the vector from the origin, as long as the distance."""
    return from_point(torch.zeros_like(z), z)


def move(mean: Tensor, v: Tensor) -> Tensor:
    """Return exp_mean(v / lambda): where v ends, carried from the origin to the mean. As long as the distance.

    The Moebius sum of the mean and w = tanh(|v| / 2) v / |v| is (a s + |s|^2 mean) / (a c + |s|^2) with s = mean + w,
    a = 1 - |mean|^2, c = 1 - |w|^2.
    """
    w = from_origin(v)
    s, a = mean + w, gap(mean)
    s2, r2 = square(s), square(v)
    r, is_small = _length(r2)
    tail = (-r).exp()
    # 1 - tanh^2(r / 2), which as a difference is 0 in float32 from about r = 18.
    c = torch.where(is_small, 1.0 - 0.25 * r2, 4.0 * tail / (1.0 + tail).square())
    return inside((a * s + s2 * mean) / (a * c + s2))


def from_point(mean: Tensor, z: Tensor) -> Tensor:
    """Return lambda log_mean(z): the vector v with move(mean, v) = z."""
    difference, a, b = z - mean, gap(mean), gap(z)
    d2 = square(difference)
    direction = (a * difference - d2 * mean) / (a * b + d2).sqrt()
    return 2.0 * _asinh_over(d2 / (a * b)) * direction / (a * b).sqrt()


def log_wrapped_normal(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log density by volume (Lebesgue) of z = move(mean, v), v ~ N(0, diag(exp(log_scale))^2), nats.

    log N(v) + (Z - 1) log(r / sinh r), r = |v|, by the ball's own volume (Mathieu et al. 2019, sec. 3, wrapped normal);
    that volume is (2 / (1 - |z|^2))^Z times Lebesgue's.
    """
    v = from_point(mean, z)
    normal = (-0.5 * ((v * (-log_scale).exp()).square() + LOG_2PI) - log_scale).sum(-1)
    dimensions = z.shape[-1]
    sinh2 = square(z - mean) / (gap(mean) * gap(z))  # sinh^2(r / 2)
    bent = _asinh_over(sinh2).log() - 0.5 * torch.log1p(sinh2)
    log_volume = dimensions * (math.log(2.0) - gap(z).log())
    return normal + ((dimensions - 1) * bent + log_volume).squeeze(-1)


def _length(squared: Tensor) -> tuple[Tensor, Tensor]:
    """Return a length that may be divided by, and where the series of an even function of it is to be used instead."""
    tiny = SMALL[squared.dtype]
    return squared.clamp_min(tiny).sqrt(), squared < tiny


def _asinh_over(s2: Tensor) -> Tensor:
    """Return asinh(s) / s."""
    s, is_small = _length(s2)
    return torch.where(is_small, 1.0 - s2 / 6.0, s.asinh() / s)
