"""Posteriors on R^Z against the distributions of torch, and against what they are for."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.distributions import (
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from nelbo.core import Progress
from nelbo.core.registry import lookup, names
from nelbo.dists.normal import DiagonalNormal, NormalPrior, StandardNormalModule, cross_entropy
from nelbo.likelihoods import Gaussian
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO
from nelbo.posteriors import DiagonalGaussian
from nelbo.posteriors.flow import FlowPosterior
from nelbo.posteriors.full_gaussian import FullGaussian, FullNormal
from nelbo.posteriors.iaf import IAF
from nelbo.posteriors.laplace import LaplacePosterior, LaplaceValue
from nelbo.posteriors.low_rank_gaussian import LowRankGaussian, LowRankNormal
from nelbo.posteriors.planar import Planar
from nelbo.posteriors.radial import Radial
from nelbo.posteriors.spline import Spline

FLOWS = [Planar, Radial, IAF, Spline]
ALL = [DiagonalGaussian, FullGaussian, LowRankGaussian, LaplacePosterior, *FLOWS]


class LearnedPrior(NormalPrior):
    """N(mean_Z, diag(exp(log_var_Z))), as a learned prior is."""

    def __init__(self, latents):
        super().__init__()
        self.mean_Z = nn.Parameter(torch.randn(latents))
        self.log_var_Z = nn.Parameter(torch.randn(latents))

    def log_prob(self, z):
        return self.reference.log_prob(z).sum(-1)

    def sample(self, n):
        return self.reference.sample((n,))

    def cross_entropy(self, mean_BZ, var_BZ):
        return cross_entropy(mean_BZ, var_BZ, self.mean_Z, self.log_var_Z)

    @property
    def reference(self):
        return Normal(self.mean_Z, (0.5 * self.log_var_Z).exp())


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_kl_of_a_diagonal_gaussian_to_a_diagonal_normal_prior_is_that_of_torch():
    prior = LearnedPrior(4)
    mean, log_var = torch.randn(5, 4), torch.randn(5, 4)
    q = DiagonalNormal(mean, (0.5 * log_var).exp(), log_var)
    expected = kl_divergence(Normal(mean, q.std), prior.reference)
    assert torch.allclose(q.kl_to(prior), expected)
    q.kl_to(prior).sum().backward()
    assert prior.mean_Z.grad.abs().min() > 0
    assert prior.log_var_Z.grad.abs().min() > 0
    with torch.no_grad():
        prior.mean_Z.zero_()
        prior.log_var_Z.zero_()
    assert torch.allclose(q.kl_to(prior), q.kl_to(StandardNormalModule(4)))
    assert q.kl_to(nn.Identity()) is None


# --- against torch --------------------------------------------------------------------------------


def full(latents=4):
    return FullNormal(
        torch.randn(5, latents),
        torch.randn(5, latents),
        torch.randn(5, latents, latents).tril(-1) + torch.eye(latents),
    )


def test_the_full_gaussian_is_the_one_of_torch():
    q, prior = full(), LearnedPrior(4)
    reference = MultivariateNormal(q.mean, scale_tril=q.scale_tril)
    own_KBZ, other_KBZ = q.rsample(20), 3 * torch.randn(20, 5, 4)
    for z_KBZ in (own_KBZ, own_KBZ.clone(), other_KBZ):
        assert torch.allclose(q.log_prob(z_KBZ), reference.log_prob(z_KBZ))
    assert torch.allclose(q.std, reference.stddev)
    for target in (prior, StandardNormalModule(4)):
        mean, std = (
            (prior.mean_Z, prior.reference.scale) if target is prior else (torch.zeros(4), torch.ones(4))
        )
        expected = kl_divergence(reference, MultivariateNormal(mean, torch.diag(std**2)))
        assert torch.allclose(q.kl_to(target), expected[:, None])
    samples = q.rsample(200_000)
    centred = samples - q.mean
    assert torch.allclose(
        torch.einsum("kbi,kbj->bij", centred, centred) / 200_000,
        reference.covariance_matrix,
        rtol=0.05,
        atol=0.3,
    )


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_low_rank_gaussian_is_the_one_of_torch(rank):
    q, prior = LowRankNormal(torch.randn(5, 4), torch.randn(5, 4), torch.randn(5, 4, rank)), LearnedPrior(4)
    std = (0.5 * q.log_var).exp()
    reference = LowRankMultivariateNormal(q.mean, std[..., None] * q.U_BZR, std**2)
    z_KBZ = 3 * torch.randn(20, 5, 4)
    assert torch.allclose(q.log_prob(z_KBZ), reference.log_prob(z_KBZ))
    assert torch.allclose(q.std, reference.stddev)
    dense = MultivariateNormal(q.mean, reference.covariance_matrix)
    expected = kl_divergence(dense, MultivariateNormal(prior.mean_Z, torch.diag(prior.reference.variance)))
    assert torch.allclose(q.kl_to(prior), expected[:, None])
    centred = q.rsample(200_000) - q.mean
    assert torch.allclose(
        torch.einsum("kbi,kbj->bij", centred, centred) / 200_000,
        reference.covariance_matrix,
        rtol=0.05,
        atol=0.3,
    )


def test_the_laplace_posterior_is_the_one_of_torch():
    q, prior = LaplaceValue(torch.randn(5, 4), torch.randn(5, 4)), LearnedPrior(4)
    reference = Laplace(q.mean, q.log_scale.exp())
    z_KBZ = 3 * torch.randn(20, 5, 4)
    assert torch.allclose(q.log_prob_each(z_KBZ), reference.log_prob(z_KBZ))
    assert torch.allclose(q.log_prob(z_KBZ), Independent(reference, 1).log_prob(z_KBZ))
    assert torch.allclose(q.std, reference.stddev)
    assert torch.allclose(q.kl_to(prior), kl_divergence(reference, prior.reference))
    closest = LaplaceValue(torch.zeros(1, 1), torch.full((1, 1), -0.5 * math.log(2)))
    assert math.isclose(float(closest.kl_to(StandardNormalModule(1))), 0.0724, abs_tol=1e-4)


# --- what correlations are for ----------------------------------------------------------------------


def correlated():
    """A linear-Gaussian model with a correlated posterior: W, b, sigma, images, log p(x), its gain and precision."""
    W, b, sigma = torch.tensor([[1.0, 0.9], [0.2, 0.6], [0.8, 0.5], [0.1, -0.3]]), 0.3 * torch.randn(4), 0.6
    marginal = MultivariateNormal(b, W @ W.T + sigma**2 * torch.eye(4))
    x_BD = marginal.sample((6,))
    precision = torch.eye(2) + W.T @ W / sigma**2
    gain = torch.linalg.solve(precision, W.T / sigma**2)
    return W, b, sigma, x_BD, marginal.log_prob(x_BD), gain, precision


def bound_with(spec, fill):
    """The ELBO of each image on that model, with the posterior's linear head as `fill(gain, precision)` says."""
    W, b, sigma, x_BD, log_px_B, gain, precision = correlated()
    parts = {"encoder": MLP(hidden=()), "decoder": MLP(hidden=()), "likelihood": Gaussian(sigma=sigma)}
    model = VAE(latent_dim=2, posterior=spec, **parts).build((1, 2, 2)).double()
    outputs = fill(precision)
    with torch.no_grad():
        model.decoder[0].weight.copy_(W)
        model.decoder[0].bias.copy_(b)
        model.posterior.linear.weight.zero_()
        model.posterior.linear.weight[:2] = gain
        model.posterior.linear.bias[:2] = -gain @ b
        model.posterior.linear.bias[2:] = outputs
        draw = model.draw(x_BD.view(-1, 1, 2, 2), 20_000)
        terms = ELBO(k=20_000)(draw, Progress())
    weights_KB = draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB
    return terms.bound_B, log_px_B, weights_KB, precision


