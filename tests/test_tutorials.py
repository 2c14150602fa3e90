"""The five tutorials: networks, losses and gradients as their texts write them, against the recipes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nelbo.core import Progress
from nelbo.likelihoods import Gaussian
from nelbo.models import VAE
from nelbo.nets import Conv
from nelbo.objectives import ELBO
from nelbo.schedules import Constant
from nelbo.training.recipe import resolve

MNIST = (1, 28, 28)


def built(name: str, shape: tuple[int, int, int] = MNIST):
    torch.manual_seed(0)
    recipe = resolve(name)
    return recipe, recipe.model.build(shape)


def layers(module: nn.Module) -> list[str]:
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    return [
        f"{type(layer).__name__}{tuple(layer.weight.shape)}"
        for layer in module.modules()
        if isinstance(layer, kinds)
    ]


def loss_of(recipe, model, x, epoch=1):
    """The recipe's batch loss, and the latent sample it used."""
    torch.manual_seed(7)
    draw = model.draw(x, recipe.objective.k)
    terms = recipe.objective(draw, Progress(epoch=epoch, epochs=recipe.epochs))
    return terms.loss_B.sum() if recipe.batch_reduction == "sum" else terms.loss_B.mean(), draw


def decoded_probability(model, draw):
    return model.decode(draw.z_KBZ[0]).mean


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "conv-2d",
            [
                *["Down(32, 1, 4, 4)", "Down(64, 32, 4, 4)", "Down(128, 64, 7, 7)", "Linear(4, 128)"],
                *["Linear(128, 2)", "Up(128, 64, 7, 7)", "Up(64, 32, 4, 4)"],
                "Up(32, 1, 4, 4)",
            ],
        ),
        (
            "mlp-sigma-as-published",
            ["Linear(200, 784)", "Linear(40, 200)", "Linear(200, 20)", "Linear(784, 200)"],
        ),
        (
            "mlp-tanh-binary-as-published",
            [
                *["Linear(512, 784)", "Linear(64, 512)", "Linear(24, 64)"],
                *["Linear(64, 12)", "Linear(512, 64)", "Linear(784, 512)"],
            ],
        ),
        (
            "fashion-mlp",
            [
                *["Linear(512, 784)", "Linear(256, 512)", "Linear(64, 256)"],
                *["Linear(256, 32)", "Linear(512, 256)", "Linear(784, 512)"],
            ],
        ),
    ],
)
def test_networks_are_the_published_ones(name, expected):
    _, model = built(name)
    assert layers(model) == expected


def test_the_batch_norm_network_is_the_published_one():
    recipe, model = built("conv-bn-128", (1, 32, 32))
    bn = "BatchNorm2d({},)"
    assert layers(model.encoder) == [
        *["Down(16, 1, 4, 4)", bn.format(16), "Down(32, 16, 4, 4)", bn.format(32)],
        *["Down(64, 32, 4, 4)", bn.format(64)],
    ]
    # The text's two 4x4 convolutions on what is left, 4x4, are one linear map of its 1,024 features.
    assert layers(model.posterior) == ["Linear(256, 1024)"]
    assert layers(model.decoder) == [
        *["Up(128, 64, 4, 4)", bn.format(64), "Up(64, 32, 4, 4)", bn.format(32)],
        *["Up(32, 16, 4, 4)", bn.format(16), "Up(16, 1, 4, 4)"],
    ]
    assert recipe.optimizer.betas == (0.5, 0.999)
    three = resolve("conv-bn-128").model.build((3, 32, 32))
    assert three.sample(2).shape == (2, 3, 32, 32), "any number of input channels"


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rate"),
    [
        ("conv-2d", 10, 128, 1e-3),
        ("mlp-sigma-as-published", 20, 64, 3e-6),
        ("mlp-sigma", 20, 64, 1e-3),
        ("conv-bn-128", 10, 64, 1e-4),
        ("mlp-tanh-binary-as-published", 15, 32, 1e-3),
        ("mlp-tanh-binary", 15, 32, 1e-3),
        ("fashion-mlp", 50, 128, 5e-4),
    ],
)
def test_training_is_as_long_and_as_fast_as_published(name, epochs, batch, rate):
    recipe = resolve(name)
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (epochs, batch, Constant(value=rate))


def test_conv_2d_is_cross_entropy_plus_kl_summed():
    recipe, model = built("conv-2d")
    x = torch.rand(6, *MNIST)
    loss, draw = loss_of(recipe, model, x)
    q = draw.posterior
    bce = F.binary_cross_entropy(decoded_probability(model, draw), x, reduction="sum")
    text = bce - 0.5 * torch.sum(1 + q.log_var - q.mean.pow(2) - q.log_var.exp())
    assert torch.allclose(loss, text, rtol=1e-5)


def test_mlp_sigma_as_published_leaves_out_the_half():
    recipe, model = built("mlp-sigma-as-published")
    x = torch.rand(6, *MNIST)
    loss, draw = loss_of(recipe, model, x)
    mean, sigma = draw.posterior.mean, draw.posterior.std
    assert sigma.min() < 0 < sigma.max(), "the encoder's bare output is sigma"
    bce = F.binary_cross_entropy(decoded_probability(model, draw), x, reduction="sum")
    text = bce - torch.sum(1 + torch.log(sigma.pow(2)) - mean.pow(2) - sigma.pow(2))
    assert torch.allclose(loss, text, rtol=1e-5)
    corrected, _ = built("mlp-sigma")
    assert corrected.objective == ELBO()
    assert corrected.model.build(MNIST).encode(x).std.min() > 0


