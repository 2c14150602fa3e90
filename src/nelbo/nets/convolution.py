"""Convolutions that are written as the matrix product they are, where a library's general kernel is slow."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

FEW = 4  # output channels up to which a transposed convolution is a plain one and a pixel shuffle
# Kernel, stride and paddings of exactly twice the size, each output pixel from 2 x 2 inputs.
HALVES = (4, 4), (2, 2), (1, 1), (0, 0)


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

    def forward(self, x_BCHW: Tensor, output_size: list[int] | None = None) -> Tensor:
        geometry = (self.kernel_size, self.stride, self.padding, self.output_padding)
        if x_BCHW.shape[2:] == (1, 1) and self.padding == (0, 0) and self.output_padding == (0, 0):
            weight_IF = self.weight.permute(0, 2, 3, 1).flatten(1)
            y_BF = F.linear(x_BCHW.flatten(1), weight_IF.t(), None)
            y_BCHW = y_BF.view(len(y_BF), *self.kernel_size, self.out_channels).permute(0, 3, 1, 2)
        elif x_BCHW.device.type == "cpu" and self.out_channels <= FEW and geometry == HALVES:
            weight = self.weight
            if torch.is_autocast_enabled("cpu"):  # what the function saves for its gradient has one precision
                dtype = torch.get_autocast_dtype("cpu")
                x_BCHW, weight = x_BCHW.to(dtype), weight.to(dtype)
            y_BCHW = doubled(x_BCHW, weight)
        elif mixes(x_BCHW):
            y_BCHW = mixed(x_BCHW, self.weight, self.stride, self.padding, self.output_padding, True)
        else:
            return super().forward(x_BCHW)
        return offset(y_BCHW, self.bias)


def mixes(x: Tensor) -> bool:
    """Return True if convolutions run in bf16 on a CPU, whose weight gradients are faster in float32."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def offset(y_BCHW: Tensor, bias_C: Tensor | None) -> Tensor:
    """Return the image with the bias of each channel added."""
    return y_BCHW if bias_C is None else y_BCHW + bias_C.to(y_BCHW.dtype)[:, None, None]


class Mixed(torch.autograd.Function):
    """A convolution whose result and whose gradient by x are computed in bf16, and that by the weights in float32.

    On processors with bf16 instructions but no matrix units the first two are 1.5 times faster in bf16; the
    last is half as fast, for want of a kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, *geometry: tuple[int, ...] | bool) -> Tensor:
        stride, padding, output_padding, transposed = geometry
        x = x.to(torch.bfloat16)
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding, (1, 1), transposed, output_padding, 1)  # not dilated, one group
        return torch.ops.aten.convolution(x, weight.to(x.dtype), None, *ctx.geometry)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        backward = torch.ops.aten.convolution_backward
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = backward(grad, x, weight.to(x.dtype), None, *ctx.geometry, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            wide, wide_x = grad.float(), x.float()  # bf16 has no fast kernel for this one
            grad_weight = backward(wide, wide_x, weight, None, *ctx.geometry, [False, True, False])[1]
        return grad_x, grad_weight, None, None, None, None


mixed: Callable[..., Tensor] = Mixed.apply


class Doubled(torch.autograd.Function):
    """A transposed convolution (kernel 4, stride 2, padding 1), forward as a convolution and a pixel shuffle.

    The four interleaved outputs have 3 x 3 kernels: output 2 m + r takes inputs m + d, d = -1, 0, 1, with weight
    r + 1 - 2 d where that is one of 0 .. 3.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x_BCHW: Tensor, weight_IO44: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_IO44)
        wide = F.pad(weight_IO44, (1, 1, 1, 1))  # index -1 .. 4 becomes 0 .. 5
        taps = torch.tensor([[4, 2, 0], [5, 3, 1]], device=weight_IO44.device)  # r + 1 - 2 d + 1
        picked = wide[:, :, taps][..., taps]  # I, O, r, d, s, e
        inputs, outputs = weight_IO44.shape[:2]
        kernels = picked.permute(1, 2, 4, 0, 3, 5).reshape(4 * outputs, inputs, 3, 3)
        return F.pixel_shuffle(F.conv2d(x_BCHW, kernels, padding=1), 2)

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, Tensor | None]:
        # The transposed convolution's own gradient: stride 2, padding 1, not dilated, no output padding, one group.
        geometry = ([2, 2], [1, 1], [1, 1], True, [0, 0], 1)
        backward, needs = torch.ops.aten.convolution_backward, [*ctx.needs_input_grad, False]
        grad_x, grad_weight, _ = backward(grad_BCHW, *ctx.saved_tensors, None, *geometry, needs)
        return grad_x, grad_weight


doubled: Callable[..., Tensor] = Doubled.apply