def test_a_full_covariance_reaches_log_px_where_the_posterior_is_correlated():
    def fill(precision):
        factor = torch.linalg.cholesky(precision.inverse())
        unit = factor / factor.diagonal()[:, None]
        return torch.cat([2 * factor.diagonal().log(), unit[1:, 0]])

    bound_B, log_px_B, weights_KB, _ = bound_with(FullGaussian(), fill)
    assert torch.allclose(weights_KB, log_px_B.expand_as(weights_KB)), "q is p(z|x): every weight is p(x)"
    assert torch.allclose(bound_B, log_px_B, atol=0.05)


def test_a_low_rank_covariance_reaches_it_too():
    def fill(precision):
        (a, c), (_, b) = precision.inverse().tolist()
        first = math.sqrt(abs(c) * math.sqrt(a / b))
        V = torch.tensor([first, c / first])
        D = torch.tensor([a, b]) - V**2
        U = V / D.sqrt()
        return torch.cat([D.log(), 30.0 * (U / 30.0).atanh()])

    bound_B, log_px_B, weights_KB, _ = bound_with(LowRankGaussian(rank=1), fill)
    assert torch.allclose(weights_KB, log_px_B.expand_as(weights_KB))
    assert torch.allclose(bound_B, log_px_B, atol=0.05)


