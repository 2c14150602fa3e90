"""The ELBO family and the importance-weighted family, against formulas, exact gradients and each other."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import pytest
import torch
from pydantic import ValidationError

from nelbo.core import Draw, Progress
from nelbo.core.distributions import PosteriorValue
from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.dists.normal import DiagonalNormal
from nelbo.errors import ConfigError
from nelbo.models import VAE
from nelbo.objectives import ELBO
from nelbo.objectives.capacity_control import CapacityControl
from nelbo.objectives.ciwae import CIWAE
from nelbo.objectives.geco import GECO
from nelbo.objectives.iwae import IWAE
from nelbo.objectives.miwae import MIWAE
from nelbo.objectives.piwae import PIWAE
from nelbo.objectives.renyi import Renyi
from nelbo.objectives.weighted import resampled, slope_of_posterior
from nelbo.posteriors import DiagonalGaussian, Posterior
from nelbo.schedules import Linear
from nelbo.testing import LinearGaussian, check_objective
from nelbo.testing.law import keep
from nelbo.testing.objectives import gradients_match_finite_differences
from nelbo.training.recipe import Recipe, resolve

START = Progress()
FAMILY = [IWAE(), MIWAE(), PIWAE(), CIWAE(), Renyi(), IWAE(gradient="stl"), IWAE(gradient="dreg")]
FEW = [IWAE(k=4, resample=1), IWAE(k=4, resample=2, gradient="dreg"), PIWAE(k=4, resample=2)]
LITTLE = {"model.encoder.hidden": [8], "model.decoder.hidden": [8]}


@pytest.fixture(scope="module")
def law():
    return LinearGaussian()


def draw_of(law, k, seed=3, copies=1):
    torch.manual_seed(seed)
    return law.model.draw(law.x_BCHW.repeat(copies, 1, 1, 1), k)


def log_w_of(draw):
    return (draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB).detach()


def slopes(law, objective, seed=3, copies=1):
    """The gradient of the mean loss by each weight, from the same samples for the same seed."""
    loss = objective(draw_of(law, objective.k, seed, copies), START).loss_B.mean()
    found = torch.autograd.grad(loss, list(law.model.parameters()), retain_graph=True)
    return dict(zip(dict(law.model.named_parameters()), found, strict=True))


def inference(name):
    return name.startswith(("encoder.", "posterior."))


# --- values against plain formulas --------------------------------------------------------------


@pytest.mark.parametrize("objective", FAMILY, ids=repr)
def test_the_bound_reported_is_that_of_all_samples(law, objective):
    terms = objective(draw := draw_of(law, objective.k), START)
    by_hand = log_w_of(draw).exp().mean(0).log()
    assert torch.allclose(terms.bound_B, by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("objective", "by_hand"),
    [
        (IWAE(k=6), lambda w: w.mean(0).log()),
        (IWAE(k=6, gradient="stl"), lambda w: w.mean(0).log()),
        (IWAE(k=6, gradient="dreg"), lambda w: w.mean(0).log()),
        (PIWAE(k=6, groups=2), lambda w: w.mean(0).log()),
        (MIWAE(k=6, groups=6), lambda w: w.log().mean(0)),
        (MIWAE(k=6, groups=1), lambda w: w.mean(0).log()),
        (CIWAE(k=6, share=0.3), lambda w: 0.3 * w.log().mean(0) + 0.7 * w.mean(0).log()),
        (CIWAE(k=6, share=1.0), lambda w: w.log().mean(0)),
        (Renyi(k=6, alpha=0.0), lambda w: w.mean(0).log()),
        (Renyi(k=6, alpha=1.0), lambda w: w.log().mean(0)),
        (Renyi(k=6, alpha=0.5), lambda w: 2 * w.sqrt().mean(0).log()),
        (Renyi(k=6, alpha=-1.0), lambda w: 0.5 * w.square().mean(0).log()),
        (Renyi(k=6, alpha=-7.0), lambda w: (w**8).mean(0).log() / 8),
    ],
    ids=lambda value: repr(value) if isinstance(value, Spec) else "",
)
def test_the_loss_is_minus_the_formula(law, objective, by_hand):
    draw = draw_of(law, 6)
    expected = -by_hand(log_w_of(draw).exp())
    assert torch.allclose(objective(draw, START).loss_B.detach(), expected, rtol=0, atol=1e-9)


def test_groups_are_groups_of_samples(law):
    draw = draw_of(law, 6)
    w_KB = log_w_of(draw).exp()
    two = MIWAE(k=6, groups=2)
    taken = [w_KB[rows].mean(0).log() for rows in (slice(0, None, 2), slice(1, None, 2))]
    assert torch.allclose(two(draw, START).loss_B, -sum(taken) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.999, 0.9999, 1.0001])
def test_a_renyi_bound_near_one_is_near_the_elbo_in_single_precision(law, alpha):
    draw = draw_of(law, 6)
    log_w_KB = log_w_of(draw).float()
    near = Renyi(alpha=alpha).minimised(draw, log_w_KB, 1.0)
    assert torch.allclose(near, -log_w_KB.mean(0), rtol=0, atol=5e-3)


def test_a_renyi_bound_below_zero_lies_above_log_p_and_is_not_reported(law):
    terms = Renyi(k=50, alpha=-8.0)(draw_of(law, 50, copies=500), START)
    mean_B = -terms.loss_B.view(500, -1).mean(0)
    assert (mean_B > law.log_px_B + 0.1).all(), "an upper bound"
    assert (terms.bound_B.view(500, -1).mean(0) < law.log_px_B + 0.01).all()


@pytest.mark.parametrize(
    "objective", [IWAE(beta=0.3), MIWAE(beta=0.3), CIWAE(beta=0.3), PIWAE(beta=0.3)], ids=repr
)
def test_beta_weighs_the_ratio_and_not_the_bound(law, objective):
    draw = draw_of(law, objective.k)
    weighed_KB = draw.log_px_KB + 0.3 * (draw.log_pz_KB - draw.log_qz_KB)
    one = objective.model_copy(update={"beta": ELBO().beta})
    assert torch.allclose(objective(draw, START).loss_B, one.minimised(draw, weighed_KB, 0.3), atol=1e-12)
    assert torch.equal(objective(draw, START).bound_B, one(draw, START).bound_B)


# --- gradients, exactly -------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_piwae_follows_miwae_by_the_encoder_and_iwae_by_the_decoder(law, beta):
    """From the same samples, to rounding: not only in expectation."""
    found = slopes(law, PIWAE(k=6, groups=3, beta=beta))
    encoder, decoder = slopes(law, MIWAE(k=6, groups=3, beta=beta)), slopes(law, IWAE(k=6, beta=beta))
    assert any(map(inference, found))
    for name, slope in found.items():
        right, other = (encoder, decoder) if inference(name) else (decoder, encoder)
        assert torch.allclose(slope, right[name], rtol=0, atol=1e-12), name
        assert not torch.allclose(slope, other[name], rtol=0, atol=1e-4), name


def test_piwae_is_finite_where_one_group_outweighs_the_others(law):
    """Weights that differ by e^200 underflow in one share and not in the other."""
    model = LinearGaussian(fitted=False).model.float()
    x_BCHW = law.x_BCHW.float() * 40
    terms = PIWAE(k=8, groups=4)(model.draw(x_BCHW, 8), START)
    terms.loss_B.mean().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def by_hand(law, k, power):
    """sum v_k^power dlog w_k/dz dz/dphi, with the parameters of q held: Roeder et al. 2017, Tucker et al. 2019."""
    draw = draw_of(law, k)
    q = draw.posterior
    held = DiagonalNormal(q.mean.detach(), q.std.detach(), q.log_var.detach())
    log_w_KB = draw.log_px_KB + draw.log_pz_KB - held.log_prob(draw.z_KBZ)
    share_KB = log_w_KB.detach().softmax(0)
    loss = -(share_KB**power * log_w_KB).sum(0).mean()
    named = {name: weight for name, weight in law.model.named_parameters() if inference(name)}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize(("gradient", "power"), [("stl", 1), ("dreg", 2)])
@pytest.mark.parametrize("k", [1, 5])
def test_path_derivatives_are_those_of_the_papers(law, gradient, power, k):
    found = slopes(law, IWAE(k=k, gradient=gradient))
    for name, slope in by_hand(law, k, power).items():
        assert torch.allclose(found[name], slope, rtol=0, atol=1e-12), name
    plain = slopes(law, IWAE(k=k))
    for name, slope in found.items():
        if not inference(name):
            assert torch.allclose(slope, plain[name], rtol=0, atol=1e-12), "the decoder's is the bound's"


@pytest.mark.parametrize("name", [n for n in names("posterior") if lookup("posterior", n).reparametrised])
def test_a_density_varies_around_a_sample_as_it_does_with_its_parameters_held(name):
    """Of every posterior that can hold them: those that remember their samples' densities, too."""
    torch.manual_seed(2)
    q = lookup("posterior", name)().build(5, 4).double()(torch.randn(3, 5).double())
    if type(q).detached is PosteriorValue.detached:
        pytest.skip("it does not hold its parameters")
    z_KBZ = q.rsample(2)
    (held,) = torch.autograd.grad(q.detached().log_prob(z_KBZ).sum(), z_KBZ, retain_graph=True)
    found = slope_of_posterior(Draw(z_KBZ=z_KBZ, log_px_KB=z_KBZ.sum(-1), posterior=q, prior=None))
    assert torch.allclose(found, held, rtol=1e-9, atol=1e-9)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize(("gradient", "k"), [("stl", 1), ("stl", 5), ("dreg", 1), ("dreg", 5)])
