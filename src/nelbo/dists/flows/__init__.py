"""Normalising flows: invertible maps with known determinants, for posteriors and priors."""

from nelbo.dists.flows.amortised import PlanarFlow, RadialFlow
from nelbo.dists.flows.autoregressive import InverseAutoregressive, MaskedAutoregressive
from nelbo.dists.flows.base import Chain, Flip, flipping
from nelbo.dists.flows.coupling import AffineCoupling, SplineCoupling
from nelbo.dists.flows.networks import MADE

__all__ = [
    "MADE",
    "AffineCoupling",
    "Chain",
    "Flip",
    "InverseAutoregressive",
    "MaskedAutoregressive",
    "PlanarFlow",
    "RadialFlow",
    "SplineCoupling",
    "flipping",
]
