"""Convolutions written as what they are: the same function and the same gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nelbo.nets.convolution import Doubled, Down, Up


def gradients(layer, forward, x):
    torch.manual_seed(1)
    y = forward(layer, x)
    return [
        y,
        *torch.autograd.grad(
            y, [x, *layer.parameters()], torch.randn(y.shape, dtype=y.dtype), create_graph=True
        ),
    ]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Down(6, 8, (7, 5)), (4, 6, 7, 5)),  # a kernel as large as its input
        (Down(6, 8, 4, 2, 1), (4, 6, 8, 6)),
        (Up(8, 6, (7, 5)), (4, 8, 1, 1)),  # from a single pixel
        (Up(8, 1, 4, 2, 1), (4, 8, 7, 5)),  # to few channels
        (Up(8, 3, 4, 2, 1, bias=False), (4, 8, 7, 5)),
        (Up(8, 16, 4, 2, 1), (4, 8, 7, 5)),
        (Up(8, 1, 4, 2, 1, 1), (4, 8, 7, 5)),  # odd sizes keep torch's kernel
    ],
)
def test_the_same_function_with_the_same_gradients(layer, shape, dtype, channels_last):
    layer = layer.to(dtype)
    x = torch.randn(shape, dtype=dtype)
    if channels_last:
        layer, x = layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    plain = nn.Conv2d.forward if isinstance(layer, Down) else nn.ConvTranspose2d.forward
    mine, theirs = gradients(layer, type(layer).forward, x), gradients(layer, plain, x)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-4)


def test_the_woven_convolution_is_differentiable_twice():
    x, weight = torch.randn(2, 3, 4, 3).double(), torch.randn(3, 2, 4, 4).double()
    inputs = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(Doubled.apply, inputs)
    assert torch.autograd.gradgradcheck(Doubled.apply, inputs)


def test_under_autocast_the_result_is_bf16_and_close():
    layer, x = Up(8, 1, 4, 2, 1), torch.randn(4, 8, 7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), layer(x), atol=0.05)


@pytest.mark.parametrize("layer", [Down(6, 8, 4, 2, 1), Up(6, 8, 4, 2, 1), Up(6, 8, 3, 2, 1, 1)])
def test_mixed_gradients_are_the_float32_ones_up_to_bf16(layer):
    x = torch.randn(4, 6, 8, 6, requires_grad=True)

    def under_autocast(layer, x):
        with torch.autocast("cpu", torch.bfloat16):
            y = type(layer).forward(layer, x)
        assert y.dtype == torch.bfloat16
        return y.float()

    plain = nn.Conv2d.forward if isinstance(layer, Down) else nn.ConvTranspose2d.forward
    mine, theirs = gradients(layer, under_autocast, x), gradients(layer, plain, x)
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.01 * b.norm()
    by_x, by_weight = gradients(layer, under_autocast, x)[1:3]
    assert torch.equal(by_x, by_x.bfloat16().float()), "in bf16"
    assert not torch.equal(by_weight, by_weight.bfloat16().float()), "in float32"
