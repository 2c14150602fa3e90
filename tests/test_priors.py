"""Priors on R^Z against answers from elsewhere: mixtures of torch, sums over images, Jacobians, the best prior."""

from __future__ import annotations

import copy
import math
import os
import signal

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from nelbo.core.registry import lookup
from nelbo.data import Batches, Binarise, Data, Images, OnDisk
from nelbo.data.ondisk import ArrayFile
from nelbo.data.transforms import DynamicBinarise
from nelbo.dists.normal import DiagonalNormal
from nelbo.errors import ConfigError, Interrupted
from nelbo.evaluation import card
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.optim import WeightAverage
from nelbo.pictures.latents import _plane
from nelbo.pictures.view import View
from nelbo.posteriors import DiagonalGaussian
from nelbo.priors import StandardNormal, mixture
from nelbo.priors.exemplar import Exemplar
from nelbo.priors.learned_normal import LearnedNormal
from nelbo.priors.maf import MAF
from nelbo.priors.mixture import Mixture, log_mixture
from nelbo.priors.real_nvp import RealNVP
from nelbo.priors.vamp import Vamp
from nelbo.testing.toys import ToyImages
from nelbo.training import api, events

SHAPE = (1, 3, 2)
CPU = torch.device("cpu")
WITH_WEIGHTS = ["learned-normal", "mixture", "vamp", "exemplar", "real-nvp", "maf"]


def model_with(prior, *, latent_dim=3, posterior=None, images=None):
    """A VAE in float64 for tiny images, far from its initial weights, with a prior that has seen `images`."""
    torch.manual_seed(3)
    spec = VAE(
        latent_dim=latent_dim,
        encoder=MLP(hidden=(6,)),
        decoder=MLP(hidden=(6,)),
        posterior=posterior or DiagonalGaussian(),
        prior=prior,
    )
    model = spec.build(SHAPE).double()
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.copy_(torch.randn_like(weight))
    if images is not None:
        model.observe_training_images(images)
        model.refresh()
    return model


@pytest.fixture
def images():
    """Seven tiny grey images in float64, as the loader hands them out."""
    found = ToyImages(SHAPE, 7)
    found.x_NCHW = found.x_NCHW.double()
    return found


def of_normals(z, mean_CZ, std_CZ, weight_C=None):
    """log density of torch's own mixture of diagonal normals."""
    weight_C = torch.ones(len(mean_CZ)) if weight_C is None else weight_C
    parts = Independent(Normal(mean_CZ, std_CZ), 1)
    return MixtureSameFamily(Categorical(weight_C.to(mean_CZ)), parts).log_prob(z)


# --- a learned normal ---------------------------------------------------------------------------


def test_the_learned_normal_is_the_one_of_torch_and_has_a_closed_form_kl():
    prior = LearnedNormal().build(3).double()
    with torch.no_grad():
        prior.mean_Z.copy_(torch.tensor([0.3, -2.0, 1.0]))
        prior.log_var_Z.copy_(torch.tensor([-1.0, 0.7, 2.0]))
    reference = Normal(prior.mean_Z, (0.5 * prior.log_var_Z).exp())
    z_KBZ = torch.randn(5, 4, 3).double()
    assert torch.allclose(prior.log_prob(z_KBZ), reference.log_prob(z_KBZ).sum(-1))
    mean, log_var = torch.randn(2, 4, 3).double()
    std = (0.5 * log_var).exp()
    kl_BG = DiagonalNormal(mean, std, log_var).kl_to(prior)
    assert torch.allclose(kl_BG, kl_divergence(Normal(mean, std), reference))
    samples = prior.sample(20_000)
    assert torch.allclose(samples.mean(0), prior.mean_Z, atol=0.1)
    assert torch.allclose(samples.var(0).log(), prior.log_var_Z, atol=0.05)


# --- mixtures -----------------------------------------------------------------------------------


def test_the_mixture_is_the_one_of_torch():
    prior = Mixture(components=5).build(3).double()
    with torch.no_grad():
        for weight in prior.parameters():
            weight.copy_(torch.randn_like(weight))
    z_KBZ = 2.0 * torch.randn(6, 4, 3).double()
    std = (0.5 * prior.log_vars_CZ).exp()
    expected = of_normals(z_KBZ, prior.means_CZ, std, prior.logits_C.softmax(0))
    assert torch.allclose(prior.log_prob(z_KBZ), expected, atol=1e-10)
    assert prior.log_prob(z_KBZ).shape == (6, 4)
    assert not hasattr(prior, "mean_Z"), "no closed form is claimed"


