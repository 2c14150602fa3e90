"""The two-level VAE: its densities by quadrature, its conditional KLs by sampling, a prior made of its upper level."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from nelbo.core import Progress
from nelbo.core.distributions import PriorModule
from nelbo.metrics import LatentSums
from nelbo.models.hierarchical import HierarchicalVAE, TwoLevelPrior
from nelbo.nets import MLP, Conv
from nelbo.objectives import ELBO, Objective, halves
from nelbo.priors import Prior
from nelbo.testing import check, evidence
from nelbo.testing.densities import integrates, matches
from nelbo.testing.exact import fit_posterior, images_of
from nelbo.testing.law import float64
from nelbo.testing.models import weights_average_to_one
from nelbo.testing.numeric import around
from nelbo.testing.spaces import Support
from nelbo.training import api, events
from nelbo.training.recipe import Recipe
from tests.test_stepping import seen_on_the_host

SHAPE = (1, 3, 4)


def small(**fields):
    torch.manual_seed(3)
    spec = HierarchicalVAE(
        **{
            "latent_dim": 2,
            "encoder": MLP(hidden=(9,)),
            "between": MLP(hidden=(7,), activation="tanh"),
            "decoder": MLP(hidden=(9,)),
            **fields,
        }
    )
    with float64():
        model = spec.build(SHAPE).double().eval()
        with torch.no_grad():  # levels that depend on each other
            for parameter in (*model.prior.parameters(), *model.lower_posterior.parameters()):
                parameter.mul_(2.0)
        return model, images_of(model, 3)


@pytest.fixture
def encoded(_forgotten):
    class Encoded(Prior):
        """Half a standard normal, half the upper posterior of one image that is learned."""

        def build(self, latent_dim):
            return EncodedModule(latent_dim)

    return Encoded


class EncodedModule(PriorModule):
    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim, self.images = latent_dim, 0

    def attach(self, encode, shape):
        self.encode, self.x_1CHW = encode, nn.Parameter(torch.rand(1, *shape))

    def observe_training_images(self, images):
        self.images = images.n

    def log_prob(self, z):
        standard = Independent(Normal(torch.zeros_like(z), 1.0, validate_args=False), 1)
        return (
            torch.logaddexp(standard.log_prob(z), self.encode(self.x_1CHW).log_prob(z)) - 2**-1 * 1.3862943611
        )

    def sample(self, n):
        chosen = torch.rand(n, 1) < 0.5
        wide = torch.randn(n, self.latent_dim, dtype=self.x_1CHW.dtype)
        return torch.where(chosen, wide, self.encode(self.x_1CHW).rsample(n)[:, 0])


def test_the_joint_densities_integrate_to_one_and_samples_are_theirs():
    model, x_BCHW = small()
    with torch.no_grad():
        q = model.encode(x_BCHW[:1])
        for name, draw, log_prob in (
            ("sample", model.prior.sample, model.prior.log_prob),
            ("rsample", lambda n: q.rsample(n)[:, 0], lambda z: q.log_prob(z[:, None])[:, 0]),
        ):
            grid = around(draw(4000))
            density_M = log_prob(grid.points_MZ).exp()
            integrates(grid, density_M, 2)
            matches(draw(20_000), Support("real", (), 2), grid, density_M, name)
            z_NZ = draw(20_000)
            assert abs(float(torch.corrcoef(z_NZ.T)[0, 1])) > 0.02, "the levels depend on each other"


def test_bounds_are_in_order_below_log_p_by_quadrature(encoded):
    for fields in ({}, {"prior": encoded()}):
        model, x_BCHW = small(**fields)
        fit_posterior(model)
        torch.manual_seed(0)
        found = weights_average_to_one(model, x_BCHW, evidence(model, x_BCHW))
        assert "mean weight" in found
        assert "does not apply" not in found


def test_the_conditional_kls_are_the_kl_by_samples():
    model, x_BCHW = small(latent_dim=5, top_dim=2)
    torch.manual_seed(1)
    with torch.no_grad():
        draw = model.draw(x_BCHW, 40_000)
        kl_BG, by_samples_KB = draw.kl_BG, draw.log_qz_KB - draw.log_pz_KB
    assert kl_BG.shape == (3, 5)
    assert (kl_BG >= 0).all()
    error_B = by_samples_KB.std(0) / len(by_samples_KB) ** 0.5
    assert ((kl_BG.sum(-1) - by_samples_KB.mean(0)).abs() < 4 * error_B).all()
    z2, z1 = draw.z_KBZ[0, :, :2], draw.z_KBZ[:1, :, 2:]
    assert z1.shape == (1, 3, 3)
    q2 = Normal(draw.posterior.top.mean, draw.posterior.top.std)
    assert torch.allclose(kl_BG[:, :2], kl_divergence(q2, Normal(0.0, 1.0)))
    one = model.draw(x_BCHW, 1)
    z2 = one.z_KBZ[0, :, :2]
    q1, p1 = one.posterior.given(z2), model.prior.given(z2)
    exact = kl_divergence(Normal(q1.mean, q1.std), Normal(p1.mean, p1.std))
    assert torch.allclose(one.kl_BG[:, 2:], exact), "of the very z2 that was decoded"
    spread = torch.stack([model.draw(x_BCHW, 1).kl_BG.sum(-1) for _ in range(200)]).std(0)
    assert (spread < 0.7 * by_samples_KB.std(0)).all(), "with less noise"
    assert one.posterior.kl_to(nn.Identity()) is None


def test_without_a_closed_form_the_upper_level_is_one_number(encoded):
    model, x_BCHW = small(latent_dim=5, top_dim=2, prior=encoded())
    torch.manual_seed(1)
    with torch.no_grad():
        draw = model.draw(x_BCHW, 20_000)
        parts, bound_B = halves(draw)
        by_samples_KB = draw.log_qz_KB - draw.log_pz_KB
        error_B = by_samples_KB.std(0) / len(by_samples_KB) ** 0.5
    assert draw.kl_BG.shape == (3, 1 + 3)
    assert draw.posterior.kl_is(draw.prior) == "by one sample of z2 an image"
    assert ((parts["kl"] - by_samples_KB.mean(0)).abs() < 4 * error_B).all()
    assert torch.allclose(parts["kl_z2"] + parts["kl_z1"], parts["kl"])
    assert torch.allclose(bound_B, -(parts["reconstruction"] + parts["kl"]))
    sums = LatentSums()
    with torch.no_grad():
        sums.add(model.encode(x_BCHW), model.prior)
    found = sums.result()
    assert found.kl_Z is None
    assert "groups" in str(found.why_no_kl)
    assert found.kl_nats > 0
    assert found.to_row()["kl_per_dimension"] is None


def test_the_gradient_of_the_loss_is_its_slope(encoded):
    model, x_BCHW = small(latent_dim=3, prior=encoded())

    def loss(*weights):
        del weights
        torch.manual_seed(5)
        return ELBO(k=2)(model.draw(x_BCHW, 2), Progress()).loss_B.mean()

    weights = tuple(model.parameters())
    assert any(weight is model.prior.top.x_1CHW for weight in weights)
    assert torch.autograd.gradcheck(loss, weights, eps=1e-6, atol=1e-6, fast_mode=True)


def test_free_bits_are_of_each_dimension():
    model, x_BCHW = small(latent_dim=4)
    draw = model.draw(x_BCHW)
    terms = ELBO(free_bits=0.3)(draw, Progress())
    charged = draw.kl_BG.mean(0).clamp_min(0.3).sum()
    assert torch.allclose(terms.loss_B, terms.parts["reconstruction"] + charged)


def test_the_mean_is_that_of_each_level_given_the_one_above():
    model, x_BCHW = small(latent_dim=5, top_dim=2)
    q = model.encode(x_BCHW)
    assert torch.equal(q.mean[:, :2], q.top.mean)
    assert torch.allclose(q.mean[:, 2:], q.given(q.top.mean).mean)
    assert q.mean_is.startswith("mean of z2")


def test_log_prob_of_other_latents_is_not_that_of_the_last_samples():
    model, x_BCHW = small()
    q = model.encode(x_BCHW)
    z_KBZ = q.rsample(2)
    assert torch.allclose(q.log_prob(z_KBZ), q.log_prob(z_KBZ.clone()))
    other = torch.randn_like(z_KBZ)
    assert torch.allclose(q.log_prob(other), model.encode(x_BCHW).log_prob(other))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"top-dim is 4 of 4.*below 4"):
        HierarchicalVAE(latent_dim=4, top_dim=4)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        HierarchicalVAE(latent_dim=1)
    assert (HierarchicalVAE(latent_dim=7).top, HierarchicalVAE(latent_dim=7, top_dim=5).top) == (3, 5)


@pytest.mark.usefixtures("_forgotten")
def test_an_objective_that_needs_independent_dimensions_refuses_the_levels():
    class Factors(Objective):
        """Reads every dimension. Nobody 2026."""

        needs_factors = True

    with pytest.raises(ValueError, match="hierarchical-vae are not"):
        Recipe(model=HierarchicalVAE(), objective=Factors())


def test_a_prior_made_of_the_upper_posterior_trains_and_resumes_to_the_bit(tiny_recipe, tmp_path, encoded):
    model = HierarchicalVAE(
        latent_dim=4,
        encoder=MLP(hidden=(8,)),
        between=MLP(hidden=(8,)),
        decoder=MLP(hidden=(8,)),
        prior=encoded(),
    )
    recipe = tiny_recipe({"epochs": 3, "ema": 0.9}).model_copy(update={"model": model})
    whole = api.train(recipe, runs=tmp_path, name="whole", device="cpu")
    row = whole.history()[-1]
    for split in ("train", "validation"):
        assert row[split]["kl_z1"] + row[split]["kl_z2"] == pytest.approx(row[split]["kl"], abs=1e-5)

    def stop(event):
        if isinstance(event, events.EpochDone) and event.row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train(recipe, runs=tmp_path, name="parts", device="cpu", tell=stop)
    parts = api.train(recipe, runs=tmp_path, name="parts", device="cpu")
    one, other = whole.load("last")[0], parts.load("last")[0]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    loaded = api.load(parts)
    assert isinstance(loaded.prior, TwoLevelPrior)
    assert loaded.sample(3).shape == (3, 1, 8, 8)
    assert loaded.prior.top.encode.__self__ is loaded, "a copy is attached to itself"


def test_a_step_touches_nothing_on_the_host(tiny_recipe, monkeypatch):
    model = HierarchicalVAE(latent_dim=4, encoder=MLP(hidden=(8,)), between=MLP(hidden=(8,)))
    recipe = tiny_recipe({"batch_size": 5}).model_copy(update={"model": model})
    assert seen_on_the_host(recipe, monkeypatch) == []


@pytest.mark.usefixtures("every_setting")
def test_convolutions_on_colour_images_and_the_laws_of_an_instance():
    spec = HierarchicalVAE(
        latent_dim=4, encoder=Conv(channels=(4, 8)), decoder=Conv(channels=(8, 4)), between=MLP(hidden=(8,))
    )
    model = spec.build((3, 17, 12))
    assert model.draw(torch.rand(2, 3, 17, 12).round(), 3).log_px_KB.shape == (3, 2)
    assert "weights" in str(check(spec, skip=["every setting changes something"])["every weight learns"])


def test_every_verb_knows_the_model(nelbo):
    code, out, err = nelbo(
        "train", "digits", "--model", "hierarchical-vae", "--latent-dim", 6, "--model.top-dim", 2, "--epochs", 2,
        "--name", "two", "--json",
    )  # fmt: skip
    assert code == 0, err
    metrics = json.loads(out)["metrics"]
    assert metrics["kl"]["note"] == "of z1 given one sample of z2 an image"
    assert len(metrics["kl_per_dimension"]["value"]) == 6
    for verb, *more in (
        ("sample", "--n", 2),
        ("sample", "--like", 3),
        ("reconstruct",),
        ("encode", "--out", "codes.npz"),
        ("interpolate", 1, 2),
        ("traverse", 3),
        ("plot", "reconstructions", "kl", "traversal"),
        # training has drawn all pictures, and fails where a report only says so
        ("report", "--pictures", "samples"),
        ("doctor",),
        ("evaluate", "--samples", 5),
    ):
        code, _, err = nelbo(verb, "two", *more)
        assert code == 0, (verb, err)
