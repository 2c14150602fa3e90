"""Mistakes found in other VAE libraries, read in their code in 2026: each is a test of what must not happen here."""

from __future__ import annotations

import ast
import copy
import math
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nelbo import doctor
from nelbo.core import Progress, Terms
from nelbo.core.registry import lookup, names
from nelbo.data import Batches, Data
from nelbo.errors import ConfigError, DataError
from nelbo.evaluation import card as card_of
from nelbo.likelihoods import Gaussian
from nelbo.likelihoods.bernoulli import BernoulliImage
from nelbo.metrics import Means, Split, Value
from nelbo.metrics.latent import encode
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO, Objective
from nelbo.testing import LawBroken, check_objective
from nelbo.training import api, events
from nelbo.training.store import Run

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


@pytest.fixture
def train(tiny_recipe, tmp_path):
    """(overrides, name) -> a finished run under tmp_path."""

    def go(overrides=None, name="run", **more) -> Run:
        return api.train(tiny_recipe(overrides), runs=tmp_path, name=name, device="cpu", **more)

    return go


@pytest.fixture
def model(tiny_run):
    return api.load(tiny_run, device="cpu")


def of_test(tiny_run, **more) -> Split:
    return api.open_split(tiny_run, "test", CPU, **more)


# --- 1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [3, 100, 130])
def test_an_nll_of_k_samples_is_not_of_a_round_number_of_them(tiny_run, model, monkeypatch, k):
    """Fewer samples than a batch became a whole batch, more became a multiple of it, image by image, with a graph,
    and what was called an NLL was its negative."""
    decode, pieces = model.decode, []

    def counting(z):
        pieces.append(z[..., 0].numel())
        assert not torch.is_grad_enabled()
        return decode(z)

    monkeypatch.setattr(model, "decode", counting)
    split = of_test(tiny_run, samples=k)
    found = dict(lookup("metric", "importance")(model, split))["iw_nll"]
    asked_whether_a_bound = 2
    assert sum(pieces) == k * 40 + asked_whether_a_bound
    assert len(pieces) <= 2 + math.ceil(40 * k / 4096), "images share a decoder call"
    assert f"K = {k};" in found.note
    log_px_N = torch.cat([model.log_prob(x, k) for x in split.batches()])
    assert log_px_N.mean() < 0 < found.value, "an NLL is -log p(x)"
    assert found.value == pytest.approx(-float(log_px_N.mean()), abs=1.0)


# --- 2 ------------------------------------------------------------------------------------------


