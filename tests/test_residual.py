"""Residual networks: any size, a plain pyramid at the start, and the dropout that they promise."""

import pytest
import torch

from nelbo.core.config import build
from nelbo.errors import ConfigError
from nelbo.models import VAE
from nelbo.nets import Residual

CHANNELS = (8, 12, 16)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (8, 8), (13, 64), (31, 33)])
def test_any_size_passes_and_comes_back(size):
    shape = (3, *size)
    model = VAE(
        latent_dim=4, encoder=Residual(channels=CHANNELS), decoder=Residual(channels=CHANNELS[::-1])
    ).build(shape)
    x_BCHW = torch.rand(2, *shape)
    posterior = model.encode(x_BCHW)
    assert posterior.mean.shape == (2, 4)
    assert model.decode(posterior.mean).mean.shape == x_BCHW.shape


def test_blocks_start_near_the_identity():
    encoder = Residual(channels=CHANNELS, blocks=2).encoder((1, 16, 16))
    block = next(layer for layer in encoder if type(layer).__name__ == "Block")
    x_BCHW = torch.randn(2, CHANNELS[0], 8, 8)
    with torch.no_grad():
        assert 0 < float((block(x_BCHW) - x_BCHW).abs().max()) < 0.1


def test_every_block_learns():
    encoder = Residual(channels=CHANNELS, blocks=2).encoder((1, 16, 16))
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(2):  # the first step moves the last convolution of a block from zero, the second all of it
        optimiser.zero_grad()
        encoder(
            torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        ).square().mean().backward()
        optimiser.step()
    silent = [name for name, weight in encoder.named_parameters() if not weight.grad.abs().max() > 0]
    assert not silent


def test_the_size_of_features_is_kept_through_the_levels():
    """A pyramid whose layers shrink their input learns slowly: the spread of features stays near that of the input."""
    torch.manual_seed(0)
    encoder = Residual(channels=(32, 64, 128, 128)).encoder((3, 64, 64))
    decoder = Residual(channels=(128, 128, 64, 32)).decoder(64, (3, 64, 64))
    pyramid = torch.nn.Sequential(*[layer for layer in encoder if isinstance(layer, torch.nn.Conv2d)])
    with torch.no_grad():
        assert 0.5 < float(pyramid(torch.randn(8, 3, 64, 64)).std()) < 2.0
        assert 0.1 < float(decoder(torch.randn(8, 64)).std()) < 2.0


def test_dropout_acts_in_training_and_not_after():
    torch.manual_seed(0)
    encoder = Residual(channels=CHANNELS, dropout=0.5).encoder((1, 16, 16))
    for block in encoder:  # a block that starts at zero has nothing to drop
        if type(block).__name__ == "Block":
            torch.nn.init.normal_(block.path[-1].weight)
    x_BCHW = torch.randn(2, 1, 16, 16)
    assert not torch.equal(encoder(x_BCHW), encoder(x_BCHW))
    encoder.eval()
    assert torch.equal(encoder(x_BCHW), encoder(x_BCHW))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"channels": []}, "channels"), ({"blocks": -1}, "blocks"), ({"dropout": 1.0}, "dropout"),
     ({"kernel": 3}, "unknown field")],
)  # fmt: skip
def test_wrong_settings_are_named(wrong, field):
    with pytest.raises(ConfigError, match=field):
        build(Residual, wrong)