def test_narrow_and_far_components_lose_nothing_in_single_precision():
    mean_CZ, log_var_CZ = 50.0 + torch.randn(4, 30), torch.full((4, 30), -12.0)
    z_BZ = mean_CZ + (0.5 * log_var_CZ).exp() * torch.randn(4, 30)
    expected = of_normals(z_BZ.double(), mean_CZ.double(), (0.5 * log_var_CZ.double()).exp())
    found = log_mixture(z_BZ, mean_CZ, log_var_CZ, torch.full((4,), -math.log(4)))
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, rtol=1e-5)


def test_many_pairs_are_held_a_few_at_a_time(monkeypatch):
    z_KBZ, mean_CZ = torch.randn(10, 7, 3).double(), torch.randn(11, 3).double()
    weight_BC = torch.randn(7, 11).double().log_softmax(-1)
    whole = log_mixture(z_KBZ, mean_CZ, torch.zeros(1, 3).double(), weight_BC)
    monkeypatch.setattr(mixture, "AT_ONCE", 40)  # three rows of eleven components
    largest = []
    plain = torch.addmm

    def watched(offset, rows, matrix):
        largest.append(len(rows) * matrix.shape[1])
        return plain(offset, rows, matrix)

    monkeypatch.setattr(torch, "addmm", watched)
    assert torch.allclose(log_mixture(z_KBZ, mean_CZ, torch.zeros(1, 3).double(), weight_BC), whole)
    assert max(largest) <= 40
    each = [of_normals(z_KBZ[:, b], mean_CZ, torch.ones_like(mean_CZ), weight_BC[b].exp()) for b in range(7)]
    assert torch.allclose(whole, torch.stack(each, 1)), "weights of each image's own"


