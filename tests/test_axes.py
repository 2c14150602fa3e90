"""The design: one class in one file is enough, and what cannot work together is refused when it is read."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
import torch
from torch import nn

from nelbo.core import Draw, Progress, Terms
from nelbo.dists.base import Space
from nelbo.errors import ConfigError
from nelbo.models import VAE
from nelbo.objectives import ELBO, Objective, Owner, halves
from nelbo.posteriors import Posterior
from nelbo.posteriors.dirac import Point
from nelbo.training import api, events
from nelbo.training.recipe import Recipe, resolve

PLUGIN = '''
"""One class each, from outside the package."""
import torch
from torch import nn

from nelbo.core import Terms
from nelbo.core.distributions import PriorModule
from nelbo.posteriors import Posterior
from nelbo.priors import Prior
from nelbo.posteriors.diagonal_gaussian import DiagonalGaussian
from nelbo.objectives import Objective, halves


class ToyObjective(Objective):
    """The ELBO with a floor under the loss. Nobody 2026, eq. 1."""

    floor: float = 0.5

    def __call__(self, draw, progress):
        parts, bound_B = halves(draw)
        return Terms(loss_B=(parts["reconstruction"] + parts["kl"]).clamp_min(self.floor), bound_B=bound_B, parts=parts)


class ToyPrior(Prior):
    """A normal distribution whose one scale is learned."""

    def build(self, latent_dim):
        return ToyPriorModule(latent_dim)


class ToyPriorModule(PriorModule):
    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim
        self.log_scale = nn.Parameter(torch.zeros(()))

    def log_prob(self, z):
        return torch.distributions.Normal(0.0, self.log_scale.exp(), validate_args=False).log_prob(z).sum(-1)

    def sample(self, n):
        return self.log_scale.exp() * torch.randn(n, self.latent_dim)


class ToyPosterior(Posterior):
    """A diagonal Gaussian whose head has a bend."""

    def build(self, features, latent_dim):
        return nn.Sequential(nn.Linear(features, features), nn.Tanh(), DiagonalGaussian().build(features, latent_dim))
'''


@pytest.mark.usefixtures("_forgotten")
def test_one_class_each_from_outside_the_package_is_listed_trained_and_measured(nelbo, tmp_path):
    (tmp_path / "toys.py").write_text(PLUGIN)
    code, out, err = nelbo(
        "train", "digits", "--import", "toys.py", "--objective", "toy-objective", "--objective.floor", 1,
        "--prior", "toy-prior", "--posterior=toy-posterior", "--epochs", 2, "--no-figures", "--name", "toy", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["metrics"]["nelbo"]["value"] > 0
    code, out, err = nelbo("evaluate", "toy", "--import", "toys.py", "--samples", 20, "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["iw_nll"]["value"] < json.loads(out)["metrics"]["nelbo"]["value"]
    assert "kl" in json.loads(out)["metrics"], "by samples, since there is no closed form"
    for axis, name in (
        ("objective", "toy-objective"),
        ("prior", "toy-prior"),
        ("posterior", "toy-posterior"),
    ):
        code, out, _ = nelbo("list", axis, "--import", "toys.py")
        assert code == 0
        assert name in out


OLD_STYLE = {
    "prior": (
        "class ToyPriorModule(PriorModule):",
        "class ToyPriorModule(nn.Module):",
        "core.distributions.PriorModule",
    ),
    "posterior": (
        "DiagonalGaussian().build(features, latent_dim))",
        "Plain())",
        "core.distributions.PosteriorValue",
    ),
}


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("axis", OLD_STYLE)
def test_a_component_of_another_base_is_told_which(axis, nelbo, tmp_path):
    before, after, base = OLD_STYLE[axis]
    assert before in PLUGIN
    plain = """
class Plain(nn.Module):
    def forward(self, features):
        return torch.distributions.Normal(features[:, :2], 1.0)