def test_at_the_true_posterior_path_derivatives_have_no_noise(gradient, k):
    """Roeder et al. 2017: they vanish for every sample; the total derivative vanishes only on average."""
    exact = LinearGaussian(exact=True)
    still, noisy = slopes(exact, IWAE(k=k, gradient=gradient)), slopes(exact, IWAE(k=k))
    for name in filter(inference, still):
        assert still[name].abs().max() < 1e-12, name
    assert max(noisy[name].abs().max() for name in noisy if inference(name)) > 1e-2


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_dreg_has_the_mean_of_the_bounds_gradient_and_less_noise(law, beta):
    """At another beta, too, where the factor is beta v^2 + (1 - beta) v."""
    found = {"total": [], "dreg": []}
    for seed in range(300):
        for gradient, kept in found.items():
            by_name = slopes(law, IWAE(k=5, gradient=gradient, beta=beta), seed, copies=10)
            kept.append(torch.cat([slope.flatten() for name, slope in by_name.items() if inference(name)]))
    total, dreg = (torch.stack(kept) for kept in found.values())
    error = (total - dreg).std(0) / math.sqrt(300)
    assert ((total.mean(0) - dreg.mean(0)).abs() < 5 * error + 1e-12).all()
    if beta == 1.0:
        assert float(dreg.var(0).sum()) < 0.5 * float(total.var(0).sum())


