"""Residual convolutional networks, for images of any height and width."""

import math
from typing import TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.core.vocabulary import Shape
from nelbo.nets.base import Activation, Encoder, Net, Width, activation
from nelbo.nets.convolution import Down, Up


class Residual(Net):
    """Levels of half the size each, with residual blocks between them (He et al. 2016; without norms, Child 2021).

    As an encoder: for each entry of `channels` one convolution of stride 2, then `blocks` blocks. Sizes are rounded
    up, so that an image of one pixel passes too. As a decoder the same backwards: a linear layer to the smallest
    level; there and at each larger level `blocks` blocks; between levels a transposed convolution to twice the size,
    cut to that of the next level. Encoder and decoder of one model list their channels in opposite order, as those of
    `conv` do.

    blocks    of each level: x + convolution(dropout(act(convolution(act(x))))), 3 x 3 kernels. The last convolution
              of each starts near zero, so that training starts from a plain pyramid and needs no normalisation
    dropout   share of feature maps that a block leaves out in training (Tompson et al. 2015)
    """

    channels: tuple[Width, ...] = Field(default=(32, 64, 128), min_length=1)
    blocks: int = Field(default=1, ge=0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    activation: Activation = "silu"

    def encoder(self, shape: Shape) -> Encoder:
        width, *_ = shape
        layers: list[nn.Module] = []
        for channels in self.channels:
            layers += [unit(Down(width, channels, 3, 2, 1), 9 * width), *self._blocks(channels)]
            width = channels
        height_left, width_left = self._sizes(shape)[-1]
        layers += [activation(self.activation), nn.Flatten()]
        return Encoder(layers, features=width * height_left * width_left)

    def decoder(self, latent_dim: int, shape: Shape) -> nn.Module:
        sizes = self._sizes(shape)[::-1]
        smallest = (self.channels[0], *sizes[0])
        layers: list[nn.Module] = [unit(nn.Linear(latent_dim, math.prod(smallest)), latent_dim)]
        layers.append(nn.Unflatten(1, smallest))
        for channels, wider, size in zip(
            self.channels, (*self.channels[1:], shape[0]), sizes[1:], strict=True
        ):
            layers += [*self._blocks(channels), activation(self.activation)]
            layers.append(Enlarge(channels, wider, size))
        return nn.Sequential(*layers)

    def _blocks(self, channels: int) -> list[nn.Module]:
        return [Block(channels, self.activation, self.dropout) for _ in range(self.blocks)]

    def _sizes(self, shape: Shape) -> list[tuple[int, int]]:
        """Return height and width at every level, from the image inwards."""
        sizes = [shape[1:]]
        for _ in self.channels:
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))  # rounded up, as the convolution does
        return sizes


NEARLY_ZERO = 1e-3  # not zero itself: the convolutions before it would have no gradient in the first step

L = TypeVar("L", Down, Up, nn.Linear)


def unit(layer: L, inputs: int) -> L:
    """Return the layer with weights that keep the spread of its input, of which each output takes `inputs` numbers.

    torch's own start makes it smaller by 1.7 at every layer: through eight levels little of an image is left.
    """
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions beside the identity."""

    def __init__(self, channels: int, name: Activation, dropout: float) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(last.weight, std=NEARLY_ZERO)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        first = [activation(name), nn.Conv2d(channels, channels, 3, padding=1), activation(name)]
        self.path = nn.Sequential(*first, *([nn.Dropout2d(dropout)] if dropout else []), last)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + torch.as_tensor(self.path(x_BCHW))


class Enlarge(nn.Module):
    """A transposed convolution (kernel 4, stride 2) to twice the size, cut to `size` (height, width)."""

    def __init__(self, channels: int, out: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        # Each output pixel from 2 x 2 inputs: less than half of the products of a 3 x 3 convolution at that size.
        # Behind an activation an input has half its square: inputs count half (He et al. 2015).
        self.up = unit(Up(channels, out, 4, 2, 1), 4 * channels // 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        height, width = self.size  # odd where the encoder rounded up
        return torch.as_tensor(self.up(x_BCHW))[..., :height, :width]