"""
    (tmp_path / "toys.py").write_text(PLUGIN.replace(before, after) + plain)
    code, _, err = nelbo("train", "digits", "--import", "toys.py", f"--{axis}=toy-{axis}", "--name", "toy")
    assert code == 2, err
    assert f"must derive from nelbo.{base}" in err
    assert not (tmp_path / "runs" / "toy").exists()


# --- an objective that owns a module ------------------------------------------------------------


class Judge(nn.Module):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(latent_dim, 1)
        self.register_buffer("seen", torch.zeros(()))


@pytest.fixture
def judged(_forgotten):
    class Judged(Owner):
        """The ELBO beside a critic that tells latents from their negatives. Nobody 2026."""

        share: float = 0.0  # of the critic's score in the model's loss

        def build(self, latent_dim, shape):
            return Judge(latent_dim)

        def critic_settings(self):
            return {"lr": 0.05, "betas": (0.5, 0.9)}

        def terms(self, draw, progress, own):
            parts, bound_B = halves(draw)
            z_BZ = draw.z_KBZ[0].detach()
            told_B = (own.score(-z_BZ) - own.score(z_BZ)).squeeze(-1)
            if own.training:
                own.seen.add_(1)
            kept = own.score(draw.z_KBZ[0]).squeeze(-1)
            return Terms(
                loss_B=parts["reconstruction"] + parts["kl"] + self.share * kept,
                bound_B=bound_B,
                parts=parts | {"critic": nn.functional.softplus(told_B).detach()},
                critic_loss_B=nn.functional.softplus(told_B),
            )

    return Judged


def test_what_an_objective_owns_learns_by_its_own_loss_only(tiny_recipe, tmp_path, judged):
    recipe = tiny_recipe({"clip_norm": 1.0}).model_copy(update={"objective": judged()})
    run = api.train(recipe, runs=tmp_path, name="judged", device="cpu")
    own = {key: value for key, value in run.load("last")[0].items() if key.startswith("own.")}
    assert float(own["own.seen"]) == 9, "three epochs of three batches, and none of validation"
    losses = [row["train"]["critic"] for row in run.history()]
    assert losses[-1] < losses[0], "the critic learned"
    plain = api.train(tiny_recipe({"clip_norm": 1.0}), runs=tmp_path, name="plain", device="cpu")
    same, shared = plain.load("last")[0], run.load("last")[0]
    models = [key for key in same if key.startswith("model.")]
    assert models
    assert all(torch.equal(same[key], shared[key]) for key in models), (
        "the model learned from its own loss only"
    )
    steered = recipe.model_copy(update={"objective": judged(share=1.0)})
    other = api.train(steered, runs=tmp_path, name="steered", device="cpu").load("last")[0]
    assert not any(torch.equal(same[key], other[key]) for key in models if key.endswith("weight"))
    assert not any("score" in key for key in run.load("best")[0]), "it is no part of the model"


def test_an_interrupted_run_goes_on_with_the_same_critic(tiny_recipe, tmp_path, judged):
    recipe = tiny_recipe({"epochs": 3}).model_copy(update={"objective": judged()})
    whole = api.train(recipe, runs=tmp_path, name="whole", device="cpu")

    def stop(event):
        if isinstance(event, events.EpochDone) and event.row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train(recipe, runs=tmp_path, name="parts", device="cpu", tell=stop)
    parts = api.train(recipe, runs=tmp_path, name="parts", device="cpu")
    for (key, one), (other_key, other) in zip(
        sorted(whole.load("last")[0].items()), sorted(parts.load("last")[0].items()), strict=True
    ):
        assert key == other_key
        assert torch.equal(one, other), key


def test_an_owner_says_how_it_is_called(judged):
    with pytest.raises(TypeError, match="terms"):
        judged()(None, Progress())


# --- refused when the configuration is read -----------------------------------------------------


@pytest.fixture
def sphere(_forgotten):
    class Spherical(Posterior):
        """Somewhere on a sphere."""

        space: ClassVar[Space] = "sphere"
        factorises: ClassVar[bool] = False

        def check(self, latent_dim):
            if latent_dim < 2:
                raise ValueError("a sphere needs --model.latent-dim 2 or more")

        def build(self, features, latent_dim):
            return nn.Identity()

    return Spherical


def test_latents_must_live_in_one_space(sphere):
    with pytest.raises(
        ValueError, match=r"unit sphere.*any real numbers.*these posteriors: .*diagonal-gaussian"
    ):
        VAE(posterior=sphere())


def test_a_part_may_refuse_a_number_of_latents(sphere):
    with pytest.raises(ValueError, match="latent-dim 2 or more"):
        VAE(posterior=sphere(), latent_dim=1)


@pytest.mark.usefixtures("_forgotten")
def test_an_objective_refuses_a_posterior_that_it_cannot_use():
    class NeedsFactors(Objective):
        """Reads every dimension. Nobody 2026."""

        needs_factors: ClassVar[bool] = True

    class AllAtOnce(Posterior):
        """All dimensions at once."""

        def build(self, features, latent_dim):
            return nn.Identity()

    class Point(Posterior):
        """No density."""

        has_density: ClassVar[bool] = False

        def build(self, features, latent_dim):
            return nn.Identity()

    with pytest.raises(ValueError, match=r"needs-factors needs a posterior.*such are: .*diagonal-gaussian"):
        Recipe(objective=NeedsFactors(), model=VAE(posterior=AllAtOnce()))
    with pytest.raises(ValueError, match=r"point without one.*diagonal-gaussian"):
        Recipe(objective=ELBO(), model=VAE(posterior=Point()))
    assert Recipe(objective=NeedsFactors()).objective.name == "needs-factors"


def test_short_flags_are_fields_of_the_model(nelbo):
    code, out, err = nelbo(
        "train", "digits", "--latent-dim", 5, "--prior=standard-normal", "--dry-run", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["config"]["model"]["latent_dim"] == 5
    code, _, err = nelbo("train", "digits", "--priour", "vamp", "--dry-run")
    assert code == 2
    assert "prior" in err


# --- the halves ---------------------------------------------------------------------------------


def test_parts_of_the_model_need_no_prefix_in_python_either():
    short = resolve("digits", {"latent_dim": 5, "prior": "mixture", "prior.components": 3})
    assert short == resolve(
        "digits", {"model.latent_dim": 5, "model.prior": "mixture", "model.prior.components": 3}
    )
    with pytest.raises(ConfigError, match=r"model\.prior"):
        resolve("digits", {"prior": "mixtur"})


def test_a_point_has_a_reconstruction_and_no_kl():
    posterior = Point(torch.zeros(2, 3))
    draw = Draw(z_KBZ=torch.zeros(1, 2, 3), log_px_KB=-torch.ones(1, 2), posterior=posterior, prior=None)  # type: ignore[arg-type]
    parts, bound_B = halves(draw)
    assert bound_B is None
    assert set(parts) == {"reconstruction"}
    assert isinstance(Terms(loss_B=parts["reconstruction"], bound_B=None), Terms)
