"""Models and networks with one fault each: the law that forbids it finds it, and names it; and how checks refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nelbo.core import Draw
from nelbo.core.distributions import PosteriorValue
from nelbo.errors import ConfigError, UnknownName
from nelbo.likelihoods import Bernoulli
from nelbo.models import VAE
from nelbo.models.vae import VAEModule
from nelbo.nets import MLP
from nelbo.nets.base import Encoder
from nelbo.posteriors import DiagonalGaussian
from nelbo.schedules import Linear
from nelbo.testing import LawBroken, Verdict, check, check_likelihood, check_model, check_net, check_objective

SETTINGS, ALONE = "every setting changes something", "images are judged alone"
MEANS, DRAWS = "encodings and reconstructions are of the mean", "draws belong to their samples"
EXACTLY_K, WEIGHTS = "exactly k samples are weighed", "importance weights average to one"
SHAPES, LEARNS = "shapes are what they say", "every weight learns"


def model(module_class, **fields):
    """A small VAE whose built module is `module_class(spec, shape)`."""
    body = {
        "encoder": MLP(hidden=(9,)),
        "decoder": MLP(hidden=(9,)),
        "latent_dim": 2,
        "build": lambda self, shape: module_class(self, shape),
        "__annotations__": {
            "encoder": MLP,
            "decoder": MLP,
            "latent_dim": int,
            **dict.fromkeys(fields, float),
        },
        "__module__": __name__,
        "__doc__": "A model with a fault.",
        **fields,
    }
    return type(VAE)("FaultyModel", (VAE,), body)


class ReconstructsSamples(VAEModule):
    """`reconstruct` decodes a sample: two calls differ."""

    @torch.no_grad()
    def reconstruct(self, x_BCHW):
        return self.decode(self.encode(x_BCHW).rsample(1)[0]).mean


class WithAnotherMean:
    """A posterior whose mean is a sample; of some it cannot be set."""

    def __init__(self, q):
        self._q = q
        self.mean = q.rsample(1)[0]

    def __getattr__(self, name):
        return getattr(self._q, name)


class EncodesSamples(VAEModule):
    def encode(self, x_BCHW):
        return WithAnotherMean(super().encode(x_BCHW))


class ReconstructsSomethingElse(VAEModule):
    @torch.no_grad()
    def reconstruct(self, x_BCHW):
        return self.decode(0.5 * self.encode(x_BCHW).mean).mean


class WholeBatches(VAEModule):
    """k samples become the next multiple of a hundred."""

    def log_weights(self, x_BCHW, k):
        return super().log_weights(x_BCHW, 100 * math.ceil(k / 100))


class FlooredBatches(VAEModule):
    """k samples become a multiple of fifty, from below."""

    def log_weights(self, x_BCHW, k):
        return super().log_weights(x_BCHW, max(50 * (k // 50), min(k, 50)))


class ThrowsSamplesAway(VAEModule):
    """A hundred samples are decoded, k are used."""

    def log_weights(self, x_BCHW, k):
        return super().log_weights(x_BCHW, max(k, 100))[:k]


class NegativeLogProb(VAEModule):
    """The name says log p(x), the value is its negative."""

    def log_prob(self, x_BCHW, k=100):
        return -super().log_prob(x_BCHW, k)


class MeanOfLogWeights(VAEModule):
    """An ELBO under the name of log p(x)."""

    def log_prob(self, x_BCHW, k=100):
        return self.log_weights(x_BCHW, k).mean(0)


class KeepsTheGraph(VAEModule):
    def log_weights(self, x_BCHW, k):
        with torch.enable_grad():
            draw = self.draw(x_BCHW, k)
            return draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB


class DensityOfOtherSamples(VAEModule):
    """z is drawn twice: once to decode, once to weigh."""

    def draw(self, x_BCHW, k=1):
        draw = super().draw(x_BCHW, k)
        other = draw.posterior.rsample(k)
        return Draw(z_KBZ=other, log_px_KB=draw.log_px_KB, posterior=draw.posterior, prior=self.prior)


class OneSampleRepeated(VAEModule):
    def draw(self, x_BCHW, k=1):
        draw = super().draw(x_BCHW, 1)
        log_px_KB, z_KBZ = draw.log_px_KB.expand(k, -1), draw.z_KBZ.expand(k, -1, -1)
        return Draw(z_KBZ=z_KBZ, log_px_KB=log_px_KB, posterior=draw.posterior, prior=self.prior)


class OffsetWeights(VAEModule):
    """Weights that are too large by a tenth of a nat, everywhere."""

    def log_weight_pieces(self, x_BCHW, k):
        for piece in super().log_weight_pieces(x_BCHW, k):
            yield piece + 0.1


class BatchInTheEncoder(VAEModule):
    def encode(self, x_BCHW):
        return super().encode(x_BCHW - 0.1 * x_BCHW.mean(0))


class UnusedWeights(VAEModule):
    def __init__(self, spec, shape):
        super().__init__(spec, shape)
        self.forgotten = nn.Parameter(torch.ones(3))


class FlatSamples(VAEModule):
    @torch.no_grad()
    def sample(self, n, temperature=1.0):
        return super().sample(n, temperature).flatten(1)


class HidesTheReason(VAEModule):
    """The posterior says that it is singular; the model passes on one that does not."""

    def __init__(self, spec, shape):
        super().__init__(spec, shape)
        self.posterior = DiagonalGaussian(noise="shared").build(self.encoder.features, spec.latent_dim)

    def encode(self, x_BCHW):
        q = super().encode(x_BCHW)
        return Disguised(q)


class Disguised(PosteriorValue):
    def __init__(self, q):
        self.q, self.mean = q, q.mean

    def rsample(self, k=1):
        return self.q.rsample(k)

    def log_prob(self, z):
        return self.q.log_prob(z)

    def kl_to(self, prior):
        return self.q.kl_to(prior)


MODELS = {
    ReconstructsSamples: (MEANS, "two reconstructions differ"),
    EncodesSamples: (MEANS, "two encodings differ"),
    ReconstructsSomethingElse: (MEANS, "the decoded mean"),
    WholeBatches: (EXACTLY_K, "log_weights(x, 1) of 4 images decodes 400 latents"),
    FlooredBatches: (EXACTLY_K, "log_weights(x, 130) of 4 images decodes 400 latents"),
    ThrowsSamplesAway: (EXACTLY_K, "decodes 400 latents"),
    NegativeLogProb: (EXACTLY_K, "the log of the mean weight"),
    MeanOfLogWeights: (EXACTLY_K, "the log of the mean weight"),
    KeepsTheGraph: (EXACTLY_K, "keep their graph"),
    DensityOfOtherSamples: (DRAWS, "log_px_KB"),
    OneSampleRepeated: (DRAWS, "all the same"),
    OffsetWeights: (WEIGHTS, ""),
    BatchInTheEncoder: (ALONE, "posterior mean"),
    UnusedWeights: (LEARNS, "forgotten has no gradient"),
    FlatSamples: (SHAPES, "sample(6) has shape (6, 20)"),
    HidesTheReason: (WEIGHTS, ""),
}


@pytest.mark.parametrize("fault", MODELS, ids=lambda fault: fault.__name__)
def test_a_fault_of_a_model_is_found(fault, laws):
    law, words = MODELS[fault]
    skip = set() if law == SHAPES else {SETTINGS}  # many builds, and asked of one below
    with pytest.raises(LawBroken) as caught:
        check_model(model(fault), skip=skip, only=law if laws == "its own" else None)
    assert caught.value.law == law
    assert words in str(caught.value)


def test_a_field_of_a_model_that_does_nothing_is_found():
    with pytest.raises(LawBroken, match=r"FaultyModel.dropout = .* gives what 0.1 gives"):
        check_model(model(VAEModule, dropout=0.1))


# --- networks -------------------------------------------------------------------------------------


class BatchMean(nn.Module):
    def forward(self, x_BF):
        return x_BF - x_BF.mean(0)


def mixes_the_batch(self, shape):
    plain = MLP(hidden=(8,)).encoder(shape)
    return Encoder([*plain, BatchMean()], features=8)


def claims_other_features(self, shape):
    return Encoder([*MLP(hidden=(8,)).encoder(shape)], features=9)


def has_a_layer_too_many(self, shape):
    encoder = MLP(hidden=(8,)).encoder(shape)
    encoder.head = nn.Linear(3, 3)
    encoder.forward = lambda x: nn.Sequential(*list(encoder)[:-1])(x)
    return encoder


NETS = {
    mixes_the_batch: (ALONE, "among others"),
    claims_other_features: ("any image fits", "`features` is 9"),
    has_a_layer_too_many: (LEARNS, "head"),
}


@pytest.mark.parametrize("encoder", NETS, ids=lambda fault: fault.__name__)
def test_a_fault_of_a_net_is_found(encoder, laws):
    law, words = NETS[encoder]
    body = {"encoder": encoder, "__module__": __name__, "__doc__": "A net with a fault."}
    with pytest.raises(LawBroken) as caught:
        check_net(
            type(MLP)("FaultyNet", (MLP,), body),
            skip={SETTINGS} if law != SETTINGS else (),
            only=law if laws == "its own" else None,
        )
    assert caught.value.law == law
    assert words in str(caught.value)


def test_a_decoder_that_fits_squares_only_is_found():
    def decoder(self, latent_dim, shape):
        side = max(shape[1:])
        return nn.Sequential(
            nn.Linear(latent_dim, shape[0] * side * side), nn.Unflatten(1, (shape[0], side, side))
        )

    body = {"decoder": decoder, "__module__": __name__, "__doc__": "A net with a fault."}
    with pytest.raises(LawBroken, match="sizes that a stride does not divide"):
        check_net(type(MLP)("Square", (MLP,), body))


def test_a_field_of_a_net_that_does_nothing_is_found():
    body = {
        "dropout": 0.1,
        "__annotations__": {"dropout": float},
        "__module__": __name__,
        "__doc__": "A net.",
    }
    with pytest.raises(LawBroken, match=r"Idle.dropout"):
        check_net(type(MLP)("Idle", (MLP,), body))


# --- the checks themselves --------------------------------------------------------------------------


def test_what_has_no_laws_is_refused():
    for nothing in (Linear(epochs=3), Linear, 3, "elbo"):
        with pytest.raises(ConfigError, match="objective, model, net, posterior, prior, likelihood"):
            check(nothing)
    with pytest.raises(ConfigError, match="expected a component of axis 'objective'"):
        check_objective(VAE())
    from nelbo.objectives import Objective

    with pytest.raises(ConfigError, match="abstract"):
        check_objective(Objective)


def test_a_law_to_skip_that_there_is_not_gets_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'samples match the density'"):
        check_likelihood(Bernoulli, skip=["samples match density"])
    skipped = check_likelihood(Bernoulli, skip=["samples match the density"])["samples match the density"]
    assert skipped.verdict is Verdict.SKIPPED
    with pytest.raises(UnknownName, match="did you mean 'samples match the density'"):
        check_likelihood(Bernoulli, only="samples match density")
    assert list(check_likelihood(Bernoulli, only="samples match the density")) == [
        "samples match the density"
    ]


def test_a_class_with_a_setting_that_has_no_default_is_checked_as_an_instance():
    body = {"__annotations__": {"width": int}, "__module__": __name__, "__doc__": "A net."}
    body["encoder"] = lambda self, shape: MLP(hidden=(self.width,)).encoder(shape)
    wide = type(MLP)("Wide", (MLP,), body)
    with pytest.raises(ConfigError, match=r"check an instance instead, as in Wide\("):
        check(wide)
    assert "width" in str(check(wide(width=7))[SETTINGS])


def test_an_error_inside_says_which_law_was_asked():
    def encoder(self, shape):
        raise RuntimeError("no such layer")

    body = {"encoder": encoder, "__module__": __name__, "__doc__": "A net with a fault."}
    with pytest.raises(RuntimeError, match="no such layer") as caught:
        check(type(MLP)("Crashing", (MLP,), body))
    assert "while holding the law 'any image fits' against Crashing(" in caught.value.__notes__[0]


def test_a_check_leaves_the_callers_random_stream_and_precision():
    torch.manual_seed(4)
    before, kind = torch.get_rng_state(), torch.get_default_dtype()
    first = check(Bernoulli)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == kind
    torch.manual_seed(5)
    with torch.no_grad():
        assert check(Bernoulli()) == first, "the same verdict, whatever the caller's state"


def test_a_setting_nobody_can_vary_is_not_passed_over_in_silence():
    body = {"title": "", "__annotations__": {"title": str}, "__module__": __name__, "__doc__": "A net."}
    with pytest.raises(ConfigError, match=r"Titled.title: no other value than '' is known"):
        check(type(MLP)("Titled", (MLP,), body))
