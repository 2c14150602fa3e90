"""Numerical integration in float64, and what sets samples beside a density.

Grids are even in t and mapped to the line by centre + scale sinh(t), or to an interval by a sigmoid: the
trapezoid rule then converges fast, reaches far tails, and meets singular ends of an interval.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from scipy.stats import ks_2samp
from torch import Tensor

from nelbo.testing.law import ERRORS

KOLMOGOROV = 2.3  # sqrt(n) D beyond this has a probability of 5e-5, 2 exp(-2 * 2.3^2)
FAR, NEAR = 14.0, 4.5  # sinh(14) = 600,000 scales and sinh(4.5) = 45 scales from the centre


@dataclasses.dataclass(frozen=True)
class Grid:
    """The points of an integral over R^Z and their weights. points_MZ, weights_M, cell_MZ (width of each cell)."""

    points_MZ: Tensor
    weights_M: Tensor
    cell_MZ: Tensor

    def integral(self, density_M: Tensor) -> Tensor:
        """Return the integral over R^Z of a density known at the points; leading axes after M stay."""
        return torch.as_tensor(torch.tensordot(self.weights_M, density_M, dims=([0], [0])))

    def sample(self, density_M: Tensor, n: int) -> Tensor:
        """Return n draws from the normalised density: a cell by its mass, then uniform inside. Shape (n, Z)."""
        mass = (self.weights_M * density_M).clamp_min(0.0)
        cells = torch.multinomial(mass, n, replacement=True)
        jitter = torch.rand(n, self.points_MZ.shape[1], dtype=self.points_MZ.dtype) - 0.5
        return self.points_MZ[cells] + jitter * self.cell_MZ[cells]


def interval(low: float, high: float, n: int = 4001) -> Grid:
    """Return a grid of the interval, dense at both ends."""
    t = torch.linspace(-36.0, 36.0, n, dtype=torch.float64)  # sigmoid(37) is 1 in float64
    share = t.sigmoid()
    cell = (high - low) * share * (1 - share) * (t[1] - t[0])  # d sigmoid(t) = sigmoid(t) (1 - sigmoid(t)) dt
    return Grid((low + (high - low) * share)[:, None], cell, cell[:, None])


def line(centre: float, scale: float, n: int = 4001, reach: float = FAR) -> Grid:
    """Return a grid of the whole line, dense around the centre."""
    t = torch.linspace(-reach, reach, n, dtype=torch.float64)
    cell = scale * t.cosh() * (t[1] - t[0])  # d sinh(t) = cosh(t) dt
    return Grid((centre + scale * t.sinh())[:, None], cell, cell[:, None])


def around(samples_NZ: Tensor, n: int = 241) -> Grid:
    """Return a grid around samples: 16 n points of the line for Z = 1, an n x n product for Z = 2."""
    quartiles = samples_NZ.double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=0)
    # Quartiles, since heavy tails may have no variance; those of a normal are 1.349 deviations apart.
    return around_point(quartiles[1], ((quartiles[2] - quartiles[0]) / 1.349).clamp_min(1e-6), n)


def around_point(centre_Z: Tensor, scale_Z: Tensor, n: int = 241) -> Grid:
    """Return the same around a point, dense within the scale of each axis."""
    if len(centre_Z) == 1:
        return line(float(centre_Z[0]), float(scale_Z[0]), 16 * n + 1)
    # The n points of an axis of a plane are too few for the reach of the 16 n of a line.
    first, second = (line(float(c), float(s), n, NEAR) for c, s in zip(centre_Z, scale_Z, strict=True))
    return product(first, second)


def product(first: Grid, second: Grid) -> Grid:
    """Return the grid of all pairs of points of two grids."""
    rows, columns = len(first.weights_M), len(second.weights_M)

    def pairs(left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left.repeat_interleave(columns, 0), right.repeat(rows, 1)], dim=1)

    return Grid(
        pairs(first.points_MZ, second.points_MZ),
        torch.outer(first.weights_M, second.weights_M).flatten(),
        pairs(first.cell_MZ, second.cell_MZ),
    )


def one_sample_distance(sample_N: Tensor, grid: Grid, density_M: Tensor) -> float:
    """Return sqrt(N) max |F - F_N|: Kolmogorov's distance between a sample and a density on a line's grid."""
    points, mass = grid.points_MZ[:, 0], grid.weights_M * density_M
    below = (mass.cumsum(0) - 0.5 * mass) / mass.sum()  # half of a cell's mass lies below its point
    x = sample_N.double().sort().values
    right = torch.searchsorted(points, x).clamp(1, len(points) - 1)
    share = ((x - points[right - 1]) / (points[right] - points[right - 1])).clamp(0.0, 1.0)
    exact = below[right - 1] + share * (below[right] - below[right - 1])
    # The sample's distribution function jumps at each x: the distance is largest just before or at one of them.
    steps = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    distance = torch.maximum((exact - steps[:-1]).abs(), (exact - steps[1:]).abs()).max()
    return math.sqrt(len(x)) * float(distance)


def counting_mismatch(sample_N: Tensor, values_M: Tensor, probability_M: Tensor) -> str:
    """Describe how a sample disagrees with probabilities of these rising values (Kolmogorov); empty if not."""
    place_N = torch.searchsorted((values_M[1:] + values_M[:-1]) / 2, sample_N)
    off = float((sample_N - values_M[place_N]).abs().max())
    if off > 1e-6:
        return f"a sample is {off:.3g} from the nearest value that has a probability"
    share_M = torch.bincount(place_N, minlength=len(values_M)) / len(sample_N)
    distance = math.sqrt(len(sample_N)) * float((share_M - probability_M).cumsum(0).abs().max())
    return _too_far(distance, len(sample_N), "")


def _too_far(distance: float, n: int, direction: str) -> str:
    if distance <= KOLMOGOROV:
        return ""
    return (
        f"{n} samples are {distance:.2f} Kolmogorov distances from what log_prob says{direction}; "
        f"chance alone gives {KOLMOGOROV} at most once in 20,000 tries"
    )


def farthest_projection(first_NZ: Tensor, second_MZ: Tensor) -> tuple[float, str]:
    """Return the largest Kolmogorov distance over both axes and both diagonals of a plane, and where it is."""
    directions: dict[str, Callable[[Tensor], Tensor]] = {
        " along the first axis": lambda z: z[:, 0],
        " along the second axis": lambda z: z[:, 1],
        " along the sum of both axes": lambda z: z[:, 0] + z[:, 1],
        " along the difference of both axes": lambda z: z[:, 0] - z[:, 1],
    }
    n, m = len(first_NZ), len(second_MZ)
    distances: dict[str, float] = {}
    for direction, along in directions.items():
        first_N, second_M = along(first_NZ).double().numpy(), along(second_MZ).double().numpy()
        # Its probability is not asked for, and costs more than the distance where it is exact.
        distances[direction] = float(ks_2samp(first_N, second_M, method="asymp").statistic)
    farthest = max(distances, key=distances.__getitem__)
    # In units of the scale that chance gives it, sqrt((n + m) / (n m)).
    return math.sqrt(n * m / (n + m)) * distances[farthest], farthest


def mismatch(sample_NZ: Tensor, grid: Grid, density_M: Tensor) -> str:
    """Describe how a sample disagrees with a density of one or two dimensions (shape, mean, variance); empty if not."""
    if sample_NZ.shape[1] == 1:
        distance, direction = one_sample_distance(sample_NZ[:, 0], grid, density_M), ""
    else:
        distance, direction = farthest_projection(sample_NZ, grid.sample(density_M, len(sample_NZ)))
    if far := _too_far(distance, len(sample_NZ), direction):
        return far
    mass = grid.integral(density_M)
    for axis in range(sample_NZ.shape[1]):
        points, drawn = grid.points_MZ[:, axis], sample_NZ[:, axis]
        mean = grid.integral(density_M * points) / mass
        second, fourth = (grid.integral(density_M * (points - mean) ** power) / mass for power in (2, 4))
        # The error of a mean is sqrt(var / n), that of a variance sqrt((fourth moment - var^2) / n).
        errors = (second / len(drawn)).sqrt(), ((fourth - second**2) / len(drawn)).sqrt()
        moments = drawn.mean(), (drawn - mean).square().mean()
        names = "mean", "variance"
        for name, value, truth, error in zip(names, moments, (mean, second), errors, strict=True):
            if (value - truth).abs() > ERRORS * error:
                return (
                    f"samples have {name} {float(value):.5g}, the density has {float(truth):.5g} "
                    f"+- {float(error):.2g} along axis {axis}"
                )
    return ""
