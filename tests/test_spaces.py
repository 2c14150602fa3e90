"""Posteriors that are points, or live elsewhere than on R^Z: against formulas, references and the command line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import special
from torch.distributions import Normal, OneHotCategorical, VonMises, kl_divergence

from nelbo.core.registry import lookup
from nelbo.dists.hyperbolic import from_origin, from_point, move, to_origin
from nelbo.dists.spaces import LatentSpace
from nelbo.dists.sphere import log_area, unit
from nelbo.errors import ConfigError, NotABound
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO
from nelbo.posteriors.dirac import Dirac
from nelbo.posteriors.gumbel_softmax import CategoricalValue, GumbelSoftmax
from nelbo.posteriors.joint import Joint
from nelbo.posteriors.poincare import Poincare, WrappedNormal
from nelbo.posteriors.vmf import VMF, Cosines, VonMisesFisherValue
from nelbo.priors import StandardNormal
from nelbo.priors.categorical import CategoricalPrior
from nelbo.priors.joint import JointPrior
from nelbo.priors.uniform_sphere import UniformSphere
from nelbo.priors.wrapped_normal import WrappedNormalPrior
from nelbo.testing import LawBroken, LinearGaussian, check, evidence
from nelbo.training.recipe import Recipe

# --- a point ------------------------------------------------------------------------------------

ONLY_RECONSTRUCTION = '''
"""An objective for points."""
from typing import ClassVar

from nelbo.core import Terms
from nelbo.objectives import Objective, halves


class OnlyReconstruction(Objective):
    """-log p(x|z), and nothing else. Nobody 2026."""

    needs_density: ClassVar[bool] = False

    def __call__(self, draw, progress):
        parts, bound_B = halves(draw)
        return Terms(loss_B=parts["reconstruction"], bound_B=bound_B, parts=parts)
'''


def test_a_point_has_no_density():
    q = Dirac().build(6, 3)(torch.randn(4, 6))
    assert torch.equal(q.rsample(5), q.mean.expand(5, 4, 3))
    assert q.kl_to(StandardNormal().build(3)) is None
    with pytest.raises(NotABound, match="single point"):
        q.log_prob(q.rsample(1))
    with pytest.raises(ValueError, match="an objective that needs none"):
        Recipe(model=VAE(posterior=Dirac()), objective=ELBO())


@pytest.mark.usefixtures("every_setting")
def test_a_model_with_a_point_keeps_its_laws():
    evidence = check(VAE(posterior=Dirac()), skip=["every setting changes something"])
    assert "not a bound: the posterior is a single point" in str(
        evidence["importance weights average to one"]
    )
    assert str(evidence["draws belong to their samples"]).startswith("log_px_KB and log_pz_KB")


def test_a_point_that_hides_it_is_found(monkeypatch):
    monkeypatch.setattr("nelbo.posteriors.dirac.Point.is_point", False)
    with pytest.raises(LawBroken, match="no `is_point = True`"):
        check(Dirac)
    monkeypatch.setattr("nelbo.posteriors.dirac.Point.is_point", True)
    monkeypatch.setattr("nelbo.posteriors.dirac.Point.log_prob", lambda self, z: z.sum(-1))
    with pytest.raises(LawBroken, match="log_prob gives one"):
        check(Dirac)


def test_everything_after_training_says_what_a_point_does_not_have(nelbo, tmp_path):
    (tmp_path / "toys.py").write_text(ONLY_RECONSTRUCTION)
    toys = ("--import", "toys.py")
    code, out, err = nelbo(
        "train", "digits", *toys, "--objective", "only-reconstruction", "--posterior", "dirac", "--epochs", 2,
        "--name", "point", "--json",
    )  # fmt: skip
    assert code == 0, err
    metrics = json.loads(out)["metrics"]
    for name in ("nelbo", "kl"):
        assert metrics[name]["value"] is None
        assert "single point" in metrics[name]["note"]
    assert metrics["reconstruction"]["value"] > 0
    assert metrics["kl_per_dimension"]["missing"] == "infinite"
    code, out, err = nelbo("evaluate", "point", *toys, "--samples", 10, "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["iw_nll"]["missing"] == "not a bound"
    code, out, err = nelbo("doctor", "point", *toys, "--json")
    assert code == 0, err
    assert not [found for found in json.loads(out)["findings"] if found["check"] == "sampled-posterior"]
    for verb in ("report", "encode", "reconstruct", "sample"):
        # training has drawn all pictures, and fails where a report only says so
        more = {"encode": ("--out", "codes.npz"), "report": ("--pictures", "samples")}.get(verb, ())
        code, _, err = nelbo(verb, "point", *more, *toys)
        assert code == 0, err
    code, _, err = nelbo("sample", "point", "--like", 3, *toys)
    assert code == 2
    assert "no other draws" in err


def test_the_command_line_refuses_a_point_where_a_density_is_needed(nelbo):
    code, _, err = nelbo("train", "digits", "--posterior", "dirac", "--dry-run")
    assert code == 2
    assert "objective elbo needs the density of the posterior" in " ".join(err.split())
    assert lookup("posterior", "dirac").has_density is False


# --- the sphere ---------------------------------------------------------------------------------


KAPPAS = [1e-4, 1e-2, 0.1, 1.0, 3.0, 10.0, 50.0, 1e3, 1e4, 1e5]


def bessel(dimensions, kappa):
    """log C(kappa) + kappa, A = E[w] and KL to the uniform, by scipy's exponentially scaled Bessel functions."""
    order = dimensions / 2 - 1
    scaled = special.ive(order, kappa)
    log_c = order * np.log(kappa) - dimensions / 2 * math.log(2 * math.pi) - np.log(scaled)
    ratio = special.ive(order + 1, kappa) / scaled
    return log_c, ratio, kappa * (ratio - 1.0) + log_c + log_area(dimensions)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 5e-5)])
