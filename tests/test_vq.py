"""Vector quantisation: the codebook against its closed formula, codes against enumeration, and what training keeps."""

from __future__ import annotations

import json
import math

import pytest
import torch

from nelbo.core import Draw, Progress
from nelbo.errors import ConfigError
from nelbo.metrics import LatentSums
from nelbo.models import VAE
from nelbo.models.codebook import Codebook, Quantised, apart, perplexity, straight_through
from nelbo.models.hierarchical import HierarchicalVAE
from nelbo.models.vq import VQVAE, VQVAEModule
from nelbo.nets import MLP, Conv
from nelbo.objectives import ELBO, halves
from nelbo.objectives.vq import VQ
from nelbo.priors.autoregressive import AutoregressivePrior
from nelbo.schedules import Linear
from nelbo.testing import LawBroken, check, settings
from nelbo.testing.law import float64
from nelbo.training import api, events
from nelbo.training.recipe import Recipe, resolve
from tests.test_stepping import Rerun, Trainer, seen_on_the_host

SHAPE = (1, 3, 4)


def small(prior=None, **fields):
    torch.manual_seed(2)
    net = MLP(hidden=(9,))
    spec = VQVAE(
        **{"codes": 6, "positions": 3, "code_dim": 2, "encoder": net, "decoder": net, "prior": prior} | fields
    )
    with float64():
        return spec.build(SHAPE).double().eval(), torch.rand(5, *SHAPE).round().double()


# --- the codebook -------------------------------------------------------------------------------


def by_formula(vectors, batches, decay):
    """van den Oord et al. 2017, appendix A.1, code by code; N and m from 0."""
    counts, sums, found = [0.0] * len(vectors), torch.zeros_like(vectors), vectors.clone()
    for rows in batches:
        chosen = [
            min(range(len(found)), key=lambda k: float((row - found[k]).square().sum())) for row in rows
        ]
        for k in range(len(found)):
            mine = [row for row, code in zip(rows, chosen, strict=True) if code == k]
            counts[k] = decay * counts[k] + (1 - decay) * len(mine)
            sums[k] = decay * sums[k] + (1 - decay) * sum(mine, torch.zeros_like(sums[k]))
        for k in range(len(found)):
            if counts[k] > 0:
                found[k] = sums[k] / counts[k]
    return found


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_codebook_follows_the_published_running_means(decay):
    torch.manual_seed(0)
    book = Codebook(5, 3, decay, revive_after=0).double()
    begun, batches = book.vectors_KD.clone(), [torch.randn(7, 3).double() for _ in range(6)]
    for rows in batches:
        book.follow(rows, book.nearest(rows))
    assert torch.allclose(book.vectors_KD, by_formula(begun, batches, decay), atol=1e-12)
    assert int(book.revived) == 0


def test_the_first_encodings_of_a_code_make_its_vector_and_an_unused_one_stays():
    book = Codebook(3, 2, 0.99, revive_after=0)
    book.vectors_KD.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0], [-10.0, 0.0]]))
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    book.follow(rows, book.nearest(rows))
    assert torch.allclose(book.vectors_KD, torch.tensor([[0.5, 0.5], [9.0, 9.0], [-10.0, 0.0]]))
    for _ in range(20_000):  # the running count of an unused code falls below what a float holds
        book.counts_K[1] *= 0.99
        book.sums_KD[1] *= 0.99
    book.follow(rows[:1], book.nearest(rows[:1]))
    assert book.vectors_KD.isfinite().all()
    assert torch.allclose(book.vectors_KD[1], torch.tensor([9.0, 9.0]))


