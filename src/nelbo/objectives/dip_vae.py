"""DIP-VAE: the covariance of the aggregated posterior is moved to the identity."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.dists.normal import DiagonalNormal
from nelbo.objectives.base import Objective, halves, kl_of


class DIPVAE(Objective):
    """-ELBO + off_diagonal * sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2. Kumar et al. 2018, eq. 6-7.

    C is a covariance over the images of the batch:

        I    Cov[mean of q(z|x)], of what the encoder puts out
        II   Cov_q[z] = E[Cov[z|x]] + Cov[E[z|x]], of the aggregated posterior; in closed form for diagonal Gaussians,
             otherwise that of the samples

    Their lambda_od is `off_diagonal` and their lambda_d `diagonal`: ten times the other for I, equal for II.
    """

    name: ClassVar[str] = "dip-vae"
    loss_is_bound: ClassVar[bool] = False

    kind: Literal["I", "II"] = "II"
    off_diagonal: float = Field(default=10.0, ge=0.0)
    diagonal: float = Field(default=10.0, ge=0.0)

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        parts, bound_B = halves(draw)
        covariance_ZZ = self._covariance(draw)
        variance_Z = covariance_ZZ.diagonal()
        off = covariance_ZZ.square().sum() - variance_Z.square().sum()  # sum_{i != j} C_ij^2
        on = (variance_Z - 1.0).square().sum()  # sum_i (C_ii - 1)^2
        loss_B = parts["reconstruction"] + kl_of(parts) + self.off_diagonal * off + self.diagonal * on
        return Terms(loss_B, bound_B, parts | {"off_diagonal": off, "diagonal": on})

    def _covariance(self, draw: Draw) -> Tensor:
        q = draw.posterior
        if self.kind == "I":
            return covariance(q.mean)
        if isinstance(q, DiagonalNormal):
            return covariance(q.mean) + q.std.square().mean(0).diag()  # law of total covariance
        return covariance(draw.z_KBZ).mean(0)


def covariance(values_NZ: Tensor) -> Tensor:
    """Return the covariance over the last axis but one, (..., N, Z) -> (..., Z, Z), divided by N: of one image 0."""
    centred_NZ = values_NZ - values_NZ.mean(-2, keepdim=True)
    # No matrix product: it would be rounded to bfloat16 where the step runs in it.
    return (centred_NZ.unsqueeze(-1) * centred_NZ.unsqueeze(-2)).mean(-3)
