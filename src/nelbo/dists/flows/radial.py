"""The radial flow."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nelbo.dists.flows.base import Amortised, Flow

FLATTEST = 0.01  # the smallest slope at the centre; the paper allows 0, where the density is infinite
ONE = math.log(math.expm1(1.0))  # softplus of it is 1


class RadialFlow(Flow):
    """f(z) = z + beta (z - c) / (alpha + r), r = |z - c|. Rezende & Mohamed 2015, eq. 14.

    log |det| = (Z - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2), alpha > 0 and, by their
    appendix A.2, beta > -alpha: here beta = softplus(.) - 0.99 alpha. The inverse is the root of a quadratic in r.
    """

    def __init__(self, latents: int, context: int) -> None:
        super().__init__()
        self.latents = latents
        self.parameters_of = Amortised(latents + 2, context, identity=2)

    def _scalars(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return alpha_B1, beta_B1 and the centre c_BZ."""
        width, pull, centre = self.parameters_of(context).split([1, 1, self.latents], dim=-1)
        alpha = F.softplus(width + ONE) + FLATTEST
        start = math.log(math.expm1((1.0 - FLATTEST) * (1.0 + FLATTEST)))
        return alpha, F.softplus(pull + start) - (1.0 - FLATTEST) * alpha, centre

    def _log_det(self, alpha: Tensor, beta: Tensor, r: Tensor) -> Tensor:
        across = torch.log1p(beta / (alpha + r))  # of each direction across the radius
        along = torch.log1p(alpha * beta / (alpha + r).square())
        return ((self.latents - 1) * across + along).squeeze(-1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        alpha, beta, centre = self._scalars(context)
        away = z - centre
        r = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        return z + beta * away / (alpha + r), self._log_det(alpha, beta, r)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z: |y - c| = r (1 + beta / (alpha + r)) is a quadratic equation of r = |z - c|."""
        alpha, beta, centre = self._scalars(context)
        away = y - centre
        far = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        p = alpha + beta - far
        root = (p.square() + 4.0 * alpha * far).sqrt()  # of r^2 + p r - alpha |y - c| = 0
        near = p > 0  # of the two forms of the root the one that does not cancel
        r = torch.where(near, 2.0 * alpha * far / torch.where(near, p + root, 1.0), 0.5 * (root - p))
        return centre + away / (1.0 + beta / (alpha + r)), -self._log_det(alpha, beta, r)
