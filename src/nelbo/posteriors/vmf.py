"""The von Mises-Fisher posterior on the unit sphere, by one quadrature for density, KL and samples alike."""

import math
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, register_kl
from nelbo.dists.base import Space
from nelbo.dists.sphere import UniformSphereModule, log_area, unit
from nelbo.posteriors.base import LinearHead, Posterior

NODES = 160  # of the quadrature: its error is rounding, that of the distribution function between them 1e-9
NEWTON = 5  # steps from the chord of a panel; it converges quadratically
DEEPEST = 40.0  # exp(-40) is what is left out at either end
SMALLEST = 1e-30
LOG_KAPPA = (math.log(1e-4), math.log(1e6))  # no gradient beyond


class Cosines:
    """The distribution of w = mean . z under vMF on the sphere in R^Z: one row an image, tables of N nodes.

    Its density is (1 - w^2)^((Z - 3) / 2) exp(kappa w), up to a constant. With w = tanh y it is exp(g(y)),

        g(y) = (Z - 1) log sech y + kappa tanh y,    sinh(2 y) = 2 kappa / (Z - 1) at the mode,
        -g'' = (Z - 1) (1 + tanh^2 y) there,

    so that its width hardly depends on kappa, from 0 to infinity, and both ends decay at least as exp(-(Z - 1) |y|).
    The trapezoid rule on y = mode + width sinh(t) then converges geometrically: no Bessel function is needed, whatever
    Z and kappa. Nodes are constants; kappa has its gradient through the values on them.
    """

    def __init__(self, kappa_B1: Tensor, dimensions: int) -> None:
        self.order = dimensions - 1
        self.kappa_B1 = kappa_B1
        reach = math.asinh(max(10.0, DEEPEST * math.sqrt(2.0 / self.order)))
        self.step = 2.0 * reach / (NODES - 1)
        self.t_N = torch.linspace(-reach, reach, NODES, dtype=kappa_B1.dtype, device=kappa_B1.device)
        with torch.no_grad():
            self.mode_B1 = 0.5 * (2.0 * kappa_B1 / self.order).asinh()
            peak_B1, steep_B1 = self.mode_B1.tanh(), sech(self.mode_B1).square()
            self.width_B1 = (self.order * (1.0 + peak_B1.square())).rsqrt()
            away_BN = self.width_B1 * self.t_N.sinh()
            bent_BN = away_BN.tanh() / (1.0 + peak_B1 * away_BN.tanh())
            # g at a node less g at the mode, written as one: their difference in float32 would be noise.
            growth_BN = 2.0 * (0.5 * away_BN).sinh().square() + peak_B1 * away_BN.sinh()
            fall_BN = peak_B1 * bent_BN - torch.log1p(growth_BN)
            stretch_BN = self.width_B1 * self.t_N.cosh()
            log_f_BN = self.order * fall_BN + stretch_BN.log()
            y_BN = self.mode_B1 + away_BN
            sech2_BN, tanh_BN = sech(y_BN).square(), y_BN.tanh()
        slope_BN = (kappa_B1 * sech2_BN - self.order * tanh_BN) * stretch_BN
        self.higher_BN = steep_B1 * bent_BN  # w at a node less w at the mode
        log_f_BN = log_f_BN + (kappa_B1 - kappa_B1.detach()) * self.higher_BN
        self.log_share_B1 = log_f_BN.logsumexp(-1, keepdim=True) + math.log(self.step)
        self.log_peak_B1 = self.order * log_sech(self.mode_B1)
        self.f_BN = (log_f_BN - self.log_share_B1).exp()
        self.rise_BN = self.f_BN * (slope_BN + self.t_N.tanh()) * self.step  # by the share of a panel

    @property
    def log_mass_B1(self) -> Tensor:
        """log of the integral of (1 - w^2)^((Z - 3) / 2) exp(kappa (w - 1))."""
        short_B1 = 2.0 * torch.sigmoid(-2.0 * self.mode_B1)  # 1 - w at the mode
        return self.log_share_B1 + self.log_peak_B1 - self.kappa_B1 * short_B1

    @property
    def information_B1(self) -> Tensor:
        """kappa E[w] less the logarithm of the integral of (1 - w^2)^((Z - 3) / 2) exp(kappa w)."""
        higher_B1 = (self.f_BN * self.higher_BN).sum(-1, keepdim=True) * self.step
        return self.kappa_B1 * higher_B1 - self.log_share_B1 - self.log_peak_B1

    def sample(self, k: int) -> tuple[Tensor, Tensor]:
        """Return k draws of w and of sqrt(1 - w^2), each (k, B): the inverse distribution function of uniform noise.

        Its gradient is the true one, -dF/dkappa / p: F is kept in the graph at the point that was found without.
        """
        f_BN, rise_BN = self.f_BN, self.rise_BN
        ends_BN = 0.5 * (f_BN[:, 1:] + f_BN[:, :-1]) + (rise_BN[:, :-1] - rise_BN[:, 1:]) / 12.0
        below_BN = F.pad(ends_BN.cumsum(-1), (1, 0)) * self.step
        u_BK = torch.rand(len(f_BN), k, dtype=f_BN.dtype, device=f_BN.device)
        with torch.no_grad():
            panel_BK = torch.searchsorted(below_BN.contiguous(), u_BK).sub_(1).clamp_(0, NODES - 2)
        table = [column.gather(1, panel_BK + right) for column in (f_BN, rise_BN) for right in (0, 1)]
        start_BK = below_BN.gather(1, panel_BK)
        with torch.no_grad():
            x_BK = torch.full_like(u_BK, 0.5)
            for _ in range(NEWTON):
                inside_BK, density_BK = panel(x_BK, *table)
                off_BK = (start_BK - u_BK) / self.step + inside_BK
                x_BK = (x_BK - off_BK / density_BK.clamp_min(SMALLEST)).clamp_(0.0, 1.0)
        inside_BK, density_BK = panel(x_BK, *table)
        moved_BK = start_BK / self.step + inside_BK
        x_BK = x_BK - (moved_BK - moved_BK.detach()) / density_BK.detach().clamp_min(SMALLEST)
        y_BK = self.mode_B1 + self.width_B1 * (self.t_N[panel_BK] + self.step * x_BK).sinh()
        return y_BK.tanh().T, sech(y_BK).T


