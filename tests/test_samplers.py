"""Samplers against exact answers: torch's mixtures, brute force, autograd, and latents whose distribution is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from nelbo.core.distributions import PosteriorValue
from nelbo.core.registry import lookup, names
from nelbo.dists.normal import DiagonalNormal
from nelbo.errors import ConfigError, DataError
from nelbo.posteriors.dirac import Point
from nelbo.priors import StandardNormal
from nelbo.samplers import Latents
from nelbo.samplers.base import SPACES, blocks, nonzero, of_posterior
from nelbo.samplers.density import Density, Whitening
from nelbo.samplers.exemplars import Exemplars
from nelbo.samplers.gaussian_mixture import KINDS, GaussianMixture, Mixture, _cholesky
from nelbo.samplers.learned import CHECK_EVERY, PATIENCE, Learned
from nelbo.samplers.prior import Prior
from nelbo.samplers.riemannian import LOCAL, FromMetric, Riemannian
from nelbo.samplers.two_stage import TwoStage
from nelbo.testing.samplers import TRAIN, Window, fit, latents_of, means_of, truth


@pytest.fixture(autouse=True)
def _float64_and_a_seed():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(3)
    yield
    torch.set_default_dtype(before)


def latents(kind="two", n=300) -> Latents:
    return latents_of(Window(point=kind == "point"), means_of(kind, n))


def off(samples_NZ: Tensor, true_NZ: Tensor) -> float:
    """The largest difference of distribution functions along eight directions."""
    angle_A = torch.arange(8) * math.pi / 8
    direction_ZA = torch.stack([angle_A.cos(), angle_A.sin()])
    worst = 0.0
    for one, other in zip((samples_NZ @ direction_ZA).T, (true_NZ @ direction_ZA).T, strict=True):
        at = torch.cat([one, other])
        one, other = one.sort().values, other.sort().values
        difference = torch.searchsorted(one, at) / len(one) - torch.searchsorted(other, at) / len(other)
        worst = max(worst, float(difference.abs().max()))
    return worst


# --- what they are fitted to --------------------------------------------------------------------


def test_latents_are_samples_means_and_deviations_of_posteriors():
    mean, std = torch.randn(4, 3), torch.rand(4, 3)
    z, found, spread = of_posterior(DiagonalNormal(mean, -std, 2 * std.log()))
    assert torch.equal(found, mean)
    assert torch.equal(spread, std), "a published parametrisation has negative deviations"
    assert not torch.equal(z, mean)
    z, found, spread = of_posterior(Point(mean))
    assert torch.equal(z, mean)
    assert torch.equal(spread, torch.zeros(4, 3))

    class NoStd(PosteriorValue):
        def __init__(self):
            self.mean = mean

        def rsample(self, k):
            return mean + std * torch.randn(k, *mean.shape)

        def log_prob(self, z):
            return DiagonalNormal(mean, std, 2 * std.log()).log_prob(z)

    spread = of_posterior(NoStd())[2]
    assert (spread / std - 1).abs().max() < 0.6, "estimated from samples"


def test_what_never_changes_divides_nothing_by_zero():
    assert nonzero(torch.zeros(3)).min() > 0
    assert nonzero(torch.tensor([2.0, 0.0])).tolist() == [2.0, 2e-6]
    assert blocks(7, 3) == [3, 3, 1]
    assert blocks(0, 3) == []


def test_latents_that_are_not_finite_are_refused():
    bad = latents()
    bad.z_NZ[3, 1] = math.nan
    with pytest.raises(DataError, match="not finite"):
        GaussianMixture(components=2).fit(Window(False), bad)


@pytest.mark.parametrize("space", sorted(set(SPACES) - {"real"}))
def test_a_space_that_is_not_real_is_refused_with_what_works(space):
    with pytest.raises(ConfigError, match="exemplars, prior"):
        GaussianMixture().check(space)
    with pytest.raises(ConfigError, match=r"exemplars, prior$"):
        Exemplars(noise=0.1).check(space)
    Prior().check(space)
    Exemplars().check(space)
    cold = Prior(temperature=0.5)
    if space in ("ball", "mixed"):  # which have an origin
        cold.check(space)
    else:
        with pytest.raises(ConfigError):
            cold.check(space)


def test_a_density_works_where_its_prior_lives():
    for name in names("prior"):
        prior = lookup("prior", name)()
        assert Density(prior=prior).spaces == (prior.space,)


# --- prior --------------------------------------------------------------------------------------


def test_the_prior_is_the_models_own_and_temperature_scales_it():
    model = Window(False)
    torch.manual_seed(1)
    plain = model.sample_prior(5)
    cooled = Prior(temperature=0.5).fit(model, latents())
    torch.manual_seed(1)
    cold = cooled.sample(5)
    assert torch.allclose(cold, 0.5 * plain)
    z = torch.randn(6, 2)
    exact = MultivariateNormal(torch.zeros(2), 0.25 * torch.eye(2)).log_prob(z)
    assert torch.allclose(Prior(temperature=0.5).fit(model, latents()).log_prob(z), exact)


# --- gaussian-mixture ---------------------------------------------------------------------------


def test_the_mixture_is_the_one_of_torch():
    weight, mean = torch.tensor([0.2, 0.5, 0.3]), torch.randn(3, 2)
    root = torch.randn(3, 2, 2).tril()
    root.diagonal(dim1=1, dim2=2).abs_().add_(0.1)
    reference = MixtureSameFamily(Categorical(weight), MultivariateNormal(mean, scale_tril=root))
    mixture = Mixture(weight, mean, root)
    z = torch.randn(50, 2)
    assert torch.allclose(mixture.log_prob(z), reference.log_prob(z))
    assert off(mixture.sample(20_000), reference.sample((20_000,))) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_covariance_has_the_density_of_scikit_learn(kind):
    from sklearn.mixture import GaussianMixture as Reference

    z = truth("two")[:500]
    reference = Reference(3, covariance_type=KINDS[kind], random_state=0).fit(z.numpy())
    found = [
        torch.tensor(value) for value in (reference.weights_, reference.means_, _cholesky(reference).copy())
    ]
    assert torch.allclose(Mixture(*found).log_prob(z), torch.tensor(reference.score_samples(z.numpy())))


def test_a_mixture_of_two_finds_the_two_that_there_are():
    _, found = fit(GaussianMixture(components=2), "two", TRAIN)
    true_NZ = truth("two")
    assert off(found.sample(10_000), true_NZ) < 0.04
    assert torch.allclose(found.weight_K.sort().values, torch.tensor([0.4, 0.6]), atol=0.03)
    inside = MixtureSameFamily(
        Categorical(torch.tensor([0.4, 0.6])),
        MultivariateNormal(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]), _covariances()),
    )
    gap = float((inside.log_prob(true_NZ) - found.log_prob(true_NZ)).mean())
    assert 0 <= gap < 0.02, "nats behind the truth, on new latents"


def _covariances() -> Tensor:
    lower = torch.tensor([[[0.5, 0.0], [-0.4, 0.3]], [[0.2, 0.0], [0.1, 0.6]]])
    return lower @ lower.mT + 0.09 * torch.eye(2)


# --- density ------------------------------------------------------------------------------------


def test_whitening_is_the_inverse_of_its_back_and_white():
    z = truth("two")[:2000]
    white = Whitening(z)
    u = white.of(z)
    assert torch.allclose(u.T.cov(), torch.eye(2), atol=1e-5)
    assert torch.allclose(white.back(u), z)


def test_a_standard_normal_becomes_the_gaussian_of_maximum_likelihood():
    data = latents(n=500)
    found = Density(prior=StandardNormal()).fit(Window(False), data)
    reference = MultivariateNormal(data.z_NZ.mean(0), data.z_NZ.T.cov())
    z = torch.randn(9, 2)
    assert torch.allclose(found.log_prob(z), reference.log_prob(z), atol=1e-4)


def learnable_priors() -> list[str]:
    """Priors of real latents with weights, and without the model's posteriors or images."""
    found = []
    for name in names("prior"):
        module = lookup("prior", name)().build(2)
        if not module.made_of and lookup("prior", name).space == "real" and list(module.parameters()):
            found.append(name)
    return found


