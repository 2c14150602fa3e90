"""Mutual information, aggregate KL, total correlation and dimension-wise KL, against integrals and closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nelbo.core.registry import lookup
from nelbo.data import Images, Splits
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.metrics import Split, information
from nelbo.metrics.information import NAMES, mixture_log_density
from nelbo.models import BuiltModel

CPU = torch.device("cpu")


class Told(BuiltModel):
    """A model whose posteriors are told by the image: one row of means, one of log-variances."""

    def __init__(self, dimensions, shared_noise=False, sign=1.0, prior=None) -> None:
        super().__init__()
        self.shape, self.latent_dim, self.observation_kind = (1, 2, dimensions), dimensions, "density"
        self.prior = prior or StandardNormalModule(dimensions)
        self.shared_noise, self.sign = shared_noise, sign

    def decode(self, z):
        raise AssertionError("no metric of this file asks for it")

    def encode(self, x_BCHW):
        mean_BZ, log_var_BZ = x_BCHW[:, 0, 0], x_BCHW[:, 0, 1]
        return DiagonalNormal(mean_BZ, self.sign * (0.5 * log_var_BZ).exp(), log_var_BZ, self.shared_noise)


def split_of(mean_NZ, log_var_NZ, **more) -> Split:
    pixels = torch.stack([mean_NZ.float(), log_var_NZ.float()], 1)[:, None]
    images = Images(pixels)
    splits = Splits("told", images, None, images, "0" * 16, "real", (0.0, 1.0))
    return Split(images, splits, CPU, **more)


def measured(mean_NZ, log_var_NZ, model=None, **more):
    split = split_of(mean_NZ, log_var_NZ, **more)
    return dict(lookup("metric", "information")(model or Told(mean_NZ.shape[1]), split))


def some_posteriors(n=60, dimensions=3, seed=0):
    stream = torch.Generator().manual_seed(seed)
    mean_NZ = torch.randn(n, dimensions, generator=stream)
    return mean_NZ, torch.randn(n, dimensions, generator=stream) * 0.5 - 1.5


def assert_within(value, expected, errors=4.0, bias=0.0):
    assert 0 < value.standard_error < 0.1, "an error bar that says nothing"
    assert abs(value.value - expected) < errors * value.standard_error + bias, (value, expected)


# --- the density of the mixture ---------------------------------------------------------------


def test_the_mixture_is_that_of_torch_distributions():
    mean_NZ, log_var_NZ = (t.double() for t in some_posteriors())
    z_MZ = mean_NZ[:17] + 0.3
    joint_M, each_MZ = mixture_log_density(z_MZ, mean_NZ, log_var_NZ)
    normal = torch.distributions.Normal(mean_NZ, (0.5 * log_var_NZ).exp())
    even = torch.distributions.Categorical(logits=torch.zeros(60, dtype=torch.float64))
    whole = torch.distributions.MixtureSameFamily(even, torch.distributions.Independent(normal, 1))
    torch.testing.assert_close(joint_M, whole.log_prob(z_MZ), rtol=1e-12, atol=1e-12)
    for j in range(3):
        one = torch.distributions.Normal(mean_NZ[:, j], (0.5 * log_var_NZ[:, j]).exp())
        marginal = torch.distributions.MixtureSameFamily(even, one)
        torch.testing.assert_close(each_MZ[:, j], marginal.log_prob(z_MZ[:, j]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 100, 60 * 7, 10**9])
def test_the_numbers_do_not_depend_on_how_many_are_held_at_a_time(at_once, monkeypatch):
    mean_NZ, log_var_NZ = (t.double() for t in some_posteriors())
    whole = mixture_log_density(mean_NZ, mean_NZ, log_var_NZ)
    monkeypatch.setattr(information, "AT_ONCE", {"cpu": at_once})
    heard = []
    joint_M, each_MZ = mixture_log_density(mean_NZ, mean_NZ, log_var_NZ, lambda *row: heard.append(row))
    torch.testing.assert_close(joint_M, whole[0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(each_MZ, whole[1], rtol=1e-13, atol=1e-13)
    assert heard[-1] == (60, 60)
    assert len(heard) == math.ceil(60 / max(1, at_once // 60))
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})


def test_narrow_posteriors_far_from_the_origin_lose_no_digits():
    """z^2 / s^2 is 1e16 here: expanding the square would leave nothing of the density."""
    mean_NZ = torch.tensor([[1e3], [1e3 + 1e-5]], dtype=torch.float64)
    log_var_NZ = torch.full((2, 1), 2 * math.log(1e-5), dtype=torch.float64)
    joint_M, _ = mixture_log_density(mean_NZ, mean_NZ, log_var_NZ)
    peak = -math.log(1e-5) - 0.5 * math.log(2 * math.pi)
    expected = peak + math.log((1 + math.exp(-0.5)) / 2)
    assert joint_M.tolist() == pytest.approx([expected, expected], abs=1e-4)


# --- known answers ----------------------------------------------------------------------------


def test_posteriors_that_ignore_the_image_carry_nothing():
    mean_NZ, log_var_NZ = torch.zeros(50, 3), torch.zeros(50, 3)
    found = measured(mean_NZ, log_var_NZ)
    for name in NAMES:  # the posterior is the prior
        assert found[name].value == pytest.approx(0.0, abs=1e-12), name
        assert found[name].per_image_N.abs().max() < 1e-12, name
    found = measured(mean_NZ + 0.7, log_var_NZ - 1.0)
    assert found["mutual_information"].per_image_N.abs().max() < 1e-12
    assert found["total_correlation"].per_image_N.abs().max() < 1e-12
    assert torch.allclose(
        found["aggregate_kl"].per_image_N, found["dimension_wise_kl"].per_image_N, atol=1e-12
    )
    assert "at most log N = 3.91" in found["mutual_information"].note


def test_posteriors_far_apart_carry_log_n():
    mean_NZ = 100 * torch.arange(40.0)[:, None].expand(40, 2)
    found = measured(mean_NZ, torch.zeros(40, 2))
    assert found["mutual_information"].per_image_N.tolist() == pytest.approx([math.log(40)] * 40, abs=1e-10)
    assert "at its limit log N = 3.69" in found["mutual_information"].note
    for name in ("aggregate_kl", "total_correlation"):
        assert "at its limit" in found[name].note
    assert "at its limit" not in found["dimension_wise_kl"].note
    # each dimension alone tells the images apart, so that both say the same: TC = log N
    assert found["total_correlation"].value == pytest.approx(math.log(40), abs=1e-10)


def test_images_in_equal_groups_carry_the_log_of_the_number_of_groups():
    mean_NZ = 1e4 * torch.arange(40.0)[:, None].div(8, rounding_mode="floor")
    found = measured(mean_NZ, torch.zeros(40, 1))
    assert found["mutual_information"].value == pytest.approx(math.log(5), abs=1e-12)
    assert "at its limit" not in found["mutual_information"].note


def test_one_image_carries_nothing_and_has_no_error():
    found = measured(torch.ones(1, 2), torch.zeros(1, 2))
    assert found["mutual_information"].value == 0.0
    assert found["mutual_information"].standard_error is None
    assert "at its limit" not in found["mutual_information"].note


MEANS = torch.tensor([[-1.2, -0.8], [1.0, 0.4], [0.3, 1.6]])
LOG_VARS = torch.tensor([[-1.0, -2.0], [0.2, -1.2], [-2.5, 0.0]])


def three_components_by_quadrature(prior_std=1.0):
    """The four numbers of a mixture of three Gaussians in the plane, on a grid, float64."""
    axis = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    cell = float(axis[1] - axis[0]) ** 2
    normal = torch.distributions.Normal(MEANS.double(), (0.5 * LOG_VARS.double()).exp())
    each = normal.log_prob(axis[:, None, None]).exp()  # position, component, dimension
    joint = torch.einsum("an,bn->nab", each[..., 0], each[..., 1])
    q = joint.mean(0)
    q1, q2 = each[..., 0].mean(1), each[..., 1].mean(1)
    p = torch.distributions.Normal(0.0, prior_std).log_prob(axis).exp()

    def divergence(top, bottom):
        return float(torch.where(top > 1e-300, top * (top / bottom).log(), 0.0).sum() * cell)

    product = q1[:, None] * q2[None, :]
    return {
        "mutual_information": sum(divergence(joint[n], q) for n in range(3)) / 3,
        "aggregate_kl": divergence(q, p[:, None] * p[None, :]),
        "total_correlation": divergence(q, product),
        "dimension_wise_kl": divergence(product, p[:, None] * p[None, :]),
    }


def test_a_mixture_of_three_gaussians_against_quadrature():
    """1,000 images of each of three posteriors: the mixture of all is exactly that of the three."""
    found = measured(MEANS.repeat(1000, 1), LOG_VARS.repeat(1000, 1))
    expected = three_components_by_quadrature()
    assert min(expected.values()) > 0.1
    assert expected["aggregate_kl"] == pytest.approx(
        expected["total_correlation"] + expected["dimension_wise_kl"], rel=1e-6
    )
    for name in NAMES:
        assert_within(found[name], expected[name])


def test_a_correlated_gaussian_aggregate_against_its_closed_form():
    """Means from N(0, C), posteriors N(mean, s^2 I): q(z) tends to N(0, C + s^2 I)."""
    n, variance, correlation, noise = 4000, 2.0, 0.9, 0.5
    covariance = variance * torch.tensor([[1.0, correlation], [correlation, 1.0]])
    stream = torch.Generator().manual_seed(3)
    mean_NZ = torch.randn(n, 2, generator=stream) @ torch.linalg.cholesky(covariance).T
    mean_NZ = mean_NZ - mean_NZ.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(mean_NZ.T)))
    mean_NZ = mean_NZ @ whiten.T @ torch.linalg.cholesky(covariance).T  # exact first two moments
    found = measured(mean_NZ, torch.full((n, 2), math.log(noise)))
    whole = covariance + noise * torch.eye(2)
    marginal = float(whole[0, 0])
    tc = -0.5 * math.log(float(whole.det()) / marginal**2)
    mi = 0.5 * math.log(float(whole.det()) / noise**2)
    dimension_wise = 2 * 0.5 * (marginal - 1 - math.log(marginal))
    bias = 0.03  # of 4,000 means, about I of them tell apart
    assert_within(found["mutual_information"], mi, bias=bias)
    assert_within(found["total_correlation"], tc, bias=bias)
    assert_within(found["dimension_wise_kl"], dimension_wise, bias=bias)
    assert_within(found["aggregate_kl"], tc + dimension_wise, bias=bias)
    assert tc > 0.3
    assert mi > 1.0


# --- what holds by construction ---------------------------------------------------------------


def test_the_kl_is_taken_apart_without_remainder():
    mean_NZ, log_var_NZ = some_posteriors(200, 4)
    found = measured(mean_NZ, log_var_NZ)
    mutual_N, aggregate_N, tc_N, each_N = (found[name].per_image_N for name in NAMES)
    torch.testing.assert_close(aggregate_N, tc_N + each_N, rtol=1e-10, atol=1e-10)
    assert found["mutual_information"].value <= math.log(200)
    kl_N = 0.5 * (mean_NZ.square() + log_var_NZ.exp() - 1 - log_var_NZ).double().sum(1)
    sampled_N = mutual_N + aggregate_N  # log q(z|x) - log p(z) of the same samples
    difference_N = sampled_N - kl_N
    assert abs(float(difference_N.mean())) < 4 * float(difference_N.std()) / math.sqrt(200)
    assert float(difference_N.std()) > 0.1


def test_every_value_is_the_mean_of_its_images_with_their_standard_error():
    for name, value in measured(*some_posteriors()).items():
        assert value.per_image_N.shape == (60,), name
        assert value.value == pytest.approx(float(value.per_image_N.mean()), rel=1e-12)
        assert value.standard_error == pytest.approx(
            float(value.per_image_N.std()) / math.sqrt(60), rel=1e-12
        )
        assert value.unit == "nats"
        assert "mixture of all 60 posteriors" in value.note
        assert "which the standard error takes as given" in value.note


@pytest.mark.parametrize("size", [1, 7, 500])
def test_the_numbers_do_not_depend_on_the_batch_size(size):
    posteriors = some_posteriors()
    expected, found = measured(*posteriors, batch_size=60), measured(*posteriors, batch_size=size)
    for name in NAMES:
        torch.testing.assert_close(
            found[name].per_image_N, expected[name].per_image_N, rtol=1e-12, atol=1e-12
        )


def test_the_same_numbers_twice_and_others_for_another_seed():
    posteriors = some_posteriors()
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    a = measured(*posteriors)
    assert torch.equal(torch.rand(3), first)  # the caller's stream is untouched
    assert measured(*posteriors) == a
    other = measured(*posteriors, seed=1)
    assert all(other[name] != a[name] for name in NAMES)


def test_the_sign_of_a_published_sigma_does_not_matter():
    posteriors = some_posteriors()
    assert measured(*posteriors, model=Told(3, sign=-1.0)) == measured(*posteriors)


def test_many_images_are_sampled_and_the_mixture_keeps_them_all(monkeypatch):
    posteriors = some_posteriors(2000)
    whole = measured(*posteriors)
    monkeypatch.setattr(information, "SAMPLED", 1000)
    found = measured(*posteriors)
    for name in NAMES:
        assert found[name].per_image_N is None  # not a number for every image
        assert "sampled at 1000 images; mixture of all 2000 posteriors" in found[name].note
        assert abs(found[name].value - whole[name].value) < 4 * found[name].standard_error, name
        more = found[name].standard_error / whole[name].standard_error
        assert more == pytest.approx(math.sqrt(2), rel=0.15), name
    assert "log N = 7.60" in found["mutual_information"].note  # of 2,000, not of 1,000
    assert measured(*posteriors) == found


# --- where a number does not exist ------------------------------------------------------------


def test_samples_that_do_not_come_from_the_density_are_not_measured():
    found = measured(*some_posteriors(), model=Told(3, shared_noise=True))
    assert set(found) == set(NAMES)
    for value in found.values():
        assert value.value is None
        assert value.missing == "not measured"
        assert value.note.startswith("samples do not come from the density")
        assert "shared by all latent dimensions" in value.note


def test_another_posterior_is_not_measured():
    model = Told(3)
    model.encode = lambda x_BCHW: SimpleNamespace(mean=x_BCHW[:, 0, 0], not_a_bound=None)
    found = measured(*some_posteriors(), model=model)
    assert set(found) == set(NAMES)
    assert {(value.missing, value.note) for value in found.values()} == {
        ("not measured", "needs a diagonal Gaussian posterior")
    }
    assert {value.value for value in found.values()} == {None}


class WidePrior(nn.Module):
    """N(0, 2^2 I), with a weight so that its number type matters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def log_prob(self, z):
        assert z.dtype == torch.float32
        return torch.distributions.Normal(0.0, self.scale).log_prob(z).sum(-1)


