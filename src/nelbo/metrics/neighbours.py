"""Precision, recall, density and coverage: is a generated image near real ones, a real one near generated ones?"""

import torch
from torch import Tensor

K_MANIFOLD = 3  # nearest neighbours of precision and recall (Kynkäänniemi et al. 2019)
K_DENSITY = 5  # and of density and coverage (Naeem et al. 2020)
FEWEST = K_DENSITY + 1  # points in which every one has that many others
ROWS = 500  # of distances at a time


def neighbourhoods(generated_MF: Tensor, real_NF: Tensor, rows: int = ROWS) -> dict[str, Tensor]:
    """Compare M generated and N real points, at least 6 each, by balls that reach the k-th nearest of the same set.

    precision  (M) the generated point lies in the ball of a real one, k = 3
    recall     (N) the real point lies in the ball of a generated one, k = 3
    density    (M) real balls that hold the generated point, divided by k = 5: about 1 on average, may exceed it
    coverage   (N) the ball of the real point holds a generated one, k = 5
    """
    real_3N, real_5N = radii(real_NF, (K_MANIFOLD, K_DENSITY), rows)
    (generated_3M,) = radii(generated_MF, (K_MANIFOLD,), rows)
    recall_N = torch.zeros(len(real_NF), dtype=torch.bool)
    coverage_N = torch.zeros_like(recall_N)
    precision, density = [], []
    for points, radius in zip(torch.split(generated_MF, rows), torch.split(generated_3M, rows), strict=True):
        away_BN = distances(points, real_NF)
        precision.append((away_BN <= real_3N).any(1))  # Kynkäänniemi et al. 2019, with k = 3
        recall_N |= (away_BN <= radius[:, None]).any(0)
        inside_BN = away_BN <= real_5N
        density.append(inside_BN.sum(1).double() / K_DENSITY)  # Naeem et al. 2020, with k = 5
        coverage_N |= inside_BN.any(0)
    of_generated = {"precision": torch.cat(precision), "density": torch.cat(density)}
    return of_generated | {"recall": recall_N, "coverage": coverage_N}


def radii(points_NF: Tensor, ks: tuple[int, ...], rows: int = ROWS) -> list[Tensor]:
    """Return for each k the distance from every point to its k-th nearest other one, shape N."""
    parts = [
        distances(part, points_NF).topk(max(ks) + 1, largest=False).values
        for part in torch.split(points_NF, rows)
    ]
    nearest_NK = torch.cat(parts)  # the first is the point itself, at distance zero
    return [nearest_NK[:, k] for k in ks]


def distances(a_BF: Tensor, b_NF: Tensor) -> Tensor:
    """Return Euclidean distances, (B, N), exactly zero between equal points."""
    # By differences: a matrix product is faster, and leaves rounding in place of the zero of equal points.
    return torch.cdist(a_BF, b_NF, compute_mode="donot_use_mm_for_euclid_dist")
