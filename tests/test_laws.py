"""The mathematics: the laws of `nelbo.testing` over everything registered, and answers known from elsewhere.

A new class is held to its laws here without another edit. `tests/testing` plants faults, which the laws must find.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from nelbo.core import Draw, Progress
from nelbo.core.registry import lookup, names
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.likelihoods.bernoulli import BernoulliImage
from nelbo.likelihoods.gaussian import GaussianImage
from nelbo.objectives import ELBO
from nelbo.posteriors import DiagonalGaussian
from nelbo.priors import StandardNormal
from nelbo.schedules import Linear
from nelbo.testing import LinearGaussian, Verdict, check
from nelbo.testing.dispatch import CHECKS

PARAMETRISATIONS = ["log-variance", "positive", "raw-sigma", "tanh"]
# Laws that cannot be held against these, each with its reason; everything else must apply.
NOT_APPLICABLE = {
    "every setting changes something": "it has no settings",
    "beta weighs the kl": "it has no beta",
    "what it owns learns by its own loss": "what it owns has no weights",
    "its own loss does not reach the model": "what it owns has no weights",
    "closed form kl is the monte carlo kl": "no prior has a closed form",
}
POINT = "it is a point, without a density"
NO_WEIGHTS = "what it owns has no weights"
# And those that cannot be held against one of them.
NOT_OF = {
    ("objective", "geco"): {
        "what it owns learns by its own loss": NO_WEIGHTS,
        "its own loss does not reach the model": NO_WEIGHTS,
    },
    ("posterior", "dirac"): {
        "the density integrates to one": POINT,
        "samples match the density": POINT,
        "images have noise of their own": POINT,
        "closed form kl is the monte carlo kl": POINT,
        "importance weights average to one": POINT,
    },
    ("posterior", "poincare"): {"closed form kl is the monte carlo kl": "no prior has a closed form"},
    ("objective", "tcvae"): {
        "beta weighs the kl": "its beta, which is no schedule, weighs something else",
    },
}
# And with one setting changed: how many settings a law leaves out. Samples of shared noise do not have the density.
SHARED = {"samples match the density": 1, "importance weights average to one": 1}
LEFT_OUT = {
    # windows and convolutions that do not fit images of six pixels
    ("objective", "ms-ssim"): {
        "the bound is at most log p": 2,
        "images do not change each others bound": 2,
        "gradients match finite differences": 2,
        "it changes buffers in training only": 1,
        "its settings are those of an optimiser": 1,
    },
    ("objective", "vae-gan"): {
        "the bound is at most log p": 1,
        "images do not change each others bound": 1,
        "gradients match finite differences": 1,
    },
    **{("posterior", name): SHARED for name in ("diagonal-gaussian", "planar", "radial", "iaf", "spline")},
    ("model", "vae"): {"exactly k samples are weighed": 2},  # shared noise, and a point
}


@pytest.mark.parametrize(("axis", "name"), [(axis, name) for axis in CHECKS for name in names(axis)])
def test_everything_registered_keeps_its_laws(axis, name, every_setting):
    evidence = check(lookup(axis, name))
    assert len(evidence) >= 4
    for law, outcome in evidence.items():
        if outcome.verdict is Verdict.NOT_APPLICABLE:
            assert NOT_OF.get((axis, name), {}).get(law, NOT_APPLICABLE.get(law)) == outcome.words, (
                f"{law}: {outcome}"
            )
        else:
            assert outcome.verdict is Verdict.HELD, f"{law}: {outcome}"
        # whether few samples can tell depends on the processor's rounding, which a fit of hundreds of steps amplifies
        assert outcome.undecided <= 3 < outcome.settings or not outcome.undecided, f"{law}: {outcome}"
    if every_setting:
        left_out = {law: outcome.left_out for law, outcome in evidence.items() if outcome.left_out}
        assert left_out == LEFT_OUT.get((axis, name), {})


# --- answers from elsewhere ---------------------------------------------------------------------


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_the_diagonal_gaussian_is_the_one_of_torch(parametrisation):
    law = LinearGaussian(DiagonalGaussian(parametrisation=parametrisation))
    q = law.model.encode(law.x_BCHW)
    z_KBZ = q.rsample(20)
    reference = Normal(q.mean, q.std.abs())
    assert torch.allclose(q.log_prob(z_KBZ), reference.log_prob(z_KBZ).sum(-1), atol=1e-9)
    kl_BG = kl_divergence(reference, Normal(0.0, 1.0))
    assert torch.allclose(q.kl_to(law.model.prior), kl_BG, atol=1e-10)


def test_shared_noise_is_singular_and_says_so():
    mean, std = torch.zeros(3, 5), torch.ones(3, 5)
    shared = DiagonalNormal(mean, std, torch.zeros(3, 5), shared_noise=True)
    z = shared.rsample(100)
    assert torch.allclose(z, z[..., :1].expand_as(z)), "one number an image"
    assert "singular" in shared.not_a_bound
    draw = Draw(z_KBZ=z, log_px_KB=torch.zeros(100, 3), posterior=shared, prior=StandardNormal().build(5))
    assert ELBO()(draw, Progress()).bound_B is None
    assert DiagonalNormal(mean, std, torch.zeros(3, 5)).not_a_bound is None
    one = DiagonalNormal(mean[:, :1], std[:, :1], torch.zeros(3, 1), shared_noise=True)
    assert one.not_a_bound is None, "one dimension has nothing to share"


def test_the_standard_normal_is_the_one_of_torch():
    z_KBZ = torch.randn(10, 4, 3, dtype=torch.float64)
    assert torch.allclose(StandardNormalModule(3).log_prob(z_KBZ), Normal(0.0, 1.0).log_prob(z_KBZ).sum(-1))


def test_bernoulli_is_finite_where_probabilities_are_not():
    huge = torch.tensor([-1e4, 1e4, -200.0, 200.0], dtype=torch.float32).view(1, 1, 2, 2)
    right = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2)
    assert float(BernoulliImage(huge).log_prob(right)) == 0.0
    assert math.isclose(float(BernoulliImage(huge).log_prob(1 - right)), -20_400.0, rel_tol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.632, 3.0])
def test_gaussian_pixels_are_those_of_torch(sigma):
    x_BCHW = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    log_sigma = torch.tensor(math.log(sigma), dtype=torch.float64)
    value = GaussianImage(torch.zeros_like(x_BCHW), log_sigma)
    assert torch.allclose(value.log_prob(x_BCHW), Normal(0.0, sigma).log_prob(x_BCHW).flatten(1).sum(1))


# --- the ELBO -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective",
    [ELBO(), ELBO(beta=4), ELBO(kl="monte-carlo", k=3), ELBO(free_bits=0.2), ELBO(beta=Linear(epochs=4))],
    ids=["elbo", "beta", "monte-carlo", "free-bits", "warm-up"],
)
@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_gradients_of_every_objective_through_every_parametrisation(objective, parametrisation):
    law = LinearGaussian(DiagonalGaussian(parametrisation=parametrisation), fitted=False)

    def loss(*weights):
        del weights  # gradcheck moves them in place
        torch.manual_seed(5)
        return objective(law.model.draw(law.x_BCHW, objective.k), Progress(epoch=2)).loss_B.mean()

    assert torch.autograd.gradcheck(loss, tuple(law.model.parameters()), eps=1e-6, atol=1e-6, fast_mode=True)


def test_every_setting_of_the_elbo_changes_what_it_says():
    law = LinearGaussian()

    def terms(objective, progress=Progress()):  # noqa: B008
        torch.manual_seed(6)
        return objective(law.model.draw(law.x_BCHW, objective.k), progress)

    plain = terms(ELBO())
    rec, kl = plain.parts["reconstruction"], plain.parts["kl"]
    assert torch.allclose(plain.loss_B, rec + kl)
    assert torch.allclose(terms(ELBO(beta=4)).loss_B, rec + 4 * kl)
    assert torch.allclose(terms(ELBO(beta=4)).bound_B, -(rec + kl)), "the bound is reported at beta 1"
    half = terms(ELBO(beta=Linear(epochs=4)), Progress(epoch=2)).loss_B
    assert torch.allclose(half, rec + 0.5 * kl)
    kl_BG = law.model.encode(law.x_BCHW).kl_to(law.model.prior).detach()
    floor = float(kl_BG.mean(0).max()) * 0.9
    charged = kl_BG.mean(0).clamp_min(floor).sum()
    assert torch.allclose(terms(ELBO(free_bits=floor)).loss_B, rec + charged)
    assert not torch.allclose(rec + charged, plain.loss_B)
    assert torch.allclose(terms(ELBO(free_bits=floor)).bound_B, plain.bound_B)
    sampled = terms(ELBO(kl="monte-carlo")).parts["kl"]
    assert not torch.allclose(sampled, kl)
    assert torch.allclose(sampled, terms(ELBO(kl="monte-carlo")).parts["kl"])
    assert not torch.allclose(terms(ELBO(k=3)).parts["reconstruction"], rec)


# --- layers -------------------------------------------------------------------------------------