def test_networks_in_bf16_leave_the_mixture_exact():
    z, mean = torch.randn(20, 4), torch.randn(9, 4)
    log_var, weight = torch.full((9, 4), -3.0), torch.full((9,), -math.log(9))
    plain = log_mixture(z, mean, log_var, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(log_mixture(z, mean, log_var, weight), plain)


# --- VampPrior ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["diagonal-gaussian", "full-gaussian", "laplace", "iaf"])
def test_a_vamp_prior_is_the_mean_of_the_posteriors_at_its_pseudo_inputs(name, monkeypatch):
    model = model_with(Vamp(components=6, start="noise"), posterior=lookup("posterior", name)())
    if name != "diagonal-gaussian":  # whose sum is by matrix products
        monkeypatch.setattr("nelbo.priors.vamp.AT_ONCE", 60)  # three latents at a time
    prior = model.prior
    with torch.no_grad():
        prior.inputs_CCHW[0, 0, 0] = 7.0  # beyond the range: clamped
        prior.inputs_CCHW[1, 0, 0] = -7.0
    z_KBZ = torch.randn(5, 4, 3).double()
    q = [model.encode(u[None].clamp(0, 1)) for u in prior.inputs_CCHW]
    each = torch.stack([one.log_prob(z_KBZ.view(20, 1, 3)).view(5, 4) for one in q])
    found = prior.log_prob(z_KBZ)
    assert torch.allclose(found, each.logsumexp(0) - math.log(6), atol=1e-10)
    weights = (prior.inputs_CCHW, *model.encoder.parameters(), *model.posterior.parameters())
    assert all((slope != 0).any() for slope in torch.autograd.grad(found.sum(), weights))
    slope = torch.autograd.grad(prior.log_prob(z_KBZ).sum(), prior.inputs_CCHW)[0]
    assert torch.equal(slope[:2, 0, 0], torch.zeros_like(slope[:2, 0, 0])), "as a hardtanh"
    mean = torch.stack([one.rsample(2000).mean((0, 1)) for one in q]).mean(0)
    assert torch.allclose(prior.sample(6000).mean(0), mean, atol=0.3)


def test_pseudo_inputs_begin_at_training_images_and_only_once(images):
    model = model_with(Vamp(components=4))
    average = WeightAverage(model, 0.9)
    for each in (model, average.module):
        each.observe_training_images(images)
    chosen = model.prior.inputs_CCHW.detach().clone()
    there = (chosen[:, None] - images.x_NCHW).abs().flatten(2).amax(-1) < 1e-6
    assert there.sum(1).tolist() == [1, 1, 1, 1]
    assert there.any(0).sum() == 4, "four different ones"
    assert torch.equal(chosen, average.module.prior.inputs_CCHW), "the average begins where the weights do"
    with torch.no_grad():
        model.prior.inputs_CCHW.add_(0.1)
    resumed = model_with(Vamp(components=4))
    resumed.load_state_dict(model.state_dict())
    resumed.observe_training_images(images)
    assert torch.equal(resumed.prior.inputs_CCHW, chosen + 0.1)
    few = model_with(Vamp(components=9), images=images).prior.inputs_CCHW
    assert torch.allclose(few[7:].double(), few[:2].double()), "where there are fewer images, some twice"
    noise = model_with(Vamp(components=4, start="noise", low=-1.0), images=images).prior.inputs_CCHW
    assert noise.mean().abs() < 0.3
    assert not (noise[:, None] - images.x_NCHW).abs().flatten(2).amax(-1).lt(1e-3).any()


# --- exemplars ----------------------------------------------------------------------------------


def test_an_exemplar_prior_is_the_mean_over_training_images(images):
    model = model_with(Exemplar(), images=images).eval()
    with torch.no_grad():
        model.prior.log_var.fill_(-0.7)
    z_KBZ = torch.randn(5, 4, 3).double()
    means = model.encode(images.x_NCHW).mean
    expected = of_normals(z_KBZ, means, torch.full_like(means, math.exp(-0.35)))
    assert torch.allclose(model.prior.log_prob(z_KBZ), expected, atol=1e-10)
    assert model.prior.leave_out(images.x_NCHW) is model.prior, "what is measured leaves out nothing"
    some = model_with(Exemplar(images=3), images=images).eval()
    assert some.prior.mean_NZ.shape == (3, 3)


def test_in_training_each_image_is_without_itself(images):
    model = model_with(Exemplar(), images=images).train()
    x_BCHW = images.x_NCHW[[4, 0, 4]]
    z_KBZ = torch.randn(5, 3, 3).double()
    means = model.encode(images.x_NCHW).mean
    others = [of_normals(z_KBZ[:, b], means[torch.arange(7) != own], torch.ones(6, 3).double())
              for b, own in enumerate((4, 0, 4))]  # fmt: skip
    found = model.prior.leave_out(x_BCHW).log_prob(z_KBZ)
    assert torch.allclose(found, torch.stack(others, 1), atol=1e-10)
    draw = model.draw(x_BCHW, 2)
    assert torch.allclose(draw.log_pz_KB, model.prior.leave_out(x_BCHW).log_prob(draw.z_KBZ))
    strangers = torch.rand(3, *SHAPE).double()
    everyone = of_normals(z_KBZ, means, torch.ones(7, 3).double())
    assert torch.allclose(model.prior.leave_out(strangers).log_prob(z_KBZ), everyone, atol=1e-10)
    assert torch.allclose(model.prior.log_prob(z_KBZ), everyone, atol=1e-10)
    weights = (model.prior.log_var, *model.encoder.parameters())
    assert all((slope != 0).any() for slope in torch.autograd.grad(found.sum(), weights))


def test_where_all_images_are_alike_nothing_is_left_out(images):
    images.x_NCHW = images.x_NCHW[:1].repeat(7, 1, 1, 1)
    model = model_with(Exemplar(), images=images).train()
    assert model.draw(images.x_NCHW[:2]).log_pz_KB.isfinite().all()
    images.n = 1
    with pytest.raises(ConfigError, match="two training images"):
        model.observe_training_images(images)


def test_a_few_exemplars_bound_all_of_them_from_below_in_expectation(images):
    few, all_of_them = (model_with(Exemplar(exemplars=m), images=images).train().prior for m in (4, 7))
    z_KBZ, x_BCHW = torch.randn(2, 3, 3).double(), images.x_NCHW[:3]
    with torch.no_grad():
        few.log_var.fill_(-1.5)
        all_of_them.log_var.fill_(-1.5)
        some = torch.stack([few.leave_out(x_BCHW).log_prob(z_KBZ) for _ in range(2000)])
        everyone = all_of_them.leave_out(x_BCHW).log_prob(z_KBZ)
    assert (some.std(0) > 0.02).all(), "drawn anew each time"
    assert (some.mean(0) < everyone + 3 * some.std(0) / 2000**0.5).all()
    assert (everyone - some.mean(0)).mean() > 0.05
    ratio = (some - everyone).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 2000**0.5 + 0.01).all(), "the densities are right"
    with torch.no_grad():
        inside = few.sample(4000)
        means = few.encode(images.x_NCHW).mean
    assert torch.allclose(inside.mean(0), means.mean(0), atol=0.1), "in training of images encoded anew"


