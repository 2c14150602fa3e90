"""Convolutions that are written as the matrix product they are, where a library's general kernel is slow."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4  # output channels up to which a transposed convolution is a plain one and a pixel shuffle


class Down(nn.Conv2d):
    """`torch.nn.Conv2d`. A kernel as large as its input is a matrix product of whole feature maps."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if x_BCHW.shape[2:] != self.kernel_size or self.padding != (0, 0):
            return super().forward(x_BCHW)
        # Rows in the order of memory (channels-last): both reshapes are views.
        x_BF = x_BCHW.permute(0, 2, 3, 1).flatten(1)
        weight_OF = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(x_BF, weight_OF, self.bias)[:, :, None, None]


class Up(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`. From a single pixel it is a matrix product; to few channels, on a CPU,
    a convolution of the small image whose outputs are woven together (Shi et al. 2016)."""

    def forward(self, x_BCHW: Tensor, output_size: Any = None) -> Tensor:
        if x_BCHW.shape[2:] == (1, 1) and self.padding == (0, 0) and self.output_padding == (0, 0):
            return self._from_a_pixel(x_BCHW)
        if x_BCHW.device.type == "cpu" and self.out_channels <= FEW and self._halves():
            return self._woven(x_BCHW)
        return super().forward(x_BCHW)

    def _from_a_pixel(self, x_BCHW: Tensor) -> Tensor:
        weight_IF = self.weight.permute(0, 2, 3, 1).flatten(1)
        y_BF = F.linear(x_BCHW.flatten(1), weight_IF.t(), None)
        y_BCHW = y_BF.view(len(y_BF), *self.kernel_size, self.out_channels).permute(0, 3, 1, 2)
        return y_BCHW if self.bias is None else y_BCHW + self.bias.to(y_BCHW.dtype)[:, None, None]

    def _halves(self) -> bool:
        """Kernel 4, stride 2, padding 1: exactly twice the size, each output pixel from 2 x 2 inputs."""
        return (self.kernel_size, self.stride, self.padding, self.output_padding) == (
            (4, 4),
            (2, 2),
            (1, 1),
            (0, 0),
        )

    def _woven(self, x_BCHW: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x_BCHW, weight = x_BCHW.to(dtype), weight.to(dtype)
        y_BCHW: Tensor = Doubled.apply(x_BCHW, weight)  # type: ignore[no-untyped-call]
        return y_BCHW if bias is None else y_BCHW + bias.to(y_BCHW.dtype)[:, None, None]


class Doubled(torch.autograd.Function):
    """A transposed convolution (kernel 4, stride 2, padding 1), forward as a convolution and a pixel shuffle."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight_IO44: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_IO44)
        return F.pixel_shuffle(F.conv2d(x_BCHW, woven(weight_IO44), padding=1), 2)

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_BCHW, weight = ctx.saved_tensors
        gradients = torch.ops.aten.convolution_backward(
            grad_BCHW,
            x_BCHW,
            weight,
            None,
            [2, 2],
            [1, 1],
            [1, 1],
            True,
            [0, 0],
            1,
            [*ctx.needs_input_grad, False],
        )
        return gradients[0], gradients[1]


def woven(weight_IO44: Tensor) -> Tensor:
    """The 3 x 3 kernels of the four interleaved outputs: (I, O, 4, 4) -> (4 O, I, 3, 3).

    Output 2 m + r takes inputs m + d, d = -1, 0, 1, with weight r + 1 - 2 d where that is one of 0 .. 3.
    """
    wide = F.pad(weight_IO44, (1, 1, 1, 1))  # index -1 .. 4 becomes 0 .. 5
    taps = torch.tensor([[4, 2, 0], [5, 3, 1]], device=weight_IO44.device)  # r + 1 - 2 d + 1
    picked = wide[:, :, taps][..., taps]  # I, O, r, d, s, e
    inputs, outputs = weight_IO44.shape[:2]
    return picked.permute(1, 2, 4, 0, 3, 5).reshape(4 * outputs, inputs, 3, 3)