def test_embeddings_and_reconstructions_are_not_of_a_sampled_latent(tiny_run, model):
    """Embedding or reconstructing an image twice gave two results, because z was drawn anew."""
    split = of_test(tiny_run)
    (x_BCHW,) = split.batches()
    torch.manual_seed(0)
    z_BZ, x_again = model.encode(x_BCHW).mean, model.reconstruct(x_BCHW)
    torch.manual_seed(1)
    assert torch.equal(model.encode(x_BCHW).mean, z_BZ)
    assert torch.equal(model.reconstruct(x_BCHW), x_again)
    # Written and drawn is the mean too, multiplied by another library where that is faster.
    torch.testing.assert_close(encode(model, split), z_BZ.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(encode(model, split), encode(model, split))
    assert not torch.equal(model.encode(x_BCHW).rsample(1)[0], z_BZ), "there is something to draw"


# --- 3 ------------------------------------------------------------------------------------------


def test_a_short_last_batch_does_not_weigh_as_much_as_a_full_one(tiny_run):
    """The loss of an epoch was the mean of its batches' means."""
    means = Means()
    for size, value in ((40, 1.0), (40, 2.0), (16, 10.0)):
        means.add({"total": torch.full((size,), value)})
    assert means.result()["total"] == pytest.approx((40 + 80 + 160) / 96)
    assert means.result()["total"] != pytest.approx(13 / 3)
    for row, epoch in zip(tiny_run.history("steps"), tiny_run.history(), strict=True):
        weighed = sum(size * loss for size, loss in zip((40, 40, 16), row["loss"], strict=True)) / 96
        assert epoch["train"]["total"] == pytest.approx(weighed, rel=1e-9)


# --- 4 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("likelihood"))
def test_half_precision_is_not_silently_left_out_for_a_likelihood(train, name):
    """Autocast was fp16 without loss scaling, and silently none at all for one reconstruction loss."""
    kinds, losses = set(), set()

    def look(module, inputs, output):
        if isinstance(module, nn.Linear):
            kinds.add(output.dtype)

    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        run = train(
            {
                "precision": "bf16",
                "model.likelihood": name,
                "epochs": 1,
                "latent_every": 0,
                "data.validation": 0,
            },
            tell=lambda event: (
                losses.add(event.measured.sums_SQ.dtype) if isinstance(event, events.StepDone) else None
            ),
        )
    finally:
        hook.remove()
    assert torch.bfloat16 in kinds, "the networks ran in bf16"
    assert losses == {torch.float32}, "densities and losses did not"
    assert all(math.isfinite(value) for value in run.history()[0]["train"].values())


def test_half_precision_that_needs_a_loss_scaler_is_not_offered(tiny_recipe):
    """fp16 gradients underflow without a scaler; there is none here, and so no fp16."""
    with pytest.raises(ConfigError, match="precision"):
        tiny_recipe({"precision": "fp16"})


# --- 5 ------------------------------------------------------------------------------------------


def test_the_best_weights_are_not_copied_on_the_device_at_each_improvement(train, monkeypatch):
    """The best model was a deep copy beside the current one: twice the memory."""

    def refused(*arguments):
        raise AssertionError("a copy of the model")

    monkeypatch.setattr(copy, "deepcopy", refused)
    run = train({"epochs": 3})
    assert run.summary["best_epoch"] > 1, "there were improvements to keep"


def test_a_checkpoint_does_not_pair_the_best_weights_with_the_latest_optimiser(train):
    """Such a pair cannot go on. Here `best` is weights alone, and `last` goes on bit for bit."""
    settings = {"epochs": 6, "optimizer.lr": 0.3}
    whole = train(settings, "whole")
    assert whole.summary["best_epoch"] < 6, "best and last are different epochs"
    assert not [key for key in whole.load("best")[0] if key.startswith(("optimizer", "random"))]

    def stop(event):
        if isinstance(event, events.EpochDone) and event.row["epoch"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, "parts", tell=stop)
    parts = train(settings, "parts")
    for checkpoint in ("best", "last"):
        one, other = whole.load(checkpoint)[0], parts.load(checkpoint)[0]
        assert all(torch.equal(one[key], other[key]) for key in one), checkpoint


# --- 6 ------------------------------------------------------------------------------------------


def test_training_and_validation_do_not_weigh_the_kl_differently_and_neither_weight_selects(train):
    """Trained with a KL weight of 0.00025 and validated with 1: the best checkpoint was of another objective."""
    run = train({"epochs": 12, "objective.beta": 0.00025, "optimizer.lr": 0.05})
    rows = run.history()
    for row in rows:
        for side in (row["train"], row["validation"]):
            weighed = side["reconstruction"] + 0.00025 * side["kl"]
            assert side["total"] == pytest.approx(weighed, rel=1e-6), "the same objective on both sides"
            assert side["bound"] == pytest.approx(-(side["reconstruction"] + side["kl"]), rel=1e-6)
    by_bound = max(rows, key=lambda row: row["validation"]["bound"])["epoch"]
    by_loss = min(rows, key=lambda row: row["validation"]["total"])["epoch"]
    assert by_bound != by_loss, "the two would choose differently"
    assert run.summary["best_epoch"] == by_bound


def test_the_kl_is_not_logged_with_the_wrong_sign(tiny_run, model):
    """A KL divergence was logged as a negative number."""
    for row in tiny_run.history():
        assert row["train"]["kl"] > 0
        assert row["validation"]["kl"] > 0
    assert dict(lookup("metric", "bound")(model, of_test(tiny_run)))["kl"].value > 0


def test_a_tanh_output_on_pixels_from_0_to_1_does_not_go_unnoticed(tiny_recipe):
    """The output was a tanh, in [-1, 1], the data in [0, 1]: half of what the decoder can say is never right."""
    tanh = tiny_recipe({"model.likelihood": "gaussian", "model.likelihood.mean": "tanh"})
    found = {finding.check: finding for finding in doctor.diagnose(tanh).findings}
    assert "squashed into [-1, 1], and the pixels lie in [0, 1]" in found["output-range"].evidence
    assert found["output-range"].severity == "serious"
    assert "output-range" not in {f.check for f in doctor.diagnose(tiny_recipe()).findings}
    with pytest.raises((ConfigError, DataError), match=r"\[-1, 1\]"):
        tiny_recipe({"data.transforms": [{"name": "scale", "low": -1, "high": 1}]})


# --- 7 and 8 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_pixels_are_not_averaged_while_latents_are_summed(copies):
    """A squared error averaged over pixels beside a KL summed over latents collapses by default."""
    shape = (1, 4 * copies, 5)
    spec = VAE(latent_dim=6, encoder=MLP(hidden=()), decoder=MLP(hidden=()), likelihood=Gaussian(sigma=1.0))
    torch.manual_seed(0)
    model = spec.build(shape).double()
    x_BCHW = torch.rand(3, *shape, dtype=torch.float64)
    draw = model.draw(x_BCHW)
    terms = ELBO()(draw, Progress())
    squared_B = (x_BCHW - model.decode(draw.z_KBZ[0]).mean).square().flatten(1).sum(1)
    constant = math.prod(shape) * 0.5 * math.log(2 * math.pi)
    assert torch.allclose(terms.parts["reconstruction"], 0.5 * squared_B + constant), "a sum over all pixels"
    q = draw.posterior
    kl_B = (0.5 * (q.mean.square() + q.std.square() - 1) - q.std.log()).sum(1)
    assert torch.allclose(terms.parts["kl"], kl_B), "a sum over all latents"
    assert torch.allclose(terms.loss_B, 0.5 * squared_B + constant + kl_B)


def test_the_default_scale_does_not_collapse(tiny_run):
    """Where the scale is right, no advice against collapse is needed: all three latents of a small run are used."""
    latent = tiny_run.history()[-1]["latent"]
    assert latent["active_units"] >= 2
    assert sum(latent["kl_per_dimension"]) > 1.0


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_a_weight_of_the_kl_is_not_forgotten(train, beta):
    """A KL coefficient was accepted and, for a while, never applied; and both terms were means, not sums."""
    row = train({"epochs": 1, "objective.beta": beta}).history()[0]
    for side in (row["train"], row["validation"]):
        assert side["total"] == pytest.approx(side["reconstruction"] + beta * side["kl"], rel=1e-6)
    assert row["beta"] == beta


def test_a_weight_of_the_kl_changes_what_is_learned(train):
    light, heavy = (
        train({"epochs": 4, "objective.beta": b}, f"b{b}").history()[-1]["train"] for b in (0.1, 20)
    )
    assert heavy["kl"] < 0.5 * light["kl"]


# --- 9 ------------------------------------------------------------------------------------------

MODULE_OF = {"scikit-learn": "sklearn", "pillow": "PIL", "tomli-w": "tomli_w"}
COME_ALONG = {"pydantic_core": "pydantic"}
OTHERS = {
    "pythae",
    "multivae",
    "lightning",
    "pytorch-lightning",
    "lightning-bolts",
    "autoencoders",
    "keras",
    "pyro-ppl",
}


def test_no_other_vae_library_and_no_trainer_framework_is_a_dependency():
    """A library that builds on another inherits its pins, its bugs and its trainer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    distributions = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower() for line in listed}
    assert not distributions & OTHERS
    declared = {MODULE_OF.get(name, name.replace("-", "_")) for name in distributions}
    used = set()
    for file in (ROOT / "src" / "nelbo").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add((node.module or "").partition(".")[0])
    foreign = used - set(sys.stdlib_module_names) - {"nelbo"}
    assert len(foreign) > 5
    undeclared = {name for name in foreign - declared if COME_ALONG.get(name) not in distributions}
    assert undeclared == set(), "imported, and neither declared nor part of something that is"


# --- 10 -----------------------------------------------------------------------------------------


def test_the_order_is_not_the_same_in_every_epoch(train, monkeypatch):
    """A sampler was never told the epoch, so that every epoch had the same order."""
    asked, rows_of = [], Batches.rows

    def look(self, epoch=1, start=0, at_once=1):
        orders = []
        for rows in rows_of(self, epoch, start, at_once):
            orders.append(self.finish(rows).flatten(1).sum(1))
            yield rows
        if len(self) == 3:  # of training
            asked.append((epoch, torch.cat(orders)))

    monkeypatch.setattr(Batches, "rows", look)
    train({"epochs": 3, "latent_every": 0})
    assert [number for number, _ in asked] == [1, 2, 3]
    first, second, third = (order for _, order in asked)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(first.sort().values, third.sort().values), "the same images"


# --- 11 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 40, 500])
def test_evaluation_does_not_drop_the_last_batch(tiny_run, model, size):
    """`drop_last` left out the images after the last full batch."""
    split = of_test(tiny_run, batch_size=size)
    assert sum(len(x) for x in split.batches()) == 40
    found = dict(lookup("metric", "error")(model, split))
    assert len(found["mse"].per_image_N) == 40
    whole = dict(lookup("metric", "error")(model, of_test(tiny_run)))
    assert found["mse"].value == pytest.approx(whole["mse"].value, rel=1e-5)


def test_a_bound_that_is_not_finite_is_not_left_out_of_the_mean(tiny_run, model, monkeypatch):
    """Non-finite bounds were filtered out, so that the worst images improved the number."""
    log_prob = BernoulliImage.log_prob

    def one_impossible(self, x):
        found = log_prob(self, x).clone()
        found[..., 0] = -math.inf
        return found

    monkeypatch.setattr(BernoulliImage, "log_prob", one_impossible)
    found = dict(lookup("metric", "bound")(model, of_test(tiny_run)))["nelbo"]
    assert len(found.per_image_N) == 40
    assert found.value == math.inf
    told = found.to_dict()
    assert told["value"] is None
    assert told["missing"] == "not finite"
    assert Value.over_images(torch.tensor([1.0, math.nan]), "nats/image").to_dict()["value"] is None


# --- 12 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"validation": 0.2}, {"validation": 30, "test": 30, "split_seed": 7}]
)
def test_the_test_images_are_not_trained_on(tmp_path, settings):
    """Training and test images were joined before training, and no test number was reported."""
    images = np.random.default_rng(0).integers(0, 256, size=(150, 5, 4), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    splits = Data(source=str(tmp_path / "images.npy"), **settings).load()
    kept = [split for split in (splits.train, splits.validation, splits.test) if split is not None]
    seen = [{image.numpy().tobytes() for image in split.pixels_NCHW} for split in kept]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 150, "every image is in one split"
    assert len(seen[-1]) >= 30


def test_a_number_of_the_test_split_is_reported_and_says_so(run_copy):
    """What is reported by default is measured on images that neither trained nor selected anything."""
    card = card_of.evaluate(run_copy, metrics=["bound"], device="cpu")
    assert (card["split"], card["n"]) == ("test", 40)
    assert math.isfinite(card["metrics"]["nelbo"]["value"])
    assert card["data_hash"] == run_copy.read_json("env.json")["data"]["hash"]


# --- 13 -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_forgotten")
def test_a_gradient_surrogate_is_not_reported_as_a_bound(train):
    """The importance-weighted loss had the right gradient and a value up to log K above the bound, and that value
    chose the best model. As an objective's bound it is found by the laws; as its loss it selects nothing."""

    class Surrogate(Objective):
        """sum_k w_k log w_k with weights held fixed. The gradient is that of Burda et al. 2016, eq. 14."""

        k: int = 5
        as_bound: bool = True

        def __call__(self, draw, progress):
            log_w_KB = draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB
            value_B = (log_w_KB.softmax(0).detach() * log_w_KB).sum(0)
            bound_B = value_B if self.as_bound else log_w_KB.logsumexp(0) - math.log(self.k)
            parts = {
                "reconstruction": -draw.log_px_KB.mean(0),
                "kl": (draw.log_qz_KB - draw.log_pz_KB).mean(0),
            }
            return Terms(loss_B=-value_B, bound_B=bound_B, parts=parts)

    with pytest.raises(LawBroken, match="a surrogate's value") as caught:
        check_objective(Surrogate)
    assert caught.value.law == "the bound is at most log p"
    run = train({"epochs": 6, "optimizer.lr": 0.1, "objective": "surrogate", "objective.as_bound": False})
    bounds = [row["validation"]["bound"] for row in run.history()]
    assert run.summary["best_epoch"] == 1 + bounds.index(max(bounds))
    assert all(row["validation"]["total"] < -row["validation"]["bound"] for row in run.history())
