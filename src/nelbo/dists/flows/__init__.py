"""Normalising flows: invertible maps with known determinants, for posteriors and priors."""

from nelbo.dists.flows.autoregressive import InverseAutoregressive
from nelbo.dists.flows.base import Amortised, Chain, Flip, Flow, Stopped, flipping
from nelbo.dists.flows.coupling import AffineCoupling, Coupling
from nelbo.dists.flows.masked import MaskedAutoregressive
from nelbo.dists.flows.networks import MADE, Perceptron
from nelbo.dists.flows.planar import PlanarFlow
from nelbo.dists.flows.radial import RadialFlow
from nelbo.dists.flows.spline import Knots, SplineCoupling

__all__ = [
    "MADE",
    "AffineCoupling",
    "Amortised",
    "Chain",
    "Coupling",
    "Flip",
    "Flow",
    "InverseAutoregressive",
    "Knots",
    "MaskedAutoregressive",
    "Perceptron",
    "PlanarFlow",
    "RadialFlow",
    "SplineCoupling",
    "Stopped",
    "flipping",
]
