"""Intervals of a difference, over images and over seeds: each of the two leaves out what the other one varies.

Two things vary when an experiment is repeated: the test images and the seed of training. The images are the
same for all runs, so differences are taken image by image; seeds are the replication. One interval speaks of each.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

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

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self) | {"n": list(self.n)}


def over_images(difference_N: Floats, level: float = LEVEL) -> Interval | None:
    """Return the paired t interval, mean d +- t_{N-1} sd(d) / sqrt(N).

    d is the difference of one image, of which seeds have been averaged before. None below two images, or where all d
    are equal.
    """
    n = len(difference_N)
    if n < 2 or not _varies(float(difference_N.mean()), float(difference_N.var(ddof=1)) / n):
        return None
    from scipy.stats import ttest_1samp  # here: it takes half a second, and most commands compare nothing

    test = ttest_1samp(difference_N, 0.0)
    low, high = test.confidence_interval(level)
    return Interval(float(low), float(high), "images", (n,), float(test.df), level)


def over_seeds(group: Sequence[float], baseline: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Return Welch's t interval of the difference of two groups' means (Welch 1947), each number one run's.

    Degrees of freedom by Satterthwaite (1946). None below two seeds in either, or where no number varies: with
    no spread there is nothing to estimate it from.
    """
    a, b = np.asarray(group, dtype=float), np.asarray(baseline, dtype=float)
    if min(len(a), len(b)) < 2:
        return None
    # The squared error of a difference of independent means is the sum of their squared errors (Welch 1947).
    if not _varies(float(a.mean() - b.mean()), float(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))):
        return None
    from scipy.stats import ttest_ind

    test = ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(level)
    return Interval(float(low), float(high), "seeds", (len(a), len(b)), float(test.df), level)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean over seeds and its standard error, sd / sqrt(n); None for one seed, which shows no spread."""
    numbers = np.asarray(values, dtype=float)
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
    return float(numbers.mean()), error


def _varies(mean: float, squared_error: float) -> bool:
    """Return True unless the numbers differ by rounding alone, of which scipy would make a very narrow interval."""
    return math.sqrt(squared_error) > ROUNDING * abs(mean)