@pytest.mark.parametrize("name", learnable_priors())
def test_any_prior_with_weights_comes_nearer_than_a_gaussian(name):
    true_NZ = truth("two")
    _, gaussian = fit(Density(prior=StandardNormal()), "two", TRAIN)
    _, found = fit(Density(prior=lookup("prior", name)(), steps=250), "two", TRAIN)
    gain = float((found.log_prob(true_NZ) - gaussian.log_prob(true_NZ)).mean())
    assert gain > -0.01, f"{gain:.3f} nats on new latents"


def test_a_prior_made_of_the_model_is_refused(monkeypatch):
    from nelbo.dists.normal import StandardNormalModule

    monkeypatch.setattr(StandardNormalModule, "made_of", "training images")
    with pytest.raises(
        ConfigError, match=r"sampler\.prior: standard-normal is made of training images .*--model\.prior"
    ):
        Density(prior=StandardNormal()).fit(Window(False), latents())


# --- learned ------------------------------------------------------------------------------------


def test_the_weights_that_are_kept_are_the_best_ones_and_training_ends_early():
    """Of one number: the held-out loss is best at 1, and training wants 5."""
    module, seen = torch.nn.Linear(1, 1, bias=False), []

    def loss(z_BZ):
        weight = module.weight[0, 0]
        if not module.training:
            seen.append(float(weight.detach()))
        return (weight - z_BZ[:, 0]).square()

    torch.nn.init.constant_(module.weight, -2.0)
    spec: Learned = Density(steps=5000, lr=0.01)
    spec.learn(module, loss, torch.full((9, 1), 5.0), torch.full((4, 1), 1.0))
    best = min(seen, key=lambda weight: (weight - 1.0) ** 2)
    assert float(module.weight) == best
    assert len(seen) == seen.index(best) + 1 + PATIENCE < 5000 / CHECK_EVERY
    assert not module.training
    assert not module.weight.requires_grad