def test_refreshing_encodes_all_images_again_and_touches_no_random_stream():
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (50, 1, 3, 2), dtype=torch.uint8, generator=stream)
    batches = Batches(Images(pixels), (DynamicBinarise(),), 10, device=CPU, shuffle_seed=0, training=True)
    model = model_with(Exemplar(), images=None).float()
    model.observe_training_images(batches)
    model.refresh()
    first, before = model.prior.mean_NZ.clone(), torch.get_rng_state()
    model.refresh()
    assert torch.equal(model.prior.mean_NZ, first), "binarised in the same way"
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        model.posterior.linear.bias.add_(1.0)
    assert torch.equal(model.prior.mean_NZ, first)
    model.refresh()
    assert torch.allclose(model.prior.mean_NZ, first + 1.0, atol=1e-5)


def test_without_images_it_says_what_it_needs():
    prior = model_with(Exemplar()).prior
    for asked in (lambda: prior.log_prob(torch.zeros(2, 3)), lambda: prior.sample(3)):
        with pytest.raises(ConfigError, match=r"has none: call model.observe_training_images"):
            asked()


# --- copies, checkpoints, resuming --------------------------------------------------------------


@pytest.mark.parametrize("prior", [Vamp(components=4), Exemplar()], ids=["vamp", "exemplar"])
def test_a_copy_of_the_model_has_a_prior_of_its_own_posteriors(prior, images):
    model = model_with(prior, images=images).train()
    twin = copy.deepcopy(model)
    z = torch.randn(4, 3).double()
    before = model.prior.log_prob(z)
    assert torch.equal(before, twin.prior.log_prob(z))
    with torch.no_grad():
        twin.posterior.linear.bias.add_(1.0)
    assert torch.equal(before, model.prior.log_prob(z))
    assert not torch.equal(before, twin.prior.log_prob(z))
    assert twin.prior.encode.__self__ is twin
    names = [name for name, _ in model.prior.named_parameters()]
    assert not any("encoder" in name for name in names), (
        "the encoder is the model's, and no part of the prior"
    )
    assert len(list(model.parameters())) == len({id(weight) for weight in model.parameters()})


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_run_can_be_interrupted_loaded_shared_and_measured(tiny_recipe, tmp_path, monkeypatch, name, ema):
    more = {"model.prior.components": 5} if name == "vamp" else {}
    more |= {"model.prior.exemplars": 20} if name == "exemplar" else {}
    more |= {"ema": ema} if ema else {}
    recipe = tiny_recipe({"model.prior": name, "data.transforms": ["dynamic-binarise"], **more})
    whole = api.train(recipe, runs=tmp_path, name="whole", device="cpu")
    hits = []

    def stop(event):
        hits.append(isinstance(event, events.StepDone))
        if sum(hits) == 2 and hits[-1]:  # in the first epoch: nothing was measured yet
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        api.train(recipe, runs=tmp_path, name="parts", device="cpu", tell=stop)
    halfway = api.load("parts", checkpoint="last", device="cpu", runs=tmp_path)
    assert halfway.prior.log_prob(torch.zeros(2, 3)).isfinite().all()
    parts = api.train(recipe, runs=tmp_path, name="parts", device="cpu")
    for checkpoint in ("best", "last"):
        one, other = whole.load(checkpoint)[0], parts.load(checkpoint)[0]
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), checkpoint
    model = api.load(whole, checkpoint="best", device="cpu")
    shared = api.load(whole.path / "model", device="cpu")
    z = torch.randn(9, 3)
    assert torch.equal(model.prior.log_prob(z), shared.prior.log_prob(z)), "complete without any data"
    assert torch.equal(model.sample(3).isfinite(), torch.ones(3, 1, 8, 8, dtype=torch.bool))
    logged = max(row["validation"]["bound"] for row in whole.history())
    measured = card.evaluate(whole, split="validation", samples=20, device="cpu")["metrics"]
    assert math.isclose(measured["nelbo"]["value"], -logged, rel_tol=0.02), "what training saw in validation"
    assert measured["iw_nll"]["value"] < measured["nelbo"]["value"]
    if name == "exemplar":
        assert model.prior.mean_NZ.shape == (96, 3)


