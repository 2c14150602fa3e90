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
            if not mixes(x_BCHW):
                return super().forward(x_BCHW)
            y_BCHW = mixed(x_BCHW, self.weight, self.stride, self.padding, (0, 0), False)
            return offset(y_BCHW, self.bias)
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
        if not mixes(x_BCHW):
            return super().forward(x_BCHW)
        y_BCHW = mixed(x_BCHW, self.weight, self.stride, self.padding, self.output_padding, True)
        return offset(y_BCHW, self.bias)

    def _from_a_pixel(self, x_BCHW: Tensor) -> Tensor:
        weight_IF = self.weight.permute(0, 2, 3, 1).flatten(1)
        y_BF = F.linear(x_BCHW.flatten(1), weight_IF.t(), None)
        y_BCHW = y_BF.view(len(y_BF), *self.kernel_size, self.out_channels).permute(0, 3, 1, 2)
        return offset(y_BCHW, self.bias)

    def _halves(self) -> bool:
        """Kernel 4, stride 2, padding 1: exactly twice the size, each output pixel from 2 x 2 inputs."""
        return (self.kernel_size, self.stride, self.padding, self.output_padding) == (
            (4, 4),
            (2, 2),
            (1, 1),
            (0, 0),
        )

    def _woven(self, x_BCHW: Tensor) -> Tensor:
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x_BCHW, weight = x_BCHW.to(dtype), weight.to(dtype)
        y_BCHW = doubled(x_BCHW, weight)
        return offset(y_BCHW, self.bias)


def mixes(x: Tensor) -> bool:
    """Return True if convolutions run in bf16 on a CPU, whose weight gradients are faster in float32."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def offset(y_BCHW: Tensor, bias_C: Tensor | None) -> Tensor:
    return y_BCHW if bias_C is None else y_BCHW + bias_C.to(y_BCHW.dtype)[:, None, None]


class Mixed(torch.autograd.Function):
    """A convolution whose result and whose gradient by x are computed in bf16, and that by the weights in float32.

    On processors with bf16 instructions but no matrix units the first two are 1.5 times faster in bf16; the
    last is half as fast, for want of a kernel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: Any, padding: Any, output_padding: Any, transposed: bool
    ) -> Tensor:
        x = x.to(torch.bfloat16)
        ctx.save_for_backward(x, weight)
        ctx.how = (stride, padding, (1, 1), transposed, output_padding, 1)
        return torch.ops.aten.convolution(x, weight.to(x.dtype), None, *ctx.how)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        backward = torch.ops.aten.convolution_backward
        by_x = by_weight = None
        if ctx.needs_input_grad[0]:
            by_x = backward(grad, x, weight.to(x.dtype), None, *ctx.how, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            by_weight = backward(grad.float(), x.float(), weight, None, *ctx.how, [False, True, False])[1]
        return by_x, by_weight, None, None, None, None


mixed: Any = Mixed.apply


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


doubled: Any = Doubled.apply


def woven(weight_IO44: Tensor) -> Tensor:
    """The 3 x 3 kernels of the four interleaved outputs: (I, O, 4, 4) -> (4 O, I, 3, 3).

    Output 2 m + r takes inputs m + d, d = -1, 0, 1, with weight r + 1 - 2 d where that is one of 0 .. 3.
    """
    wide = F.pad(weight_IO44, (1, 1, 1, 1))  # index -1 .. 4 becomes 0 .. 5
    taps = torch.tensor([[4, 2, 0], [5, 3, 1]], device=weight_IO44.device)  # r + 1 - 2 d + 1
    picked = wide[:, :, taps][..., taps]  # I, O, r, d, s, e
    inputs, outputs = weight_IO44.shape[:2]
    return picked.permute(1, 2, 4, 0, 3, 5).reshape(4 * outputs, inputs, 3, 3)
