"""The place of a number among those of held-out images: its quantile, and a p-value that holds for any score.

    p = (1 + number of held-out images at least as strange) / (n + 1)        Vovk et al. 2005, section 2

If an image comes from where the held-out ones do, p is at most a with probability a at most, whatever the score is. A
number that is not finite counts as the strangest.
"""

from typing import NamedTuple

import torch
from torch import Tensor

AT_ONCE = 2**24  # distances in memory at a time


class Place(NamedTuple):
    """The place of each image: the share of held-out images that are less strange, and the p-value; float64 (N)."""

    quantile_N: Tensor
    p_N: Tensor


def place(strange_N: Tensor, held_M: Tensor | None) -> Place:
    """Return the places of images among held-out ones; None: each image among the others. Larger is stranger."""
    strange_N = _at_most_infinite(strange_N)
    others_M = (strange_N if held_M is None else _at_most_infinite(held_M)).sort().values
    less_N = torch.searchsorted(others_M, strange_N)
    return _counted(less_N, len(others_M) - less_N, len(others_M), among_others=held_M is None)


def place_by_distance(value_N: Tensor, held_M: Tensor | None) -> Place:
    """Return the places of images by their distance from the mean.

    The mean is that of the held-out images and the image together: with the mean of the held-out ones alone these
    would be nearer to it than any new image, and the p-values too small.
    """
    if held_M is None:
        return place((value_N - value_N.mean()).abs(), None)
    less, total = [], len(held_M)
    for some_B in torch.split(value_N, max(1, AT_ONCE // total)):
        mean_B = (held_M.sum() + some_B) / (total + 1)
        distance_B = (some_B - mean_B).abs()
        less.append(((held_M - mean_B[:, None]).abs() < distance_B[:, None]).sum(1))
    less_N = torch.cat(less)
    less_N[~value_N.isfinite()] = total
    return _counted(less_N, total - less_N, total, among_others=False)


def _at_most_infinite(strange: Tensor) -> Tensor:
    return strange.double().nan_to_num(nan=float("inf"), posinf=float("inf"), neginf=-float("inf"))


def _counted(less_N: Tensor, as_strange_N: Tensor, total: int, *, among_others: bool) -> Place:
    if among_others:  # each image has counted itself among those that are as strange
        return Place(less_N.double() / max(1, total - 1), as_strange_N.double() / total)
    return Place(less_N.double() / total, (1 + as_strange_N).double() / (total + 1))
