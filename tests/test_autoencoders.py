"""Regularised, perceptual and adversarial autoencoders against answers known from elsewhere."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from methods import recipe_of
from pydantic import ValidationError
from torch import nn

from nelbo.core import Draw, Progress
from nelbo.errors import ConfigError
from nelbo.likelihoods import Bernoulli, Gaussian
from nelbo.metrics import Split
from nelbo.models import VAE, Model
from nelbo.nets import MLP, Conv
from nelbo.objectives import Owner
from nelbo.objectives.aae import AAE
from nelbo.objectives.critic import Critic, ImageCritic, ImageCriticModule, taken_for_real, told_apart
from nelbo.objectives.ms_ssim import MSSSIM
from nelbo.objectives.rae import RAE
from nelbo.objectives.rae_gp import RAEGP
from nelbo.objectives.rae_l2 import RAEL2
from nelbo.objectives.similarity import C1, C2, EXPONENTS, MultiScale, ssim, window
from nelbo.objectives.vae_gan import VAEGAN
from nelbo.posteriors import DiagonalGaussian
from nelbo.posteriors.dirac import Dirac
from nelbo.training import api, events
from nelbo.training.recipe import Recipe
from tests.test_stepping import Rerun, Trainer

START = Progress()
SHAPE = (1, 8, 8)


def small(posterior=None, likelihood=None, **fields) -> nn.Module:
    torch.manual_seed(0)
    spec = VAE(
        latent_dim=3,
        encoder=MLP(hidden=(16,)),
        decoder=fields.pop("decoder", MLP(hidden=(16,), activation="tanh")),
        posterior=posterior or Dirac(),
        likelihood=likelihood or Bernoulli(),
    )
    return spec.build(SHAPE).double()


def images(n=5):
    torch.manual_seed(1)
    return torch.rand(n, *SHAPE).round().double()


def owned(objective, model):
    torch.manual_seed(2)
    return objective.build(model.latent_dim, model.shape).double()


# --- regularised --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RAE, RAEL2, RAEGP, AAE])
def test_a_point_has_no_bound_and_one_with_a_density_the_elbo(kind):
    objective = kind()
    for posterior, there in ((Dirac(), False), (DiagonalGaussian(), True)):
        model = small(posterior)
        draw = model.draw(images(), 2)
        own = owned(objective, model) if isinstance(objective, Owner) else None
        terms = objective.terms(draw, START, own)
        assert (terms.bound_B is not None) == there
        assert ("kl" in terms.parts) == there
        if there:
            elbo_B = draw.log_px_KB.mean(0) - draw.kl_BG.sum(-1)
            assert torch.allclose(terms.bound_B, elbo_B)


def test_the_latent_penalty_is_half_the_squared_norm():
    model = small()
    draw = model.draw(images(), 1)
    terms = RAE(latent_weight=0.3)(draw, START)
    latent_B = 0.5 * draw.z_KBZ[0].square().sum(-1)
    assert torch.allclose(terms.parts["latent_l2"], latent_B)
    assert torch.allclose(terms.loss_B, -draw.log_px_KB[0] + 0.3 * latent_B)


def test_l2_of_the_decoder_is_weight_decay_of_the_decoder_alone():
    """Its gradient is 2 lambda theta for the decoder, which is Adam's weight decay, and nothing for the encoder."""
    model, x_BCHW = small(), images()
    weights = dict(model.named_parameters())
    slopes = {}
    for weight in (0.0, 0.25):
        loss = RAEL2(decoder_weight=weight)(model.draw(x_BCHW), START).loss_B.mean()
        slopes[weight] = torch.autograd.grad(loss, list(weights.values()))
    for (name, value), without, with_l2 in zip(weights.items(), slopes[0.0], slopes[0.25], strict=True):
        expected = 2 * 0.25 * value if name.startswith("decoder.") else torch.zeros_like(value)
        assert torch.allclose(with_l2 - without, expected), name
    draw = model.draw(x_BCHW)
    total = sum(float(p.detach().square().sum()) for p in model.decoder.parameters())
    assert float(RAEL2()(draw, START).parts["decoder_l2"].detach()) == pytest.approx(total)


