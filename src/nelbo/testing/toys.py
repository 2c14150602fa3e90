"""A small encoder and a few images, for priors that are made of a model's posteriors."""

import torch
from torch import Generator, Tensor

from nelbo.core.distributions import PriorModule
from nelbo.core.vocabulary import Shape
from nelbo.dists.normal import DiagonalNormal
from nelbo.models import BuiltModel
from nelbo.priors import Prior

IMAGES = 450  # more than a prior draws of them at a time
SHAPE = (1, 2, 3)


class ToyImages:
    """A data set of grey images, none of them black or white; as `data.Batches` hands them out. Shape (n, C, H, W)."""

    def __init__(self, shape: Shape, n: int = IMAGES) -> None:
        self.n, self.shape = n, shape
        stream = Generator().manual_seed(n)
        self.x_NCHW = 0.1 + 0.8 * torch.rand(n, *shape, generator=stream, dtype=torch.get_default_dtype())

    def take(self, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Return x_BCHW of the images at these positions."""
        return self.x_NCHW[index]


class ToyEncoder:
    """A function x_BCHW -> N(mean_BZ, diag(std_BZ^2)): fixed, smooth, another posterior for every image."""

    def __init__(self, latents: int, shape: Shape = SHAPE) -> None:
        pixels = shape[0] * shape[1] * shape[2]
        angles = torch.outer(torch.arange(1, pixels + 1), torch.arange(1, 2 * latents + 1)).double()
        self.weights_DP = (2.3 * angles).sin()

    def __call__(self, x_BCHW: Tensor) -> DiagonalNormal:
        features_BD = x_BCHW.flatten(1) - 0.5
        mean_BZ, raw_BZ = (features_BD @ self.weights_DP.to(features_BD)).chunk(2, dim=-1)
        log_var_BZ = raw_BZ.tanh() - 1.0
        return DiagonalNormal(2.0 * mean_BZ, (0.5 * log_var_BZ).exp(), log_var_BZ)


def built(spec: Prior, latents: int) -> PriorModule:
    """Return the prior's module; with the toy encoder and images where it is made of a model's posteriors."""
    return furnished(spec.build(latents), latents, SHAPE)


def furnished(prior: PriorModule, latents: int, shape: Shape) -> PriorModule:
    """Return the same module, attached to the toy encoder in place of a model's, and shown toy images."""
    prior.attach(ToyEncoder(latents, shape), shape)
    prior.observe_training_images(ToyImages(shape))
    prior.refresh()
    return prior


def shown(model: BuiltModel) -> BuiltModel:
    """Return the model, with toy images where its prior is made of training images."""
    model.observe_training_images(ToyImages(model.shape))
    model.refresh()
    return model
