"""The Gaussian posterior whose covariance is diagonal plus a few directions."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, register_kl
from nelbo.dists.base import LOG_2PI, full, product
from nelbo.dists.normal import NormalPrior
from nelbo.posteriors.base import Posterior

SMALL = 0.01  # of their usual size: the directions at first
LONGEST = 30.0  # entry of U: keeps I + U'U away from what float32 cannot factorise


class LowRankNormal(PosteriorValue):
    """The value N(mean, S (I + U U') S) with S = diag(exp(log_var / 2)), event over the last axis."""

    def __init__(self, mean_BZ: Tensor, log_var_BZ: Tensor, U_BZR: Tensor) -> None:
        self.mean = mean_BZ
        self.log_var = log_var_BZ
        self.U_BZR = U_BZR

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
        rank = self.U_BZR.shape[-1]
        unit = torch.eye(rank, dtype=self.U_BZR.dtype, device=self.U_BZR.device)
        inner: Tensor = torch.linalg.cholesky_ex(unit + product(self.U_BZR.mT, self.U_BZR))[0]
        return inner

    def _log_volume(self, inner_BRR: Tensor) -> Tensor:
        """Return 1/2 log |covariance| = 1/2 sum_j log_var_j + 1/2 log |I + U'U| (matrix determinant lemma), (B,)."""
        return 0.5 * self.log_var.sum(-1) + inner_BRR.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def rsample(self, k: int = 1) -> Tensor:
        """Return mean + S (e + U f), e and f standard normal: z_KBZ."""
        kind: Any = {"dtype": self.mean.dtype, "device": self.mean.device}
        noise_KBZ = torch.randn(k, *self.mean.shape, **kind)
        shared_KBR = torch.randn(k, *self.mean.shape[:-1], self.U_BZR.shape[-1], **kind)
        noise_KBZ = noise_KBZ + product(self.U_BZR, shared_KBR[..., None]).squeeze(-1)
        return torch.addcmul(self.mean, (0.5 * self.log_var).exp(), noise_KBZ)

    def log_prob(self, z: Tensor) -> Tensor:
        """With e = (z - mean) / std the square is min over f of |e - U f|^2 + |f|^2, no difference of large numbers."""
        scaled, inner = (z - self.mean) * (-0.5 * self.log_var).exp(), self._inner
        U = self.U_BZR.expand(*scaled.shape[:-1], *self.U_BZR.shape[-2:])
        along = product(U.mT, scaled[..., None])
        shared = torch.cholesky_solve(along, inner.expand(*along.shape[:-2], *inner.shape[-2:]))
        rest = scaled - product(U, shared).squeeze(-1)
        square = rest.square().sum(-1) + shared.square().sum((-1, -2))
        return -0.5 * (square + LOG_2PI * z.shape[-1]) - self._log_volume(inner)

    def detached(self) -> LowRankNormal:
        """Return the same distribution with constant parameters: its log_prob has a gradient by z alone."""
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
        return LowRankGaussianHead(features, latent_dim, self.rank)


class LowRankGaussianHead(nn.Module):
    """features_BF -> LowRankNormal over z_BZ; begins almost without correlations."""

    def __init__(self, features: int, latent_dim: int, rank: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.linear = nn.Linear(features, (2 + rank) * latent_dim)
        with torch.no_grad():
            for weight in (self.linear.weight, self.linear.bias):
                weight[2 * latent_dim :] *= SMALL

    def forward(self, features_BF: Tensor) -> LowRankNormal:
        Z = self.latent_dim
        outputs = full(self.linear(features_BF))
        mean, log_var, raw = outputs[..., :Z], outputs[..., Z : 2 * Z], outputs[..., 2 * Z :]
        U = LONGEST * (raw / LONGEST).tanh()
        return LowRankNormal(mean, log_var, U.view(*U.shape[:-1], Z, -1))