def jacobian_norms(model, z_BZ):
    """|d E[x|z] / dz|^2 row by row."""
    found = [torch.func.jacrev(lambda z: model.decode(z[None]).mean[0])(z) for z in z_BZ]
    return torch.stack([slope.square().sum() for slope in found])


@pytest.mark.parametrize("differentiated", [True, False])
def test_the_gradient_penalty_is_the_jacobians_norm_in_expectation(differentiated):
    model, x_BCHW, copies = small(), images(2), 4000
    model.requires_grad_(True)
    with torch.set_grad_enabled(differentiated):
        draw = model.draw(x_BCHW, copies)
        torch.manual_seed(3)
        spread_B = RAEGP()(draw, START).parts["gradient_penalty"].detach()
    exact_B = jacobian_norms(model, model.encode(x_BCHW).mean.detach()).detach()
    assert torch.allclose(spread_B, exact_B, rtol=0.05)


def test_the_gradient_penalty_reaches_encoder_and_decoder_as_the_exact_one_does():
    model, x_BCHW = small(likelihood=Gaussian(sigma=1.0)), images(2)
    weights = [*model.encoder.parameters(), *model.decoder.parameters()]
    exact = torch.autograd.grad(
        jacobian_norms(model, model.encode(x_BCHW).mean).mean(), weights, allow_unused=True
    )
    torch.manual_seed(4)
    parts = RAEGP()(model.draw(x_BCHW, 4000), START).parts
    found = torch.autograd.grad(parts["gradient_penalty"].mean(), weights, allow_unused=True)
    for one, other in zip(found, exact, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert float(torch.cosine_similarity(one.flatten(), other.flatten(), 0)) > 0.99
            assert float(one.norm() / other.norm()) == pytest.approx(1.0, abs=0.05)


def test_a_bounded_decoder_changes_no_faster_than_its_latents():
    for net in (MLP(hidden=(32, 32), spectral_norm=True), Conv(channels=(8, 4), spectral_norm=True)):
        torch.manual_seed(5)
        decoder = net.decoder(3, SHAPE).double().train()
        for _ in range(200):
            decoder(torch.randn(4, 3).double())
        decoder.eval()
        for layer in decoder:
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                weight = layer.weight.detach()
                outer = weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
                largest = torch.linalg.matrix_norm(outer.flatten(1), 2)
                assert float(largest) == pytest.approx(1.0, abs=1e-3)
        if isinstance(net, MLP):
            a, b = torch.randn(2, 200, 3).double()
            moved = (decoder(a) - decoder(b)).flatten(1).norm(dim=1)
            assert (moved <= (a - b).norm(dim=1) * 1.001).all()


class WithoutDecoder(Model):
    """A model that has no field `decoder`."""

    axis: ClassVar[str] = ""  # known to this file alone
    has_density: ClassVar[bool] = False

    def build(self, shape):
        raise AssertionError("it is refused before")


def test_a_model_that_does_not_tell_its_decoders_weights_is_refused():
    draw = small().draw(images())
    bare = Draw(z_KBZ=draw.z_KBZ, log_px_KB=draw.log_px_KB, posterior=draw.posterior, prior=draw.prior)
    with pytest.raises(ConfigError, match="rae-gp"):
        RAEL2()(bare, START)
    with pytest.raises(ValueError, match="rae-gp"):
        RAEL2().check(WithoutDecoder())
    assert Recipe(objective=RAEL2(), model=VAE(posterior=Dirac())).objective == RAEL2()


# --- perceptual ---------------------------------------------------------------------------------


def by_hand(a, b, side, scales):
    """MS-SSIM of one channel of one pair with loops: eq. 7 of the paper, exponents made to add up to one."""
    row = torch.tensor(window(side), dtype=torch.float64)
    kernel = row[:, None] * row[None]
    exponents = torch.tensor(EXPONENTS[:scales]) / sum(EXPONENTS[:scales])
    value = 1.0
    for scale in range(scales):
        structures, products = [], []
        for i in range(a.shape[0] - side + 1):
            for j in range(a.shape[1] - side + 1):
                p, q = a[i : i + side, j : j + side], b[i : i + side, j : j + side]
                mean_p, mean_q = (kernel * p).sum(), (kernel * q).sum()
                var_p, var_q = (kernel * (p - mean_p) ** 2).sum(), (kernel * (q - mean_q) ** 2).sum()
                cov = (kernel * (p - mean_p) * (q - mean_q)).sum()
                structure = (2 * cov + C2) / (var_p + var_q + C2)
                structures.append(structure)
                products.append(structure * (2 * mean_p * mean_q + C1) / (mean_p**2 + mean_q**2 + C1))
        last = scale == scales - 1
        value *= float(torch.stack(products if last else structures).mean()) ** float(exponents[scale])
        a, b = (x.unfold(0, 2, 2).unfold(1, 2, 2).mean((-2, -1)) for x in (a, b))
    return value


@pytest.mark.parametrize(("side", "scales"), [(7, 1), (3, 2), (3, 3), (5, 2)])
def test_ms_ssim_is_the_one_of_the_paper(side, scales):
    torch.manual_seed(6)
    a = torch.rand(2, 2, 13, 12).double()
    b = (a + 0.2 * torch.rand(2, 2, 13, 12)).clamp(0, 1)
    found_N = MultiScale((2, 13, 12), side, scales)(a, b)
    for n in range(2):
        expected = sum(by_hand(a[n, c], b[n, c], side, scales) for c in range(2)) / 2
        assert float(found_N[n]) == pytest.approx(expected, abs=1e-5)


def test_one_scale_is_the_ssim_that_is_measured():
    torch.manual_seed(6)
    a = torch.rand(3, 1, 9, 14).double()
    b = (a + 0.1 * torch.rand(3, 1, 9, 14)).clamp(0, 1)
    assert torch.allclose(MultiScale((1, 9, 14), None, 1)(a, b), ssim(a, b), atol=1e-12)
    white = torch.ones(1, 1, 200, 190)
    assert torch.allclose(MultiScale((1, 200, 190))(white, white), torch.ones(1))
    assert MultiScale((1, 200, 190)).scales == 5
    assert MultiScale((1, 28, 28)).scales == 2


def test_images_too_small_for_the_scales_are_refused_when_the_loss_is_built():
    for window_side, scales in ((9, None), (None, 2), (3, 3)):
        with pytest.raises(ConfigError, match=r"8 x 8.*smaller window"):
            MSSSIM(window=window_side, scales=scales).build(3, SHAPE)
    assert MSSSIM().build(3, SHAPE).scales == 1
    with pytest.raises(ValidationError, match="odd"):
        MSSSIM(window=4)
    with pytest.raises(ValidationError, match="smallest"):
        MSSSIM(pixels=(1.0, 0.0))


def test_opposite_images_have_a_slope():
    """Correlations are below zero, where a power has none: the floor keeps the gradient finite."""
    a = torch.eye(8).view(1, 1, 8, 8).double()
    b = (1 - a).clone().requires_grad_()
    found = MultiScale(SHAPE, 3, 2)(a, b)
    (slope,) = torch.autograd.grad(found.sum(), b)
    assert slope.isfinite().all()
    assert 0 < float(found.detach()) < 0.5


def test_the_dissimilarity_weighs_a_nat_a_pixel_and_no_weight_gives_the_elbo():
    model = small(DiagonalGaussian())
    x_BCHW = images()
    draw = model.draw(x_BCHW, 2)
    plain = MSSSIM(weight=0.0)
    own = owned(plain, model)
    terms = plain.terms(draw, START, own)
    assert torch.allclose(terms.loss_B, -terms.bound_B)
    only = MSSSIM(weight=1.0).terms(draw, START, own)
    similar_KB = torch.stack([own(mean, x_BCHW) for mean in draw.likelihood.mean])
    assert torch.allclose(only.loss_B, 64 * (1 - similar_KB.mean(0)) + only.parts["kl"])
    assert torch.allclose(only.bound_B, terms.bound_B)
    scaled = MSSSIM(weight=1.0, pixels=(-1.0, 1.0))
    assert not torch.allclose(scaled.terms(draw, START, own).loss_B, only.loss_B)


# --- adversarial --------------------------------------------------------------------------------


def test_the_two_losses_of_the_game_are_those_of_the_paper():
    real, fake, other = torch.randn(3, 7).double()
    right = -real.sigmoid().log() - (1 - fake.sigmoid()).log() - (1 - other.sigmoid()).log()
    assert torch.allclose(told_apart(real, fake, other), right)
    assert torch.allclose(taken_for_real(fake), -fake.sigmoid().log())
    assert float(told_apart(torch.zeros(1), torch.zeros(1))) == pytest.approx(2 * math.log(2))


def test_critics_judge_any_shape_and_keep_settings_of_their_own():
    critic = Critic(hidden=(5,), lr=0.1, betas=(0.0, 0.9))
    assert AAE(critic=critic).critic_settings() == {"lr": 0.1, "betas": (0.0, 0.9)}
    assert critic.build(4)(torch.randn(3, 2, 4)).shape == (3, 2)
    for net in (MLP(hidden=(6,)), Conv(channels=(4, 8))):
        module = ImageCriticModule(ImageCritic(net=net), (3, 9, 10))
        assert module(torch.rand(2, 5, 3, 9, 10)).shape == (2, 5)
        assert module.features(torch.rand(5, 3, 9, 10)).shape == (5, module.net.features)


def test_each_player_of_a_vae_gan_follows_its_own_loss():
    """Algorithm 1 of the paper written out, one loss a player, each differentiated by its player's weights alone."""
    model, x_BCHW, gamma = small(DiagonalGaussian()), images(), 0.3
    objective = VAEGAN(gamma=gamma, critic=ImageCritic(net=MLP(hidden=(12,), activation="tanh")))
    own = owned(objective, model)
    draw = model.draw(x_BCHW, 2)
    torch.manual_seed(7)
    terms = objective.terms(draw, START, own)
    torch.manual_seed(7)
    z_KBZ = model.prior.sample(10).view(2, 5, 3).double()
    feature_B = 0.5 * (own.features(draw.likelihood.mean) - own.features(x_BCHW)).square().sum(-1).mean(0)
    seen, drawn = model.decode(draw.z_KBZ).mean, model.decode(z_KBZ).mean
    fooled_B = (nn.functional.softplus(-own(seen)) + nn.functional.softplus(-own(drawn))).mean(0)
    losses = {
        "encoder": draw.kl_BG.sum(-1) + feature_B,
        "posterior": draw.kl_BG.sum(-1) + feature_B,
        "decoder": gamma * feature_B + fooled_B,
    }
    for player, loss_B in losses.items():
        weights = list(getattr(model, player).parameters())
        expected = torch.autograd.grad(loss_B.mean(), weights, retain_graph=True)
        found = torch.autograd.grad(terms.loss_B.mean(), weights, retain_graph=True)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-10), player
    critic_B = -own(x_BCHW).sigmoid().log() - sum((1 - own(x).sigmoid()).log().mean(0) for x in (seen, drawn))
    assert torch.allclose(terms.critic_loss_B, critic_B)
    assert torch.allclose(terms.loss_B, losses["encoder"] + losses["decoder"] - feature_B)


