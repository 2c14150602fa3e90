"""Critics: small networks that an adversarial objective owns, and the two losses of their game."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nelbo.core.spec import Spec
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full
from nelbo.nets import MLP, Activation, Net
from nelbo.nets.base import Width

Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class Critic(Spec):
    """A fully connected critic of vectors, and the optimiser settings of its own.

    hidden, activation   of its layers
    lr, betas            of its Adam: the model's learning rate and schedule are not the critic's. The first beta is
                         below 0.9 since what a critic sees keeps moving (Radford, Metz & Chintala 2016)
    """

    hidden: tuple[Width, ...] = (64, 64)
    activation: Activation = "leaky-relu"
    lr: float = Field(default=1e-3, gt=0.0)
    betas: tuple[Decay, Decay] = (0.5, 0.9)

    def build(self, inputs: int) -> CriticModule:
        """Return a module from (..., inputs) to logits of shape (...): above 0 it takes a vector for real."""
        return CriticModule(MLP(hidden=self.hidden, activation=self.activation), inputs)


class CriticModule(nn.Module):
    """Vectors (..., inputs) -> logits (...)."""

    def __init__(self, stack: MLP, inputs: int) -> None:
        super().__init__()
        self.stack = stack.encoder((inputs, 1, 1))
        self.score = nn.Linear(self.stack.features, 1)

    def forward(self, value: Tensor) -> Tensor:
        logits = self.score(self.stack(value.reshape(-1, value.shape[-1])))
        return full(logits).view(value.shape[:-1])


class ImageCritic(Critic):
    """A critic of images of any size: a network of the axis `net`, and fully connected layers on its features.

    net   up to layer l, where features of two images are compared; `hidden` are the layers behind it
    """

    hidden: tuple[Width, ...] = (64,)
    net: Net = MLP(hidden=(128,), activation="leaky-relu")


class ImageCriticModule(nn.Module):
    """Images (..., C, H, W) -> features (..., F) of layer l -> logits (...)."""

    def __init__(self, spec: ImageCritic, shape: Shape) -> None:
        super().__init__()
        self.net = spec.net.encoder(shape)
        self.head = spec.build(self.net.features)

    def features(self, images: Tensor) -> Tensor:
        return full(self.net(images.flatten(0, -4))).view(*images.shape[:-3], -1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))  # type: ignore[no-any-return]


def taken_for_real(logits: Tensor) -> Tensor:
    """Return -log D: what the maker of fakes minimises, without saturating (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-logits)  # -log sigmoid, whose slope does not vanish where the critic is sure


def told_apart(real: Tensor, *fakes: Tensor) -> Tensor:
    """Return -log D(real) - sum log(1 - D(fake)): what the critic minimises (Goodfellow et al. 2014, eq. 1)."""
    loss = F.softplus(-real)
    for fake in fakes:
        loss = loss + F.softplus(fake)
    return loss
