"""The contracts of posteriors, priors and likelihoods, and the registry of closed-form KLs."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from nelbo.core.vocabulary import Shape


class Sample:
    """K samples for each of B images, with the density and the KL that belong to these very samples.

    Sampling often computes what the density needs (the noise of a flow, the lower conditional of two levels). This
    record keeps that, so that nothing is computed twice or inverted, and the distribution itself stays unchanged.
    """

    def __init__(self, z_KBZ: Tensor, q: PosteriorValue, log_qz_KB: Tensor | None = None) -> None:
        self.z_KBZ = z_KBZ
        self.q = q
        self.log_qz_KB = log_qz_KB

    def log_prob(self) -> Tensor:
        """Return log q(z | x) of each sample, nats, (K, B). Call it only where it is needed: it may cost as a step."""
        return self.q.log_prob(self.z_KBZ) if self.log_qz_KB is None else self.log_qz_KB

    def kl_to(self, prior: object) -> Tensor | None:
        """Return the KL of each group of latents, (B, G), nats, or None where it has no closed form."""
        return self.q.kl_to(prior)


class PosteriorValue(abc.ABC):
    """A distribution q(z | x) for each image of a batch; shapes (B, Z).

    mean        E[z], or the point that stands for the posterior where E[z] is no latent; `mean_is` says which
    std         standard deviation of each dimension, or None where there is no formula
    is_point    all mass is at one point: no density, no KL to a prior with a density
    deterministic   one value for each image, of which log q is 0 (codes)
    kl_needs_samples   the KL is a mean over samples of one level: only `Sample.kl_to` has it
    """

    # Facts of the class, not of a value: a compiled step branches on them while it is traced.
    is_point: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    kl_needs_samples: ClassVar[bool] = False
    mean: Tensor
    std: Tensor | None = None

    @property
    def not_a_bound(self) -> str | None:
        """The reason why samples do not come from the density, so that no bound may be reported; None: they do."""
        return None

    @property
    def mean_is(self) -> str:
        """The name of `mean`, in words."""
        return "posterior mean"

    @abc.abstractmethod
    def rsample(self, k: int = 1) -> Tensor:
        """Return k samples z_KBZ with the gradient of the parameters."""

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z | x), nats, summed over dimensions: (..., B, Z) -> (..., B)."""

    def rsample_and_log_prob(self, k: int = 1) -> Sample:
        """Return k samples, together with what their density and KL need."""
        return Sample(self.rsample(k), self)

    def log_prob_each(self, z: Tensor) -> Tensor | None:
        """Return log q(z_j | x) of each dimension, or None where dimensions depend on each other."""
        return None

    def kl_to(self, prior: object) -> Tensor | None:
        """Return KL(q || prior) of each group of latents, (B, G), nats, by a registered formula; None without one."""
        # Not a table of exact classes: a formula also holds for the subclasses of both.
        for posterior_class, prior_class, formula in _formulas:
            if isinstance(self, posterior_class) and isinstance(prior, prior_class):
                return formula(self, prior)
        return None

    def kl_is(self, prior: object) -> str:
        """Return a note on how the KL to this prior is computed; empty where it is exact."""
        return ""

    @property
    def kl_groups(self) -> Mapping[str, slice]:
        """Named parts of the KL's groups, such as one for each level."""
        return {}

    @property
    def commitment_B(self) -> Tensor | None:
        """The squared distance from what the encoder returned to the codes it is replaced by, or None."""
        return None

    @property
    def usage(self) -> Mapping[str, Tensor]:
        """The use that these images make of a codebook, as named numbers for the log."""
        return {}

    def with_independent_noise(self) -> PosteriorValue | None:
        """Return the same density sampled as it says; None for a posterior that is sampled so already."""
        return None

    def detached(self) -> Self:
        """Return the same distribution with constant parameters: its log_prob has a gradient by z alone."""
        raise TypeError(f"{type(self).__name__} has no copy with constant parameters")


Encode = Callable[[Tensor], PosteriorValue]  # images x_BCHW -> q(z | x) of each


class PriorDensity(Protocol):
    """Anything with a density and samples: a prior module, or one without the images that it scores."""

    def log_prob(self, z: Tensor) -> Tensor: ...
    def sample(self, n: int) -> Tensor: ...


class TrainingImages(Protocol):
    """The images that a run trains on: `n` of them; `take(rows)` returns x_BCHW."""

    n: int

    def take(self, rows_B: Tensor, stream: torch.Generator | None = None) -> Tensor: ...


class PriorModule(nn.Module, abc.ABC):
    """A distribution p(z), as a module so that it can have weights.

    made_of   what it needs beside its weights, in words, or "": a prior of posteriors gets `attach`, one of images
              gets `observe_training_images` and `refresh`
    """

    made_of: ClassVar[str] = ""

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z), nats, summed over dimensions: (..., Z) -> (...)."""

    @abc.abstractmethod
    def sample(self, n: int) -> Tensor:
        """Return n samples z_NZ."""

    def attach(self, encode: Encode, shape: Shape) -> None:
        """Take the model's encoder, for images of this shape. Called once, when the model is built."""

    def observe_training_images(self, images: TrainingImages) -> None:
        """Take the training images. Called when training begins."""

    def refresh(self) -> None:
        """Recompute what depends on the encoder's weights. Called before the model is measured or saved."""

    def leave_out(self, x_BCHW: Tensor) -> PriorDensity:
        """Return the prior by which these training images are scored: an exemplar prior leaves out each of them."""
        return self


class LikelihoodValue(abc.ABC):
    """A distribution p(x | z) over images, for each latent: shapes (..., C, H, W).

    mean   E[x]
    """

    mean: Tensor

    @abc.abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x | z), nats, summed over pixels: (...)."""

    @abc.abstractmethod
    def sample(self) -> Tensor:
        """Return one image for each latent."""


# --- closed-form KLs --------------------------------------------------------------------------

Formula = Callable[[Any, Any], Tensor | None]
F = TypeVar("F", bound=Formula)
_formulas: list[tuple[type, type, Formula]] = []


def register_kl(posterior: type, prior: type) -> Callable[[F], F]:
    """Register `formula(q, p)` as KL(q || p), (B, G) nats, for values of these two classes and their subclasses.

    The formula stands in the file of whichever class comes later, so that a new prior or posterior with a closed form
    is one file. Of several that fit the one whose classes are most derived is used.
    """

    def add(formula: F) -> F:
        _formulas.append((posterior, prior, formula))
        # most derived first: a list and `isinstance` are what a compiler of training steps can follow
        _formulas.sort(key=lambda entry: -len(entry[0].__mro__) - len(entry[1].__mro__))
        return formula

    return add