GRADIENTS = "gradients match finite differences"


def held(objective):
    """The evidence of its gradients, of these settings only: `test_laws` varies each of them."""
    return keep(objective, [gradients_match_finite_differences.__wrapped__], objective)[GRADIENTS].words


@pytest.mark.parametrize("objective", [IWAE(k=1, gradient="stl"), IWAE(k=1, gradient="dreg"), PIWAE(k=4)])
def test_surrogates_keep_the_laws_with_other_settings(objective):
    evidence = held(objective)
    assert "surrogate" in evidence
    assert "biased" not in evidence


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective", [IWAE(k=3, gradient="stl"), IWAE(k=1, gradient="dreg"), PIWAE(k=4), *FEW]
)
def test_surrogates_keep_every_law_with_every_other_setting_changed(objective):
    check_objective(objective, skip={"every setting changes something"})


def test_stl_of_several_samples_says_that_it_is_biased():
    evidence = held(IWAE(k=3, gradient="stl"))
    assert "by the encoder's weights biased" in evidence
    assert "by the decoder's weights against that of iwae" in evidence


@pytest.mark.parametrize("objective", FEW, ids=repr)
def test_the_gradient_of_a_few_samples_is_that_of_all_in_expectation(objective):
    """Of one seed it is another: the law compares means, and would pass where all carried it."""
    evidence = held(objective)
    assert "surrogate" in evidence
    assert "biased" not in evidence


