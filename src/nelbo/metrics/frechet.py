"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

import dataclasses

import torch
from torch import Generator, Tensor

GROUPS = 20  # of the jackknife
SEED = 20_170_626  # of the groups


@dataclasses.dataclass(frozen=True, slots=True)
class Distance:
    """A distance, its standard error, and how much of it is due to the number of images.

    standard_error, bias   of the delete-a-group jackknife; None for fewer than four images
    """

    value: float
    standard_error: float | None
    bias: float | None


def distance(f_NF: Tensor, g_MF: Tensor) -> float:
    """Return |mean_f - mean_g|^2 + tr(S_f + S_g - 2 (S_f S_g)^(1/2)), float64, at least two rows each.

    See Dowson & Landau 1982; of image features: Heusel et al. 2017.
    """
    (mean_f, root_f), (mean_g, root_g) = _moments(f_NF), _moments(g_MF)
    spread = root_f.square().sum() + root_g.square().sum()  # tr(R R^T)
    # With roots S = R R^T the trace of the last square root is the sum of the singular values of R_f^T R_g. These are
    # real and not negative whatever the ranks, so that no imaginary part has to be dropped.
    overlap = torch.linalg.svdvals(root_f.T @ root_g).sum()
    return max(0.0, float((mean_f - mean_g).square().sum() + spread - 2.0 * overlap))


def _moments(f_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, and R with R R^T the covariance (divided by N - 1)."""
    f_NF = f_NF.double()
    covariance_FF = f_NF.T.cov().reshape(f_NF.shape[1], f_NF.shape[1])
    variance_F, vectors_FF = torch.linalg.eigh(covariance_FF)
    # What rounding leaves of a variance of zero, 1e-16, would become 1e-8 under the root.
    rounding = len(variance_F) * torch.finfo(torch.float64).eps * variance_F.max()
    std_F = torch.where(variance_F > rounding, variance_F, 0.0).sqrt()
    return f_NF.mean(0), vectors_FF * std_F


def measure(f_NF: Tensor, g_MF: Tensor) -> Distance:
    """Return the distance with a delete-a-group jackknife: both sets lose one twentieth at a time (Efron 1982).

    The distance of two finite samples of the same distribution is not zero but about proportional to 1/N: `bias`
    estimates that. Sets of equal size lose the same rows, so that the second may be reconstructions of the first.
    """
    value = distance(f_NF, g_MF)
    groups = min(GROUPS, len(f_NF) // 2, len(g_MF) // 2)
    if groups < 2:
        return Distance(value, None, None)
    left_out = zip(_others(len(f_NF), groups), _others(len(g_MF), groups), strict=True)
    each_G = torch.tensor([distance(f_NF[f], g_MF[g]) for f, g in left_out], dtype=torch.float64)
    # Numbers of sets that share nearly all of their rows vary little, hence the factor groups - 1 in both.
    error = ((groups - 1) / groups * (each_G - each_G.mean()).square().sum()).sqrt()
    return Distance(value, float(error), (groups - 1) * (float(each_G.mean()) - value))


def _others(n: int, groups: int) -> list[Tensor]:
    """Return the rows without each group in turn; a row's group does not depend on its place in the data."""
    group_N = torch.randperm(n, generator=Generator().manual_seed(SEED)) % groups
    return [(group_N != group).nonzero().flatten() for group in range(groups)]