def test_the_best_diagonal_gaussian_does_not():
    """It has the variances 1 / precision_jj, and lacks 1/2 (sum log precision_jj - log |precision|) nats."""
    bound_B, log_px_B, _, precision = bound_with(DiagonalGaussian(), lambda p: -p.diagonal().log())
    missing = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    assert missing > 0.3
    assert torch.allclose(bound_B, log_px_B - missing, atol=0.05)


# --- flows ------------------------------------------------------------------------------------------


def wild(spec, latents=3, features=5):
    """A head whose flow is far from the identity, and features."""
    head = spec.build(features, latents)
    with torch.no_grad():
        for weight in head.flow.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    return head, torch.randn(4, features)


@pytest.mark.parametrize("spec", FLOWS)
@pytest.mark.parametrize(
    "base", [DiagonalGaussian(), FullGaussian(), LaplacePosterior()], ids=lambda base: base.name
)
def test_samples_come_with_the_density_that_the_inverse_finds(spec, base):
    head, features_BF = wild(spec(base=base))
    value = head(features_BF)
    sample = value.rsample_and_log_prob(50)
    assert torch.allclose(value.log_prob(sample.z_KBZ), sample.log_prob(), atol=1e-7)
    assert value.log_prob(value.rsample(50)).shape == (50, 4)


def test_a_full_gaussian_gives_its_samples_their_density_without_solving():
    value = full()
    sample = value.rsample_and_log_prob(3)
    reference = MultivariateNormal(value.mean, scale_tril=value.scale_tril)
    assert torch.allclose(sample.log_prob(), reference.log_prob(sample.z_KBZ))
    assert torch.allclose(value.log_prob(sample.z_KBZ + 1.0), reference.log_prob(sample.z_KBZ + 1.0))


@pytest.mark.parametrize("spec", FLOWS)
def test_both_ways_to_the_density_of_a_sample_have_the_same_gradient(spec):
    head, features_BF = wild(spec())
    found = []
    for remembered in (True, False):
        torch.manual_seed(4)
        value = head(features_BF)
        sample = value.rsample_and_log_prob(3)
        log_q = sample.log_prob() if remembered else value.log_prob(sample.z_KBZ)
        found.append(torch.autograd.grad(log_q.sum(), list(head.parameters())))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("spec", ALL)
def test_a_detached_value_has_a_gradient_by_z_alone(spec):
    """And the two parts, through z and through the parameters, are the whole."""
    torch.manual_seed(5)
    head, features_BF = spec().build(5, 3), torch.randn(4, 5)
    weights = list(head.parameters())

    def slopes(log_q):
        return [
            g if g is not None else torch.zeros_like(w)
            for g, w in zip(
                torch.autograd.grad(log_q.sum(), weights, retain_graph=True, allow_unused=True),
                weights,
                strict=True,
            )
        ]

    value = head(features_BF)
    z_KBZ = value.rsample(2)
    stopped = value.detached()
    assert torch.allclose(stopped.log_prob(z_KBZ), value.log_prob(z_KBZ))
    assert not stopped.log_prob(z_KBZ.detach()).requires_grad
    assert stopped.log_prob(z_KBZ.detach().requires_grad_()).requires_grad
    whole = slopes(value.log_prob(z_KBZ.clone()))
    parts = zip(slopes(stopped.log_prob(z_KBZ)), slopes(value.log_prob(z_KBZ.detach().clone())), strict=True)
    assert all(
        torch.allclose(path + score, total, atol=1e-6)
        for (path, score), total in zip(parts, whole, strict=True)
    )


@pytest.mark.parametrize("spec", FLOWS)
def test_no_layers_are_the_base_itself(spec):
    torch.manual_seed(6)
    base = FullGaussian().build(5, 3)
    features_BF, z_KBZ = torch.randn(4, 5), torch.randn(7, 4, 3)
    head = spec(base=FullGaussian(), layers=0).build(5, 3)
    head.base.load_state_dict(base.state_dict())
    value, plain, prior = head(features_BF), base(features_BF), StandardNormalModule(3)
    assert torch.equal(value.log_prob(z_KBZ), plain.log_prob(z_KBZ))
    assert torch.equal(value.kl_to(prior), plain.kl_to(prior))
    assert torch.equal(value.mean, plain.mean)
    assert value.mean_is == "posterior mean"
    assert spec().build(5, 3)(features_BF).mean_is == "image of the base posterior's mean"
    assert spec().build(5, 3)(features_BF).kl_to(prior) is None


