"""A mixture of Gaussians fitted to the latents."""

import warnings
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nelbo.dists.base import LOG_2PI
from nelbo.models import BuiltModel
from nelbo.samplers.base import Fitted, Latents, Sampler, nonzero

KINDS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
ROUNDS = 200  # of expectation and maximisation, at most


class GaussianMixture(Sampler):
    """p(z) = sum_k w_k N(z | m_k, S_k), by EM on posterior samples (Ghosh et al. 2020, section 4).

    Ghosh, Sajjadi, Vergari, Black & Schölkopf 2020, "From variational to deterministic autoencoders": ex-post density
    estimation, a mixture of 10 full-covariance Gaussians.

    components      K
    covariance      full, one for all (tied), diagonal, or a multiple of I (spherical)
    regularisation  added to every variance, in units of the latents' own
    """

    components: int = Field(default=10, ge=1)
    covariance: Literal["full", "tied", "diagonal", "spherical"] = "full"
    regularisation: float = Field(default=1e-6, gt=0.0)

    def fewest(self, latent_dim: int) -> int:
        return max(2, self.components)

    def fitted(self, model: BuiltModel, train: Latents, validation: Latents | None) -> Fitted:
        from sklearn import mixture
        from threadpoolctl import threadpool_limits

        z_NZ = train.z_NZ
        mean_Z, std_Z = z_NZ.mean(0), nonzero(z_NZ.std(0))
        estimator = mixture.GaussianMixture(
            n_components=self.components,
            covariance_type=KINDS[self.covariance],
            reg_covar=self.regularisation,
            max_iter=ROUNDS,
            random_state=int(torch.randint(2**31, ())),
        )
        # One thread: the order of a parallel sum is not fixed. Warnings are of rounds that did not suffice, and of
        # fewer different latents than components.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            estimator.fit(((z_NZ - mean_Z) / std_Z).cpu().double().numpy())
        arrays = (estimator.weights_, estimator.means_, _cholesky(estimator))
        weight_K, mean_KZ, root_KZZ = (torch.from_numpy(np.array(array)).to(z_NZ) for array in arrays)
        return Mixture(weight_K, mean_Z + std_Z * mean_KZ, std_Z[:, None] * root_KZZ)


def _cholesky(estimator: Any) -> Any:
    """Return lower roots of the covariances, (K, Z, Z), whatever their kind."""
    means, covariances = estimator.means_, estimator.covariances_
    components, latents = means.shape
    if estimator.covariance_type in ("full", "tied"):
        return np.broadcast_to(np.linalg.cholesky(covariances), (components, latents, latents))
    variances = np.broadcast_to(covariances.reshape(components, -1), means.shape)
    return np.sqrt(variances)[:, :, None] * np.eye(latents)


class Mixture:
    """sum_k w_k N(mean_k, R_k R_k^T)."""

    def __init__(self, weight_K: Tensor, mean_KZ: Tensor, root_KZZ: Tensor) -> None:
        self.weight_K = weight_K
        self.mean_KZ = mean_KZ
        self.root_KZZ = root_KZZ

    def sample(self, n: int) -> Tensor:
        component_N = torch.multinomial(self.weight_K, n, replacement=True)
        noise_NZ = torch.randn(n, self.mean_KZ.shape[1]).to(self.mean_KZ)
        z_NZ = torch.empty_like(noise_NZ)
        # By component: a root gathered for each sample would hold n Z^2 numbers.
        for k, (mean_Z, root_ZZ) in enumerate(zip(self.mean_KZ, self.root_KZZ, strict=True)):
            rows_N = component_N == k
            z_NZ[rows_N] = mean_Z + noise_NZ[rows_N] @ root_ZZ.T
        return z_NZ

    def log_prob(self, z_BZ: Tensor) -> Tensor:
        away_KBZ = z_BZ - self.mean_KZ[:, None]
        scaled_KZB = torch.linalg.solve_triangular(self.root_KZZ, away_KBZ.mT, upper=False)
        log_det_K = self.root_KZZ.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant_K = self.weight_K.log() - log_det_K - 0.5 * z_BZ.shape[1] * LOG_2PI
        return torch.logsumexp(constant_K[:, None] - 0.5 * scaled_KZB.square().sum(1), 0)
