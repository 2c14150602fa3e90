"""The base of every model: a spec, and the module it builds."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nelbo.core import Draw
from nelbo.core.distributions import LikelihoodValue, PosteriorValue, PriorModule, TrainingImages
from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import exact
from nelbo.dists.spaces import LatentSpace
from nelbo.errors import ConfigError, NotABound
from nelbo.likelihoods.base import LikelihoodModule, ObservationKind

# Decoder outputs held at a time when k is large. On a CPU 16 MB stay near the cache and are a third faster than
# 64 MB; an accelerator wants kernels that are large.
PIXELS_AT_ONCE = {"cpu": 2**22}
PIXELS_AT_ONCE_ELSEWHERE = 2**25
IMAGES_AT_ONCE = 1000  # through the networks, when they are not asked in batches


class Model(Spec, abc.ABC):
    """A model's configuration; `build(shape)` returns the module for images of (C, H, W).

    A model without a field `posterior` declares `has_density`, `factorises` and `reparametrised` as a posterior does.

    quantises   latents are codes, and no gradient of a bound brings the encoder to them: its objective must commit
    """

    axis: ClassVar[str] = "model"
    has_density: ClassVar[bool] = True
    factorises: ClassVar[bool] = False
    reparametrised: ClassVar[bool] = True
    quantises: ClassVar[bool] = False

    @abc.abstractmethod
    def build(self, shape: Shape) -> BuiltModel:
        """Return the module for images of this shape."""


class BuiltModel(nn.Module, abc.ABC):
    """A module that can draw. Subclasses give `encode`, `decode` and a `prior`; the rest follows from them.

    shape, latent_dim    (C, H, W) of the images, and Z
    prior                the module p(z)
    observation_kind     the set that p(x | z) is a probability on: binary pixels, 8-bit levels, or a density
    outputs              numbers that the decoder puts out for each pixel and channel
    latent_space         the space of the latents
    """

    shape: Shape
    latent_dim: int
    prior: PriorModule
    observation_kind: ObservationKind
    outputs: int = 1
    latent_space: LatentSpace = LatentSpace()

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw:
        """Return k posterior samples for each image, with their densities."""
        posterior = self.encode(x_BCHW)
        sample = posterior.rsample_and_log_prob(k)
        likelihood = self.decode(sample.z_KBZ)
        return Draw(
            z_KBZ=sample.z_KBZ,
            log_px_KB=likelihood.log_prob(x_BCHW),
            posterior=posterior,
            prior=self.prior.leave_out(x_BCHW),
            x_BCHW=x_BCHW,
            likelihood=likelihood,
            sample=sample,
            decode=self.decode,
        )

    @abc.abstractmethod
    def encode(self, x_BCHW: Tensor) -> PosteriorValue:
        """Return the posterior q(z | x) of each image; `.mean` is z_BZ."""

    @abc.abstractmethod
    def decode(self, z: Tensor) -> LikelihoodValue:
        """Return the likelihood p(x | z); z has shape (..., Z), the images (..., C, H, W)."""

    def observe_training_images(self, images: TrainingImages) -> None:
        """Show the training images to a prior that is made of some. Called when training begins."""
        self.prior.observe_training_images(images)

    def refresh(self) -> None:
        """Recompute what the prior keeps of the training images. Called before measuring and saving."""
        self.prior.refresh()

    def after_step(self, draw: Draw) -> None:
        """Update what follows the data without a gradient (codebook, running spread). Called once a training step."""

    def sample_prior(self, n: int) -> Tensor:
        """Return n latents z ~ p(z): (n, Z)."""
        return self.prior.sample(n)

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """Return the mean of p(x | z) for n draws z from the prior, scaled by `temperature`: (n, C, H, W)."""
        return self._means(self.latent_space.tempered(self.sample_prior(n), temperature), self.decode)

    @torch.no_grad()
    def reconstruct(self, x_BCHW: Tensor) -> Tensor:
        """Return the mean of p(x | z) at the posterior mean of each image: (B, C, H, W). Deterministic."""
        return self._means(x_BCHW, lambda x_BCHW: self.decode(self.encode(x_BCHW).mean))

    def _means(self, rows: Tensor, likelihood: Callable[[Tensor], LikelihoodValue]) -> Tensor:
        """Return the mean of the likelihood for every row, a bounded number at a time."""
        return torch.cat([likelihood(some).mean for some in torch.split(rows, IMAGES_AT_ONCE)])

    @torch.no_grad()
    def log_prob(self, x_BCHW: Tensor, k: int = 100) -> Tensor:
        """Return an importance-weighted estimate of log p(x), nats, for each image: shape (B,).

        log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), a lower bound in expectation that tightens with k (Burda et al.
        2016, eq. 8). Memory is bounded whatever k is. Raises NotABound where samples do not come from the density.
        """
        sums_B = (log_w_KB.logsumexp(0) for log_w_KB in self.log_weight_pieces(x_BCHW, k))
        return functools.reduce(torch.logaddexp, sums_B) - math.log(k)  # Burda et al. 2016, eq. 8

    @torch.no_grad()
    def log_weights(self, x_BCHW: Tensor, k: int) -> Tensor:
        """Return log p(x, z_k) - log q(z_k | x) for exactly k posterior samples an image, float64: shape (K, B)."""
        return torch.cat(list(self.log_weight_pieces(x_BCHW, k)))

    @torch.no_grad()
    def log_weight_pieces(self, x_BCHW: Tensor, k: int) -> Iterator[Tensor]:
        """Return `log_weights` a piece at a time: (K', B) whose K' add up to k, of a size that k does not change."""
        pixels = PIXELS_AT_ONCE.get(x_BCHW.device.type, PIXELS_AT_ONCE_ELSEWHERE)
        at_once = max(1, pixels // (x_BCHW.numel() * self.outputs))
        for start in range(0, k, at_once):
            draw = self.draw(x_BCHW, min(at_once, k - start))
            if draw.not_a_bound:
                raise NotABound(f"importance weights do not exist: {draw.not_a_bound}")
            # Exact before the difference: at a few hundred nats the numbers of float32 lie 3e-5 apart.
            yield exact(draw.log_px_KB) + exact(draw.log_pz_KB) - exact(draw.log_qz_KB)


class Autoencoder(BuiltModel):
    """A model of an encoder, a latent vector, a decoder and a likelihood, which are fields of its spec.

    Subclasses give `build_latents` and `encode`.
    """

    likelihood: LikelihoodModule

    def __init__(self, spec: Any, shape: Shape) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = shape
        self.latent_dim = spec.latent_dim
        self.observation_kind = spec.likelihood.observation_kind
        self.outputs = spec.likelihood.channels
        self.encoder = spec.encoder.encoder(shape)
        self.build_latents(spec)  # between the networks: a seed gives the same weights as before
        outputs = (channels * self.outputs, height, width)
        self.decoder = spec.decoder.decoder(spec.latent_dim, outputs)
        self.likelihood = spec.likelihood.build(shape)
        must_be(self.likelihood, LikelihoodModule, f"likelihood {spec.likelihood.name}")

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw:
        draw = super().draw(x_BCHW, k)
        draw.decoder_weights = self.decoder.parameters  # uncalled: only a penalty on them reads the list
        return draw

    @abc.abstractmethod
    def build_latents(self, spec: Any) -> None:
        """Make `prior`, and the module from features to a posterior."""

    def decode(self, z: Tensor) -> LikelihoodValue:
        outputs = self.decoder(z.reshape(-1, z.shape[-1]))  # K samples of B images are K B rows to it
        return self.likelihood(outputs.view(*z.shape[:-1], *outputs.shape[1:]))  # type: ignore[no-any-return]

    def after_step(self, draw: Draw) -> None:
        assert draw.x_BCHW is not None
        assert draw.likelihood is not None
        self.likelihood.after_step(draw.x_BCHW, draw.likelihood)


def must_be(value: object, base: type, component: str) -> None:
    """Raise ConfigError if a component of the user's own does not derive from the base that declares its methods."""
    if not isinstance(value, base):
        raise ConfigError(
            f"{component}: it gives a {type(value).__name__}, which must derive from {base.__module__}.{base.__name__}"
        )


def living(axis: str, space: str) -> str:
    """Return the names of the posteriors or priors whose latents live in this space."""
    return ", ".join(name for name in names(axis) if lookup(axis, name).space == space) or "there is none"
