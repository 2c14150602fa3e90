"""Posteriors q(z | x): specs, the heads that they build, and their values."""

from nelbo.posteriors.base import Posterior
from nelbo.posteriors.diagonal_gaussian import DiagonalGaussian
from nelbo.posteriors.dirac import Dirac
from nelbo.posteriors.full_gaussian import FullGaussian
from nelbo.posteriors.gumbel_softmax import GumbelSoftmax
from nelbo.posteriors.iaf import IAF
from nelbo.posteriors.joint import Joint
from nelbo.posteriors.laplace import LaplacePosterior
from nelbo.posteriors.low_rank_gaussian import LowRankGaussian
from nelbo.posteriors.planar import Planar
from nelbo.posteriors.poincare import Poincare
from nelbo.posteriors.radial import Radial
from nelbo.posteriors.spline import Spline
from nelbo.posteriors.vmf import VMF

__all__ = [
    "IAF",
    "VMF",
    "DiagonalGaussian",
    "Dirac",
    "FullGaussian",
    "GumbelSoftmax",
    "Joint",
    "LaplacePosterior",
    "LowRankGaussian",
    "Planar",
    "Poincare",
    "Posterior",
    "Radial",
    "Spline",
]
