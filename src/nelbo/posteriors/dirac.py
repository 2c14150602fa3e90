"""The deterministic encoder: a posterior that is one point, without a density."""

from typing import ClassVar

from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue
from nelbo.errors import NotABound
from nelbo.posteriors.base import LinearHead, Posterior


class Point(PosteriorValue):
    """The value: all mass at z_BZ. Its density does not exist, and its KL to any density is infinite."""

    is_point: ClassVar[bool] = True
    not_a_bound = (
        "the posterior is a single point, without a density: its KL to any prior with a density is infinite"
    )

    def __init__(self, z_BZ: Tensor) -> None:
        self.mean = z_BZ

    def rsample(self, k: int = 1) -> Tensor:
        """Return the same point k times: z_KBZ."""
        return self.mean.expand(k, *self.mean.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        raise NotABound(f"log q(z|x) was asked for: {self.not_a_bound}")


class Dirac(Posterior):
    """q(z | x) = delta(z - f(x)): a deterministic encoder, one linear head without noise.

    The posterior of an autoencoder, and of objectives that ask something else of the codes than a KL of each: the
    Wasserstein autoencoder (Tolstikhin et al. 2018) and the regularised autoencoder (Ghosh et al. 2020). It has no
    density: there is no KL, no bound on log p(x) and no importance weight, and objectives that need one refuse it.
    """

    has_density: ClassVar[bool] = False

    def build(self, features: int, latent_dim: int) -> nn.Module:
        return LinearHead(features, latent_dim, Point)