def test_without_validation_latents_a_tenth_is_held_out():
    data = latents(n=100)
    learn, stop = Density().split(data, None)
    assert (len(learn), len(stop)) == (90, 10)
    together = torch.cat([learn, stop])
    assert torch.equal(together[together[:, 0].argsort()], data.z_NZ[data.z_NZ[:, 0].argsort()])
    assert Density().split(data, latents(n=7))[1].shape == (7, 2)


# --- two-stage ----------------------------------------------------------------------------------


def test_the_second_stage_finds_both_gaussians():
    _, found = fit(TwoStage(steps=800), "two", TRAIN)
    true_NZ = truth("two")
    assert off(found.sample(5000), true_NZ) < 0.08
    between = ((true_NZ[:, 0] > -0.7) & (true_NZ[:, 0] < 0.7)).double().mean()
    drawn = found.sample(5000)[:, 0]
    assert float(((drawn > -0.7) & (drawn < 0.7)).double().mean()) < float(between) + 0.04, "not one Gaussian"


# --- exemplars ----------------------------------------------------------------------------------


def test_exemplars_are_posterior_samples_of_training_images():
    data = latents(n=50)
    drawn = Exemplars().fit(Window(False), data).sample(4000)
    away = torch.cdist(drawn, data.mean_NZ).amin(1)
    assert away.max() < 6 * 0.3
    points = latents("point", n=50)
    drawn = Exemplars().fit(Window(True), points).sample(300)
    assert torch.cdist(drawn, points.mean_NZ).amin(1).max() < 1e-12


def test_neighbours_are_the_nearest_and_samples_lie_between():
    data = latents("point", n=30)
    data.mean_NZ.copy_(torch.randn(30, 2))
    images = data.mean_NZ.clone()
    data = Latents(images, images, torch.zeros_like(images), lambda at: images[at])
    sampler = Exemplars(neighbours=3).fit(Window(True), data)
    at = torch.arange(30).repeat(40)
    near = sampler._near(at)
    for start, end in zip(at.tolist(), near.tolist(), strict=True):
        others = (images - images[start]).norm(dim=1).argsort()[1:4]
        assert end in others
    assert len({*zip(at.tolist(), near.tolist(), strict=True)}) == 90, "each of the three is drawn"
    drawn = sampler.sample(200)
    gap = torch.tensor(
        [
            min(
                float((drawn[i] - a).norm() + (drawn[i] - b).norm() - (a - b).norm())
                for j, a in enumerate(images)
                for b in images[(images - a).norm(dim=1).argsort()[1:4]]
            )
            for i in range(60)
        ]
    )
    assert gap.max() < 1e-9


def test_noise_is_in_units_of_the_latents():
    data = latents("point", n=400)
    drawn = Exemplars(noise=0.5).fit(Window(True), data).sample(20_000)
    true = data.z_NZ.var(0) * 1.25
    assert torch.allclose(drawn.var(0)[0], true[0], rtol=0.05)
    assert (drawn[:, 1] - 0.5).abs().max() < 1e-9, "a dimension that never changes has no noise"