def panel(x: Tensor, f0: Tensor, f1: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """Return the integral from 0 to x of the cubic with these values and slopes at 0 and 1, and the cubic at x."""
    third, fourth = 3.0 * (f1 - f0) - 2.0 * d0 - d1, 2.0 * (f0 - f1) + d0 + d1
    inside = x * (f0 + x * (d0 / 2.0 + x * (third / 3.0 + x * fourth / 4.0)))
    return inside, f0 + x * (d0 + x * (third + x * fourth))


def log_sech(y: Tensor) -> Tensor:
    # cosh y overflows in float32 from y = 89, and this does not.
    return math.log(2.0) - y.abs() - torch.log1p((-2.0 * y.abs()).exp())


def sech(y: Tensor) -> Tensor:
    return log_sech(y).exp()


class VonMisesFisherValue(PosteriorValue):
    """The value vMF(mean direction, kappa): z on the unit sphere in R^Z, with density C(kappa) exp(kappa mean . z)."""

    mean_is = "mean direction of the posterior, a point of the sphere"

    def __init__(self, mean_BZ: Tensor, kappa_B1: Tensor) -> None:
        self.mean = mean_BZ
        self.kappa = kappa_B1
        self.cosines = Cosines(kappa_B1, mean_BZ.shape[-1])

    @classmethod
    def of(cls, outputs: Tensor) -> Self:
        """Return the value of Z numbers that are divided by their length, and log(kappa / Z).

        What a kappa means for the KL depends on kappa / Z: starting near Z the noise is neither all nor nothing.
        """
        toward, log_kappa = outputs[..., :-1], outputs[..., -1:] + math.log(outputs.shape[-1] - 1)
        return cls(unit(toward), log_kappa.clamp(*LOG_KAPPA).exp())

    def rsample(self, k: int = 1) -> Tensor:
        """Return k samples z_KBZ = w mean + sqrt(1 - w^2) v, v uniform among the unit vectors across the mean.

        v is a random direction t across a random axis a, mirrored so that a falls on the mean (the Householder
        reflection of Davidson et al. 2018, with an axis anew for each sample, so that no mean is special).
        """
        noise = torch.randn(2, k, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        axis_KBZ = unit(noise[0])
        t_KBZ = across(across(noise[1], axis_KBZ), axis_KBZ)  # once leaves rounding where it is nearly along
        apart_KBZ = axis_KBZ - self.mean
        mirrored_KB1 = -(t_KBZ * apart_KBZ).sum(-1, keepdim=True) / half_square(apart_KBZ)
        w_KB, across_KB = self.cosines.sample(k)
        v_KBZ = across(t_KBZ + mirrored_KB1 * apart_KBZ, self.mean)
        return w_KB[..., None] * self.mean + across_KB[..., None] * v_KBZ

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q by surface, nats: kappa (mean . z - 1) as -kappa |z - mean|^2 / 2, which keeps its digits."""
        log_normaliser_B = self.cosines.log_mass_B1.squeeze(-1) + log_area(self.mean.shape[-1] - 1)
        return -(self.kappa * half_square(z - self.mean)).squeeze(-1) - log_normaliser_B


def across(vector: Tensor, axis: Tensor) -> Tensor:
    """Return the unit vector of what is across a unit vector."""
    return unit(vector - (vector * axis).sum(-1, keepdim=True) * axis)


def half_square(difference: Tensor) -> Tensor:
    """Return |d|^2 / 2 with the last axis kept, and no zero to divide by."""
    return 0.5 * difference.square().sum(-1, keepdim=True).clamp_min(SMALLEST)


@register_kl(VonMisesFisherValue, UniformSphereModule)
def kl_to_uniform(q: VonMisesFisherValue, prior: UniformSphereModule) -> Tensor:
    """Return kappa E[w] + log C(kappa) + log area: one number for all dimensions, (B, 1). Davidson et al. 2018."""
    dimensions = q.mean.shape[-1]
    log_share = log_area(dimensions) - log_area(dimensions - 1)
    return q.cosines.information_B1 + log_share


class VMF(Posterior):
    """von Mises-Fisher q(z | x) = C(kappa) exp(kappa mean(x) . z) on the unit sphere. Davidson et al. 2018.

    C(kappa) = kappa^(Z/2 - 1) / ((2 pi)^(Z/2) I_(Z/2 - 1)(kappa)). One concentration kappa for all dimensions: how
    certain the direction is. With the uniform prior nothing pulls latents to a centre; the KL depends on kappa alone.
    """

    space: ClassVar[Space] = "sphere"

    def build(self, features: int, latent_dim: int) -> nn.Module:
        return LinearHead(features, latent_dim + 1, VonMisesFisherValue.of)