@pytest.mark.parametrize("dimensions", [2, 3, 4, 8, 17, 64])
def test_vmf_has_the_normaliser_and_the_kl_of_bessel_functions(dimensions, dtype, close):
    kept = [kappa for kappa in KAPPAS if special.ive(dimensions / 2 - 1, kappa) > 0]
    kappa_B1 = torch.tensor(kept, dtype=dtype)[:, None].requires_grad_()
    mean_BZ = torch.eye(dimensions, dtype=dtype)[0].expand(len(kept), -1)
    q = VonMisesFisherValue(mean_BZ, kappa_B1)
    log_c, ratio, kl = (torch.from_numpy(found) for found in bessel(dimensions, np.array(kept)))
    assert torch.allclose(q.log_prob(mean_BZ).double(), log_c, rtol=1e-6, atol=close)
    found_B1 = q.kl_to(UniformSphere().build(dimensions).to(dtype))
    assert found_B1.shape == (len(kept), 1)
    assert torch.allclose(found_B1[:, 0].double(), kl, rtol=1e-6, atol=close)
    (slope_B1,) = torch.autograd.grad(found_B1.sum(), kappa_B1)
    kappa = torch.tensor(kept, dtype=torch.float64)
    right_B = kappa * (1.0 - ratio**2 - (dimensions - 1) / kappa * ratio)  # kappa A'(kappa)
    assert torch.allclose(slope_B1[:-2, 0].double(), right_B[:-2], rtol=2e-3, atol=1e-7), "beyond, A' cancels"


def test_on_the_circle_vmf_is_the_von_mises_of_torch():
    kappa, angle = torch.tensor([[0.3], [2.0], [40.0]]).double(), torch.tensor([0.4, -2.0, 3.0]).double()
    q = VonMisesFisherValue(torch.stack([angle.cos(), angle.sin()], -1), kappa)
    at = torch.linspace(-3, 3, 50).double()
    z = torch.stack([at.cos(), at.sin()], -1)[:, None]
    right = VonMises(angle, kappa[:, 0]).log_prob(at[:, None])
    assert torch.allclose(q.log_prob(z), right, atol=1e-6), "whose Bessel function is a polynomial"


@pytest.mark.parametrize("kappa", [1e-4, 1e-2, 1.0, 1e3, 1e5])
@pytest.mark.parametrize("dimensions", [2, 3, 64])
def test_samples_of_vmf_are_on_the_sphere_and_have_its_moments(dimensions, kappa):
    torch.manual_seed(0)
    mean_BZ = unit(torch.randn(3, dimensions))
    q = VonMisesFisherValue(mean_BZ, torch.full((3, 1), kappa).requires_grad_())
    z_KBZ = q.rsample(20_000)
    assert z_KBZ.isfinite().all()
    assert (z_KBZ.norm(dim=-1) - 1).abs().max() < 3e-6
    short_K = 0.5 * (z_KBZ - mean_BZ).square().sum(-1).detach().double().flatten()
    _, ratio, _ = (
        bessel(dimensions, np.float64(kappa)) if dimensions < 64 or kappa > 0.1 else (0, kappa / 64, 0)
    )
    error = float(short_K.std()) / len(short_K) ** 0.5
    assert abs(float(short_K.mean()) - (1.0 - ratio)) < 5 * error + 1e-6
    q.rsample(5).sum().backward()
    assert q.kappa.grad.isfinite().all()