@pytest.mark.parametrize("objective", FEW, ids=repr)
def test_only_a_few_samples_are_differentiated_by_the_decoder(law, objective):
    """As many as `resample` says come back through the decoder; and what comes is not what all would bring."""
    back = []
    draw = draw_of(law, objective.k)
    decode = draw.decode

    def watched(z):
        assert z.shape == (objective.resample, *draw.z_KBZ.shape[1:])
        found = decode(z)
        found.mean.register_hook(lambda slope: back.append(len(slope)))
        return found

    draw.decode = watched
    loss = objective(draw, START).loss_B.mean()
    first = torch.autograd.grad(loss, draw.log_px_KB, allow_unused=True, retain_graph=True)
    assert first == (None,)  # nothing of the pass that decoded all
    few = torch.autograd.grad(loss, list(law.model.parameters()), allow_unused=True)
    assert back
    assert set(back) == {objective.resample}
    every = slopes(law, objective.model_copy(update={"resample": None})).values()
    assert not all(torch.allclose(one, other, atol=1e-6) for one, other in zip(few, every, strict=True))


def test_resampling_is_systematic():
    """Each sample comes within one of n times its share, and that often on average."""
    torch.manual_seed(0)
    share_K = torch.tensor([0.0, 0.05, 0.55, 0.1, 0.3, 0.0], dtype=torch.float64)
    n, images = 3, 100_000
    rows_nB = resampled(7.0 * share_K[:, None].expand(-1, images), n)
    often_KB = torch.nn.functional.one_hot(rows_nB, len(share_K)).sum(0).T.double()
    assert bool(((often_KB - n * share_K[:, None]).abs() < 1.0).all())
    assert torch.allclose(often_KB.mean(-1), n * share_K, atol=5e-3)


def test_a_few_samples_must_be_fewer_than_all():
    with pytest.raises(ConfigError, match="below k = 5, not 5"):
        resolve(Recipe(), {"objective": "iwae", "objective.k": 5, "objective.resample": 5})


@pytest.mark.parametrize("resample", [None, 2])
def test_a_decoder_learns_beside_a_frozen_encoder(law, resample):
    model = copy.deepcopy(law.model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(not inference(name))
    torch.manual_seed(0)
    loss = IWAE(k=5, resample=resample)(model.draw(law.x_BCHW, 5), START).loss_B.mean()
    loss.backward()
    learned = {name: weight.grad for name, weight in model.named_parameters() if not inference(name)}
    assert all(float(slope.abs().max()) > 0 for slope in learned.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.decoder.batch_norm": True}, "use --model.decoder.batch-norm false, or leave resample out"),
    ],
)
def test_what_would_differ_when_decoded_or_scored_again_is_refused(changes, words):
    weighted = {"objective": "iwae", "objective.resample": 1, **LITTLE}
    with pytest.raises(ConfigError, match=words):
        resolve(Recipe(), {**weighted, **changes})
    resolve(Recipe(), {**weighted, **changes, "objective.resample": None})
    resolve(Recipe(), weighted)


@pytest.mark.parametrize(
    "likelihood", [{"name": "gaussian", "sigma": "optimal"}, {"name": "laplace", "scale": "optimal"}]
)
def test_a_running_spread_is_not_moved_by_samples_that_are_decoded_again(likelihood, tiny_recipe):
    """The spread follows the errors of a step once, in `after_step`, whatever is scored in the step."""
    recipe = tiny_recipe(
        {"objective": "iwae", "objective.k": 4, "objective.resample": 1, "model.likelihood": likelihood}
    )
    model = recipe.model.build((1, 8, 8)).train()
    width = getattr(model.likelihood, "sigma" if likelihood["name"] == "gaussian" else "scale")
    x_BCHW = torch.rand(6, 1, 8, 8)
    draw = model.draw(x_BCHW, 4)
    recipe.objective(draw, START).loss_B.mean().backward()
    assert int(width.batches) == 0, "scoring changes nothing"
    model.after_step(draw)
    assert int(width.batches) == 1
    power = 2 if likelihood["name"] == "gaussian" else 1
    torch.testing.assert_close(
        width.mean_error, (x_BCHW - draw.likelihood.mean).abs().pow(power).mean().detach()
    )


def test_a_model_that_does_not_say_how_it_decodes_is_told(law):
    draw = draw_of(law, 5)
    draw.decode = None
    with pytest.raises(ConfigError, match="leave resample out"):
        IWAE(k=5, resample=2)(draw, START)


@pytest.mark.parametrize("objective", [*FAMILY, *FEW], ids=repr)
def test_without_gradients_the_numbers_are_the_same(law, objective):
    """Validation logs what training logs."""
    with torch.no_grad():
        quiet = objective(draw_of(law, objective.k), START)
    loud = objective(draw_of(law, objective.k), START)
    assert torch.equal(quiet.loss_B, loud.loss_B.detach())
    assert torch.equal(quiet.bound_B, loud.bound_B.detach())


