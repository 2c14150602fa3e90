"""Networks against what they are, written out."""

from __future__ import annotations

import torch

from nelbo.nets import MLP


def test_a_gated_layer_is_a_product_with_a_sigmoid():
    """a(x) sigmoid(b(x)), a and b with a matrix each: Dauphin et al. 2017."""
    encoder = MLP(hidden=(5, 4), activation="gated").encoder((1, 2, 3)).double()
    x_BCHW = torch.randn(7, 1, 2, 3, dtype=torch.float64)
    h_BF = x_BCHW.flatten(1)
    for wide, layer in zip((5, 4), (encoder[1], encoder[3]), strict=True):
        a, b = layer.weight[:wide], layer.weight[wide:]
        h_BF = (h_BF @ a.T + layer.bias[:wide]) * torch.sigmoid(h_BF @ b.T + layer.bias[wide:])
    assert encoder.features == 4
    assert torch.allclose(encoder(x_BCHW), h_BF, atol=1e-12)


def test_a_gated_decoder_ends_without_a_gate():
    decoder = MLP(hidden=(5,), activation="gated").decoder(3, (1, 2, 3))
    assert [type(layer).__name__ for layer in decoder] == ["Linear", "GLU", "Linear", "Unflatten"]
    assert decoder(torch.randn(7, 3)).shape == (7, 1, 2, 3)
