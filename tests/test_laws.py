"""The mathematics, against exact answers in float64: a linear-Gaussian model whose log p(x) is known.

    p(z) = N(0, I)    p(x|z) = N(W z + b, sigma^2 I)    p(x) = N(b, W W' + sigma^2 I)

With orthogonal columns of W the true posterior is diagonal, so the model's own q can be made exact.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from nelbo.core import Draw, Progress, lookup, names
from nelbo.dists import Bernoulli, DiagonalGaussian, Gaussian, StandardNormal
from nelbo.dists.bernoulli import BernoulliImage
from nelbo.dists.gaussian import GaussianImage
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.nets.linear import OneDNNLinear, onednn_is_faster
from nelbo.objectives import ELBO
from nelbo.schedules import Linear

SHAPE, Z, SIGMA = (1, 2, 3), 2, 0.7
PARAMETRISATIONS = ["log-variance", "positive", "raw-sigma", "tanh"]


class LinearGaussian:
    """A VAE without hidden layers, its exact marginal, and its exact posterior."""

    def __init__(self, *, exact: bool, parametrisation: str = "log-variance", wider: float = 1.3) -> None:
        torch.manual_seed(3)
        spec = VAE(
            latent_dim=Z,
            encoder=MLP(hidden=()),
            decoder=MLP(hidden=()),
            posterior=DiagonalGaussian(parametrisation=parametrisation),
            likelihood=Gaussian(sigma=SIGMA),
        )
        self.model = spec.build(SHAPE).double()
        W, _ = torch.linalg.qr(torch.randn(6, Z, dtype=torch.float64))
        W = W * torch.tensor([1.4, 0.6], dtype=torch.float64)
        b = 0.3 * torch.randn(6, dtype=torch.float64)
        precision = 1.0 + W.square().sum(0) / SIGMA**2
        with torch.no_grad():
            out = self.model.decoder[0]
            out.weight.copy_(W)
            out.bias.copy_(b)
            head = self.model.posterior.linear
            gain = W.T / SIGMA**2 / precision[:, None]
            shift = 0.0 if exact else 0.2
            head.weight[:Z].copy_(gain + shift * torch.randn_like(gain))
            head.weight[Z:].zero_()
            head.bias[:Z].copy_(-(gain @ b) + shift)
            # An approximate q is wider than the posterior, so that importance weights have a variance.
            std = precision.rsqrt() * (1.0 if exact else wider)
            raw = {
                "log-variance": 2 * std.log(),
                "positive": std.expm1().log(),
                "raw-sigma": -std,
                "tanh": std.atanh(),
            }
            head.bias[Z:].copy_(raw[parametrisation])
        self.marginal = MultivariateNormal(b, W @ W.T + SIGMA**2 * torch.eye(6, dtype=torch.float64))
        self.x = self.marginal.sample((4,)).view(4, *SHAPE)
        self.log_px = self.marginal.log_prob(self.x.flatten(1))


def test_exact_posterior_makes_every_sample_the_marginal():
    law = LinearGaussian(exact=True)
    draw = law.model.draw(law.x, 7)
    log_w = draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB
    assert torch.allclose(log_w, law.log_px.expand(7, -1), atol=1e-10)
    closed = -ELBO()(law.model.draw(law.x, 200_000), Progress()).loss_B
    assert torch.allclose(closed, law.log_px, atol=0.02)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_bounds_are_ordered_and_converge_to_the_marginal(parametrisation):
    """ELBO <= IW-5 <= IW-50 <= log p(x), each step by more than its standard error; IW-20000 is log p(x)."""
    law = LinearGaussian(exact=False, parametrisation=parametrisation)
    torch.manual_seed(0)
    log_w = law.model.log_weights(law.x, 100_000)
    means, errors = {}, {}
    for k in (1, 5, 50):
        estimates = log_w.view(-1, k, 4).logsumexp(1) - math.log(k)
        means[k], errors[k] = estimates.mean(0), estimates.std(0) / len(estimates) ** 0.5
    for small, large in ((1, 5), (5, 50)):
        assert (means[small] <= means[large] + 4 * errors[small]).all()
        assert means[small].sum() < means[large].sum(), "a looser bound that is not below a tighter one"
    assert (means[50] <= law.log_px + 4 * errors[50]).all()
    weights = (log_w - law.log_px).exp()  # mean 1: the estimator of p(x) is unbiased
    spread = weights.std(0) / len(weights) ** 0.5
    assert ((weights.mean(0) - 1).abs() < 5 * spread).all()
    assert torch.allclose(log_w.logsumexp(0) - math.log(len(log_w)), law.log_px, atol=0.05)


@pytest.mark.parametrize("name", names("objective"))
def test_no_objective_reports_more_than_the_marginal(name):
    """A surrogate whose value exceeds log p(x) must not be called a bound (PEERS 13)."""
    law = LinearGaussian(exact=False)
    objective = lookup("objective", name)()
    torch.manual_seed(1)
    bounds = torch.stack(
        [objective(law.model.draw(law.x, objective.k), Progress()).bound_B.detach() for _ in range(4000)]
    )
    error = bounds.std(0) / len(bounds) ** 0.5
    assert (bounds.mean(0) <= law.log_px + 4 * error).all()


@pytest.mark.parametrize("name", names("objective"))
def test_one_sample_and_beta_one_reduce_to_the_elbo(name):
    law = LinearGaussian(exact=False)
    objective = lookup("objective", name)(k=1)
    torch.manual_seed(2)
    mine = torch.stack([objective(law.model.draw(law.x), Progress()).loss_B.detach() for _ in range(4000)])
    torch.manual_seed(4)
    plain = torch.stack([ELBO()(law.model.draw(law.x), Progress()).loss_B.detach() for _ in range(4000)])
    error = (mine.var(0) / 4000 + plain.var(0) / 4000).sqrt()
    assert ((mine.mean(0) - plain.mean(0)).abs() < 4 * error + 1e-12).all()


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_closed_form_kl_is_the_monte_carlo_kl(parametrisation):
    law = LinearGaussian(exact=False, parametrisation=parametrisation)
    torch.manual_seed(0)
    draw = law.model.draw(law.x, 100_000)
    gap = draw.log_qz_KB - draw.log_pz_KB
    error = gap.std(0) / len(gap) ** 0.5
    assert ((draw.kl_BZ.sum(-1) - gap.mean(0)).abs() < 4 * error).all()
    q = draw.posterior
    exact = kl_divergence(Normal(q.mean, q.std.abs()), Normal(0.0, 1.0))
    assert torch.allclose(draw.kl_BZ, exact, atol=1e-10)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_posterior_samples_match_their_density(parametrisation):
    law = LinearGaussian(exact=False, parametrisation=parametrisation)
    q = law.model.encode(law.x)
    torch.manual_seed(0)
    z = q.rsample(50_000)
    scaled = ((z - q.mean) / q.std.abs()).detach()
    assert scaled.mean(0).abs().max() < 5 / 50_000**0.5
    assert (scaled.var(0) - 1).abs().max() < 5 * (2 / 50_000) ** 0.5
    assert abs(float((scaled[..., 0] * scaled[..., 1]).mean())) < 5 / 200_000**0.5, "noise is not independent"
    inside = (scaled.abs() < 1).double().mean()
    assert abs(float(inside) - 0.682689) < 0.01
    reference = Normal(q.mean, q.std.abs()).log_prob(z).sum(-1)
    assert torch.allclose(q.log_prob(z), reference, atol=1e-9)


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


def test_standard_normal_prior():
    prior = StandardNormalModule(3)
    z = torch.randn(10, 4, 3, dtype=torch.float64)
    assert torch.allclose(prior.log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(-1))
    torch.manual_seed(0)
    drawn = prior.sample(40_000)
    assert drawn.shape == (40_000, 3)
    assert drawn.mean().abs() < 0.02
    assert (drawn.var() - 1).abs() < 0.03


def test_bernoulli_sums_to_one_over_all_images():
    logits = torch.randn(5, 1, 2, 3, dtype=torch.float64) * 3
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)), dtype=torch.float64).view(
        -1, 1, 1, 2, 3
    )
    total = BernoulliImage(logits).log_prob(every).exp().sum(0)
    assert torch.allclose(total, torch.ones(5, dtype=torch.float64), atol=1e-12)


def test_bernoulli_is_finite_where_probabilities_are_not():
    huge = torch.tensor([-1e4, 1e4, -200.0, 200.0], dtype=torch.float32).view(1, 1, 2, 2)
    right = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2)
    assert float(BernoulliImage(huge).log_prob(right)) == 0.0
    assert math.isclose(float(BernoulliImage(huge).log_prob(1 - right)), -20_400.0, rel_tol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.632, 3.0])
def test_gaussian_pixels_integrate_to_one_and_match_the_reference(sigma):
    mean = torch.tensor([0.3], dtype=torch.float64).view(1, 1, 1, 1)
    value = GaussianImage(mean, torch.tensor(math.log(sigma), dtype=torch.float64))
    grid = torch.linspace(-40 * sigma, 40 * sigma, 200_001, dtype=torch.float64) + 0.3
    density = value.log_prob(grid.view(-1, 1, 1, 1)).exp()
    assert math.isclose(float(torch.trapezoid(density, grid)), 1.0, abs_tol=1e-9)
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    many = GaussianImage(torch.zeros(4, 3, 5, 2, dtype=torch.float64), value.log_sigma)
    assert torch.allclose(many.log_prob(x), Normal(0.0, sigma).log_prob(x).flatten(1).sum(1))


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(sigma=0.5, mean="sigmoid", learned=True)])
def test_likelihood_samples_have_the_mean_it_says(likelihood):
    torch.manual_seed(0)
    module = likelihood.build((1, 2, 2))
    value = module(torch.randn(1, 1, 2, 2).expand(20_000, -1, -1, -1))
    drawn = value.sample()
    error = drawn.std(0) / 20_000**0.5
    assert ((drawn.mean(0) - value.mean[0]).abs() < 5 * error).all()


@pytest.mark.parametrize(
    "objective",
    [ELBO(), ELBO(beta=4), ELBO(kl="monte-carlo", k=3), ELBO(free_bits=0.2), ELBO(beta=Linear(epochs=4))],
    ids=["elbo", "beta", "monte-carlo", "free-bits", "warm-up"],
)
@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_gradients_against_finite_differences(objective, parametrisation):
    law = LinearGaussian(exact=False, parametrisation=parametrisation)
    parameters = [
        law.model.decoder[0].weight,
        law.model.posterior.linear.weight,
        law.model.posterior.linear.bias,
    ]

    def loss(*values):
        del values  # gradcheck moves the parameters in place
        torch.manual_seed(5)
        return objective(law.model.draw(law.x, objective.k), Progress(epoch=2)).loss_B.mean()

    assert torch.autograd.gradcheck(loss, parameters, eps=1e-6, atol=1e-6)


def test_every_setting_of_the_elbo_changes_what_it_says():
    law = LinearGaussian(exact=False)

    def terms(objective, progress=Progress()):  # noqa: B008
        torch.manual_seed(6)
        return objective(law.model.draw(law.x, objective.k), progress)

    plain = terms(ELBO())
    rec, kl = plain.parts["reconstruction"], plain.parts["kl"]
    assert torch.allclose(plain.loss_B, rec + kl)
    assert torch.allclose(terms(ELBO(beta=4)).loss_B, rec + 4 * kl)
    assert torch.allclose(terms(ELBO(beta=4)).bound_B, -(rec + kl)), "the bound is reported at beta 1"
    half = terms(ELBO(beta=Linear(epochs=4)), Progress(epoch=2)).loss_B
    assert torch.allclose(half, rec + 0.5 * kl)
    kl_BZ = law.model.encode(law.x).kl_to(law.model.prior).detach()
    floor = float(kl_BZ.mean(0).max()) * 0.9
    charged = kl_BZ.mean(0).clamp_min(floor).sum()
    assert torch.allclose(terms(ELBO(free_bits=floor)).loss_B, rec + charged)
    assert not torch.allclose(rec + charged, plain.loss_B)
    assert torch.allclose(terms(ELBO(free_bits=floor)).bound_B, plain.bound_B)
    sampled = terms(ELBO(kl="monte-carlo")).parts["kl"]
    draw_seeded = terms(ELBO(kl="monte-carlo")).parts["kl"]
    assert torch.allclose(sampled, draw_seeded)
    assert not torch.allclose(sampled, kl)
    assert not torch.allclose(terms(ELBO(k=3)).parts["reconstruction"], rec)


def test_learned_sigma_learns_and_starts_where_it_is_told():
    module = Gaussian(sigma=2.0, learned=True).build((1, 1, 1))
    x = 0.3 * torch.randn(4000, 1, 1, 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    assert math.isclose(float(module.log_sigma.detach().exp()), 2.0, rel_tol=1e-6)
    for _ in range(300):
        optimizer.zero_grad()
        (-module(torch.zeros(4000, 1, 1, 1)).log_prob(x).mean()).backward()
        optimizer.step()
    assert abs(float(module.log_sigma.detach().exp()) - 0.3) < 0.01, "the maximum-likelihood sigma"
    assert not list(Gaussian(sigma=2.0).build((1, 1, 1)).parameters())


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN")
@pytest.mark.parametrize("bias", [True, False])
def test_the_fast_linear_layer_is_the_linear_layer(bias):
    torch.manual_seed(0)
    x = torch.randn(33, 320, requires_grad=True)
    weight = torch.randn(200, 320, requires_grad=True)
    offset = torch.randn(200, requires_grad=True) if bias else None
    inputs = [value for value in (x, weight, offset) if value is not None]
    grad = torch.randn(33, 200)
    fast = OneDNNLinear.apply(x, weight, offset)
    slow = torch.nn.functional.linear(x, weight, offset)
    assert torch.allclose(fast, slow, rtol=1e-4, atol=1e-3)
    for mine, theirs in zip(
        torch.autograd.grad(fast, inputs, grad), torch.autograd.grad(slow, inputs, grad), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-3)
    assert isinstance(onednn_is_faster(), bool)
