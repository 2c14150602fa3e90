"""The models with a known log p(x): known in two ways that agree, and kept by what is exact."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from nelbo.core import Progress
from nelbo.errors import ConfigError
from nelbo.likelihoods import Bernoulli, Gaussian
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO
from nelbo.priors import StandardNormal
from nelbo.testing import Discrete, LinearGaussian, evidence
from nelbo.testing.exact import correlated_table

TABLES = [None, correlated_table()]


def test_quadrature_finds_the_closed_form():
    law = LinearGaussian(fitted=False)
    assert torch.allclose(evidence(law.model, law.x_BCHW), law.log_px_B, atol=1e-10)
    again = LinearGaussian(prior=StandardNormal(), likelihood=Gaussian(sigma=law.sigma), fitted=False)
    assert torch.allclose(again.log_px_B, law.log_px_B, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.3, 0.03, 0.003])
def test_quadrature_finds_a_posterior_that_is_narrow(sigma):
    law = LinearGaussian(fitted=False)
    law.model.likelihood = Gaussian(sigma=sigma).build(law.shape).double()
    with torch.no_grad():
        W, b = law.model.decoder[0].weight, law.model.decoder[0].bias
        width = float(law.model.likelihood(b.view(1, *law.shape)).log_sigma.exp())
        covariance = W @ W.T + width**2 * torch.eye(6, dtype=torch.float64)
        x_BCHW = law.model.decode(torch.randn(3, 2, dtype=torch.float64)).sample()
        exact = torch.distributions.MultivariateNormal(b, covariance).log_prob(x_BCHW.flatten(1))
    assert torch.allclose(evidence(law.model, x_BCHW), exact, atol=1e-6)


def test_quadrature_refuses_more_than_it_can_do():
    three = VAE(latent_dim=3).build((1, 2, 3)).double()
    with pytest.raises(ConfigError, match="one or two latent dimensions, not 3"):
        evidence(three, torch.zeros(1, 1, 2, 3).double())


def test_quadrature_in_one_dimension_and_through_a_network():
    """Against a Monte-Carlo mean over the prior, which needs neither grid nor posterior."""
    for latents in (1, 2):
        torch.manual_seed(latents)
        spec = VAE(latent_dim=latents, decoder=MLP(hidden=(20,), activation="tanh"))
        model = spec.build((1, 2, 3)).double().eval()
        x_BCHW = torch.rand(2, 1, 2, 3).round().double()
        with torch.no_grad():
            likelihood = model.decode(model.sample_prior(200_000).double()[:, None])
            p_MB = torch.stack([likelihood.log_prob(x[None])[:, 0] for x in x_BCHW], dim=1).exp()
        error_B = p_MB.std(0) / p_MB.mean(0) / 200_000**0.5
        assert ((evidence(model, x_BCHW) - p_MB.mean(0).log()).abs() < 5 * error_B).all()


def test_an_exact_posterior_makes_every_weight_the_evidence():
    law = LinearGaussian(exact=True)
    draw = law.model.draw(law.x_BCHW, 7)
    log_w_KB = draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB
    assert torch.allclose(log_w_KB, law.log_px_B.expand(7, -1), atol=1e-10)
    q = law.model.encode(law.x_BCHW)
    assert torch.allclose(q.mean, law.mean_BZ)
    assert torch.allclose(q.std, law.std_Z.expand(4, -1))
    torch.manual_seed(0)
    closed = -ELBO()(law.model.draw(law.x_BCHW, 100_000), Progress()).loss_B
    assert torch.allclose(closed, law.log_px_B, atol=0.02)


def test_an_exact_posterior_of_another_model_is_not_known():
    with pytest.raises(ConfigError, match="linear-Gaussian model itself"):
        LinearGaussian(likelihood=Bernoulli(), exact=True)


@pytest.mark.parametrize("table", TABLES, ids=["independent bits", "any table"])
def test_the_enumerable_model_is_a_model(table):
    model = Discrete(table)
    assert math.isclose(float(model.log_px_B.exp().sum()), 1.0, rel_tol=1e-12), "over all sixteen images"
    assert torch.allclose(model.encode(model.x_BCHW).log_q_BS.exp().sum(1), torch.ones(16).double())
    kl_BG = model.encode(model.x_BCHW).kl_to(model.prior)
    assert (kl_BG is None) == (table is not None)
    if kl_BG is not None:
        assert torch.allclose(kl_BG.sum(1), model.kl_B), "bit by bit, and over the four states"
    bounds = [model.elbo_B, model.iw_B(2), model.iw_B(5), model.log_px_B]
    assert torch.allclose(model.iw_B(1), model.elbo_B)
    for low_B, high_B in itertools.pairwise(bounds):
        assert (low_B < high_B).all()


@pytest.mark.parametrize("table", TABLES, ids=["independent bits", "any table"])
def test_all_draws_together_are_the_expectation(table):
    model = Discrete(table)
    draw, probability_BM = model.every_draw(3)
    assert torch.allclose(probability_BM.sum(1), torch.ones(16).double())
    log_w_KB = (draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB).detach()
    bound_BM = (log_w_KB.logsumexp(0) - math.log(3)).view(16, -1)
    assert torch.allclose((bound_BM * probability_BM).sum(1), model.iw_B(3))
    torch.manual_seed(0)
    assert torch.allclose(model.log_prob(model.x_BCHW, 20_000), model.log_px_B, atol=0.1)
    mean_BZ = model.encode(model.x_BCHW).rsample(20_000).mean(0)
    assert torch.allclose(mean_BZ, model.encode(model.x_BCHW).mean, atol=0.02)
    assert torch.equal(model.reconstruct(model.x_BCHW), model.reconstruct(model.x_BCHW))
