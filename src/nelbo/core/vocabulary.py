"""The vocabulary: what a model hands to an objective, what an objective hands back, and the registry.

    log p(x) >= E_q(z|x)[ log p(x|z) ] - KL( q(z|x) || p(z) )

Shape legend, used as suffixes of tensor names everywhere:

    K samples   B images   N images of a data set   C H W channels, height, width   D = C*H*W pixels
    Z latent dimensions    L levels                 F features
    G groups of latents that are independent of each other: every dimension by itself where q and p factorise

All log-probabilities are in nats, summed over pixels and over latent dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


# --- values -----------------------------------------------------------------------------------


@runtime_checkable
class Distribution(Protocol):
    """A distribution is a value: parameters in, densities and samples out.

    `rsample(k)` gives k samples, first axis. `not_a_bound` is None for an ordinary distribution;
    otherwise it is the reason why samples do not come from the density
    (shared noise, a singular covariance), so that no bound may be reported from it.

    `kl_to(prior)` is the closed-form KL of each group of latents, KL_BG, or None where there is none. Where E[z]
    has no formula or is no latent (of a flow; on a sphere), `mean` is the point that stands for the posterior,
    and an attribute `mean_is` says which (`dists.base.mean_is`).
    """

    not_a_bound: str | None

    @property
    def mean(self) -> Tensor: ...
    def rsample(self, k: int) -> Tensor: ...
    def log_prob(self, value: Tensor) -> Tensor: ...
    def kl_to(self, prior: Any) -> Tensor | None: ...


class Draw:
    """K posterior samples for each of B images, and what an objective may know about them.

    z_KBZ      the samples
    log_px_KB  log p(x | z), nats
    log_pz_KB  log p(z), nats; computed when first read
    log_qz_KB  log q(z | x), nats; computed when first read
    kl_BG      closed-form KL(q || p) of each group of latents (each dimension, where they are independent), or None
    posterior  the distribution q(z | x) itself
    prior      the module p(z)
    x_BCHW     the images
    likelihood the distributions p(x | z) of the samples: its mean has shape (K, B, C, H, W)
    aux        named extras that fewer than two methods need; `decode`: the likelihood of any latents;
               `decoder_weights()`: the decoder's
    """

    def __init__(
        self,
        *,
        z_KBZ: Tensor,
        log_px_KB: Tensor,
        posterior: Distribution,
        prior: Any,
        x_BCHW: Tensor | None = None,
        likelihood: Any = None,
        aux: Mapping[str, Any] | None = None,
    ) -> None:
        self.z_KBZ = z_KBZ
        self.log_px_KB = log_px_KB
        self.posterior = posterior
        self.prior = prior
        self.x_BCHW = x_BCHW
        self.likelihood = likelihood
        self.aux = dict(aux or {})
        self._found: dict[str, Tensor | None] = {}

    # The densities are lazy: a plain ELBO with a closed-form KL never needs them, and in a small
    # network each costs several kernels a step. Without functools' lock, which a compiler cannot trace.
    @property
    def log_pz_KB(self) -> Tensor:
        if "pz" not in self._found:
            self._found["pz"] = self.prior.log_prob(self.z_KBZ)
        return self._found["pz"]  # type: ignore[return-value]

    @property
    def log_qz_KB(self) -> Tensor:
        if "qz" not in self._found:
            self._found["qz"] = self.posterior.log_prob(self.z_KBZ)
        return self._found["qz"]  # type: ignore[return-value]

    @property
    def kl_BG(self) -> Tensor | None:
        if "kl" not in self._found:
            self._found["kl"] = self.posterior.kl_to(self.prior)
        return self._found["kl"]

    @property
    def not_a_bound(self) -> str | None:
        """Why no bound can be reported from these samples, or None when one can."""
        return self.posterior.not_a_bound


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What an objective returns.

    loss_B      what is minimised, nats an image; may be a surrogate with the right gradient
    bound_B     what is reported: a lower bound on log p(x), nats; None where there is none
    parts       named pieces for the log, each of shape B or a scalar
    own_loss_B  what an objective that owns weights (a critic) minimises by them; None where it owns none
    """

    loss_B: Tensor
    bound_B: Tensor | None
    parts: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    own_loss_B: Tensor | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands. `epoch` counts from 1, `step` optimiser steps from 0; `images` are those trained on."""

    epoch: int = 1
    epochs: int = 1
    step: int = 0
    steps: int = 1
    images: int = 1

    @property
    def fraction(self) -> float:
        """Share of the training done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.steps))


@runtime_checkable
class Model(Protocol):
    """Anything that can draw. Built models are `nn.Module`s with these methods."""

    latent_dim: int
    shape: tuple[int, int, int]

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw: ...
    def encode(self, x_BCHW: Tensor) -> Any: ...
    def decode(self, z: Tensor) -> Any: ...
    def sample(self, n: int, temperature: float = 1.0) -> Tensor: ...
