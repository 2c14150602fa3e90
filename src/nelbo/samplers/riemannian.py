"""Uniform on the Riemannian manifold that the posteriors' covariances make of the latent space."""

import math
import warnings
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from nelbo.models import BuiltModel
from nelbo.samplers.base import Fitted, Latents, Sampler, blocks, nonzero

CANDIDATES = 10_000  # training latents among which centroids are chosen
LOCAL = 10  # nearest latents, whose deviation stands for that of a posterior that is a point
ACCEPTED = 0.8  # share of proposals that the step size is adapted to (Neal 2011: best at 0.65)
CHAINS = 1000  # at a time


class Riemannian(Sampler):
    """p(z) proportional to sqrt(det G(z)), by Hamiltonian Monte Carlo (Chadebec & Allassonnière 2022, section 4.5).

        G(z) = sum_i S_i^-1 w_i(z)     w_i(z) = exp( -(z - c_i)^T S_i^-1 (z - c_i) / rho^2 )

    Chadebec & Allassonnière 2022, "A geometric perspective on variational autoencoders": near the posterior mean c_i
    the posterior covariance S_i (its diagonal) says how far z may move before the image changes, so that S_i^-1 is a
    local metric, and p is uniform in its volume. rho is the largest distance from a centroid to its nearest other one.

    centroids  at most: the training latents nearest to the means of so many k-means clusters
    scale      multiplies rho: larger is smoother
    moves      of each chain, every one a trajectory of `leapfrog` steps. Chains start at random centroids; for the
               first half of the moves the step size is adapted to an acceptance of 0.8
    leapfrog   steps a move

    Where the posterior is a point S_i is the variance of the ten latents nearest to c_i.
    """

    follows: ClassVar[bool] = False
    centroids: int = Field(default=200, ge=2)
    scale: float = Field(default=1.0, gt=0.0)
    moves: int = Field(default=50, ge=2)
    leapfrog: int = Field(default=10, ge=1)

    def fewest(self, latent_dim: int) -> int:
        return LOCAL + 1

    def fitted(self, model: BuiltModel, train: Latents, validation: Latents | None) -> Fitted:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        mean_NZ = train.mean_NZ
        at_C = torch.randperm(len(mean_NZ))[:CANDIDATES].to(mean_NZ.device)
        if len(at_C) > self.centroids:
            seed = int(torch.randint(2**31, ()))
            cluster = KMeans(self.centroids, n_init=1, max_iter=20, random_state=seed)
            # One thread: the order of a parallel sum is not fixed. Warnings: of fewer different latents than clusters.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                cluster.fit(mean_NZ[at_C].cpu().double().numpy())
            middle_CZ = torch.as_tensor(cluster.cluster_centers_).to(mean_NZ)
            # The latents nearest to the means, each once: a mean itself may lie where no image is.
            at_C = at_C[torch.unique(torch.cdist(middle_CZ, mean_NZ[at_C]).argmin(1))]
        centre_CZ, std_CZ = mean_NZ[at_C], train.std_NZ[at_C]
        nearest_CK = torch.cdist(centre_CZ, mean_NZ).topk(LOCAL + 1, largest=False).indices
        std_CZ = torch.where(std_CZ > 0, std_CZ, mean_NZ[nearest_CK].std(1))
        std_CZ = torch.maximum(std_CZ, nonzero(std_CZ.amax(0)))
        apart_CC = torch.cdist(centre_CZ, centre_CZ).fill_diagonal_(torch.inf)
        rho = self.scale * max(float(apart_CC.amin(1).max()), torch.finfo(std_CZ.dtype).eps)
        return FromMetric(centre_CZ, std_CZ, rho, self.moves, self.leapfrog)