def test_mlp_tanh_binary_as_published_is_its_text_up_to_a_constant():
    recipe, model = built("mlp-tanh-binary-as-published")
    x = torch.rand(6, *MNIST).round()
    loss, draw = loss_of(recipe, model, x)
    mean, std = draw.posterior.mean, draw.posterior.std
    assert mean.abs().max() < 1
    assert std.min() < 0 < std.max(), "tanh gives negative standard deviations"
    noise = (draw.z_KBZ[0] - mean) / std
    assert torch.allclose(noise, noise[:, :1].expand_as(noise), atol=1e-3), "one number an image"
    bce = F.binary_cross_entropy(decoded_probability(model, draw), x, reduction="sum")
    text = bce + 5 * 0.5 * torch.sum(mean**2 + std**2 - torch.log(std**2))
    dropped = 5 * 0.5 * mean.numel()
    assert torch.allclose(loss, text - dropped, rtol=1e-5)


@pytest.mark.parametrize("epoch", [1, 10, 25, 40])
def test_fashion_mlp_warms_beta_up_over_25_epochs(epoch):
    recipe, model = built("fashion-mlp")
    x = torch.rand(6, *MNIST)
    loss, draw = loss_of(recipe, model, x, epoch=epoch)
    q = draw.posterior
    logits = model.decode(draw.z_KBZ[0]).logits
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
    kl = -0.5 * torch.sum(1 + q.log_var - q.mean.pow(2) - q.log_var.exp(), dim=1).mean()
    assert torch.allclose(loss, bce + min(1.0, epoch / 25) * kl, rtol=1e-5)
    assert model.encoder[2].negative_slope == 0.2
    assert (recipe.data.validation, recipe.data.split_seed) == (0.1, 42)


def gradients(loss, model):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 128 / 0.1])
def test_averaged_mse_plus_a_tenth_of_the_averaged_kl_is_a_gaussian_elbo(scale, channels):
    """Same gradients to 1e-5: sigma^2 = D / (2 c) and beta = 0.1 c / Z give c times the text's loss."""
    shape, latent = (channels, 32, 32), 128
    pixels = math.prod(shape)
    torch.manual_seed(0)
    model = VAE(
        latent_dim=latent,
        encoder=Conv(channels=(16, 32, 64), batch_norm=True),
        decoder=Conv(channels=(64, 32, 16), batch_norm=True),
        likelihood=Gaussian(sigma=math.sqrt(pixels / (2 * scale)), mean="tanh"),
    ).build(shape)
    x = torch.rand(8, *shape) * 2 - 1
    torch.manual_seed(7)
    draw = model.draw(x)
    loss = ELBO(beta=0.1 * scale / latent)(draw, Progress()).loss_B.mean() / scale
    q = draw.posterior
    decoded = model.decode(draw.z_KBZ[0]).mean
    text = F.mse_loss(decoded, x) + 0.1 * (-0.5 * (1 + q.log_var - q.mean.pow(2) - q.log_var.exp())).mean()
    model.zero_grad()
    gradient_of_text = gradients(text, model)
    torch.manual_seed(7)
    draw = model.draw(x)
    loss = ELBO(beta=0.1 * scale / latent)(draw, Progress()).loss_B.mean() / scale
    gradient = gradients(loss, model)
    assert (gradient - gradient_of_text).norm() / gradient_of_text.norm() < 1e-5
    assert (gradient - gradient_of_text).abs().max() < 1e-5


def test_conv_bn_128_states_that_equivalence():
    recipe = resolve("conv-bn-128")
    scale = 128 / 0.1
    assert math.isclose(recipe.model.likelihood.sigma.value, math.sqrt(1024 / (2 * scale)))
    assert recipe.objective == ELBO(beta=1.0), "at this scale the text trained a true bound"
    assert math.isclose(recipe.optimizer.eps, 1e-8 * scale), "Adam then takes the text's own steps"


def test_conv_bn_128_takes_the_texts_own_steps():
    """Twenty steps of Adam on the scaled loss, eps scaled too, end where the text's loss ends."""
    recipe, scaled = built("conv-bn-128", (1, 32, 32))
    _, published = built("conv-bn-128", (1, 32, 32))
    scaled_adam = recipe.optimizer.build(scaled.parameters())
    published_adam = torch.optim.Adam(published.parameters(), lr=1e-4, betas=(0.5, 0.999))
    start = torch.cat([p.detach().flatten() for p in scaled.parameters()])
    torch.manual_seed(1)
    x = torch.rand(20, 8, 1, 32, 32) * 2 - 1
    for step in range(20):
        scaled_adam.zero_grad()
        loss_of(recipe, scaled, x[step])[0].backward()
        scaled_adam.step()
        published_adam.zero_grad()
        torch.manual_seed(7)
        draw = published.draw(x[step])
        q = draw.posterior
        kl = (-0.5 * (1 + q.log_var - q.mean.pow(2) - q.log_var.exp())).mean()
        (F.mse_loss(published.decode(draw.z_KBZ[0]).mean, x[step]) + 0.1 * kl).backward()
        published_adam.step()
    end, published_end = (
        torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (scaled, published)
    )
    assert (end - published_end).norm() < 0.02 * (published_end - start).norm()
