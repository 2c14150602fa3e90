"""The Gaussian posterior with any covariance."""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, Sample, register_kl
from nelbo.dists.base import LOG_2PI, product
from nelbo.dists.normal import NormalPrior
from nelbo.posteriors.base import LinearHead, Posterior


class FullNormal(PosteriorValue):
    """The value N(mean, S C C' S), S = diag(exp(log_var / 2)), C unit lower triangular; event over the last axis."""

    def __init__(self, mean_BZ: Tensor, log_var_BZ: Tensor, C_BZZ: Tensor) -> None:
        self.mean = mean_BZ
        self.log_var = log_var_BZ
        self.C_BZZ = C_BZZ

    @classmethod
    def of(cls, outputs: Tensor, latent_dim: int) -> Self:
        mean, log_var, lower = outputs.tensor_split([latent_dim, 2 * latent_dim], dim=-1)
        row, column = torch.tril_indices(latent_dim, latent_dim, offset=-1, device=lower.device)
        empty = lower.new_zeros(*lower.shape[:-1], latent_dim**2)
        N = empty.index_copy(-1, row * latent_dim + column, lower).view(*empty.shape[:-1], latent_dim, -1)
        return cls(mean, log_var, N + torch.eye(latent_dim, dtype=lower.dtype, device=lower.device))

    @property
    def var(self) -> Tensor:
        """The variance of each dimension, (B, Z)."""
        return self.log_var.exp() * self.C_BZZ.square().sum(-1)

    @property
    def std(self) -> Tensor:  # type: ignore[override]
        return self.var.sqrt()

    @property
    def scale_tril(self) -> Tensor:
        """The Cholesky factor of the covariance, (B, Z, Z)."""
        return (0.5 * self.log_var).exp()[..., None] * self.C_BZZ

    def rsample(self, k: int = 1) -> Tensor:
        return self.rsample_and_log_prob(k).z_KBZ

    def rsample_and_log_prob(self, k: int = 1) -> Sample:
        noise_KBZ = torch.randn(k, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        moved_KBZ = product(self.C_BZZ, noise_KBZ[..., None]).squeeze(-1)
        z_KBZ = torch.addcmul(self.mean, (0.5 * self.log_var).exp(), moved_KBZ)
        return Sample(z_KBZ, self, self._of_noise(noise_KBZ))

    def log_prob(self, z: Tensor) -> Tensor:
        scaled = (z - self.mean) * (-0.5 * self.log_var).exp()
        # The noise of z: forward substitution, whose unit diagonal divides by nothing.
        C = self.C_BZZ.expand(*scaled.shape[:-1], *self.C_BZZ.shape[-2:])
        noise = torch.linalg.solve_triangular(C, scaled[..., None], upper=False, unitriangular=True)
        return self._of_noise(noise.squeeze(-1))

    def _of_noise(self, noise: Tensor) -> Tensor:
        return -0.5 * (noise.square() + self.log_var + LOG_2PI).sum(-1)  # log |C| is 0

    def detached(self) -> FullNormal:
        return FullNormal(self.mean.detach(), self.log_var.detach(), self.C_BZZ.detach())


@register_kl(FullNormal, NormalPrior)
def kl_to_normal_prior(q: FullNormal, prior: NormalPrior) -> Tensor:
    """Return one number for all dimensions together, (B, 1), nats: the cross-entropy less the entropy of q."""
    crossed_BZ = prior.cross_entropy(q.mean, q.var)
    return (crossed_BZ - 0.5 * (LOG_2PI + 1.0 + q.log_var)).sum(-1, keepdim=True)


class FullGaussian(Posterior):
    """N(mean, L L'), any covariance. Kingma & Welling 2019, sec. 2.5.1; Titsias & Lazaro-Gredilla 2014.

    L = diag(exp(h / 2)) (I + N): h and the strictly lower triangular N, which begins close to 0, are linear in the
    features, as the mean is: Z (Z + 3) / 2 outputs. KL(q || N(0, I)) = 1/2 (|mean|^2 + |L|^2 - Z) - sum_j log L_jj.
    """

    def build(self, features: int, latent_dim: int) -> nn.Module:
        value = partial(FullNormal.of, latent_dim=latent_dim)
        return LinearHead(features, latent_dim * (latent_dim + 3) // 2, value, small=2 * latent_dim)
