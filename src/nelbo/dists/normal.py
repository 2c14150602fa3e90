"""The diagonal normal as a value, the priors to which Gaussian posteriors have a closed-form KL, and these KLs."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from nelbo.core.distributions import PosteriorValue, PriorModule, register_kl
from nelbo.dists.base import LOG_2PI


class DiagonalNormal(PosteriorValue):
    """The value N(mean, diag(std^2)), event over the last axis.

    `std` may be negative where a published network emits it so: only std^2 enters the density, and the
    noise is symmetric. With `shared_noise` one number an image moves every dimension; samples then lie
    on a line, the density below is not theirs, and `not_a_bound` says so.
    """

    std: Tensor

    def __init__(
        self, mean_BZ: Tensor, std_BZ: Tensor, log_var_BZ: Tensor, shared_noise: bool = False
    ) -> None:
        self.mean = mean_BZ
        self.std = std_BZ
        self.log_var = log_var_BZ
        self.shared_noise = shared_noise

    @property
    def not_a_bound(self) -> str | None:
        if not self.shared_noise or self.mean.shape[-1] == 1:
            return None
        return (
            "the posterior's noise is one number an image, shared by all latent dimensions: the true "
            "posterior is singular and its KL to the prior is infinite"
        )

    def with_independent_noise(self) -> DiagonalNormal:
        return DiagonalNormal(self.mean, self.std, self.log_var)

    def rsample(self, k: int = 1) -> Tensor:
        """Return k reparametrised samples, z_KBZ = mean + std * noise (Kingma & Welling 2014, eq. 4)."""
        shape = (k, *self.mean.shape[:-1], 1 if self.shared_noise else self.mean.shape[-1])
        noise = torch.randn(shape, dtype=self.mean.dtype, device=self.mean.device)
        return torch.addcmul(self.mean, self.std, noise)  # one kernel for product and sum

    def log_prob_each(self, z: Tensor) -> Tensor:
        scaled = (z - self.mean) / self.std
        return -0.5 * (scaled.square() + self.log_var + LOG_2PI)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_prob_each(z).sum(-1)

    def cross_entropy(self, mean_BZ: Tensor, var_BZ: Tensor) -> Tensor:
        """Return -E[log p(z_j)] of each dimension, nats, of this value as a prior such as p(z1 | z2)."""
        return cross_entropy(mean_BZ, var_BZ, self.mean, self.log_var)

    def detached(self) -> DiagonalNormal:
        return DiagonalNormal(self.mean.detach(), self.std.detach(), self.log_var.detach(), self.shared_noise)


class NormalPrior(PriorModule, abc.ABC):
    """A prior N(m, diag(v)): posteriors with known first two moments have their cross-entropy to it in closed form."""

    @abc.abstractmethod
    def cross_entropy(self, mean_BZ: Tensor, var_BZ: Tensor) -> Tensor:
        """Return -E_q[log p(z_j)] of each dimension, nats, for a q with these means and variances.

        1/2 (log(2 pi v) + (var + (mean - m)^2) / v), whatever the shape of q. Minus the entropy of q it is the KL.
        """


def cross_entropy(mean_BZ: Tensor, var_BZ: Tensor, mean_Z: Tensor, log_var_Z: Tensor) -> Tensor:
    """Return 1/2 (log(2 pi v) + (var + (mean - m)^2) / v), nats, with m = mean_Z and log v = log_var_Z."""
    scaled_BZ = (var_BZ + (mean_BZ - mean_Z).square()) * (-log_var_Z).exp()
    return torch.as_tensor(0.5 * (LOG_2PI + log_var_Z + scaled_BZ))


class StandardNormalModule(NormalPrior):
    """The value N(0, I), as a module so that every prior is one."""

    origin: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)  # knows the device

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def sample(self, n: int) -> Tensor:
        return torch.randn(n, len(self.origin), device=self.origin.device, dtype=self.origin.dtype)

    def cross_entropy(self, mean_BZ: Tensor, var_BZ: Tensor) -> Tensor:
        return 0.5 * (LOG_2PI + var_BZ + mean_BZ.square())


class KLToStandard(torch.autograd.Function):
    """1/2 (mean^2 + std^2 - 1 - log_var), elementwise, with its three derivatives: mean, std and -1/2."""

    @staticmethod
    def forward(ctx: FunctionCtx, mean: Tensor, std: Tensor, log_var: Tensor) -> Tensor:
        ctx.save_for_backward(mean, std)
        second_moment = torch.addcmul(std.square(), mean, mean)
        return second_moment.sub_(log_var).sub_(1.0).mul_(0.5)  # in place: nothing else has seen this tensor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = ctx.saved_tensors
        return grad * mean, grad * std, grad * -0.5


@register_kl(DiagonalNormal, StandardNormalModule)
def kl_to_standard(q: DiagonalNormal, prior: StandardNormalModule) -> Tensor:
    """Return 1/2 (mean^2 + std^2 - 1 - log std^2) of each dimension. Kingma & Welling 2014, appendix B."""
    return KLToStandard.apply(q.mean, q.std, q.log_var)  # type: ignore[no-any-return, no-untyped-call]


@register_kl(DiagonalNormal, NormalPrior)
@register_kl(DiagonalNormal, DiagonalNormal)
def kl_to_normal(q: DiagonalNormal, p: NormalPrior | DiagonalNormal) -> Tensor:
    """Return the cross-entropy less the entropy 1/2 (log(2 pi) + 1 + log std^2) of each dimension."""
    return p.cross_entropy(q.mean, q.std.square()) - 0.5 * (LOG_2PI + 1.0 + q.log_var)
