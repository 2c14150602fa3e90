"""The vocabulary: a model hands a Draw to an objective, and the objective returns Terms.

    log p(x) >= E_q(z|x)[ log p(x|z) ] - KL( q(z|x) || p(z) )

Shape legend, used as suffixes of tensor names everywhere:

    K samples   B images   N images of a data set   C H W channels, height, width   D = C*H*W pixels
    Z latent dimensions    L levels                 F features
    G groups of latents that are independent of each other: every dimension by itself where q and p factorise

All log-probabilities are in nats, summed over pixels and over latent dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nelbo.core.distributions import LikelihoodValue, PosteriorValue, PriorDensity, Sample

Shape = tuple[int, int, int]  # (C, H, W) of an image


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Draw:
    """K posterior samples for each of B images, and everything that an objective may read of them.

    z_KBZ            the samples
    log_px_KB        log p(x | z), nats
    log_pz_KB        log p(z), nats; computed when first read
    log_qz_KB        log q(z | x), nats; computed when first read
    kl_BG            closed-form KL(q || p) of each group of latents (each dimension, where they are independent), or
                     None; computed when first read
    posterior        the distribution q(z | x)
    prior            the distribution p(z) by which these images are scored
    x_BCHW           the images
    likelihood       the distributions p(x | z) of the samples: its mean has shape (K, B, C, H, W)
    sample           what `posterior.rsample_and_log_prob(k)` returned, which has the density of these samples
    decode           a function from any latents to their likelihood, or None where the model has none to offer
    decoder_weights  a function that returns the decoder's parameters, or None
    """

    z_KBZ: Tensor
    log_px_KB: Tensor
    posterior: PosteriorValue
    prior: PriorDensity
    x_BCHW: Tensor | None = None
    likelihood: LikelihoodValue | None = None
    sample: Sample | None = None
    decode: Callable[[Tensor], LikelihoodValue] | None = None
    decoder_weights: Callable[[], Iterable[Tensor]] | None = None
    _densities: dict[str, Tensor | None] = dataclasses.field(default_factory=dict, init=False)

    # The densities are lazy: a plain ELBO with a closed-form KL never reads them, and in a small network each costs
    # several kernels a step. Not functools.cached_property: its lock cannot be traced by a compiler.
    @property
    def log_pz_KB(self) -> Tensor:
        log_pz_KB = self._densities.get("pz")
        if log_pz_KB is None:
            log_pz_KB = self._densities["pz"] = self.prior.log_prob(self.z_KBZ)
        return log_pz_KB

    @property
    def log_qz_KB(self) -> Tensor:
        log_qz_KB = self._densities.get("qz")
        if log_qz_KB is None:
            sample = self.sample
            log_qz_KB = self.posterior.log_prob(self.z_KBZ) if sample is None else sample.log_prob()
            self._densities["qz"] = log_qz_KB
        return log_qz_KB

    @property
    def kl_BG(self) -> Tensor | None:
        # Not `get`: None is an answer, which may have cost the samples of a level.
        if "kl" not in self._densities:
            value = self.posterior if self.sample is None else self.sample
            self._densities["kl"] = value.kl_to(self.prior)
        return self._densities["kl"]

    @property
    def not_a_bound(self) -> str | None:
        """The reason why no bound can be reported from these samples, or None when one can."""
        return self.posterior.not_a_bound


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """The values that an objective returns.

    loss_B         the loss that is minimised, nats an image; may be a surrogate with the right gradient
    bound_B        the lower bound on log p(x) that is reported, nats; None where there is none
    parts          named pieces for the log, each of shape B or a scalar
    critic_loss_B  the loss of the weights that the objective itself has (a critic); None where it has none
    """

    loss_B: Tensor
    bound_B: Tensor | None
    parts: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    critic_loss_B: Tensor | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """The stage that training has reached.

    `epoch` counts from 1, `step` optimiser steps from 0; `images` are those trained on.
    """

    epoch: int = 1
    epochs: int = 1
    step: int = 0
    steps: int = 1
    images: int = 1

    @property
    def fraction(self) -> float:
        """The share of the training done, in [0, 1]."""
        # A run that goes on longer stays at the end of its schedules.
        return min(1.0, self.step / max(1, self.steps))