# --- riemannian ---------------------------------------------------------------------------------


def brute_force(found: FromMetric, z_BZ: Tensor) -> Tensor:
    """1/2 log det of the metric, written out."""
    values = []
    for z_Z in z_BZ:
        metric = torch.zeros(2, 2)
        for centre_Z, precision_Z in zip(found.centre_CZ, found.precision_CZ, strict=True):
            weight = torch.exp(-(precision_Z * (z_Z - centre_Z) ** 2).sum() / found.rho**2)
            metric = metric + weight * torch.diag(precision_Z)
        values.append(0.5 * torch.logdet(metric))
    return torch.stack(values)


def metric(**settings) -> FromMetric:
    return Riemannian(**settings).fit(Window(False), latents(n=80))


def test_the_density_is_the_volume_of_the_metric_and_its_slope_the_gradient():
    found = metric(centroids=20)
    z_BZ = torch.randn(12, 2, requires_grad=True)
    value_B, slope_BZ = found._value_and_slope(z_BZ.detach())
    exact_B = brute_force(found, z_BZ)
    exact_B.sum().backward()
    assert torch.allclose(value_B, exact_B)
    assert torch.allclose(slope_BZ, z_BZ.grad)
    far_B, far_slope = found._value_and_slope(torch.full((1, 2), 1e3))
    assert far_B.isfinite().all(), "where every weight underflows"
    assert (far_slope < 0).all(), "it pulls back"


def test_rho_is_the_largest_distance_to_a_nearest_centroid():
    found = metric(centroids=20)
    away = [
        min(float((a - b).norm()) for j, b in enumerate(found.centre_CZ) if j != i)
        for i, a in enumerate(found.centre_CZ)
    ]
    assert math.isclose(found.rho, max(away))
    torch.manual_seed(3)
    assert math.isclose(metric(centroids=20, scale=2.0).rho, 2 * found.rho, rel_tol=0.5)


def test_a_trajectory_is_reversible_and_keeps_the_energy():
    found = metric(centroids=20, leapfrog=30)
    z_BZ, momentum_BZ = found.centre_CZ[:8], torch.randn(8, 2)
    value_B, slope_BZ = found._value_and_slope(z_BZ)
    end_BZ, end_value_B, end_slope_BZ, end_momentum_BZ = found._trajectory(z_BZ, slope_BZ, momentum_BZ, 0.02)
    before_B = -value_B + 0.5 * momentum_BZ.square().sum(1)
    after_B = -end_value_B + 0.5 * end_momentum_BZ.square().sum(1)
    assert torch.allclose(before_B, after_B, atol=2e-3)
    back_BZ, _, _, momentum_back_BZ = found._trajectory(end_BZ, end_slope_BZ, -end_momentum_BZ, 0.02)
    assert torch.allclose(back_BZ, z_BZ)
    assert torch.allclose(momentum_back_BZ, -momentum_BZ)


def test_few_latents_are_all_centroids_and_many_are_each_taken_once():
    few = latents(n=LOCAL + 1)
    assert len(Riemannian().fit(Window(False), few).centre_CZ) == LOCAL + 1
    found = metric(centroids=20)
    assert len(torch.unique(found.centre_CZ, dim=0)) == len(found.centre_CZ) <= 20


def test_the_acceptance_is_what_the_step_was_adapted_to():
    found = metric(centroids=20)
    found.sample(500)
    assert 0.7 < found.acceptance < 0.95


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("sampler"))
def test_thirty_two_dimensions_of_float32_and_identical_latents(name):
    torch.set_default_dtype(torch.float32)
    spec = lookup("sampler", name)()
    if "steps" in type(spec).model_fields:
        spec = spec.model_copy(update={"steps": 20})
    same = torch.full((40, 32), 0.7)
    data = Latents(same, same, torch.zeros_like(same), lambda at: same[at])
    model = Window(True)
    model.prior = type(model.prior)(32)
    drawn = spec.fit(model, data).sample(11)
    assert drawn.shape == (11, 32)
    assert drawn.dtype == torch.float32
    assert drawn.isfinite().all(), "a collapsed encoder gives one latent for all images"
    if name != "prior":
        assert (drawn - 0.7).abs().max() < 0.1