def test_codes_that_are_not_used_are_put_where_encodings_are_and_counted():
    torch.manual_seed(0)
    book = Codebook(4, 2, 0.9, revive_after=3)
    far = torch.tensor([[0.0, 0.0], [1.0, 1.0], [50.0, 50.0], [-50.0, 50.0]])
    book.vectors_KD.copy_(far)
    book.unused_K.zero_()
    rows = torch.tensor([[0.1, 0.0], [1.1, 1.0]])
    for step in range(1, 3):
        book.follow(rows, book.nearest(rows))
        assert torch.equal(book.vectors_KD[2:], far[2:])
        assert book.unused_K.tolist() == [0, 0, step, step]
    book.follow(rows, book.nearest(rows))
    assert int(book.revived) == 2
    assert all(any(torch.equal(vector, row) for row in rows) for vector in book.vectors_KD[2:])
    assert book.unused_K.tolist() == [0, 0, 0, 0]
    assert book.counts_K[2:].tolist() == [0.0, 0.0], "it begins anew"
    used = book.vectors_KD[:2].clone()
    assert torch.allclose(used, rows, atol=1e-6), "those in use are left alone"


def test_the_first_batch_is_where_codes_begin():
    book = Codebook(8, 2, 0.99, revive_after=100)
    rows = 30.0 + torch.randn(40, 2)
    book.follow(rows, book.nearest(rows))
    assert (book.vectors_KD > 20).all()
    never = Codebook(8, 2, 0.99, revive_after=0)
    never.follow(rows, never.nearest(rows))
    assert (never.vectors_KD < 20).any()


def test_the_nearest_code_is_the_nearest():
    torch.manual_seed(0)
    book = Codebook(11, 4, 0.9, 0).double()
    z = torch.randn(5, 6, 4).double()
    assert torch.equal(book.nearest(z), torch.cdist(z.flatten(0, 1), book.vectors_KD).argmin(-1).view(5, 6))


def test_perplexity_is_the_exponential_of_the_entropy():
    for share, expected in (([1.0, 0.0, 0.0], 1.0), ([0.25] * 4, 4.0), ([0.5, 0.5, 0.0], 2.0)):
        assert float(perplexity(torch.tensor(share))) == pytest.approx(expected)
    book = Codebook(4, 1, 0.9, 0)
    book.vectors_KD.copy_(torch.arange(4.0)[:, None])
    q = Quantised(torch.tensor([[[0.1], [0.9]], [[0.0], [2.2]]]), book)
    assert q.codes_BM.tolist() == [[0, 1], [0, 2]]
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert float(q.usage["perplexity"]) == pytest.approx(math.exp(entropy))
    assert float(q.usage["codes"]) == 3.0


# --- gradients ----------------------------------------------------------------------------------


def test_the_decoders_gradient_goes_straight_through_and_the_commitment_pulls_by_its_formula():
    model, x_BCHW = small()
    draw = model.draw(x_BCHW)
    q = draw.posterior
    (by_latent,) = torch.autograd.grad(draw.log_px_KB.sum(), draw.z_KBZ, retain_graph=True)
    (by_encoding,) = torch.autograd.grad(draw.log_px_KB.sum(), q.encoded_BMD, retain_graph=True)
    assert torch.allclose(by_latent[0].view_as(by_encoding), by_encoding)
    assert (by_encoding != 0).any()
    (pull,) = torch.autograd.grad(q.commitment_B.sum(), q.encoded_BMD)
    assert torch.allclose(pull, 2 * (q.encoded_BMD - model.codebook(q.codes_BM)))
    assert not any("codebook" in name for name, _ in model.named_parameters()), (
        "running means, and no weights"
    )


def test_what_goes_straight_through_keeps_its_value_to_the_last_bit():
    value, stands_for = torch.randn(1000), (1e6 * torch.randn(1000)).requires_grad_()
    through = straight_through(value, stands_for)
    assert torch.equal(through, value)
    (slope,) = torch.autograd.grad(through.sum(), stands_for)
    assert torch.equal(slope, torch.ones(1000))