def test_another_prior_has_no_dimension_wise_kl_and_the_right_aggregate_kl():
    found = measured(MEANS.repeat(700, 1), LOG_VARS.repeat(700, 1), model=Told(2, prior=WidePrior()))
    expected = three_components_by_quadrature(prior_std=2.0)
    for name in ("mutual_information", "aggregate_kl", "total_correlation"):
        assert_within(found[name], expected[name])
        assert not found[name].per_image_N.requires_grad
    assert found["dimension_wise_kl"].value is None
    assert found["dimension_wise_kl"].missing == "not measured"
    assert found["dimension_wise_kl"].note.startswith("needs a prior")


def test_a_posterior_without_width_says_that_the_number_is_not_finite():
    mean_NZ, log_var_NZ = some_posteriors(5)
    found = measured(mean_NZ, torch.full_like(log_var_NZ, -math.inf))
    for name in NAMES:
        table = found[name].to_dict()
        assert table["value"] is None
        assert table["missing"] == "not finite"


def test_a_prior_that_learns_nothing_is_asked_in_its_own_precision_and_on_its_own_device():
    """One with buffers alone was asked in float32 on the CPU, wherever it was."""

    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(2.0, dtype=torch.float64))

        def log_prob(self, z):
            assert (z.dtype, z.device) == (self.scale.dtype, self.scale.device)
            return -0.5 * (z / self.scale).square().sum(-1)

    joint_M, each_MZ = information.prior_log_density(Still(), torch.randn(3, 2, dtype=torch.float64))
    assert joint_M.shape == (3,)
    assert each_MZ is None
