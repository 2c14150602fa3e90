"""Intervals of a difference: over images, over seeds, and what each of the two leaves out.

Two things vary when an experiment is repeated: the test images and the seed of training. The images are the
same for all runs, so differences are taken image by image; seeds are the replication. One interval speaks of each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
ROUNDING = 1e-12  # an error this small beside its mean comes from rounding, not from images or seeds

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval of a difference of means.

    over     images: other images of the same kind, for these very weights; says nothing about another seed.
             seeds: another training with another seed, on these very images
    n        how many images, or how many seeds in the group and in the baseline
    degrees  of freedom of the t distribution
    """

    low: float
    high: float
    over: Literal["images", "seeds"]
    n: tuple[int, ...]
    degrees: float
    level: float = LEVEL

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"n": list(self.n)}


def over_images(difference_N: Floats, level: float = LEVEL) -> Interval | None:
    """Paired t interval: mean d +- t_{N-1} sd(d) / sqrt(N). None below two images, or where all d are equal.

    d is the difference of one image, of which seeds have been averaged before.
    """
    n = len(difference_N)
    if n < 2:
        return None
    error = float(difference_N.std(ddof=1)) / math.sqrt(n)
    return _around(float(difference_N.mean()), error, n - 1, "images", (n,), level)


def over_seeds(group: Sequence[float], baseline: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Welch's t interval of the difference of two groups' means (Welch 1947), each number one run's.

    Degrees of freedom by Satterthwaite (1946). None below two seeds in either, or where no number varies: with
    no spread there is nothing to estimate it from.
    """
    a, b = np.asarray(group, dtype=float), np.asarray(baseline, dtype=float)
    if min(len(a), len(b)) < 2:
        return None
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    total = float(sum(parts))
    if not total > 0.0:
        return None
    degrees = total**2 / float(parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    return _around(float(a.mean() - b.mean()), math.sqrt(total), degrees, "seeds", (len(a), len(b)), level)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and its standard error, sd / sqrt(n); None for one seed, which shows no spread."""
    found = np.asarray(values, dtype=float)
    error = float(found.std(ddof=1)) / math.sqrt(len(found)) if len(found) > 1 else None
    return float(found.mean()), error


def _around(
    centre: float,
    error: float,
    degrees: float,
    over: Literal["images", "seeds"],
    n: tuple[int, ...],
    level: float,
) -> Interval | None:
    if not error > ROUNDING * abs(centre):
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, 0.5 + level / 2)) * error
    return Interval(centre - half, centre + half, over, n, degrees, level)