# --- what is refused ----------------------------------------------------------------------------


@pytest.fixture
def rough(_forgotten):
    """A posterior whose samples cannot be followed back."""

    class Rough(DiagonalGaussian):
        """Without a reparametrised gradient, by its own account."""

        reparametrised: ClassVar[bool] = False

    return Rough


@pytest.mark.parametrize("objective", [IWAE(gradient="stl"), IWAE(gradient="dreg"), PIWAE()], ids=repr)
def test_what_follows_samples_refuses_a_posterior_whose_samples_cannot_be(rough, objective):
    with pytest.raises(ValidationError, match="gradient total, or one of these posteriors") as caught:
        Recipe(model=VAE(posterior=rough()), objective=objective)
    assert "diagonal-gaussian" in str(caught.value)
    assert "dirac" not in str(caught.value)
    Recipe(model=VAE(posterior=rough()), objective=IWAE())
    Recipe(objective=objective)


def test_every_posterior_says_whether_it_is_reparametrised():
    for name in names("posterior"):
        posterior = lookup("posterior", name)
        assert issubclass(posterior, Posterior)
        assert isinstance(posterior.reparametrised, bool)


def test_samples_are_divided_among_groups():
    with pytest.raises(ValidationError, match=r"3 groups do not divide 8 of them; use --objective\.k 6"):
        MIWAE(k=8, groups=3)
    with pytest.raises(ConfigError, match=r"objective: k is the number of all samples"):
        resolve(Recipe(), {"objective": "piwae", "objective.k": 7})


# --- free bits of groups ------------------------------------------------------------------------


def test_free_bits_of_a_group_are_those_of_its_sum(law):
    draw = draw_of(law, 1)
    kl_Z = draw.kl_BG.detach().mean(0)
    for free in (float(kl_Z.sum()) * 0.9, float(kl_Z.sum()) * 1.2):
        terms = ELBO(free_bits=free, group=2)(draw, START)
        expected = terms.parts["reconstruction"] + max(free, float(kl_Z.sum()))
        assert torch.allclose(terms.loss_B, expected)
        apart = terms.parts["reconstruction"] + kl_Z.clamp_min(free).sum()
        assert torch.allclose(ELBO(free_bits=free)(draw, START).loss_B, apart)
        assert not torch.allclose(expected, apart)
        assert torch.allclose(terms.bound_B, -(terms.parts["reconstruction"] + terms.parts["kl"]))


def test_groups_of_four_latents_are_neighbours():
    q = DiagonalNormal(*torch.randn(2, 5, 4).abs().unbind(), torch.zeros(5, 4))

    class Drawn:
        kl_BG, z_KBZ, not_a_bound = q.mean, q.rsample(1), None

    charged = ELBO(free_bits=1.7, group=2)._charged(Drawn(), q.mean.sum(-1))
    pairs = q.mean.mean(0)[:2].sum(), q.mean.mean(0)[2:].sum()
    assert torch.allclose(charged, sum(pair.clamp_min(1.7) for pair in pairs).expand(5))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"objective.group": 3}, r"3 latent dimensions cannot share .* use one of 1, 2, 4, 8"),
        ({"model": "hierarchical-vae", "model.latent_dim": 8, "objective.group": 5}, "use one of 1, 2, 4, 8"),
    ],
    ids=str,
)
def test_groups_that_do_not_divide_the_latents_are_refused_when_read(overrides, message):
    base = {"model.latent_dim": 8, "objective.free_bits": 0.5}
    with pytest.raises(ConfigError, match=message):
        resolve(Recipe(), base | overrides)
    resolve(Recipe(), base | {"objective.group": 4})
    resolve(Recipe(), {"model.latent_dim": 8, "objective.group": 3}), "without free bits there are no groups"


class JointKL(DiagonalNormal):
    def kl_to(self, prior):
        return super().kl_to(prior).sum(-1, keepdim=True)


class NoKL(DiagonalNormal):
    def kl_to(self, prior):
        return None


