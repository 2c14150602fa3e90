"""Posteriors that are a simple one sent through a flow: what all of them share."""

from __future__ import annotations

import copy
from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, Sample
from nelbo.core.registry import lookup, names
from nelbo.dists.flows import Chain
from nelbo.posteriors.base import Posterior
from nelbo.posteriors.diagonal_gaussian import DiagonalGaussian


class Pushforward(PosteriorValue):
    """The value of y = f(z), z from a base posterior: log q(y) = log q_0(z) - log |det dy/dz|.

    Rezende & Mohamed 2015, eq. 5. Its own samples have their density from the way there; that of any other point is
    found by the inverse of f. There is no formula for E[y]: `mean` is the image of the base posterior's mean.
    """

    def __init__(self, base: PosteriorValue, flow: Chain, context_BF: Tensor) -> None:
        self.base = base
        self.flow = flow
        self.context_BF = context_BF

    @property
    def not_a_bound(self) -> str | None:
        return self.base.not_a_bound

    @property
    def mean_is(self) -> str:
        return "image of the base posterior's mean" if self.flow.layers else self.base.mean_is

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        image_BZ: Tensor = self.flow(self.base.mean, self.context_BF)[0]
        return image_BZ

    def rsample(self, k: int = 1) -> Tensor:
        return self.rsample_and_log_prob(k).z_KBZ

    def rsample_and_log_prob(self, k: int = 1) -> Sample:
        before = self.base.rsample_and_log_prob(k)
        y_KBZ, log_det_KB = self.flow(before.z_KBZ, self.context_BF)
        return Sample(y_KBZ, self, before.log_prob() - log_det_KB)  # eq. 5 of Rezende & Mohamed 2015

    def log_prob(self, z: Tensor) -> Tensor:
        before, log_det = self.flow.inverse(z, self.context_BF)
        return self.base.log_prob(before) + log_det

    def detached(self) -> Pushforward:
        constant = copy.deepcopy(self.flow).requires_grad_(False)
        return Pushforward(self.base.detached(), constant, self.context_BF.detach())

    def kl_to(self, prior: object) -> Tensor | None:
        return None if self.flow.layers else self.base.kl_to(prior)  # a flow leaves no closed form


class FlowPosterior(Posterior):
    """The base of posteriors through a flow.

    base     the posterior whose samples are sent through: any on R^Z with a density
    layers   maps, one after another; 0 is the base itself
    """

    axis: ClassVar[str] = "posterior"  # abstract: it registers nothing

    base: Posterior = DiagonalGaussian()
    layers: int = Field(default=4, ge=0)

    @field_validator("base")
    @classmethod
    def _base_has_a_density_on_the_reals(cls, base: Posterior) -> Posterior:
        if _can_be_a_base(type(base)):
            return base
        able = ", ".join(name for name in names("posterior") if _can_be_a_base(lookup("posterior", name)))
        if isinstance(base, FlowPosterior):
            raise ValueError(f"{base.name} is a flow itself: give this one more layers, or a base of {able}")
        lacks = "latents in R^Z" if base.has_density else "a density"
        raise ValueError(f"a flow transforms a density on R^Z, and {base.name} has not {lacks}; use {able}")

    def check(self, latent_dim: int) -> None:
        self.base.check(latent_dim)

    def chain(self, latent_dim: int, context: int) -> Chain:
        """Return the maps for that many latents, told of that many features."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def build(self, features: int, latent_dim: int) -> nn.Module:
        return FlowHead(self.base.build(features, latent_dim), self.chain(latent_dim, features))


class FlowHead(nn.Module):
    """features_BF -> Pushforward over z_BZ: the base and every map see the features."""

    def __init__(self, base: nn.Module, flow: Chain) -> None:
        super().__init__()
        self.base = base
        self.flow = flow

    def forward(self, features_BF: Tensor) -> Pushforward:
        return Pushforward(self.base(features_BF), self.flow, features_BF)


def _can_be_a_base(posterior: type[Posterior]) -> bool:
    return posterior.space == "real" and posterior.has_density and not issubclass(posterior, FlowPosterior)
