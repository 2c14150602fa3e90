"""Small flows whose parameters are linear in a context: planar and radial ones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.dists.base import full
from nelbo.dists.flows.base import SMALL, Flow

# The smallest slope along w, or at the centre; the paper allows 0, where the density is infinite.
FLATTEST = 0.01
NO_CHANGE = math.log(math.expm1(1.0 - FLATTEST))  # softplus of it is 1 - FLATTEST
ONE = math.log(math.expm1(1.0))  # softplus of it is 1
STEPS = 16  # of Newton's method: enough for float64 up to w.u = 1e6
TINY = 1e-12


class Amortised(nn.Module):
    """The parameters of a map, linear in the context; `identity` of them, the first, begin close to zero."""

    def __init__(self, count: int, context: int, identity: int) -> None:
        super().__init__()
        self.linear = nn.Linear(context, count)
        with torch.no_grad():
            nn.init.normal_(self.linear.bias)  # layers that began alike would follow the same gradient
            for weight in (self.linear.bias, self.linear.weight):
                weight[:identity] *= SMALL

    def forward(self, context: Tensor | None) -> Tensor:
        """Return the parameters of context_BF, (B, count)."""
        assert context is not None, "this flow depends on a context"
        return full(self.linear(context.to(self.linear.weight.dtype)))


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