def posterior_of(value_class):
    class Head(torch.nn.Module):
        def __init__(self, features, latent_dim):
            super().__init__()
            self.linear = DiagonalGaussian().build(features, latent_dim)

        def forward(self, features_BF):
            q = self.linear(features_BF)
            return value_class(q.mean, q.std, q.log_var)

    class Other(Posterior):
        """A diagonal Gaussian that knows less of its KL."""

        axis: ClassVar[str] = ""

        def build(self, features, latent_dim):
            return Head(features, latent_dim)

    return Other()


def test_free_bits_ask_what_closed_form_there_is():
    joint, none = (VAE(latent_dim=4, posterior=posterior_of(kind)) for kind in (JointKL, NoKL))
    with pytest.raises(ValidationError, match=r"comes in 1 part; use one of 4"):
        Recipe(model=joint, objective=ELBO(free_bits=0.5))
    Recipe(model=joint, objective=ELBO(free_bits=0.5, group=4))
    with pytest.raises(ValidationError, match=r"free-bits needs a closed-form KL"):
        Recipe(model=none, objective=ELBO(free_bits=0.5))
    with pytest.raises(ValidationError, match=r"objective\.kl needs a closed-form KL.*--objective\.kl auto"):
        Recipe(model=none, objective=ELBO(kl="closed-form"))
    Recipe(model=none)


def test_asking_does_not_move_the_random_numbers():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    Recipe(objective=ELBO(free_bits=0.5))
    assert torch.equal(before, torch.random.get_rng_state())


# --- capacity -----------------------------------------------------------------------------------


def test_capacity_control_is_the_formula_and_reports_the_elbo(law):
    objective = CapacityControl(gamma=7.0, capacity=Linear(end=4.0, epochs=8))
    draw = draw_of(law, 1)
    plain = ELBO()(draw, START)
    for epoch, capacity in ((1, 0.5), (2, 1.0), (8, 4.0), (9, 4.0)):
        terms = objective(draw, Progress(epoch=epoch))
        off = (plain.parts["kl"].mean() - capacity).abs()
        assert torch.allclose(terms.loss_B, plain.parts["reconstruction"] + 7.0 * off)
        assert torch.equal(terms.bound_B, plain.bound_B)
        assert terms.parts["capacity"].tolist() == pytest.approx([capacity] * 4)


# --- GECO ---------------------------------------------------------------------------------------


def steps_of(objective, law, own, count):
    return [objective.terms(draw_of(law, objective.k, seed), START, own) for seed in range(count)]


@pytest.mark.parametrize("constraint", ["reconstruction", "squared-error"])
def test_geco_is_algorithm_1(law, constraint):
    objective = GECO(constraint=constraint, tolerance=0.6, decay=0.7, rate=0.3, k=2)
    own = objective.build(2, law.model.shape).double().train()
    weight, average = 1.0, None
    for seed, terms in enumerate(steps_of(objective, law, own, 6)):
        draw = draw_of(law, 2, seed)
        if constraint == "reconstruction":
            off_B = -draw.log_px_KB.mean(0) / 6 - 0.6
        else:
            off_B = (law.x_BCHW - draw.likelihood.mean).square().mean((0, 2, 3, 4)) - 0.36
        now = float(off_B.detach().mean())
        average = now if average is None else 0.7 * average + 0.3 * now
        expected = draw.kl_BG.sum(-1) + weight * 6 * (off_B + average - now)
        assert torch.allclose(terms.loss_B, expected, rtol=0, atol=1e-6)
        assert float(terms.parts["lambda"].mean()) == pytest.approx(weight, rel=1e-6)
        assert torch.allclose(terms.parts["constraint"], off_B)
        assert torch.allclose(terms.bound_B, ELBO(k=2)(draw, START).bound_B)
        weight *= math.exp(0.3 * average)
    assert weight != pytest.approx(1.0, abs=1e-3)


def test_gecos_multiplier_has_ends(law):
    for tolerance, end in ((-1e3, 1e6), (1e3, 1e-6)):
        objective = GECO(tolerance=tolerance, rate=1.0)
        own = objective.build(2, law.model.shape).double().train()
        last = steps_of(objective, law, own, 3)[-1]
        assert float(last.parts["lambda"].mean()) == pytest.approx(end)
        assert last.loss_B.isfinite().all()


def test_gecos_tolerance_of_an_error_is_positive():
    GECO(tolerance=-3.0)
    with pytest.raises(ValidationError, match="root mean squared error of a pixel"):
        GECO(constraint="squared-error", tolerance=0.0)