@pytest.mark.parametrize("name", ["aae", "vae-gan", "ms-ssim"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tiny_recipe, tmp_path, name):
    recipe = tiny_recipe({"objective": name, "epochs": 2, "ema": 0.9})
    whole = api.train(recipe, runs=tmp_path, name="whole", device="cpu")

    def stop(event):
        if isinstance(event, events.EpochDone) and event.row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train(recipe, runs=tmp_path, name="parts", device="cpu", tell=stop)
    parts = api.train(recipe, runs=tmp_path, name="parts", device="cpu")
    one, other = (run.load("last")[0] for run in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "variant",
    [
        {"objective": "aae"},
        {"objective": "vae-gan"},
        {"objective": "rae-gp"},
        {"model.decoder.spectral_norm": True},
    ],
    ids=str,
)
def test_recorded_steps_train_model_and_critic_as_plain_ones_do(tiny_recipe, variant):
    recipe = tiny_recipe({"batch_size": 5, "optimizer.lr": 1e-3, **variant})
    plain, blocks = Trainer(recipe), Trainer(recipe, recorder=Rerun)
    assert torch.allclose(plain.run(2), blocks.run(2), rtol=1e-3, atol=1e-4)
    assert blocks.said == []
    assert blocks.step.how["steps_at_once"] > 1
    if plain.state.critic:
        one, other = plain.state.critic.state_dict(), blocks.state.critic.state_dict()
        assert all(torch.allclose(one[key], other[key], rtol=1e-3, atol=1e-4) for key in one)


@pytest.mark.parametrize("name", ["aae", "vae-gan"])
def test_critic_and_model_follow_their_own_losses_in_the_loop(tiny_recipe, tmp_path, name):
    """A critic that does not move leaves the model's first step as it is, and a model that does not the critic's."""

    def after(name_of_run, **overrides):
        recipe = tiny_recipe({"objective": name, "epochs": 1, "batch_size": 96, **overrides})
        return api.train(recipe, runs=tmp_path, name=name_of_run, device="cpu").load("last")[0]

    plain = after("plain")
    still = after("still", **{"objective.critic.lr": 1e-30})
    frozen = after("frozen", **{"optimizer.lr": 0.0})

    def same(a, b, kind):
        keys = [key for key in a if key.startswith(kind) and key.endswith("weight")]
        assert keys
        return all(torch.equal(a[key], b[key]) for key in keys)

    assert same(plain, still, "model."), "one step: the critic's has not yet been seen"
    assert not same(plain, still, "own.")
    assert same(plain, frozen, "own.")
    assert not same(plain, frozen, "model.")


def unbiased_mmd(a, b):
    """Squared maximum mean discrepancy with a Gaussian kernel of width sqrt(Z)."""

    def kernel(p, q):
        return torch.exp(-torch.cdist(p, q).square() / (2 * p.shape[1]))

    n, m = len(a), len(b)
    within = (kernel(a, a).sum() - n) / (n * (n - 1)) + (kernel(b, b).sum() - m) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())


def test_an_aae_moves_the_aggregated_posterior_to_the_prior(tmp_path):
    """On digits with two latents: without the critic's verdict the codes go where they like."""
    found = {}
    for weight in (0.0, 2.0):
        objective = AAE(weight=weight, critic=Critic(hidden=(64, 64), lr=2e-3))
        recipe = recipe_of("aae").model_copy(update={"objective": objective, "epochs": 25, "latent_every": 0})
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"latent_dim": 2})})
        model = api.load(api.train(recipe, runs=tmp_path, name=f"aae-{weight}", device="cpu"))
        found[weight] = distance_to_the_prior(model, recipe.data.load())
    apart, moved = found[0.0], found[2.0]
    assert moved < 0.2 * apart
    assert moved < 0.06


def distance_to_the_prior(model, splits):
    split = Split(splits.train, splits, torch.device("cpu"))
    z_NZ = torch.cat([model.encode(x_BCHW).mean for x_BCHW in split.batches()])[:1000]
    torch.manual_seed(8)
    return unbiased_mmd(z_NZ, torch.randn(1000, 2))
