"""Metrics: means by true counts, exactly K samples, the right name for every number, and the same number twice."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from torch import nn

from nelbo.core import Draw, Progress, Terms
from nelbo.core.registry import lookup, names
from nelbo.data import Images, Splits
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.evaluation import card as card_of
from nelbo.likelihoods.bernoulli import BernoulliImage
from nelbo.metrics import Means, Split, Value, bound_of, importance, latent_statistics, quantities
from nelbo.metrics.latent import encode
from nelbo.models import BuiltModel, base
from nelbo.objectives import ELBO
from nelbo.training.store import find

CPU = torch.device("cpu")


class Known(BuiltModel):
    """A model whose posterior mean is the first pixels of an image, times `scale`; std 1/2. Counts its draws."""

    def __init__(self, scale=(1.0, 1.0, 1.0), not_a_bound=False, of="binary") -> None:
        super().__init__()
        self.shape, self.latent_dim, self.observation_kind = (1, 2, 2), len(scale), of
        self.prior = StandardNormalModule(self.latent_dim)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.shared = not_a_bound
        self.drawn: list[int] = []

    def encode(self, x_BCHW):
        mean_BZ = self.scale * x_BCHW.flatten(1)[:, : self.latent_dim]
        std_BZ = torch.full_like(mean_BZ, 0.5)
        return DiagonalNormal(mean_BZ, std_BZ, 2 * std_BZ.log(), shared_noise=self.shared)

    def decode(self, z):
        return BernoulliImage(z.sum(-1)[..., None, None, None].expand(*z.shape[:-1], 1, 2, 2))

    def draw(self, x_BCHW, k=1):
        self.drawn.append(k)
        posterior = self.encode(x_BCHW)
        z_KBZ = posterior.rsample(k)
        return Draw(
            z_KBZ=z_KBZ, log_px_KB=self.decode(z_KBZ).log_prob(x_BCHW), posterior=posterior, prior=self.prior
        )


def split_of(n=23, pixels="binary", **more) -> Split:
    stream = torch.Generator().manual_seed(0)
    white = torch.randint(0, 2 if pixels == "binary" else 256, (n, 1, 2, 2), generator=stream)
    images = Images((white * 255 if pixels == "binary" else white).to(torch.uint8))
    return Split(images, splits_of(images, pixels), CPU, **more)


def splits_of(images, pixels="binary") -> Splits:
    return Splits("made", images, None, images, "0" * 16, pixels, (0.0, 1.0))


def measured(model, split) -> dict[str, Value]:
    return dict(value for name in names("metric") for value in lookup("metric", name)(model, split))


# --- means ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 10, 23, 100])
def test_means_are_over_images_whatever_the_batches(size):
    loss_N, kl_N = torch.linspace(0, 50, 23).exp2(), torch.arange(23.0)
    means = Means()
    for start in range(0, 23, size):
        here = slice(start, start + size)
        means.add({"total": loss_N[here], "kl": kl_N[here], "constant": torch.tensor(3.0)})
    assert means.names == ["total", "kl", "constant"]
    assert sum(means.counts) == 23
    found = means.result()
    assert found["total"] == pytest.approx(float(loss_N.double().mean()), rel=1e-6)
    assert found["kl"] == 11.0
    assert found["constant"] == 3.0
    chunks = [chunk.mean().item() for chunk in kl_N.split(size)]
    assert means.per_batch("kl") == pytest.approx(chunks)
    assert (sum(chunks) / len(chunks) == pytest.approx(11.0)) == (size in (1, 23, 100))


def test_means_keep_no_graph_and_no_sums_are_zero_images():
    means = Means()
    means.add({"total": torch.ones(2, requires_grad=True) * 2})
    assert not means.pieces[0].requires_grad
    assert Means().result() == {}


def test_the_mean_and_its_standard_error():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0])
    found = Value.over_images(values, "nats/image", "a note")
    assert found.value == 4.0
    assert found.standard_error == pytest.approx(math.sqrt(((9 + 4 + 0 + 25) / 3) / 4), rel=1e-12)
    assert found.per_image_N.tolist() == values.tolist()
    assert Value.over_images(torch.tensor([2.0]), "nats/image").standard_error is None
    far = Value.over_images(torch.tensor([1e8, 1e8 + 8]), "nats/image")  # float32 would lose this spread
    assert (far.value, far.standard_error) == (pytest.approx(1e8 + 4), pytest.approx(4.0))


def test_the_log_holds_the_loss_the_parts_and_the_bound_if_there_is_one():
    one = torch.ones(2)
    assert list(quantities(Terms(loss_B=one, bound_B=-one, parts={"kl": one}))) == ["total", "kl", "bound"]
    assert list(quantities(Terms(loss_B=one, bound_B=None, parts={"kl": one}))) == ["total", "kl"]


# --- importance sampling ----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 7, 127, 128, 129, 1000])
def test_exactly_k_samples_are_drawn_for_each_image(k, monkeypatch):
    """Not the batch size when k is smaller, and not a multiple of it when k is larger; pieces of bounded size."""
    monkeypatch.setitem(base.PIXELS_AT_ONCE, "cpu", 4 * 32 * 128)
    model, split = Known(), split_of(230, samples=k)
    found = dict(lookup("metric", "importance")(model, split))["iw_nll"]
    assert model.drawn.pop(0) == 1  # the question whether there is a bound at all
    size = min(500, 4096 // min(k, 128))
    batches = math.ceil(230 / size)
    assert sum(model.drawn) == batches * k
    assert max(k * min(size, 230) for k in model.drawn[:1]) <= 32 * 128
    assert f"K = {k};" in found.note
    pieces = list(model.log_weight_pieces(next(split.batches(100)), k))
    assert sum(len(piece) for piece in pieces) == k
    assert all(piece.shape[1] == 100 and len(piece) <= 4 * 32 * 128 // 400 for piece in pieces)


def test_the_estimate_its_error_and_its_curve_are_their_formulas():
    model, split = Known(), split_of(23, samples=99)
    found = dict(lookup("metric", "importance")(model, split))
    (log_w_KB,) = (model.log_weights(x, 99) for x in split.batches(32))
    nll_N = -(log_w_KB.exp().mean(0).log())
    estimate = found["iw_nll"]
    assert estimate.value == pytest.approx(float(nll_N.mean()), rel=1e-6)
    assert estimate.standard_error == pytest.approx(float(nll_N.std() / math.sqrt(23)), rel=1e-6)
    torch.testing.assert_close(estimate.per_image_N, nll_N)
    w_KB = log_w_KB.exp()
    effective = float((w_KB.sum(0).square() / w_KB.square().sum(0)).median())
    at = importance.curve_points(99)
    assert at == [1, 2, 5, 9, 10, 20, 50, 99]
    for k, value in zip(at, found["iw_nll_curve"].value, strict=True):
        assert value == pytest.approx(float(-(w_KB[:k].mean(0).log()).mean()), rel=1e-9)
    tenth = found["iw_nll_curve"].value[at.index(9)]
    assert estimate.note == (
        f"K = 99; {tenth:.2f} at K = 9; effective samples {effective:.1f} of an image (median)"
    )
    assert (estimate.unit, found["iw_nll_curve"].unit) == ("nats/image", "nats/image")
    assert found["iw_bits_per_dim"].value == pytest.approx(estimate.value / (4 * math.log(2)))
    assert "iw_bits_per_dim" not in measured(model, split_of(23, "grey", samples=9))


@pytest.mark.parametrize("k", [1, 2, 3, 10, 99, 100, 5000])
def test_the_curve_rises_to_k_by_way_of_a_tenth_of_it(k):
    at = importance.curve_points(k)
    assert at == sorted(set(at))
    assert at[0] == 1
    assert at[-1] == k
    assert max(1, k // 10) in at


def test_the_size_of_the_pieces_changes_no_formula(monkeypatch):
    """Pieces that begin and end between two points of the curve give the sums of all samples at once."""
    model = Known()
    (x_BCHW,) = split_of(8).batches()
    log_w_KB = torch.randn(99, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    for cut in (1, 4, 50, 99):
        monkeypatch.setattr(model, "log_weight_pieces", lambda x, k, cut=cut: iter(log_w_KB.split(cut)))
        nll_PB, effective_B = importance._of_batch(model, x_BCHW, [1, 9, 50, 99])
        for row, k in enumerate((1, 9, 50, 99)):
            torch.testing.assert_close(nll_PB[row], math.log(k) - log_w_KB[:k].logsumexp(0))
        w_KB = log_w_KB.exp()
        torch.testing.assert_close(effective_B, w_KB.sum(0).square() / w_KB.square().sum(0))


class Stop(Exception):
    pass


def test_an_interrupted_estimate_goes_on_and_ends_with_the_same_numbers(tmp_path):
    measure = lookup("metric", "importance")
    whole = dict(measure(Known(), split_of(230, samples=200)))["iw_nll"]

    def interrupt(done, total):
        assert total == 230
        if done >= 96:
            raise Stop

    with pytest.raises(Stop):
        list(measure(Known(), split_of(230, samples=200, scratch=tmp_path, tell=interrupt)))
    assert len(list(tmp_path.iterdir())) == 1
    model, heard = Known(), []
    again = dict(
        measure(model, split_of(230, samples=200, scratch=tmp_path, tell=lambda *at: heard.append(at)))
    )["iw_nll"]
    assert torch.equal(again.per_image_N, whole.per_image_N)
    assert again.note == whole.note
    assert heard == [(128, 230), (160, 230), (192, 230), (224, 230), (230, 230)]
    other = Known()
    list(measure(other, split_of(230, samples=201, scratch=tmp_path)))
    assert sum(other.drawn) > 8 * 200, "another K does not go on with these numbers"
    (file,) = [file for file in tmp_path.iterdir() if "k200" in file.name]
    file.write_bytes(b"cut off")
    damaged = dict(measure(Known(), split_of(230, samples=200, scratch=tmp_path)))["iw_nll"]
    assert torch.equal(damaged.per_image_N, whole.per_image_N)


def test_memory_does_not_grow_with_k():
    """What a piece holds is bounded, and nothing of a piece is kept: K = 50,000 needs what K = 500 needs."""
    model, split = Known(), split_of(4, samples=50_000)
    (x_BCHW,) = split.batches()
    pieces = model.log_weight_pieces(x_BCHW, 3_000_000)
    assert len(next(pieces)) == base.PIXELS_AT_ONCE["cpu"] // 16
    found = dict(lookup("metric", "importance")(model, split))["iw_nll"]
    assert found.value is not None
    alive, most = [], 0

    def watched(x_BCHW, k):
        nonlocal most
        for _ in range(50):
            piece_KB = torch.randn(k // 50, len(x_BCHW), dtype=torch.float64)
            alive.append(weakref.ref(piece_KB))
            most = max(most, sum(piece() is not None for piece in alive))
            yield piece_KB

    model.log_weight_pieces = watched
    importance._of_batch(model, x_BCHW, [500])
    model.log_prob(x_BCHW, 500)
    assert len(alive) == 100
    assert most <= 3, "the new piece, the one before, and one in the hands of the sum"


def test_importance_weights_are_densities_of_the_very_samples():
    model, (x_BCHW,) = Known(), split_of(4).batches()
    torch.manual_seed(1)
    log_w_KB = model.log_weights(x_BCHW, 5)
    torch.manual_seed(1)
    posterior = model.encode(x_BCHW)
    z_KBZ = posterior.rsample(5)
    q = torch.distributions.Normal(posterior.mean, posterior.std)
    p = torch.distributions.Normal(0.0, 1.0)
    px = torch.distributions.Bernoulli(logits=z_KBZ.sum(-1)[..., None].expand(5, 4, 4))
    expected = px.log_prob(x_BCHW.flatten(1)).sum(-1) + p.log_prob(z_KBZ).sum(-1) - q.log_prob(z_KBZ).sum(-1)
    torch.testing.assert_close(log_w_KB.float(), expected, rtol=1e-5, atol=1e-5)
    assert log_w_KB.dtype == torch.float64
    assert not log_w_KB.requires_grad


def test_more_samples_tighten_the_estimate_below_the_nelbo():
    model, measure = Known((0.3, 0.3, 0.3)), lookup("metric", "importance")
    values = [dict(measure(model, split_of(200, samples=k)))["iw_nll"].value for k in (1, 10, 200)]
    assert values[0] > values[1] > values[2]


def test_a_kl_by_samples_is_not_passed_off_as_the_closed_form():
    class Other(nn.Module):
        def log_prob(self, z):
            return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    exact, sampled = Known(), Known()
    sampled.prior = Other()
    measure, split = lookup("metric", "bound"), split_of(200)
    one, other = dict(measure(exact, split))["kl"], dict(measure(sampled, split))["kl"]
    assert one.note == ""
    assert other.note == "by one sample an image: posterior and prior have no closed form"
    assert abs(other.value - one.value) < 5 * other.standard_error
    assert other.value != one.value
    each = dict(lookup("metric", "latent")(sampled, split))["kl_per_dimension"]
    assert (each.value, each.missing) == (None, "no closed form")
    assert dict(lookup("metric", "latent")(exact, split))["kl_per_dimension"].note == ""


def test_no_samples_no_estimate():
    assert "iw_nll" not in measured(Known(), split_of(samples=0))


# --- names and notes --------------------------------------------------------------------------


def test_binary_pixels_under_a_bernoulli_have_bits_per_dim():
    found = measured(Known(), split_of(samples=3))
    assert "grey_cross_entropy" not in found
    bits = found["bits_per_dim"]
    assert bits.unit == "bits/dim"
    assert bits.value == pytest.approx(found["nelbo"].value / (4 * math.log(2)), rel=1e-12)
    assert bits.standard_error == pytest.approx(found["nelbo"].standard_error / (4 * math.log(2)), rel=1e-12)
    assert found["nelbo"].note == bits.note == ""


def test_grey_pixels_under_a_bernoulli_have_a_cross_entropy_and_every_number_says_so():
    found = measured(Known(), split_of(pixels="grey", samples=3))
    assert "bits_per_dim" not in found
    grey = found["grey_cross_entropy"]
    assert grey.unit == "bits/pixel"
    assert grey.value == pytest.approx(found["nelbo"].value / (4 * math.log(2)), rel=1e-12)
    for name in ("nelbo", "reconstruction", "iw_nll", "grey_cross_entropy"):
        assert "not a likelihood" in found[name].note, name


@pytest.mark.parametrize("pixels", ["grey", "real", "binary"])
def test_a_density_has_neither_name_and_says_that_it_may_be_negative(pixels):
    found = measured(Known(of="density"), split_of(pixels=pixels, samples=3))
    assert not {"bits_per_dim", "grey_cross_entropy"} & set(found)
    for name in ("nelbo", "reconstruction", "iw_nll"):
        words = {"grey": "not dequantised", "real": "real-valued", "binary": "only 0 and 1"}
        assert words[pixels] in found[name].note, name
        assert "is not bits/dim" in found[name].note
        assert found[name].value is not None


def test_samples_that_do_not_come_from_the_density_give_no_bound():
    found = measured(Known(not_a_bound=True), split_of(samples=3))
    for name in ("nelbo", "kl", "kl_per_dimension", "iw_nll"):
        assert found[name].value is None
        assert found[name].standard_error is None
        assert "shared by all latent dimensions" in found[name].note, name
    for name in ("nelbo", "iw_nll"):
        assert found[name].missing == "not a bound"
    for name in ("kl", "kl_per_dimension"):
        assert found[name].missing == "infinite"
    assert not {"bits_per_dim", "grey_cross_entropy"} & set(found)
    assert found["reconstruction"].value > 0  # it exists all the same
    assert found["mse"].value > 0


def test_a_shared_noise_of_one_dimension_is_an_ordinary_bound():
    found = measured(Known((1.0,), not_a_bound=True), split_of(samples=3))
    assert found["nelbo"].value > 0


# --- values -----------------------------------------------------------------------------------


def test_kl_and_reconstruction_are_their_formulas():
    split = split_of(23, pixels="grey", samples=0)
    found = measured(Known(), split)
    mean_NZ = torch.cat([x.flatten(1)[:, :3] for x in split.batches()]).double()
    kl_NZ = 0.5 * (mean_NZ.square() + 0.25 - 1 - math.log(0.25))
    assert found["kl"].value == pytest.approx(float(kl_NZ.sum(1).mean()), rel=1e-6)
    assert found["kl"].standard_error == pytest.approx(float(kl_NZ.sum(1).std() / math.sqrt(23)), rel=1e-6)
    assert found["kl_per_dimension"].value == pytest.approx(kl_NZ.mean(0).tolist(), rel=1e-6)
    assert sum(found["kl_per_dimension"].value) == pytest.approx(found["kl"].value, rel=1e-6)
    assert found["nelbo"].value == pytest.approx(found["reconstruction"].value + found["kl"].value, rel=1e-12)


def test_the_squared_error_is_of_the_decoded_mean():
    split = split_of(23, pixels="grey", samples=0)
    x_NCHW = torch.cat(list(split.batches()))
    guess = x_NCHW.flatten(1)[:, :3].sum(1).sigmoid()[:, None, None, None]
    error_N = (guess - x_NCHW).square().flatten(1).mean(1)
    found = measured(Known(), split)["mse"]
    assert found.value == pytest.approx(float(error_N.mean()), rel=1e-6)
    assert found.standard_error == pytest.approx(float(error_N.std() / math.sqrt(23)), rel=1e-6)


def test_active_units_are_dimensions_whose_mean_varies_by_more_than_a_hundredth():
    """Binary pixels have a variance near 1/4: a scale of 1/4 leaves 0.016, one of 1/6 leaves 0.007."""
    split = split_of(4000)
    found = latent_statistics(Known((1.0, 0.25, 1 / 6, 0.0)), split)
    pixels_NZ = torch.cat(list(split.batches())).flatten(1).double()
    expected = pixels_NZ.var(0, unbiased=False) * torch.tensor([1.0, 0.25, 1 / 6, 0.0]).double().square()
    torch.testing.assert_close(found.mean_variance_Z, expected, rtol=1e-5, atol=1e-9)
    assert found.active_units == 2
    assert not found.collapsed
    assert found.warning == ""
    assert measured(Known((1.0, 0.25, 1 / 6, 0.0)), split_of(4000, samples=0))["active_units"].value == 2.0


def test_a_large_mean_does_not_hide_or_invent_activity():
    images = Images(torch.full((50, 1, 2, 2), 255, dtype=torch.uint8))
    assert latent_statistics(Known((1000.0,) * 3), Split(images, splits_of(images), CPU)).active_units == 0


def test_a_posterior_that_ignores_the_image_is_a_collapse():
    flat = latent_statistics(Known((0.0, 0.0)), split_of())
    assert flat.active_units == 0
    assert flat.collapsed
    assert "posterior collapse: 0 of 2" in flat.warning
    assert "posterior collapse" in measured(Known((0.0, 0.0)), split_of(samples=0))["active_units"].warning


@pytest.mark.parametrize("size", [1, 7, 23, 500])
def test_statistics_do_not_depend_on_the_batch_size(size):
    here, there = (latent_statistics(Known(), split_of(batch_size=b)) for b in (size, 23))
    torch.testing.assert_close(here.kl_Z, there.kl_Z, rtol=1e-9, atol=0)
    torch.testing.assert_close(here.mean_variance_Z, there.mean_variance_Z, rtol=1e-9, atol=0)
    means = encode(Known(), split_of(batch_size=size))
    assert means.shape == (23, 3)
    assert torch.equal(means, encode(Known(), split_of(batch_size=23)))
    for key, value in bound_of(Known(), split_of(batch_size=size)).items():
        assert value.shape == (23,), key
        assert value.dtype == torch.float64


def test_the_yardstick_is_the_bound_at_beta_1():
    model, (x_BCHW,) = Known(), split_of().batches()
    terms = ELBO()(model.draw(x_BCHW), Progress())
    expected = terms.parts["reconstruction"] + terms.parts["kl"]
    assert torch.equal(terms.bound_B, -expected)
    assert torch.equal(terms.loss_B, expected)


# --- the same numbers twice -------------------------------------------------------------------


def test_a_split_gives_the_same_noise_every_time_and_the_callers_back():
    model = Known()
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    a = measured(model, split_of(samples=30))
    assert torch.equal(torch.rand(3), first)  # measuring took nothing from the caller's stream
    torch.manual_seed(77)
    b = measured(model, split_of(samples=30))
    assert a == b
    assert measured(model, split_of(samples=30, seed=1))["iw_nll"] != a["iw_nll"]


def test_measuring_twice_gives_equal_cards(run_copy):
    cards = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        card = card_of.evaluate(find(run_copy), samples=30, device="cpu")
        cards.append({key: value for key, value in card.items() if key != "seconds"})
    assert cards[0] == cards[1]


def test_measuring_leaves_no_gradients():
    model = Known()
    measured(model, split_of(23, samples=3, batch_size=10))
    assert model.scale.grad is None
    assert torch.is_grad_enabled()