def test_on_the_ordinary_sphere_heights_are_exponential():
    """Z = 3 has a distribution function in closed form: F(w) = (e^(k w) - e^-k) / (e^k - e^-k)."""
    torch.manual_seed(0)
    kappa = torch.full((1, 1), 2.5, dtype=torch.float64, requires_grad=True)
    w_KB, across_KB = Cosines(kappa, 3).sample(1000)
    share_K = ((kappa * w_KB).exp() - (-kappa).exp()) / (kappa.exp() - (-kappa).exp())
    assert torch.allclose(w_KB.square() + across_KB.square(), torch.ones(1).double())
    (slope,) = torch.autograd.grad(share_K.sum(), kappa)
    assert abs(float(slope)) < 1e-5, "with kappa a sample moves so that its share stays what it was drawn as"


def test_the_gradient_of_samples_is_that_of_their_mean():
    torch.manual_seed(0)
    kappa = torch.full((1, 1), 4.0, dtype=torch.float64, requires_grad=True)
    q = VonMisesFisherValue(unit(torch.randn(1, 5)).double(), kappa)
    w_K = (q.rsample(100_000) * q.mean).sum(-1).flatten()
    (slope,) = torch.autograd.grad(w_K.mean(), kappa)
    _, ratio, _ = bessel(5, np.float64(4.0))
    assert float(slope) == pytest.approx(1 - ratio**2 - 4 / 4.0 * ratio, rel=0.02)


# --- the ball -----------------------------------------------------------------------------------


def distance(a, b):
    """Nickel & Kiela 2017, eq. 1."""
    inside = 2 * (a - b).square().sum(-1) / ((1 - a.square().sum(-1)) * (1 - b.square().sum(-1)))
    return torch.acosh(1 + inside)


def mobius(x, y):
    """The Moebius sum as it is printed. Ganea et al. 2018, section 2."""
    xy, x2, y2 = ((a * b).sum(-1, keepdim=True) for a, b in ((x, y), (x, x), (y, y)))
    return ((1 + 2 * xy + y2) * x + (1 - x2) * y) / (1 + 2 * xy + x2 * y2)


def in_the_ball(*shape):
    return from_origin(1.5 * torch.randn(*shape, dtype=torch.float64))


def test_moving_in_the_ball_is_the_printed_formula_and_goes_back():
    torch.manual_seed(0)
    mean, v = in_the_ball(50, 3), torch.randn(50, 3, dtype=torch.float64)
    length = v.norm(dim=-1, keepdim=True)
    z = move(mean, v)
    assert torch.allclose(z, mobius(mean, (length / 2).tanh() * v / length), atol=1e-12)
    assert torch.allclose(distance(mean, z), length[:, 0], atol=1e-9)
    assert torch.allclose(from_point(mean, z), v, atol=1e-9)
    assert torch.allclose(to_origin(from_origin(v)), v, atol=1e-12)
    assert torch.allclose(move(mean, 0 * v), mean, atol=1e-12)
    still = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    (move(still, still).sum() + from_point(still, still + 0).sum()).backward()
    assert still.grad.isfinite().all()


def test_the_wrapped_normal_is_the_printed_density():
    """Mathieu et al. 2019, section 3: by the ball's volume, times (2 / (1 - |z|^2))^Z by Lebesgue's."""
    torch.manual_seed(0)
    mean, z, log_scale = in_the_ball(20, 3), in_the_ball(20, 3), 0.3 * torch.randn(20, 3, dtype=torch.float64)
    w = mobius(-mean, z)
    length = w.norm(dim=-1, keepdim=True)
    v = 2 * length.atanh() * w / length
    r = v.norm(dim=-1)
    own = Normal(0.0, log_scale.exp()).log_prob(v).sum(-1) + 2 * (r / r.sinh()).log()
    right = own + 3 * (2 / (1 - z.square().sum(-1))).log()
    assert torch.allclose(WrappedNormal(mean, log_scale).log_prob(z), right, atol=1e-9)


