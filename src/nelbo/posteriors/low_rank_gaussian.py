"""The Gaussian posterior whose covariance is diagonal plus a few directions."""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, register_kl
from nelbo.dists.base import LOG_2PI, product
from nelbo.dists.normal import NormalPrior
from nelbo.posteriors.base import LinearHead, Posterior

LONGEST = 30.0  # entry of U: keeps I + U'U away from what float32 cannot factorise


class LowRankNormal(PosteriorValue):
    """The value N(mean, S (I + U U') S) with S = diag(exp(log_var / 2)), event over the last axis."""

    def __init__(self, mean_BZ: Tensor, log_var_BZ: Tensor, U_BZR: Tensor) -> None:
        self.mean = mean_BZ
        self.log_var = log_var_BZ
        self.U_BZR = U_BZR

    @classmethod
    def of(cls, outputs: Tensor, latent_dim: int) -> Self:
        mean, log_var = outputs[..., :latent_dim], outputs[..., latent_dim : 2 * latent_dim]
        U = LONGEST * (outputs[..., 2 * latent_dim :] / LONGEST).tanh()
        return cls(mean, log_var, U.view(*U.shape[:-1], latent_dim, -1))

    @property
    def var(self) -> Tensor:
        """The variance of each dimension, (B, Z)."""
        return self.log_var.exp() * (1.0 + self.U_BZR.square().sum(-1))

    @property
    def std(self) -> Tensor:  # type: ignore[override]
        return self.var.sqrt()

    @property
    def _inner(self) -> Tensor:
        """The Cholesky factor of I + U'U, (B, R, R), at least 1 on its diagonal."""
        unit = torch.eye(self.U_BZR.shape[-1], dtype=self.U_BZR.dtype, device=self.U_BZR.device)
        # `cholesky_ex` does not wait for the device to say that it worked; I + U'U is always positive.
        inner: Tensor = torch.linalg.cholesky_ex(unit + product(self.U_BZR.mT, self.U_BZR))[0]
        return inner

    def _log_volume(self, inner_BRR: Tensor) -> Tensor:
        """Return 1/2 log |covariance| = 1/2 sum_j log_var_j + 1/2 log |I + U'U| (matrix determinant lemma), (B,)."""
        return 0.5 * self.log_var.sum(-1) + inner_BRR.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def rsample(self, k: int = 1) -> Tensor:
        """Return mean + S (e + U f), e and f standard normal: z_KBZ."""
        images, rank = self.mean.shape[:-1], self.U_BZR.shape[-1]
        noise_KBZ = torch.randn(k, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        shared_KBR = torch.randn(k, *images, rank, dtype=self.mean.dtype, device=self.mean.device)
        noise_KBZ = noise_KBZ + product(self.U_BZR, shared_KBR[..., None]).squeeze(-1)
        return torch.addcmul(self.mean, (0.5 * self.log_var).exp(), noise_KBZ)

    def log_prob(self, z: Tensor) -> Tensor:
        scaled, inner = (z - self.mean) * (-0.5 * self.log_var).exp(), self._inner
        U = self.U_BZR.expand(*scaled.shape[:-1], *self.U_BZR.shape[-2:])
        along = product(U.mT, scaled[..., None])
        shared = torch.cholesky_solve(along, inner.expand(*along.shape[:-2], *inner.shape[-2:]))
        residual = scaled - product(U, shared).squeeze(-1)
        # e' (I + U U')^-1 e is the minimum over f of |e - U f|^2 + |f|^2: a sum, no difference of large numbers.
        square = residual.square().sum(-1) + shared.square().sum((-1, -2))
        return -0.5 * (square + LOG_2PI * z.shape[-1]) - self._log_volume(inner)

    def detached(self) -> LowRankNormal:
        return LowRankNormal(self.mean.detach(), self.log_var.detach(), self.U_BZR.detach())


@register_kl(LowRankNormal, NormalPrior)
def kl_to_normal_prior(q: LowRankNormal, prior: NormalPrior) -> Tensor:
    """Return one number for all dimensions together, (B, 1), nats: the cross-entropy less the entropy of q."""
    crossed_BZ = prior.cross_entropy(q.mean, q.var)
    entropy_B = 0.5 * q.mean.shape[-1] * (LOG_2PI + 1.0) + q._log_volume(q._inner)
    return (crossed_BZ.sum(-1) - entropy_B)[..., None]


class LowRankGaussian(Posterior):
    """N(mean, D + V V') with D diagonal and V of `rank` columns. After Rezende, Mohamed & Wierstra 2014, sec. 4.3.

    V = D^1/2 U, where mean, log D and U are linear in the features: (rank + 2) Z outputs. The paper gives the
    precision D + u u' this form; here it is the covariance, of any rank. log |D + V V'| = log |D| + log |I + U'U|.
    """

    rank: int = Field(default=2, ge=1)

    def build(self, features: int, latent_dim: int) -> nn.Module:
        value = partial(LowRankNormal.of, latent_dim=latent_dim)
        return LinearHead(features, (2 + self.rank) * latent_dim, value, small=2 * latent_dim)
