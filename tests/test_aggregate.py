"""Objectives on the aggregated posterior: against brute force, closed forms and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from nelbo.core import Draw, Progress
from nelbo.core.distributions import PosteriorValue
from nelbo.core.registry import lookup
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.errors import ConfigError
from nelbo.metrics.information import mixture_log_density
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives.dip_vae import DIPVAE, covariance
from nelbo.objectives.elbo import ELBO
from nelbo.objectives.factor_vae import FactorVAE, permuted
from nelbo.objectives.info_vae import InfoVAE
from nelbo.objectives.matching import SCALES, kernel_of, mmd
from nelbo.objectives.swae import SWAE, sliced
from nelbo.objectives.tcvae import TCVAE, log_weights, pairs, taken_apart
from nelbo.objectives.wae import WAE
from nelbo.posteriors.dirac import Dirac
from nelbo.testing.exact import BITS_SZ, Discrete
from nelbo.testing.trials import called
from nelbo.training.recipe import Recipe

ALL = [
    TCVAE(),
    TCVAE(estimator="weighted"),
    FactorVAE(),
    DIPVAE(),
    DIPVAE(kind="I"),
    InfoVAE(),
    WAE(),
    SWAE(),
]
WITHOUT_DENSITY = [WAE(), WAE(kernel="rbf"), SWAE(), InfoVAE(alpha=1.0)]
NAMES = ("mutual_information", "total_correlation", "dimension_wise_kl")


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def draw_of(posterior, k=1, z_KBZ=None, prior=None):
    """A draw in which only latents matter."""
    z_KBZ = posterior.rsample(k) if z_KBZ is None else z_KBZ
    return Draw(
        z_KBZ=z_KBZ,
        log_px_KB=torch.zeros(z_KBZ.shape[:2]),
        posterior=posterior,
        prior=prior or StandardNormalModule(z_KBZ.shape[-1]),
        x_BCHW=torch.zeros(z_KBZ.shape[1], 1, 1, 1),
    )


def gaussians(n=6, dimensions=3):
    log_var = 0.5 * torch.randn(n, dimensions) - 1.0
    mean = torch.randn(n, dimensions)
    return DiagonalNormal(mean, (0.5 * log_var).exp(), log_var)


def model_with(posterior=None, latent_dim=3):
    parts = {"posterior": posterior} if posterior else {}
    return VAE(latent_dim=latent_dim, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)), **parts)


# --- all of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ALL, ids=repr)
@pytest.mark.parametrize("images", [1, 7])
def test_a_last_batch_of_one_image_trains(objective, images):
    model = model_with().build((1, 4, 4)).double()
    terms = called(objective, model.draw(torch.rand(images, 1, 4, 4).round(), 2), Progress(images=50))
    terms.loss_B.mean().backward()
    assert terms.loss_B.shape == (images,)
    for value in (terms.loss_B, terms.bound_B, *terms.parts.values()):
        assert value.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_whatever_is_drawn_comes_from_the_stream(objective):
    model = model_with().build((1, 4, 4)).double()
    draw = model.draw(torch.rand(9, 1, 4, 4).round(), 2)

    def loss(seed):
        torch.manual_seed(seed)
        terms = called(objective, draw, Progress(images=50))
        return torch.stack(
            [terms.loss_B, terms.loss_B if terms.critic_loss_B is None else terms.critic_loss_B]
        )

    assert torch.equal(loss(3), loss(3))
    draws = isinstance(objective, WAE | SWAE | InfoVAE | FactorVAE)
    assert torch.equal(loss(3), loss(4)) != draws


@pytest.mark.parametrize("objective", WITHOUT_DENSITY, ids=repr)
def test_those_that_read_no_density_train_a_point(objective):
    spec = model_with(Dirac())
    assert Recipe(objective=objective, model=spec).objective == objective
    model = spec.build((1, 4, 4)).double()
    terms = objective(model.draw(torch.rand(9, 1, 4, 4).round(), 1), Progress())
    terms.loss_B.mean().backward()
    assert terms.bound_B is None
    assert set(terms.parts) == {
        "reconstruction",
        "sliced_wasserstein" if isinstance(objective, SWAE) else "mmd",
    }
    assert all(weight.grad.abs().sum() > 0 for weight in model.encoder.parameters())


@pytest.mark.parametrize(
    "objective", [TCVAE(), FactorVAE(), DIPVAE(), InfoVAE(), InfoVAE(alpha=0.5)], ids=repr
)
def test_those_that_do_refuse_it_when_it_is_read(objective):
    with pytest.raises(ValueError, match=r"needs the density.*diagonal-gaussian"):
        Recipe(objective=objective, model=model_with(Dirac()))


def test_what_needs_no_density_is_offered_to_a_point():
    with pytest.raises(ValueError, match=r"that needs none: .*info-vae.*swae.*wae"):
        Recipe(objective=ELBO(), model=model_with(Dirac()))


def test_info_vae_never_pushes_the_distributions_apart():
    with pytest.raises(ValueError, match="raise weight"):
        InfoVAE(alpha=0.5, weight=0.25)


def test_info_vae_is_the_elbo_and_the_wae_at_its_ends():
    model = model_with().build((1, 4, 4)).double()
    draw = model.draw(torch.rand(9, 1, 4, 4).round(), 1)

    def loss_B(objective):
        torch.manual_seed(1)
        return objective(draw, Progress()).loss_B

    assert torch.allclose(loss_B(InfoVAE(alpha=0.0, weight=1.0)), loss_B(ELBO()))
    assert torch.allclose(loss_B(InfoVAE(alpha=1.0, weight=30.0)), loss_B(WAE(weight=30.0)))
    heavier = loss_B(InfoVAE(alpha=-1.0, weight=2.0))
    assert torch.allclose(heavier, loss_B(ELBO(beta=2.0))), "the KL twice, and no discrepancy"


# --- maximum mean discrepancy -----------------------------------------------------------------------


def expected_rbf(width, variance, offset_Z):
    """E exp(-|d|^2 / width) for d ~ N(offset, variance I)."""
    grown = 1.0 + 2.0 * variance / width
    return grown ** (-len(offset_Z) / 2) * math.exp(-float(offset_Z @ offset_Z) / (width * grown))


def expected_imq(width, variance, offset_Z):
    """E width / (width + |d|^2): 1 / (1 + r) is the integral of exp(-t (1 + r)) over t from 0."""
    t, weight = np.polynomial.laguerre.laggauss(60)
    return sum(w * expected_rbf(width / s, variance, offset_Z) for s, w in zip(t, weight, strict=True))


EXPECTED = {"rbf": expected_rbf, "imq": expected_imq}


def exact_mmd(kind, mean_Z, std):
    """Squared MMD of N(mean, std^2 I) and N(0, I)."""
    zero_Z, total = np.zeros_like(mean_Z), 0.0
    for scale in SCALES:
        width = 2.0 * len(mean_Z) * scale
        within = EXPECTED[kind](width, 2.0 * std**2, zero_Z) + EXPECTED[kind](width, 2.0, zero_Z)
        total += within - 2.0 * EXPECTED[kind](width, std**2 + 1.0, mean_Z)
    return total


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_mmd_is_the_formula(kind):
    q_KBZ, p_KBZ = torch.randn(2, 5, 3) + 0.5, torch.randn(2, 5, 3)

    def k(a, b):
        widths = [2.0 * 3 * scale for scale in SCALES]
        square = sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))
        return sum(c / (c + square) if kind == "imq" else math.exp(-square / c) for c in widths)

    found = []
    for q, p in zip(q_KBZ, p_KBZ, strict=True):
        apart = [(i, j) for i in range(5) for j in range(5) if i != j]
        within = sum(k(q[i], q[j]) + k(p[i], p[j]) for i, j in apart) / 20
        found.append(within - 2 * sum(k(a, b) for a in q for b in p) / 25)
    assert math.isclose(float(mmd(kind, q_KBZ, p_KBZ)), sum(found) / 2, rel_tol=1e-9)
    assert torch.allclose(
        kernel_of(kind, q_KBZ, q_KBZ).diagonal(dim1=1, dim2=2), torch.tensor(float(len(SCALES)))
    )


@pytest.mark.parametrize("kind", ["imq", "rbf"])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.5), (0.0, 1.5)])
def test_mmd_is_unbiased_on_gaussians(kind, mean, std):
    mean_Z = np.array([mean, -mean, 0.0])
    truth = exact_mmd(kind, mean_Z, std)
    q_MBZ = torch.from_numpy(mean_Z) + std * torch.randn(1500, 5, 3)
    found_M = torch.stack([mmd(kind, q[None], torch.randn(1, 5, 3)) for q in q_MBZ])
    error = float(found_M.std()) / len(found_M) ** 0.5
    assert abs(float(found_M.mean()) - truth) < 4.5 * error
    assert error < 0.04
    if mean == 0.0 and std == 1.0:
        assert abs(truth) < 1e-9, "the same distribution"
        assert (found_M < 0).float().mean() > 0.3, "an unbiased estimate of 0 is negative as often as not"
    else:
        assert truth > 5 * error


def test_samples_of_one_image_are_not_paired():
    q_KBZ, p_KBZ = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    each = [mmd("imq", q_KBZ[i : i + 1], p_KBZ[i : i + 1]) for i in range(3)]
    assert torch.allclose(mmd("imq", q_KBZ, p_KBZ), torch.stack(each).mean())


# --- sliced Wasserstein -----------------------------------------------------------------------------


def test_the_projections_are_transported_at_the_least_cost():
    q_KBZ, p_KBZ = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    directions_LZ = nn.functional.normalize(torch.randn(4, 3), dim=-1)
    found = []
    for q, p in zip(q_KBZ, p_KBZ, strict=True):
        for direction in directions_LZ:
            a, b = (q @ direction).tolist(), (p @ direction).tolist()
            plans = itertools.permutations(range(5))
            found.append(
                min(sum((x - b[j]) ** 2 for x, j in zip(a, plan, strict=True)) / 5 for plan in plans)
            )
    assert math.isclose(float(sliced(q_KBZ, p_KBZ, directions_LZ)), sum(found) / len(found), rel_tol=1e-9)


def test_of_gaussians_it_is_the_closed_form():
    """The mean over directions of (theta . m)^2 + (s - 1)^2 is |m|^2 / Z + (s - 1)^2."""
    mean_Z, std = torch.tensor([1.0, -0.5, 0.0, 0.5]), 1.5
    q_KBZ = mean_Z + std * torch.randn(1, 20_000, 4)
    found = SWAE(projections=400).distance(q_KBZ, torch.randn(1, 20_000, 4))
    assert math.isclose(float(found), float(mean_Z @ mean_Z) / 4 + 0.25, rel_tol=0.05)


# --- the KL taken apart -----------------------------------------------------------------------------


def brute_force(posterior, z_MZ):
    """log q(z) and log q(z_j) of the mixture of all posteriors, by torch.distributions and loops."""
    each = [Normal(mean, std) for mean, std in zip(posterior.mean, posterior.std, strict=True)]
    log_q_MNZ = torch.stack([q.log_prob(z_MZ) for q in each], dim=1)
    joint_M = log_q_MNZ.sum(-1).exp().mean(1).log()
    return joint_M, log_q_MNZ.exp().mean(1).log()


def test_with_the_whole_data_set_in_the_batch_the_terms_are_exact():
    posterior = gaussians()
    draw = draw_of(posterior)
    z_MZ, n = draw.z_KBZ[0], 6
    joint_M, marginal_MZ = brute_force(posterior, z_MZ)
    assert torch.allclose(joint_M, mixture_log_density(z_MZ, posterior.mean, posterior.log_var)[0])
    own_M, prior_M = posterior.log_prob(z_MZ), Normal(0.0, 1.0).log_prob(z_MZ).sum(-1)
    right = (own_M - joint_M, joint_M - marginal_MZ.sum(-1), marginal_MZ.sum(-1) - prior_M)
    parts = TCVAE()(draw, Progress(images=n)).parts
    for name, truth_M in zip(NAMES, right, strict=True):
        assert torch.allclose(parts[name], truth_M), name
    weighted = taken_apart(draw, pairs(draw), log_weights(pairs(draw), n, "weighted"))
    off = (math.log(n), 2 * math.log(n), -3 * math.log(n))
    for found_M, truth_M, constant in zip(weighted, right, off, strict=True):
        assert torch.allclose(found_M, truth_M + constant), "1/(N B) instead of 1/N: constants"


def test_the_stratified_estimate_is_unbiased_over_all_batches():
    """Over all batches of 3 of 6 images that hold the image itself, the mean of the estimate of q(z) is q(z)."""
    posterior, n = gaussians(), 6
    z_NZ = posterior.rsample(1)[0]
    joint_N, marginal_NZ = brute_force(posterior, z_NZ)
    for image in range(n):
        joint, marginal = [], []
        for others in itertools.permutations([i for i in range(n) if i != image], 2):
            rows = torch.tensor([image, *others])
            some = DiagonalNormal(posterior.mean[rows], posterior.std[rows], posterior.log_var[rows])
            log_q_KBBZ = pairs(draw_of(some, z_KBZ=z_NZ[rows][None]))
            log_w_B = log_weights(log_q_KBBZ, n, "stratified")[0]
            joint.append((log_q_KBBZ[0, 0].sum(-1) + log_w_B).exp().sum())
            marginal.append((log_q_KBBZ[0, 0] + log_w_B[:, None]).exp().sum(0))
        assert torch.allclose(torch.stack(joint).mean(), joint_N[image].exp())
        assert torch.allclose(torch.stack(marginal).mean(0), marginal_NZ[image].exp())


def test_each_sample_meets_its_own_image_with_weight_one_in_n():
    """Published code puts 1/N into the first column instead of the diagonal, so that all meet the first image."""
    weights_BB = log_weights(torch.zeros(1, 4, 4, 2), 100, "stratified").exp()
    assert torch.allclose(weights_BB.diagonal(), torch.tensor(0.01))
    assert torch.allclose(weights_BB.sum(1), torch.tensor(1.0))
    assert torch.allclose(weights_BB[0, 1:], torch.tensor(0.33))
    fewer = log_weights(torch.zeros(1, 4, 4, 2), 1, "stratified").exp()
    assert torch.allclose(fewer, torch.tensor(0.25)), "never fewer than the batch"


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_the_pieces_add_up_to_the_kl(estimator):
    posterior, draws = gaussians(), 10_000
    draw = draw_of(posterior, draws)
    pieces = taken_apart(draw, pairs(draw), log_weights(pairs(draw), 60, estimator))
    assert torch.allclose(sum(pieces), (draw.log_qz_KB - draw.log_pz_KB).mean(0)), "sample by sample"
    error_B = (draw.log_qz_KB - draw.log_pz_KB).std(0) / draws**0.5
    assert ((sum(pieces) - draw.kl_BG.sum(-1)).abs() < 5 * error_B).all(), "in expectation"


def test_on_an_enumerated_model_the_pieces_are_those_of_the_table():
    """All sixteen images, every state: I(x; z), total correlation and marginal KLs as sums over the table."""
    model = Discrete()
    q_BS, p_Z = model.table.log_q_BS.exp(), model.prior.p_Z
    q_S = q_BS.mean(0)
    one_Z = q_S @ BITS_SZ
    product_S = (BITS_SZ * one_Z + (1 - BITS_SZ) * (1 - one_Z)).prod(-1)
    right = (
        (q_BS * (q_BS / q_S).log()).sum(1).mean(),
        (q_S * (q_S / product_S).log()).sum(),
        (one_Z * (one_Z / p_Z).log() + (1 - one_Z) * ((1 - one_Z) / (1 - p_Z)).log()).sum(),
    )
    found = torch.zeros(3)
    for state, bits_Z in enumerate(BITS_SZ):
        draw = draw_of(model.encode(model.x_BCHW), z_KBZ=bits_Z.expand(1, 16, 2), prior=model.prior)
        pieces = taken_apart(draw, pairs(draw), log_weights(pairs(draw), 16, "stratified"))
        found += torch.stack([(q_BS[:, state] * piece_B).mean() for piece_B in pieces])
    assert torch.allclose(found, torch.stack(right))
    assert torch.allclose(found.sum(), model.kl_B.mean())


def test_weights_weigh_what_they_say():
    draw = draw_of(gaussians())
    moment = Progress(images=60)

    def terms(**weights):
        return TCVAE(**({"beta": 1.0} | weights))(draw, moment)

    plain = terms()
    for field, name in zip(("alpha", "beta", "gamma"), NAMES, strict=True):
        more_B = terms(**{field: 3.0}).loss_B - plain.loss_B
        assert torch.allclose(more_B, 2 * plain.parts[name]), field
    assert torch.allclose(plain.loss_B, (draw.log_qz_KB - draw.log_pz_KB)[0]), (
        "minus the ELBO, sample by sample"
    )


def test_the_weighted_estimator_logs_the_stratified_pieces_and_its_slopes_know_no_n():
    posterior = gaussians()
    posterior.mean.requires_grad_()
    draw = draw_of(posterior)
    weighted, stratified = TCVAE(estimator="weighted"), TCVAE()
    for name in NAMES:
        assert torch.equal(
            weighted(draw, Progress(images=60)).parts[name], stratified(draw, Progress(images=60)).parts[name]
        )

    def slope(objective, images):
        loss = objective(draw, Progress(images=images)).loss_B.mean()
        return torch.autograd.grad(loss, posterior.mean, retain_graph=True)[0]

    assert torch.allclose(slope(weighted, 60), slope(weighted, 6000))
    assert not torch.allclose(slope(stratified, 60), slope(stratified, 6000))


def test_dimensions_that_are_not_independent_are_refused():
    model = Discrete(torch.rand(16, 4) + 0.1)
    with pytest.raises(ConfigError, match="independent given x"):
        TCVAE()(model.draw(model.x_BCHW), Progress())


# --- covariances ------------------------------------------------------------------------------------


def test_the_covariances_are_those_of_torch():
    posterior = gaussians(n=9)
    means_ZZ = torch.cov(posterior.mean.T, correction=0)
    whole_ZZ = means_ZZ + posterior.std.square().mean(0).diag()
    assert torch.allclose(covariance(posterior.mean), means_ZZ)
    draw = draw_of(posterior)
    for kind, C in (("I", means_ZZ), ("II", whole_ZZ)):
        terms = DIPVAE(kind=kind, off_diagonal=3.0, diagonal=7.0)(draw, Progress())
        off = sum(float(C[i, j]) ** 2 for i in range(3) for j in range(3) if i != j)
        on = sum((float(C[i, i]) - 1) ** 2 for i in range(3))
        assert torch.allclose(terms.loss_B, -terms.bound_B + 3 * off + 7 * on)
        assert math.isclose(float(terms.parts["off_diagonal"]), off, rel_tol=1e-9)
        assert math.isclose(float(terms.parts["diagonal"]), on, rel_tol=1e-9)


def test_of_another_posterior_the_second_kind_takes_samples():
    posterior = gaussians(n=9)

    class Other(PosteriorValue):
        """The same, of a class that has no closed form here."""

        mean = posterior.mean

        def rsample(self, k=1):
            return posterior.rsample(k)

        def log_prob(self, z):
            return posterior.log_prob(z)

    parts = DIPVAE()(draw_of(Other(), 20_000), Progress()).parts
    right = DIPVAE()(draw_of(posterior), Progress()).parts
    draw = draw_of(Other(), 1)
    assert torch.allclose(DIPVAE()._covariance(draw), torch.cov(draw.z_KBZ[0].T, correction=0))
    # Nine images' samples scatter: their covariance is too small by what the mean of nine takes.
    closed_ZZ = covariance(posterior.mean) + posterior.std.square().mean(0).diag() * 8 / 9
    assert torch.allclose(DIPVAE()._covariance(draw_of(Other(), 20_000)), closed_ZZ, atol=0.02)
    assert set(parts) == set(right)


# --- the critic -------------------------------------------------------------------------------------

RHO = 0.8
CORRELATION = -0.5 * math.log(1 - RHO**2)  # total correlation of two normal variables


def correlated(n):
    noise = torch.randn(1, n, 2)
    return torch.stack([noise[..., 0], RHO * noise[..., 0] + (1 - RHO**2) ** 0.5 * noise[..., 1]], dim=-1)


class Perfect(nn.Module):
    """The critic that cannot be bettered: log q(z) - sum_j log q(z_j) of two correlated normal variables."""

    def forward(self, z):
        inverse = torch.linalg.inv(torch.tensor([[1.0, RHO], [RHO, 1.0]]))
        joint = -0.5 * ((z @ inverse) * z).sum(-1) + CORRELATION
        return joint + 0.5 * z.square().sum(-1)


def test_a_perfect_critic_gives_the_total_correlation():
    n = 40_000
    z_KBZ = correlated(n)
    posterior = DiagonalNormal(z_KBZ[0], torch.ones(n, 2), torch.zeros(n, 2))
    terms = FactorVAE(gamma=4.0).terms(draw_of(posterior, z_KBZ=z_KBZ), Progress(), Perfect())
    found_B = terms.parts["total_correlation"]
    assert abs(float(found_B.mean()) - CORRELATION) < 5 * float(found_B.std()) / n**0.5
    assert torch.allclose(terms.loss_B, -terms.bound_B + 4.0 * found_B)


def test_a_critic_learns_the_total_correlation():
    critic = FactorVAE().build(2, (1, 1, 1)).double()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for _ in range(150):
        z_KBZ = correlated(128)
        draw = draw_of(DiagonalNormal(z_KBZ[0], torch.ones(128, 2), torch.zeros(128, 2)), z_KBZ=z_KBZ)
        optimizer.zero_grad()
        FactorVAE().terms(draw, Progress(), critic).critic_loss_B.mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert abs(float(critic(correlated(20_000)).mean()) - CORRELATION) < 0.15
        apart = critic(permuted(correlated(20_000))).mean()
    assert float(apart) < 0, "of independent dimensions it says so"


def test_permuted_latents_keep_their_marginals_and_lose_the_rest():
    z_KBZ = correlated(5000).expand(2, -1, -1).contiguous()
    other = permuted(z_KBZ)
    assert torch.equal(other.sort(1).values, z_KBZ.sort(1).values), (
        "each dimension of each k holds the same values"
    )
    assert float(torch.corrcoef(z_KBZ[0].T)[0, 1]) > 0.75
    for one in other:
        assert abs(float(torch.corrcoef(one.T)[0, 1])) < 0.1
    assert not torch.equal(other[0], other[1])


@pytest.mark.parametrize("name", ["tcvae", "factor-vae", "dip-vae", "info-vae", "wae", "swae"])
def test_each_is_known_by_its_name(name):
    assert lookup("objective", name).name == name