@pytest.mark.parametrize(("far", "off"), [(1.0, 1e-4), (8.0, 1e-3), (10.0, 1e-3)])
@pytest.mark.parametrize("dimensions", [2, 8])
def test_single_precision_holds_near_the_boundary(dimensions, far, off):
    """log q - log p of the very same points, in float32 and in float64."""
    torch.manual_seed(0)
    toward = far * unit(torch.randn(2000, dimensions, dtype=torch.float64))
    q = WrappedNormal(from_origin(toward).float(), torch.zeros(2000, dimensions))
    z_BZ = q.rsample(1)[0]
    assert z_BZ.norm(dim=-1).max() < 1.0
    weigh = [
        WrappedNormal(q.mean.to(dtype), q.log_scale.to(dtype)).log_prob(z_BZ.to(dtype))
        - WrappedNormalPrior().build(dimensions).to(dtype).log_prob(z_BZ.to(dtype))
        for dtype in (torch.float32, torch.float64)
    ]
    assert (weigh[0] - weigh[1]).abs().max() < off


def test_a_head_of_any_size_stays_in_the_ball():
    head = Poincare().build(4, 3)
    q = head(1e6 * torch.randn(50, 4))
    assert q.mean.norm(dim=-1).max() < 1.0
    z_KBZ = q.rsample(3)
    assert z_KBZ[z_KBZ.isfinite()].abs().max() <= 1.0


# --- one-hot vectors ----------------------------------------------------------------------------


