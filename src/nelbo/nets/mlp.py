"""Fully connected networks."""

import math
from typing import Literal

from torch import nn

from nelbo.core.vocabulary import Shape
from nelbo.nets.base import Activation, Encoder, Net, Width, activation, bounded


class MLP(Net):
    """Linear layers of the given widths, each followed by batch norm (if asked for) and the activation.

    activation     of every layer; `gated` is a sigmoid(b) with a and b from a matrix each (Dauphin et al. 2017, eq. 1;
                   the layer of Tomczak & Welling 2018)
    spectral_norm  every matrix, a decoder's last one too, has 1 as its largest singular value: the network then
                   changes no faster than its input does, where activations and batch norm do not
    """

    hidden: tuple[Width, ...] = (512, 256)
    activation: Literal[Activation, "gated"] = "relu"
    batch_norm: bool = False
    spectral_norm: bool = False

    def encoder(self, shape: Shape) -> Encoder:
        pixels = math.prod(shape)
        layers = [nn.Flatten(), *self._stack(pixels)]
        return Encoder(layers, features=self.hidden[-1] if self.hidden else pixels)

    def decoder(self, latent_dim: int, shape: Shape) -> nn.Module:
        width = self.hidden[-1] if self.hidden else latent_dim
        out = bounded(nn.Linear(width, math.prod(shape)), self.spectral_norm)
        return nn.Sequential(*self._stack(latent_dim), out, nn.Unflatten(1, shape))

    def _stack(self, width: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for wider in self.hidden:
            out = 2 * wider if self.activation == "gated" else wider  # gated: a and b by one product
            layers.append(bounded(nn.Linear(width, out), self.spectral_norm))
            if self.batch_norm:
                layers.append(nn.BatchNorm1d(out))
            layers.append(nn.GLU() if self.activation == "gated" else activation(self.activation))
            width = wider
        return layers