def test_an_exemplar_prior_kept_by_the_average_is_that_of_the_averaged_encoder(tiny_recipe, tmp_path):
    recipe = tiny_recipe({"model.prior": "exemplar", "ema": 0.9})
    run = api.train(recipe, runs=tmp_path, name="average", device="cpu")
    model = api.load(run, checkpoint="last", device="cpu")
    splits = api.load_same_data(run)
    batches = Batches(splits.train, splits.transforms, 40, device=CPU)
    with torch.no_grad():
        means = torch.cat([model.encode(x).mean for x in batches.epoch()])
    assert torch.allclose(model.prior.mean_NZ, means, atol=1e-5)


# --- flows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [RealNVP(layers=3, hidden=(8,)), MAF(layers=3, hidden=(8,))], ids=str)
@pytest.mark.parametrize("latents", [1, 2, 5])
def test_the_density_of_a_flow_is_by_the_determinant_of_its_jacobian(spec, latents):
    torch.manual_seed(0)
    prior = spec.build(latents).double()
    fresh = prior.sample(2000)
    assert fresh.std(0).log().abs().max() < 0.2, "begins close to the standard normal"
    with torch.no_grad():
        for weight in prior.parameters():
            weight.copy_(0.5 * torch.randn_like(weight))
    for z_Z in torch.randn(4, latents).double():
        jacobian = torch.autograd.functional.jacobian(lambda z: prior.flow.inverse(z)[0], z_Z)
        expected = Normal(0.0, 1.0).log_prob(prior.flow.inverse(z_Z)[0]).sum() + jacobian.det().abs().log()
        assert torch.allclose(prior.log_prob(z_Z), expected, atol=1e-8)
    u = torch.randn(3, 4, latents).double()
    assert torch.allclose(prior.flow.inverse(prior.flow(u)[0])[0], u, atol=1e-6)


def clouds(n):
    """Two clouds at (+-2, +-2)."""
    return 0.4 * torch.randn(n, 2) + 2.0 * torch.sign(torch.randn(n, 1))


def bow(n):
    """Points around a parabola."""
    first = torch.randn(n, 1)
    return torch.cat([first, first.square() + 0.3 * torch.randn(n, 1)], dim=1)


NORMAL = 0.5 * (1 + math.log(2 * math.pi))  # entropy of N(0, 1), nats
ENTROPY = {clouds: math.log(2) + 2 * NORMAL + 2 * math.log(0.4), bow: 2 * NORMAL + math.log(0.3)}