def test_categories_are_those_of_torch():
    logits = torch.randn(5, 3, 4, dtype=torch.float64)
    q, prior = (
        CategoricalValue(logits, 1.0),
        CategoricalPrior(categories=4, logits="learned").build(12).double(),
    )
    with torch.no_grad():
        prior.logits_VC.normal_()
    right = OneHotCategorical(logits=logits)
    z_KBZ = q.rsample(7)
    each = z_KBZ.view(7, 5, 3, 4)
    assert torch.allclose(q.log_prob(z_KBZ), right.log_prob(each).sum(-1))
    assert torch.allclose(q.probabilities, right.probs.flatten(1))
    kl = kl_divergence(right, OneHotCategorical(logits=prior.logits_VC))
    assert torch.allclose(q.kl_to(prior), kl)
    assert q.kl_to(StandardNormal().build(12)) is None
    assert torch.equal(q.mean.view(5, 3, 4).argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("posterior", [GumbelSoftmax(categories=3), Joint(categories=3)])
def test_samples_are_exact_one_hot_vectors_in_training_too(posterior, training):
    head = posterior.build(4, 6).train(mode=training)
    z_KBZ = head(torch.randn(5, 4)).rsample(50)
    codes = z_KBZ[..., -3:]
    assert set(codes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(codes.sum(-1), torch.ones(50, 5))
    (codes * torch.randn(3)).sum().backward()
    assert head.linear.weight.grad[-3:].abs().sum() > 0


def test_a_colder_relaxation_is_less_biased():
    torch.manual_seed(0)
    weigh_C = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    logits = torch.tensor([[[0.3, -0.2, 0.1]]], dtype=torch.float64, requires_grad=True)
    true = torch.autograd.grad((logits.softmax(-1) @ weigh_C.exp()).sum(), logits)[0]
    off = {}
    for temperature in (0.2, 5.0):
        z_KBZ = CategoricalValue(logits, temperature).rsample(50_000)
        found = torch.autograd.grad((z_KBZ @ weigh_C).exp().mean(0).sum(), logits)[0]
        off[temperature] = float((found - true).norm() / true.norm())
    assert off[0.2] < off[5.0]


def test_the_joint_posterior_is_the_sum_of_its_parts():
    q, prior = (
        Joint(categories=3).build(4, 5).double()(torch.randn(6, 4).double()),
        JointPrior(categories=3).build(5),
    )
    kl_BG = q.kl_to(prior.double())
    assert kl_BG.shape == (6, 3), "two reals, one variable"
    normal = kl_divergence(Normal(q.continuous.mean, q.continuous.std), Normal(0.0, 1.0))
    chance = kl_divergence(
        OneHotCategorical(logits=q.discrete.log_p), OneHotCategorical(torch.ones(1, 3).double())
    )
    assert torch.allclose(kl_BG, torch.cat([normal, chance], -1))


# --- moving in a space --------------------------------------------------------------------------


SHARES = torch.linspace(0.0, 1.0, 9)


def test_a_line_on_the_sphere_is_an_arc():
    where, (a, b) = LatentSpace("sphere"), unit(torch.randn(2, 5))
    path = where.path(a, b, SHARES)
    assert torch.equal(path[0], a)
    assert torch.equal(path[-1], b)
    assert torch.allclose(path.norm(dim=-1), torch.ones(9))
    steps = (path[1:] * path[:-1]).sum(-1).acos()
    assert torch.allclose(steps, steps[:1].expand(8), atol=1e-3)
    opposite = where.path(a, -a, SHARES)
    assert torch.allclose(opposite.norm(dim=-1), torch.ones(9), atol=1e-6)
    moved = where.moved(a, 2, 3.0, 5)
    assert torch.allclose(moved.norm(dim=-1), torch.ones(5))
    assert torch.allclose(moved[:, 2], torch.linspace(-math.pi / 2, math.pi / 2, 5).sin(), atol=1e-6)
    assert where.middle(unit(torch.randn(50, 5) + 2)).norm() == pytest.approx(1.0)


def test_a_line_in_the_ball_is_a_geodesic_and_its_middle_the_least_squared_distance():
    where, (a, b) = LatentSpace("ball"), in_the_ball(2, 3)
    path = where.path(a, b, SHARES.double())
    steps = distance(path[1:], path[:-1])
    assert torch.allclose(steps, steps[:1].expand(8), rtol=1e-6)
    assert steps.sum() == pytest.approx(float(distance(a, b)))
    middle = where.middle(torch.stack([a, b]))
    assert torch.allclose(middle, path[4], atol=1e-6)
    z_NZ = in_the_ball(40, 3)
    best = distance(where.middle(z_NZ), z_NZ).square().sum()
    for _ in range(20):
        near = where.middle(z_NZ) + 0.01 * torch.randn(3).double()
        assert distance(near, z_NZ).square().sum() > best
    half = where.tempered(z_NZ, 0.5)
    assert torch.allclose(to_origin(half), 0.5 * to_origin(z_NZ), atol=1e-9)


def test_lines_between_categories_change_one_variable_after_the_other():
    where = LatentSpace("mixed", (3, 3))
    a, b = torch.tensor([0.0, 1, 0, 0, 0, 1, 0]), torch.tensor([1.0, 0, 0, 1, 0, 0, 1])
    path = where.path(a, b, SHARES)
    assert set(path[:, 1:].unique().tolist()) == {0.0, 1.0}
    changed = (path[:, 1:] != a[1:]).any(-1).sum()
    assert changed == 6, "the first variable after a quarter of the way"
    assert torch.allclose(path[:, 0], SHARES)
    assert where.directions(7) == ["z0", "variable 0", "variable 1"]
    assert where.moved(a, 2, 3.0, 6)[:, 4:].argmax(-1).tolist() == [0, 0, 1, 1, 2, 2]
    assert where.middle(torch.stack([a, b, b])).tolist() == pytest.approx([2 / 3, 0, 0, 1, 0, 0, 1])
    assert where.tempered(torch.stack([b]), 0.5).tolist() == [[0.5, 0, 0, 1, 0, 0, 1]]
    with pytest.raises(ConfigError, match="this model has 0 to 2"):
        where.moved(a, 3, 3.0, 6)
    with pytest.raises(ConfigError, match="no origin"):
        LatentSpace("one-hot", (3,)).tempered(a, 0.5)


# --- log p(x) by quadrature -----------------------------------------------------------------------


def test_the_evidence_on_a_circle_is_a_bessel_function():
    """With W'W = a^2 I: p(x) = N(x - b; 0, s^2 I) exp(-a^2 / 2 s^2) I_0(|W'(x - b)| / s^2)."""
    law = LinearGaussian(posterior=VMF(), fitted=False)
    out, x_BD, s2 = law.model.decoder[0], law.x_BCHW.flatten(1), law.sigma**2
    with torch.no_grad():
        out.weight.copy_(torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q)
        pulled_B = ((x_BD - out.bias) @ out.weight).norm(dim=1) / s2
        flat_B = Normal(0.0, s2**0.5).log_prob(x_BD - out.bias).sum(1) - 0.5 / s2
    right_B = flat_B + pulled_B + torch.special.i0e(pulled_B).log()
    assert torch.allclose(evidence(law.model, law.x_BCHW), right_B, atol=1e-9)


def test_the_evidence_of_categories_is_a_sum():
    law = LinearGaussian(posterior=GumbelSoftmax(categories=3), fitted=False)
    states = torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        log_px_SB = law.model.decode(states[:, None]).log_prob(law.x_BCHW)
    assert torch.allclose(law.log_px_B, log_px_SB.logsumexp(0) - math.log(3), atol=1e-12)


def test_the_evidence_refuses_more_states_than_it_can_list():
    many = VAE(latent_dim=40, posterior=GumbelSoftmax(), prior=CategoricalPrior()).build((1, 2, 2)).double()
    with pytest.raises(ConfigError, match="a few thousand states"):
        evidence(many, torch.zeros(1, 1, 2, 2).double())


# --- models and the command line ----------------------------------------------------------------

PAIRS = {
    "vmf": (VMF(), UniformSphere(), 3),
    "poincare": (Poincare(), WrappedNormalPrior(), 2),
    "gumbel-softmax": (GumbelSoftmax(), CategoricalPrior(), 4),
    "joint": (Joint(), JointPrior(), 4),
}


@pytest.mark.usefixtures("every_setting")
@pytest.mark.parametrize("name", PAIRS)
def test_a_model_elsewhere_keeps_its_laws(name):
    posterior, prior, latents = PAIRS[name]
    nets = {"encoder": MLP(hidden=(9,)), "decoder": MLP(hidden=(9,))}
    spec = VAE(posterior=posterior, prior=prior, latent_dim=latents, **nets)
    evidence = check(spec, skip=["every setting changes something"])
    assert not any(str(found).startswith("does not apply") for found in evidence.values()), evidence


@pytest.mark.parametrize(
    "name", [name if name == "vmf" else pytest.param(name, marks=pytest.mark.slow) for name in PAIRS]
)
def test_everything_on_the_command_line_works_elsewhere(name, nelbo, tmp_path):
    prior = {"vmf": "uniform-sphere", "poincare": "wrapped-normal", "joint": "joint"}.get(name, "categorical")
    code, out, err = nelbo(
        "train", "digits", "--posterior", name, "--prior", prior, "--latent-dim", 4, "--epochs", 2, "--name", "run",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    metrics = json.loads(out)["metrics"]
    assert metrics["nelbo"]["value"] == pytest.approx(
        metrics["reconstruction"]["value"] + metrics["kl"]["value"]
    )
    figures = {file.name for file in (tmp_path / "runs" / "run" / "figures").iterdir()}
    assert {"interpolation.png", "traversal.png", "class-means.png", "samples.png", "around.png"} <= figures
    assert not figures & {"manifold.png", "posterior.png", "kl.png"}
    code, out, err = nelbo("evaluate", "run", "--samples", 20, "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]
    assert found["iw_nll"]["value"] < found["nelbo"]["value"]
    assert "posterior mean" not in found["mse"]["note"]
    for verb in (
        ("doctor", "run", "--json"), ("report", "run", "--pictures", "samples"),
        ("sample", "run", "--like", 3), ("traverse", "run", 3),
        ("interpolate", "run", 0, 5), ("interpolate", "run", "class:1", "class:7"), ("reconstruct", "run"),
    ):  # fmt: skip
        code, out, err = nelbo(*verb)
        assert code == 0, err
        if verb[0] == "doctor":
            named = {finding["check"] for finding in json.loads(out)["findings"]}
            assert not named & {"sampled-posterior", "ignored-dimensions", "bounded-mean", "unbounded-sigma"}
    code, _, err = nelbo("sample", "run", "--temperature", 0.5)
    assert (code, "no origin" in err) == ((2, True) if name in ("vmf", "gumbel-softmax") else (0, False))
    code, _, err = nelbo("sample", "run", "--like", 3, "--noise", 1)
    assert (code, "leave --noise out" in err) == (2, True), err


def test_both_parts_must_have_the_same_categories():
    with pytest.raises(ValueError, match=r"sizes 4 \+ 4, and those of the prior categorical 2 \+ 2"):
        VAE(posterior=GumbelSoftmax(categories=4), prior=CategoricalPrior(), latent_dim=8)
    with pytest.raises(ValueError, match="use --latent-dim 5, 10, 15"):
        VAE(posterior=GumbelSoftmax(categories=5), prior=CategoricalPrior(categories=5), latent_dim=8)
    with pytest.raises(ValueError, match="use --latent-dim 3 or more"):
        VAE(posterior=Joint(), prior=JointPrior(), latent_dim=2)
    with pytest.raises(ValueError, match=r"one of these priors: uniform-sphere; "):
        VAE(posterior=VMF())
