"""What every model is: a spec, and the module it builds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nelbo.core import Draw
from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.dists.base import Of, exact, given, offer
from nelbo.dists.spaces import Where
from nelbo.errors import NotABound

Shape = tuple[int, int, int]
# Decoder outputs held at a time when k is large. On a CPU 16 MB stay near the cache and are a third faster than
# 64 MB; an accelerator wants kernels that are large.
PIXELS_AT_ONCE = {"cpu": 2**22}
PIXELS_AT_ONCE_ELSEWHERE = 2**25
IMAGES_AT_ONCE = 1000  # through the networks, when they are not asked in batches


class Model(Spec):
    """A model's configuration; `build(shape)` gives the module for images of (C, H, W).

    Where it has no field `posterior`, it says itself what a posterior says (`dists.base.Posterior`):

    has_density   False for a point: no KL, no importance weights
    factorises    dimensions are independent given x

    quantises     latents are codes, and no gradient of a bound brings the encoder to them: its objective must commit
    """

    axis: ClassVar[str] = "model"
    has_density: ClassVar[bool] = True
    factorises: ClassVar[bool] = False
    quantises: ClassVar[bool] = False

    def build(self, shape: Shape) -> BuiltModel:
        raise TypeError(f"{type(self).__name__} is abstract")


class BuiltModel(nn.Module):
    """A module that can draw. Subclasses give `encode`, `decode` and `draw`; the rest follows from them.

    shape, latent_dim    (C, H, W) of the images, and Z
    prior                the module p(z)
    likelihood_of        what p(x | z) is a probability of: binary pixels, 8-bit levels, or a density
    outputs              numbers that the decoder puts out for each pixel and channel
    where                the space of the latents
    """

    shape: Shape
    latent_dim: int
    prior: nn.Module
    likelihood_of: Of
    outputs: int = 1
    where: Where = Where()

    def encode(self, x_BCHW: Tensor) -> Any:
        """The posterior q(z | x) of each image; `.mean` is z_BZ."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def decode(self, z: Tensor) -> Any:
        """The likelihood p(x | z); z has shape (..., Z), the images (..., C, H, W)."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw:
        """k posterior samples for each image, with their densities."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def see(self, images: Any) -> None:
        """Shows the training images to a prior that is made of some; `images.take(rows)` gives x_BCHW."""
        offer(self.prior, "see", images)

    def refresh(self) -> None:
        """Brings what the prior keeps of the training images up to date, before measuring and saving."""
        offer(self.prior, "refresh")

    def sample_prior(self, n: int) -> Tensor:
        """n latents z ~ p(z): (n, Z)."""
        draw: Any = self.prior.sample
        return torch.as_tensor(draw(n))

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """Means of p(x | z) for n draws z from the prior, scaled by `temperature`: (n, C, H, W). In batches."""
        return self._means(self.where.tempered(self.sample_prior(n), temperature), self.decode)

    @torch.no_grad()
    def reconstruct(self, x_BCHW: Tensor) -> Tensor:
        """Mean of p(x | z) at the posterior mean of each image: (B, C, H, W). Deterministic; in batches."""
        return self._means(x_BCHW, lambda x_BCHW: self.decode(self.encode(x_BCHW).mean))

    def _means(self, rows: Tensor, likelihood: Callable[[Tensor], Any]) -> Tensor:
        """The mean of the likelihood for every row, a bounded number at a time."""
        return torch.cat([likelihood(some).mean for some in torch.split(rows, IMAGES_AT_ONCE)])

    @torch.no_grad()
    def log_prob(self, x_BCHW: Tensor, k: int = 100) -> Tensor:
        """Importance-weighted estimate of log p(x), nats, for each image: shape (B,).

        log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), a lower bound in expectation that tightens with k
        (Burda et al. 2016, eq. 8). Memory is bounded whatever k is. Raises NotABound where samples do not
        come from the density.
        """
        sums_B = (log_w_KB.logsumexp(0) for log_w_KB in self.log_weight_pieces(x_BCHW, k))
        return functools.reduce(torch.logaddexp, sums_B) - math.log(k)

    @torch.no_grad()
    def log_weights(self, x_BCHW: Tensor, k: int) -> Tensor:
        """log p(x, z_k) - log q(z_k | x) for exactly k posterior samples an image, float64: shape (K, B)."""
        return torch.cat(list(self.log_weight_pieces(x_BCHW, k)))

    @torch.no_grad()
    def log_weight_pieces(self, x_BCHW: Tensor, k: int) -> Iterator[Tensor]:
        """`log_weights` a piece at a time: shapes (K', B) whose K' add up to k, and whose size k does not change."""
        pixels = PIXELS_AT_ONCE.get(x_BCHW.device.type, PIXELS_AT_ONCE_ELSEWHERE)
        at_once = max(1, pixels // (x_BCHW.numel() * self.outputs))
        for start in range(0, k, at_once):
            draw = self.draw(x_BCHW, min(at_once, k - start))
            if draw.not_a_bound:
                raise NotABound(f"importance weights do not exist: {draw.not_a_bound}")
            yield exact(draw.log_px_KB) + exact(draw.log_pz_KB) - exact(draw.log_qz_KB)


class Autoencoder(BuiltModel):
    """A model of an encoder, a latent vector, a decoder and a likelihood, which are fields of its spec.

    Subclasses give `build_latents`, which makes `prior` and what turns features into a posterior, and `encode`.
    """

    def __init__(self, spec: Any, shape: Shape) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = shape
        self.latent_dim = spec.latent_dim
        self.likelihood_of = spec.likelihood.of
        self.outputs = spec.likelihood.channels
        self.encoder = spec.encoder.encoder(shape)
        self.build_latents(spec)
        self.decoder = spec.decoder.decoder(
            spec.latent_dim, (channels * spec.likelihood.channels, height, width)
        )
        self.likelihood = spec.likelihood.build(shape)

    def build_latents(self, spec: Any) -> None:
        raise TypeError(f"{type(self).__name__} is abstract")

    def decode(self, z: Tensor) -> Any:
        outputs = self.decoder(z.reshape(-1, z.shape[-1]))
        return self.likelihood(outputs.view(*z.shape[:-1], *outputs.shape[1:]))

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw:
        posterior = self.encode(x_BCHW)
        z_KBZ = posterior.rsample(k)
        likelihood = self.decode(z_KBZ)
        return Draw(
            z_KBZ=z_KBZ,
            log_px_KB=likelihood.log_prob(x_BCHW),
            posterior=posterior,
            prior=given(self.prior, x_BCHW),
            x_BCHW=x_BCHW,
            likelihood=likelihood,
            aux={"decode": self.decode, "decoder_weights": self.decoder.parameters},
        )


def living(axis: str, space: str) -> str:
    """The names of the posteriors or priors whose latents live in this space."""
    return ", ".join(name for name in names(axis) if lookup(axis, name).space == space) or "there is none"