@pytest.mark.parametrize(
    ("spec", "target"),
    [
        (Mixture(components=2), clouds),
        (RealNVP(layers=4, hidden=(32,)), bow),
        (MAF(layers=2, hidden=(32,)), bow),
    ],
    ids=["mixture", "real-nvp", "maf"],
)
def test_it_learns_what_no_normal_can_say(spec, target):
    torch.manual_seed(1)
    z_NZ, prior = target(4000), spec.build(2)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        (-prior.log_prob(z_NZ[torch.randint(4000, (250,))]).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        found = -float(prior.log_prob(target(4000)).mean())
    best_normal = 0.5 * float(torch.logdet(torch.cov(z_NZ.T))) + 2 * NORMAL
    assert ENTROPY[target] - 0.1 < found < ENTROPY[target] + 0.25 < best_normal - 0.5


# --- the best prior -----------------------------------------------------------------------------


def test_no_prior_is_better_than_the_aggregate_posterior(images):
    """A VampPrior whose pseudo-inputs are all the training images: E KL(q || p) is I(x; z), the least there is."""
    vamp = model_with(Vamp(components=7), images=images).eval()
    with torch.no_grad():
        vamp.prior.inputs_CCHW.copy_(images.x_NCHW)
    torch.manual_seed(4)
    draw = vamp.draw(images.x_NCHW, 4000)
    q = draw.posterior
    aggregate = of_normals(draw.z_KBZ, q.mean, q.std)
    assert torch.allclose(draw.log_pz_KB, aggregate, atol=1e-9)
    least = (draw.log_qz_KB - draw.log_pz_KB).mean()
    assert least < math.log(7) + 1e-9, "mutual information with the index of an image"
    rivals = [Exemplar(), Mixture(), RealNVP(), LearnedNormal(), StandardNormal(), Vamp(components=6)]
    for rival in rivals:
        prior = model_with(rival, images=images).eval().prior
        assert (draw.log_qz_KB - prior.log_prob(draw.z_KBZ)).mean() > least, rival


# --- after training -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixture", "exemplar", "maf"])
def test_samples_and_pictures_of_any_prior(nelbo, tmp_path, name):
    arguments = ["--prior", name, "--latent-dim", 2, "--epochs", 2, "--no-figures", "--name", "run"]
    assert nelbo("train", "digits", *arguments)[0] == 0
    for verb in (
        ("sample", "run", "-n", 3, "--temperature", 0.5, "--out", "out"),
        ("plot", "run", "scatter", "manifold", "posterior", "samples"),
        ("evaluate", "run", "--samples", 5),
    ):
        code, _, err = nelbo(*verb)
        assert code == 0, err
    code, _, err = nelbo("plot", "run", "kl")
    assert code == 2
    assert "no closed form" in err
    view = View.open(api.store.find("run"), device="cpu")
    assert _plane(view)[3][0].startswith("PC 1"), "nobody knows where this prior's latents lie"


# --- images at positions ------------------------------------------------------------------------


@pytest.mark.parametrize("transforms", [(), (Binarise(),)], ids=["grey", "binary"])
def test_images_are_taken_as_they_are_trained_on(transforms):
    splits = Data(source="digits", transforms=transforms).load()
    batches = Batches(splits.train, splits.transforms, 50, device=CPU, training=True)
    first = next(iter(batches.epoch()))
    assert torch.equal(batches.take(torch.tensor([3, 0, 3])), first[[3, 0, 3]])


def test_exemplars_that_stay_on_the_disk_are_read_there(tmp_path):
    pixels = torch.randint(0, 256, (30, *SHAPE), dtype=torch.uint8)
    (tmp_path / "pixels").write_bytes(pixels.numpy().tobytes())
    there = Images(OnDisk(ArrayFile(tmp_path / "pixels", tuple(pixels.shape), 0)))
    found = []
    for images in (Images(pixels), there):
        model = model_with(Exemplar(exemplars=8, images=20)).float().train()
        batches = Batches(images, (), 10, device=CPU, shuffle_seed=0, training=True)
        assert torch.equal(batches.take(torch.tensor([29, 3])), pixels[[29, 3]] / 255)
        model.observe_training_images(batches)
        model.refresh()
        torch.manual_seed(0)
        found.append((model.prior.mean_NZ, model.draw(pixels[:4] / 255).log_pz_KB.detach()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_random_transforms_of_taken_images_draw_from_the_stream_that_is_asked_for():
    splits = Data(source="digits", transforms=(DynamicBinarise(),)).load()
    batches = Batches(splits.train, splits.transforms, 50, device=CPU, training=True)
    rows, stream = torch.arange(40), torch.Generator()
    one, other = (batches.take(rows, stream.manual_seed(seed)) for seed in (1, 2))
    assert not torch.equal(one, other)
    assert set(one.unique().tolist()) == {0.0, 1.0}
    before = torch.get_rng_state()
    assert torch.equal(batches.take(rows, stream.manual_seed(1)), one)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    free = batches.take(rows)
    torch.manual_seed(5)
    assert torch.equal(batches.take(rows), free)
    grey = splits.train.pixels_NCHW[:40].float() / 255
    mean = torch.stack([batches.take(rows) for _ in range(400)]).mean(0)
    assert (mean - grey).abs().max() < 0.12