def test_a_prior_that_is_learned_moves_no_encoder():
    model, x_BCHW = small(AutoregressivePrior(hidden=(8,)))
    draw = model.draw(x_BCHW)
    weights = dict(model.named_parameters())
    slopes = torch.autograd.grad(draw.kl_BG.sum(), list(weights.values()), allow_unused=True)
    moved = {name.split(".")[0] for name, slope in zip(weights, slopes, strict=True) if slope is not None}
    assert moved == {"prior"}


# --- distributions over codes -------------------------------------------------------------------


def test_the_code_length_is_exact_and_no_bound_is_above_log_p_of_all_codes():
    for prior in (None, AutoregressivePrior(hidden=(8,))):
        model, x_BCHW = small(prior)
        with torch.no_grad():
            z_SZ = model.every_latent()
            log_pz_S = model.prior.log_prob(z_SZ)
            assert len(z_SZ) == 6**3
            assert float(log_pz_S.exp().sum()) == pytest.approx(1.0, abs=1e-12)
            log_px_B = (model.decode(z_SZ[:, None]).log_prob(x_BCHW) + log_pz_S[:, None]).logsumexp(0)
            parts, bound_B = halves(model.draw(x_BCHW))
            assert (bound_B <= log_px_B).all()
            assert torch.allclose(model.log_prob(x_BCHW, 7), bound_B), "weights of copies are equal"
            if prior is None:
                assert torch.allclose(parts["kl"], torch.full((5,), 3 * math.log(6)).double())
            else:
                assert parts["kl"].std() > 0


def test_samples_of_the_autoregressive_prior_have_its_probabilities():
    torch.manual_seed(4)
    prior = AutoregressivePrior(categories=3, hidden=(16, 16)).build(6)
    with torch.no_grad():
        for weight in prior.parameters():
            weight.copy_(2.0 * torch.randn_like(weight))  # far from uniform
        states = torch.tensor([[*a, *b] for a in torch.eye(3).tolist() for b in torch.eye(3).tolist()])
        chance_S = prior.log_prob(states).exp()
        assert float(chance_S.sum()) == pytest.approx(1.0, abs=1e-5)
        joint = chance_S.view(3, 3)
        assert (joint / joint.sum(1, keepdim=True)).std(0).max() > 0.05, "the second depends on the first"
        seen_S = (prior.sample(40_000) @ states.T == 2).float().mean(0)
        assert torch.allclose(seen_S, chance_S, atol=0.012)
        each = prior.log_prob_each(states)
        assert torch.allclose(each[:3, 0], each[:1, 0].expand(3)), "the first does not see the second"


def test_every_latent_stands_for_the_codes_nearest_to_it():
    model, x_BCHW = small()
    z_BZ = model.encode(x_BCHW).mean
    near_BZ = z_BZ + 1e-6 * torch.randn_like(z_BZ)
    assert torch.equal(model.decode(near_BZ).mean, model.decode(z_BZ).mean)
    assert torch.equal(model.prior.log_prob(near_BZ), model.prior.log_prob(z_BZ))
    log_q_KB = model.encode(x_BCHW).log_prob(torch.stack([near_BZ, z_BZ + 100.0]))
    assert (log_q_KB[0] == 0).all()
    other = model.encode(x_BCHW).mean.roll(1, 0)
    differs = (other != z_BZ).any(-1)
    assert (model.encode(x_BCHW).log_prob(other[None])[0, differs] == -math.inf).all()
    with pytest.raises(ConfigError, match="too many"):
        VQVAE().build((1, 4, 4)).every_latent()


def test_a_learned_prior_costs_less_than_a_uniform_one(tiny_recipe, tmp_path):
    found = {}
    for name, prior in (("uniform", None), ("learned", AutoregressivePrior(hidden=(16,)))):
        net = MLP(hidden=(16,))
        model = VQVAE(codes=8, positions=4, code_dim=2, encoder=net, decoder=net, prior=prior)
        recipe = tiny_recipe({"epochs": 30, "optimizer.lr": 1e-2}).model_copy(
            update={"model": model, "objective": VQ()}
        )
        row = api.train(recipe, runs=tmp_path, name=name, device="cpu").history()[-1]
        found[name] = row["validation"]["kl"]
        assert row["validation"]["perplexity"] > 1.5
    assert found["uniform"] == pytest.approx(4 * math.log(8), rel=1e-5)
    assert found["learned"] < found["uniform"] - 0.5