class FromMetric:
    """The density sqrt(det G), without its constant, and chains that sample it.

    acceptance   share of the proposals accepted after adaptation, of the last sample
    """

    def __init__(self, centre_CZ: Tensor, std_CZ: Tensor, rho: float, moves: int, leapfrog: int) -> None:
        self.centre_CZ = centre_CZ
        self.precision_CZ = std_CZ.square().reciprocal()
        self.rho, self.moves, self.leapfrog = rho, moves, leapfrog
        # Around a lonely centroid p is N(c, S rho^2 / Z): the scale of a step.
        self.unit_Z = std_CZ.log().mean(0).exp() * rho / math.sqrt(std_CZ.shape[1])
        self.acceptance = math.nan

    def log_prob(self, z_BZ: Tensor) -> Tensor:
        return self._value_and_slope(z_BZ)[0]

    def _value_and_slope(self, z_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1/2 log det G(z) and its gradient, by matrix products; weights in logs, relative to the largest."""
        p_CZ, pc_CZ = self.precision_CZ, self.precision_CZ * self.centre_CZ
        away_BC = z_BZ.square() @ p_CZ.T - 2.0 * z_BZ @ pc_CZ.T + (pc_CZ * self.centre_CZ).sum(1)
        log_w_BC = -away_BC.clamp_min(0.0) / self.rho**2
        most_B1 = log_w_BC.amax(1, keepdim=True)
        w_BC = (log_w_BC - most_B1).exp()
        g_BZ = (w_BC @ p_CZ).clamp_min(torch.finfo(z_BZ.dtype).tiny)
        value_B = 0.5 * (g_BZ.log().sum(1) + z_BZ.shape[1] * most_B1[:, 0])
        pull_BC = w_BC * (g_BZ.reciprocal() @ p_CZ.T)  # w_i tr(G^-1 S_i^-1)
        slope_BZ = (pull_BC @ pc_CZ - z_BZ * (pull_BC @ p_CZ)) / self.rho**2
        return value_B, slope_BZ

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        return torch.cat([self._chains(m) for m in blocks(n, CHAINS)] or [self.centre_CZ[:0]])

    def _chains(self, n: int) -> Tensor:
        """Return the ends of n chains (Neal 2011, section 5.3.2)."""
        z_BZ = self.centre_CZ[torch.randint(len(self.centre_CZ), (n,)).to(self.centre_CZ.device)]
        step, shares = 1.0 / self.leapfrog**0.5, []
        value_B, slope_BZ = self._value_and_slope(z_BZ)
        for move in range(self.moves):
            momentum_BZ = torch.randn(z_BZ.shape).to(z_BZ)
            length = step * float(0.8 + 0.4 * torch.rand(()))  # so that no trajectory closes on itself
            at_BZ, at_value_B, at_slope_BZ, kick_BZ = self._trajectory(z_BZ, slope_BZ, momentum_BZ, length)
            gain_B = at_value_B - value_B + 0.5 * (momentum_BZ.square() - kick_BZ.square()).sum(1)
            chance_B = gain_B.nan_to_num(nan=-math.inf).clamp_max(0.0).exp()
            taken_B = torch.rand(n).to(chance_B) < chance_B
            z_BZ = torch.where(taken_B[:, None], at_BZ, z_BZ)
            slope_BZ = torch.where(taken_B[:, None], at_slope_BZ, slope_BZ)
            value_B = torch.where(taken_B, at_value_B, value_B)
            share = float(chance_B.mean())
            if move < self.moves // 2:  # then no more: a step size that follows the chain biases it
                step *= math.exp(share - ACCEPTED)
            else:
                shares.append(share)
        self.acceptance = sum(shares) / len(shares)
        return z_BZ

    def _trajectory(
        self, z_BZ: Tensor, slope_BZ: Tensor, momentum_BZ: Tensor, step: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take leapfrog steps in units of `unit_Z`: the end, its value and slope, and the momentum there."""
        value_B = torch.empty(0)
        for _ in range(self.leapfrog):
            momentum_BZ = momentum_BZ + 0.5 * step * self.unit_Z * slope_BZ
            z_BZ = z_BZ + step * self.unit_Z * momentum_BZ
            value_B, slope_BZ = self._value_and_slope(z_BZ)
            momentum_BZ = momentum_BZ + 0.5 * step * self.unit_Z * slope_BZ
        return z_BZ, value_B, slope_BZ, momentum_BZ
