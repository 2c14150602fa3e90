"""Strided convolutions down, transposed convolutions up, for any height and width."""

from pydantic import Field
from torch import nn

from nelbo.core.vocabulary import Shape
from nelbo.errors import ConfigError
from nelbo.nets.base import Activation, Encoder, Net, Width, activation, bounded
from nelbo.nets.convolution import Down, Up


class Conv(Net):
    """A pyramid of convolutions, one level for each entry of `channels`.

    As an encoder: one strided convolution for each of `channels`; then, with `top`, one convolution as
    large as what is left, to `top` x 1 x 1. As a decoder: with `top`, a linear layer latent -> `top`;
    one transposed convolution from 1 x 1 to the smallest size with `channels[0]`, one up for each
    further entry, and one to the image. Sizes that a stride does not divide are met exactly, by
    output padding.

    spectral_norm  every layer's kernel, as the matrix (outputs, everything else), has 1 as its largest singular value
    """

    channels: tuple[Width, ...] = Field(default=(32, 64), min_length=1)
    top: Width | None = None
    kernel: int = Field(default=4, ge=1)
    stride: int = Field(default=2, ge=1)
    padding: int = Field(default=1, ge=0)
    activation: Activation = "relu"
    batch_norm: bool = False
    spectral_norm: bool = False

    def encoder(self, shape: Shape) -> Encoder:
        here, *_ = shape
        height, width = self._sizes(shape)[-1]
        layers: list[nn.Module] = []
        for channels in self.channels:
            layers += self._block(Down(here, channels, self.kernel, self.stride, self.padding), channels)
            here = channels
        if self.top is not None:  # a kernel as large as what is left: a linear layer, whose output is 1 x 1
            layers += self._block(Down(here, self.top, (height, width)), self.top)
            here, height, width = self.top, 1, 1
        return Encoder([*layers, nn.Flatten()], features=here * height * width)

    def decoder(self, latent_dim: int, shape: Shape) -> nn.Module:
        sizes = self._sizes(shape)[::-1]
        here = self.top or latent_dim
        layers: list[nn.Module] = []
        if self.top is not None:
            layers.append(bounded(nn.Linear(latent_dim, self.top), self.spectral_norm))
        layers.append(nn.Unflatten(1, (here, 1, 1)))
        layers += self._block(Up(here, self.channels[0], sizes[0]), self.channels[0])
        for level, channels in enumerate((*self.channels[1:], shape[0])):
            small, large = sizes[level : level + 2]
            plain = [(n - 1) * self.stride - 2 * self.padding + self.kernel for n in small]
            extra = (large[0] - plain[0], large[1] - plain[1])  # rows and columns that the stride left over
            up = Up(self.channels[level], channels, self.kernel, self.stride, self.padding, extra)
            is_image = level + 1 == len(self.channels)  # the last layer has neither norm nor activation
            layers += [bounded(up, self.spectral_norm)] if is_image else self._block(up, channels)
        return nn.Sequential(*layers)

    def _sizes(self, shape: Shape) -> list[tuple[int, int]]:
        """Return height and width at every level, from the image inwards."""
        sizes = [shape[1:]]
        for _ in self.channels:
            height, width = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in sizes[-1])
            if min(height, width) < 1:
                raise ConfigError(
                    f"model.encoder/decoder: {len(self.channels)} levels are too many for images of "
                    f"{shape[1]} x {shape[2]}; give fewer channels, a smaller kernel, or resize the images"
                )
            sizes.append((height, width))
        return sizes

    def _block(self, layer: nn.Module, channels: int) -> list[nn.Module]:
        norm: list[nn.Module] = [nn.BatchNorm2d(channels)] if self.batch_norm else []
        return [bounded(layer, self.spectral_norm), *norm, activation(self.activation)]
