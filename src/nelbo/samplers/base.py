"""The base of every sampler: a spec, the latents that it is fitted to, and the fitted sampler."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol, get_args

import torch
from torch import Tensor

from nelbo.core.distributions import PosteriorValue
from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.dists.base import Space
from nelbo.dists.spaces import IN_WORDS
from nelbo.errors import ConfigError, DataError
from nelbo.models import BuiltModel

SPACES: tuple[Space, ...] = get_args(Space)
SPREAD_DRAWS = 32  # posterior samples that show the deviation of a posterior which does not say it
SMALLEST = 1e-6  # of a deviation that is divided by, beside the largest one


@dataclasses.dataclass(frozen=True, slots=True)
class Latents:
    """The latents of N images.

    z_NZ     one sample of each posterior: together, of the aggregate posterior 1/N sum_i q(z | x_i)
    mean_NZ  the mean of each posterior, or the point that stands for it
    std_NZ   deviation of each posterior along each dimension; zero where it is a point
    again    rows_M -> z_MZ: fresh posterior samples of these images
    """

    z_NZ: Tensor
    mean_NZ: Tensor
    std_NZ: Tensor
    again: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.z_NZ)

    @property
    def latent_dim(self) -> int:
        return self.z_NZ.shape[1]


def of_posterior(posterior: PosteriorValue) -> tuple[Tensor, Tensor, Tensor]:
    """Return a sample, the mean and the deviation of each posterior of a batch, BZ each."""
    z_BZ, mean_BZ = posterior.rsample(1)[0], posterior.mean
    std = posterior.std
    if std is None:
        std = torch.zeros_like(mean_BZ) if posterior.is_point else posterior.rsample(SPREAD_DRAWS).std(0)
    return z_BZ, mean_BZ, std.abs()


class Fitted(Protocol):
    """A sampler that has been fitted: n latents z_nZ, from torch's random stream of the model's device.

    One whose density is known also has `log_prob(z_BZ)` -> B, nats; it may lack a constant.
    """

    def sample(self, n: int) -> Tensor: ...


class Sampler(Spec):
    """A source of latents for a trained model: `fit(model, train, validation)` gives a Fitted.

    `train` are the latents of training images, `validation` those of others, by which a fit that could go on for too
    long knows when to stop (without them a tenth of `train` is held out). Everything random comes from torch's
    streams: `engine.fixed_seed` around `fit` and `sample` makes both repeatable.

    follows   its latents follow the aggregate posterior of the training images; otherwise they have a density of
              their own, which `log_prob` of the fitted sampler says
    """

    axis: ClassVar[str] = "sampler"
    follows: ClassVar[bool] = True

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The spaces of latents that it works in."""
        return ("real",)

    @property
    def copies(self) -> bool:
        """True if it only draws training images again: measured as a yardstick, and not chosen for a low distance."""
        return False

    def fewest(self, latent_dim: int) -> int:
        """Return the smallest number of training latents that it needs."""
        return 2

    def check(self, space: Space) -> None:
        """Raise ConfigError where latents live in a space that it does not work in, with what would."""
        if space in self.spaces:
            return
        able = [name for name in names("sampler") if space in lookup("sampler", name)().spaces]
        raise ConfigError(
            f"sampler {self.name} draws {' or '.join(IN_WORDS[name] for name in self.spaces)}, but the latents of "
            f"this model are {IN_WORDS[space]}; use one of these samplers: {', '.join(able)}"
        )

    def fit(self, model: BuiltModel, train: Latents, validation: Latents | None = None) -> Fitted:
        """Fit it to the latents of a model in evaluation mode, on their device.

        Raises ConfigError for a space that it does not work in, DataError for too few latents and for latents that
        are not finite.
        """
        self.check(model.latent_space.space)
        least = self.fewest(train.latent_dim)
        if len(train) < least:
            raise DataError(
                f"sampler {self.name} needs {least} training latents or more to be fitted to, and there are "
                f"{len(train)}; use more training images, or --sampler prior, which needs none"
            )
        for tensor in (train.z_NZ, train.mean_NZ, train.std_NZ):
            if not tensor.isfinite().all():
                raise DataError(
                    f"sampler {self.name}: the encoder gives latents that are not finite numbers; "
                    "nelbo doctor RUN says what became of the training"
                )
        with torch.no_grad():
            return self.fitted(model, train, validation)

    def fitted(self, model: BuiltModel, train: Latents, validation: Latents | None) -> Fitted:
        """Return the result of `fit`, after its checks and without gradients."""
        raise TypeError(f"{type(self).__name__} is abstract")


def nonzero(std_Z: Tensor) -> Tensor:
    """Return deviations to divide by: of a dimension that never changes a small one, so that it stays."""
    return std_Z.clamp_min(max(float(std_Z.max()) * SMALLEST, torch.finfo(std_Z.dtype).tiny ** 0.5))


def blocks(n: int, at_once: int) -> list[int]:
    """Return n as a sum of `at_once` and a rest."""
    return [min(at_once, n - start) for start in range(0, n, at_once)]