def test_walks_among_codes_stay_codes():
    model, x_BCHW = small()
    z_BZ, where = model.encode(x_BCHW).mean.detach(), model.latent_space
    codes = lambda z: model.codebook.nearest(apart(z, 3))  # noqa: E731
    assert where.directions(6) == ["position 0", "position 1", "position 2"]
    start, end = model.every_latent()[[0, -1]]
    path_SZ = where.path(start, end, torch.linspace(0, 1, 7))
    assert torch.equal(model.codebook(codes(path_SZ)).flatten(1), path_SZ)
    changed = (codes(path_SZ)[1:] != codes(path_SZ)[:-1]).sum(1)
    assert int(changed.max()) == 1, "one position after the other"
    assert int(changed.sum()) == 3
    moved_SZ = where.moved(z_BZ[0], 1, 3.0, 6)
    assert codes(moved_SZ)[:, 1].tolist() == [0, 1, 2, 3, 4, 5], "through all codes"
    assert (codes(moved_SZ)[:, [0, 2]] == codes(z_BZ[0])[[0, 2]]).all()
    middle = where.middle(torch.stack([start, end, end]))
    assert torch.equal(middle, end), "the commonest code of each position"
    with pytest.raises(ConfigError, match="vectors of a codebook"):
        model.sample(2, temperature=0.5)


def test_active_units_are_in_units_of_the_codebook():
    model, x_BCHW = small(positions=2)
    found = []
    for scale in (1.0, 1e-3):
        with torch.no_grad():
            model.codebook.vectors_KD.mul_(scale)
            model.head.weight.mul_(scale)
            model.head.bias.mul_(scale)
            sums = LatentSums()
            sums.add(model.encode(x_BCHW), model.prior)
        found.append(sums.result())
    assert torch.allclose(found[0].mean_variance_Z, found[1].mean_variance_Z)
    assert found[0].active_units == found[1].active_units > 0
    same = LatentSums()
    with torch.no_grad():
        same.add(model.encode(x_BCHW[:1].expand(3, -1, -1, -1)), model.prior)
    assert "Codes hardly vary" in same.result().warning


# --- the objective ------------------------------------------------------------------------------


def test_the_objective_weighs_the_commitment_alone():
    model, x_BCHW = small()
    draw = model.draw(x_BCHW)
    one, four = (VQ(commitment=weight)(draw, Progress()) for weight in (1.0, 4.0))
    assert torch.allclose(four.loss_B - one.loss_B, 3 * draw.posterior.commitment_B)
    assert torch.equal(one.bound_B, four.bound_B)
    assert torch.allclose(one.loss_B, -one.bound_B + one.parts["commitment"])
    ramp = VQ(commitment=Linear(epochs=4))
    assert torch.allclose(
        ramp(draw, Progress(epoch=2)).loss_B, -one.bound_B + 0.5 * draw.posterior.commitment_B
    )


def test_codes_and_objectives_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"elbo would never bring the encoder of a vq-vae.*does: vq"):
        Recipe(model=VQVAE(), objective=ELBO())
    for model in (VAE(), HierarchicalVAE()):
        with pytest.raises(ValueError, match=r"vq is for models with a codebook.*vq-vae"):
            Recipe(model=model, objective=VQ())
    assert Recipe(model=VQVAE(), objective=VQ()).model.latent_dim == 64
    with pytest.raises(ValueError, match=r"latents of a vq-vae are codes.*standard-normal.*autoregressive"):
        VQVAE(prior={"name": "standard-normal"})
    assert VQVAE(codes=7, prior="autoregressive").prior.categories == 7
    with pytest.raises(ValueError, match=r"over 5 categories.*7 codes.*--model.prior.categories 7"):
        VQVAE(codes=7, prior=AutoregressivePrior(categories=5))


