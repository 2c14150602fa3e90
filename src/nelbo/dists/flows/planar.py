"""The planar flow."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nelbo.dists.flows.base import Amortised, Flow

FLATTEST = 0.01  # the smallest slope along w; the paper allows 0, where the density is infinite
NO_CHANGE = math.log(math.expm1(1.0 - FLATTEST))  # softplus of it is 1 - FLATTEST
STEPS = 16  # of Newton's method: enough for float64 up to w.u = 1e6
TINY = 1e-12


class PlanarFlow(Flow):
    """f(z) = z + u tanh(w.z + b). Rezende & Mohamed 2015, eq. 10-12; invertible by their appendix A.1.

    log |det| = log(1 + w.u (1 - tanh^2)). u is what the parameters say, moved along w until w.u > -1 + 0.01.
    """

    def __init__(self, latents: int, context: int) -> None:
        super().__init__()
        self.latents = latents
        self.parameters_of = Amortised(2 * latents + 1, context, identity=latents)

    def _vectors(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return u_BZ, w_BZ, b_B1 and w.u_B1."""
        u, w, b = self.parameters_of(context).split([self.latents, self.latents, 1], dim=-1)
        along, square = (w * u).sum(-1, keepdim=True), w.square().sum(-1, keepdim=True) + TINY
        allowed = F.softplus(along + NO_CHANGE) - (1.0 - FLATTEST)  # 0 at 0
        u = u + (allowed - along) * w / square  # appendix A.1
        return u, w, b, (w * u).sum(-1, keepdim=True)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, w, b, along = self._vectors(context)
        bent = ((w * z).sum(-1, keepdim=True) + b).tanh()
        return z + u * bent, torch.log1p(along * (1.0 - bent.square())).squeeze(-1)  # eq. 10 and 12

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z: v + (w.u) tanh v = w.y + b has one root v = w.z + b along w; across w nothing moves."""
        u, w, b, along = self._vectors(context)
        bent = straighten((w * y).sum(-1, keepdim=True) + b, along).tanh()
        return y - u * bent, -torch.log1p(along * (1.0 - bent.square())).squeeze(-1)


def straighten(t: Tensor, c: Tensor) -> Tensor:
    """Return the v with v + c tanh v = t, for c > -1.

    Odd in t, and for t > 0 concave where c > 0 and convex where c < 0: from the nearer of two bounds of the root
    (0 <= tanh v <= min(v, 1)) Newton's method runs towards it without ever passing it. A last step carries the
    gradient: its derivatives by t and c are those of the root (implicit function theorem).
    """
    with torch.no_grad():
        size = t.abs()
        line, edge = size / (1.0 + c), size - c
        v = torch.where(c > 0, torch.maximum(line, edge), torch.minimum(line, edge))
        for _ in range(STEPS):
            bent = v.tanh()
            v = v - (v + c * bent - size) / (1.0 + c * (1.0 - bent.square()))
        v = v * t.sign()
        slope = 1.0 + c * (1.0 - v.tanh().square())
    return v - (v + c * v.tanh() - t) / slope