@pytest.mark.parametrize("spec", ALL)
def test_posteriors_are_finite_in_single_precision(spec):
    """At 64 latents, with features that a network without normalisation puts out at its worst."""
    torch.set_default_dtype(torch.float32)
    head = spec().build(256, 64)
    features_BF = 30.0 * torch.randn(8, 256)
    value = head(features_BF)
    sample = value.rsample_and_log_prob(2)
    z_KBZ, log_q_KB = sample.z_KBZ, sample.log_prob()
    (log_q_KB.sum() + z_KBZ.square().mean()).backward()
    assert z_KBZ.isfinite().all()
    assert log_q_KB.isfinite().all()
    assert value.mean.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in head.parameters())
    kl = value.kl_to(StandardNormalModule(64))
    assert kl is None or kl.isfinite().all()


@pytest.mark.parametrize(
    "spec", [DiagonalGaussian, FullGaussian, LowRankGaussian, LaplacePosterior, Planar, Radial]
)
def test_samples_have_their_density_where_networks_compute_in_bf16(spec):
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head = spec().build(16, 8)
        with torch.no_grad():
            for weight in head.parameters():
                weight.mul_(3.0)
        value = head(torch.randn(32, 16))
        z_KBZ = value.rsample(4)
        log_q_KB = value.log_prob(z_KBZ)
        again_KB = value.log_prob(z_KBZ.clone())
    assert z_KBZ.dtype == log_q_KB.dtype == torch.float32
    assert torch.allclose(log_q_KB, again_KB, atol=1e-3), (log_q_KB - again_KB).abs().max()


# --- what flows are for -------------------------------------------------------------------------------


@functools.cache
def banana_bound(spec, steps=250):
    """ELBO and IW-2000 after training q alone: z ~ N(0, I), x = z_2 - 1.5 z_1^2 + 0.3 noise, x = 0."""
    torch.manual_seed(0)
    head = spec.build(1, 2)
    nothing, prior = torch.ones(1, 1), StandardNormalModule(2)

    def log_weights(k):
        value = head(nothing)
        z = value.rsample(k)
        log_px = Normal(z[..., 1] - 1.5 * z[..., 0] ** 2, 0.3).log_prob(torch.tensor(0.0))
        return log_px + prior.log_prob(z) - value.log_prob(z)

    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (-log_weights(32).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        log_w = log_weights(20_000)
    return float(log_w.mean()), float(log_w.view(10, 2000).logsumexp(1).mean() - math.log(2000))


def banana_evidence():
    """log of the integral over z_1 of N(z_1; 0, 1) N(1.5 z_1^2; 0, 1 + 0.3^2)."""
    z = torch.linspace(-8, 8, 20_001)
    log_joint = Normal(0.0, 1.0).log_prob(z) + Normal(0.0, math.sqrt(1.09)).log_prob(1.5 * z**2)
    return float(log_joint.logsumexp(0) + math.log(16 / 20_000))


CLOSED = {IAF(): 0.5, Spline(): 0.5, Planar(layers=8): 0.4, Radial(layers=8): 0.1}  # share of the base's gap


@pytest.mark.parametrize("spec", CLOSED, ids=lambda spec: spec.name)
def test_a_flow_beats_its_base_on_a_banana(spec):
    exact, (base, _) = banana_evidence(), banana_bound(DiagonalGaussian())
    bound, tight = banana_bound(spec)
    assert exact - base > 0.4
    assert bound < exact + 0.01
    assert exact - bound < (1 - CLOSED[spec]) * (exact - base)
    assert abs(tight - exact) < 0.1


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
def test_a_base_without_a_density_on_the_reals_is_refused_with_what_would_do(flow):
    for name in names("posterior"):
        entry = lookup("posterior", name)
        if issubclass(entry, FlowPosterior):
            words = "more layers"
        elif not entry.has_density:
            words = f"{name} has not a density"
        elif entry.space != "real":
            words = rf"{name} has not latents in R\^Z"
        else:
            assert flow(base=name).base == entry()
            continue
        with pytest.raises(ValidationError, match=words) as caught:
            flow(base=name)
        assert "diagonal-gaussian, full-gaussian, laplace, low-rank-gaussian" in str(caught.value)


def test_a_refused_base_is_one_line_on_the_command_line(nelbo):
    code, _, err = nelbo("train", "digits", "--posterior", "planar", "--posterior.base", "iaf", "--dry-run")
    assert code == 2
    assert "model.posterior.base: iaf is a flow itself" in err
    assert len(err.strip().splitlines()) == 2