# --- training -----------------------------------------------------------------------------------


@pytest.fixture
def coded(tiny_recipe):
    def make(**overrides):
        net = MLP(hidden=(8,))
        prior = AutoregressivePrior(hidden=(8,))
        model = VQVAE(codes=6, positions=3, code_dim=2, encoder=net, decoder=net, prior=prior, revive_after=4)
        return tiny_recipe(overrides).model_copy(update={"model": model, "objective": VQ()})

    return make


def test_an_interrupted_run_goes_on_with_the_same_codebook(coded, tmp_path):
    recipe = coded(epochs=4, ema=0.9)
    whole = api.train(recipe, runs=tmp_path, name="whole", device="cpu")

    def stop(event):
        if isinstance(event, events.EpochDone) and event.row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train(recipe, runs=tmp_path, name="parts", device="cpu", tell=stop)
    parts = api.train(recipe, runs=tmp_path, name="parts", device="cpu")
    one, other = whole.load("last")[0], parts.load("last")[0]
    assert "model.prior.codebook.vectors_KD" in one
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_averaged_model_has_the_codebook_itself(coded, tmp_path):
    tensors = api.train(coded(ema=0.9), runs=tmp_path, name="ema", device="cpu").load("last")[0]
    for name in ("vectors_KD", "counts_K", "sums_KD", "unused_K", "revived"):
        key = f"prior.codebook.{name}"
        assert torch.equal(tensors[f"model.{key}"], tensors[f"average.{key}"]), "buffers are copied"
    assert int(tensors["model.prior.codebook.revived"]) > 0
    weight = "head.weight"
    assert not torch.equal(tensors[f"model.{weight}"], tensors[f"average.{weight}"])


def test_measuring_changes_no_codebook():
    model, x_BCHW = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.draw(x_BCHW, 2)
    model.log_prob(x_BCHW, 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    draw = model.train().draw(x_BCHW)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), (
        "nor does a draw"
    )
    model.after_step(draw)
    assert not torch.equal(model.codebook.vectors_KD, before["prior.codebook.vectors_KD"])


def test_a_recorded_step_moves_the_codebook_alike_and_touches_nothing_on_the_host(coded, monkeypatch):
    alone, blocks = (
        Trainer(coded(batch_size=5, epochs=20)),
        Trainer(coded(batch_size=5, epochs=20), recorder=Rerun),
    )
    assert torch.allclose(alone.run(2), blocks.run(2), rtol=1e-5, atol=1e-5)
    one, other = alone.state.model.state_dict(), blocks.state.model.state_dict()
    for name in ("vectors_KD", "counts_K", "unused_K", "revived"):
        assert torch.allclose(one[f"prior.codebook.{name}"], other[f"prior.codebook.{name}"], atol=1e-4), name
    assert blocks.said == []
    assert seen_on_the_host(coded(batch_size=5), monkeypatch) == []


def test_convolutions_on_colour_images():
    spec = VQVAE(encoder=Conv(channels=(4, 8)), decoder=Conv(channels=(8, 4)))
    draw = spec.build((3, 17, 12)).draw(torch.rand(2, 3, 17, 12).round(), 3)
    assert draw.log_px_KB.shape == (3, 2)


def test_fields_of_a_model_that_was_named_just_now_start_from_its_defaults():
    recipe = resolve("digits", {"model": "vq-vae", "objective": "vq", "model.encoder.hidden": [9]})
    assert recipe.model.encoder == MLP(hidden=(9,))
    assert recipe.model.decoder == VQVAE().decoder


# --- planted faults -----------------------------------------------------------------------------


