"""The base of objectives that match the aggregated posterior to the prior."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.objectives.base import Objective, halves

Kernel = Literal["imq", "rbf"]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the Wasserstein autoencoder's authors, in their code


class Matching(Objective):
    """Reconstruction, and a distance of the aggregated posterior to the prior: -log p(x|z) + weight * distance.

    No KL is minimised and no density read, so that the posterior may be a point and the prior anything that can be
    sampled. Without a density there is no bound; with one, the ELBO is reported and is not what was trained.

    weight  of the distance, beside nats of the reconstruction; lambda in the papers
    """

    axis: ClassVar[str] = "objective"  # abstract: it registers nothing
    needs_density: ClassVar[bool] = False
    loss_is_bound: ClassVar[bool] = False
    part: ClassVar[str] = "distance"

    weight: float = Field(default=10.0, ge=0.0)

    def distance(self, q_KBZ: Tensor, p_KBZ: Tensor) -> Tensor:
        """Return the distance between samples of q(z) and as many of p(z): one number."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        parts, bound_B = halves(draw)
        distance = self.distance(draw.z_KBZ, prior_draws(draw))
        loss_B = parts["reconstruction"] + self.weight * distance
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts | {self.part: distance})


@torch.no_grad()
def prior_draws(draw: Draw) -> Tensor:
    """Return as many latents from the prior as from the posterior, z_KBZ; a learned prior learns nothing by them."""
    return torch.as_tensor(draw.prior.sample(draw.z_KBZ[..., 0].numel()).view_as(draw.z_KBZ))


def kernel_of(kind: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """Return a sum of kernels k(a, b), (..., M, Z), (..., N, Z) -> (..., M, N): of seven widths, to see any distance.

        imq   C / (C + |a - b|^2): latents far out still have a slope (Tolstikhin et al. 2018, section 4)
        rbf   exp(-|a - b|^2 / C)

    C = 2 Z times each of SCALES; 2 Z is the mean of |a - b|^2 for two draws of N(0, I).
    """
    # Not |a|^2 + |b|^2 - 2 a b: the product would be rounded to bfloat16 where the step runs in it.
    square_MN = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
    total_MN = torch.zeros_like(square_MN)
    for scale in SCALES:
        width = 2.0 * a.shape[-1] * scale
        total_MN = total_MN + (width / (width + square_MN) if kind == "imq" else (-square_MN / width).exp())
    return total_MN


def mmd(kernel: Kernel, q_KBZ: Tensor, p_KBZ: Tensor) -> Tensor:
    """Return an unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3).

        mean_{i != j} k(q_i, q_j) + mean_{i != j} k(p_i, p_j) - 2 mean_{i, j} k(q_i, p_j)

    It may be negative, since the square it estimates may be 0. The K samples of an image are no independent draws of
    the aggregate, so that only samples of different images are paired, and the estimate is the mean over the first
    axis. A single image has no pair: the estimate is 0.
    """
    if q_KBZ.shape[-2] < 2:
        return 0.0 * q_KBZ.sum()  # a zero that has a gradient
    between_K = kernel_of(kernel, q_KBZ, p_KBZ).mean((-2, -1))
    return (_within(kernel, q_KBZ) + _within(kernel, p_KBZ) - 2.0 * between_K).mean()


def _within(kernel: Kernel, a_KBZ: Tensor) -> Tensor:
    """Return the mean kernel of pairs of different images, (K,)."""
    # Less the diagonal: k(a, a) is the largest value there is, and would bias the estimate upwards.
    n, k_KBB = a_KBZ.shape[-2], kernel_of(kernel, a_KBZ, a_KBZ)
    return (k_KBB.sum((-2, -1)) - k_KBB.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))