def faulty(monkeypatch, name, value):
    """What is found of one configuration; each law with every setting changed is `slow` in tests/test_laws.py."""
    monkeypatch.setattr(settings, "variations", lambda spec, *field: ())
    monkeypatch.setattr(Quantised, name, value)
    with pytest.raises(LawBroken) as caught:
        check(VQVAE(codes=6, positions=2), skip=["every setting changes something"])
    return caught.value


def test_a_code_length_of_one_position_only_is_found(monkeypatch):
    def short(self, prior):
        return -prior.log_prob_of(self.codes_BM)[:, None] / self.codes_BM.shape[1]

    found = faulty(monkeypatch, "kl_to", short)
    assert found.law == "importance weights average to one"
    assert "the bound is" in str(found)


def test_a_certain_posterior_that_samples_other_codes_is_found(monkeypatch):
    def noisy(self, k=1):
        return self.mean + 1e-6 * torch.randn(k, *self.mean.shape)

    assert faulty(monkeypatch, "rsample", noisy).law == "draws belong to their samples"


def test_a_posterior_whose_probabilities_do_not_add_up_is_found(monkeypatch):
    found = faulty(monkeypatch, "log_prob", lambda self, z: torch.zeros_like(z[..., 0]))
    assert "add up to" in str(found)


def test_a_bound_with_the_commitment_in_it_is_found(monkeypatch):
    plain = VQ.__call__

    def with_commitment(self, draw: Draw, progress):
        terms = plain(self, draw, progress)
        if "commitment" not in terms.parts:
            return terms
        return type(terms)(terms.loss_B, terms.bound_B + terms.parts["commitment"], terms.parts)

    monkeypatch.setattr(VQ, "__call__", with_commitment)
    with pytest.raises(LawBroken, match="the commitment is no part of it"):
        check(VQ)


def test_a_prior_that_is_not_used_is_found_beside_those_that_are_refused(monkeypatch):
    used = VQVAEModule.build_latents

    def without_prior(self, spec):
        used(self, spec.model_copy(update={"prior": None}))

    monkeypatch.setattr(VQVAEModule, "build_latents", without_prior)
    with pytest.raises(LawBroken, match=r"VQVAE.prior = .* gives what None gives"):
        check(VQVAE(codes=4, positions=2, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,))))


# --- the command line ---------------------------------------------------------------------------


def test_every_verb_knows_the_model(nelbo):
    code, out, err = nelbo(
        "train", "digits", "--model", "vq-vae", "--objective", "vq", "--model.codes", 8, "--model.positions", 3,
        "--model.encoder.hidden", "32,32", "--model.decoder.hidden", "32,32", "--prior", "autoregressive",
        "--epochs", 3, "--name", "codes", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["metrics"]["kl_per_dimension"]["missing"] == "not of single dimensions"
    for verb, *more in (
        ("sample", "--n", 2),
        ("reconstruct",),
        ("encode", "--out", "codes.npz"),
        ("interpolate", 1, 2),
        ("interpolate", "class:1", "class:2"),
        ("traverse", 3),
        ("plot", "reconstructions", "samples"),
        # training has drawn all pictures, and fails where a report only says so
        ("report", "--pictures", "samples"),
        ("doctor",),
    ):
        code, _, err = nelbo(verb, "codes", *more)
        assert code == 0, (verb, err)
    code, out, err = nelbo("evaluate", "codes", "--samples", 5, "--json")
    assert code == 0, err
    metrics = json.loads(out)["metrics"]
    assert metrics["iw_nll"]["value"] == pytest.approx(metrics["nelbo"]["value"], rel=1e-6)
    code, _, err = nelbo("sample", "codes", "--like", 3)
    assert code == 2
    assert "no other draws" in err
    code, _, err = nelbo("train", "digits", "--model", "vq-vae", "--dry-run")
    assert code == 2
    assert "--objective" in err or "objective elbo" in err
