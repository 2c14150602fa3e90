"""Likelihoods with one fault each: the law that forbids it finds it, and names it."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from nelbo.likelihoods import Bernoulli, Categorical, Likelihood
from nelbo.likelihoods.base import LikelihoodModule
from nelbo.likelihoods.bernoulli import BernoulliImage
from nelbo.testing import LawBroken, check_likelihood

PIXEL, IMAGES = "probabilities sum to one", "images sum to one"
SAMPLES, MEAN = "samples match the density", "the mean is the expectation"
KINDS, ALONE = "shapes and types are kept", "images are judged alone"
OWN_NOISE, GRADIENTS = "pixels have noise of their own", "gradients match finite differences"
EXTREMES, SETTINGS = "extreme outputs stay finite", "every setting changes something"
SIGMA = 0.7


class Normal:
    """Gaussian pixels of sigma 0.7, in plain sight."""

    def __init__(self, outputs):
        self.mean = outputs if outputs.dtype == torch.float64 else outputs.float()

    def each(self, x):
        return -0.5 * ((x - self.mean) / SIGMA).square() - math.log(SIGMA * math.sqrt(2 * math.pi))

    def log_prob(self, x):
        return self.each(x).sum((-3, -2, -1))

    def sample(self):
        return self.mean + SIGMA * torch.randn_like(self.mean)


def likelihood(value_class, kind="density", support=None, outputs=1, **fields):
    """A likelihood class whose module gives `value_class(decoder outputs)`."""

    class Module(LikelihoodModule):
        def forward(self, outputs):
            return value_class(outputs)

    body = {
        "observation_kind": kind,
        "support": support,
        "channels": property(lambda self: outputs),
        "build": lambda self, shape: Module(),
        "__annotations__": {
            "observation_kind": ClassVar,
            "support": ClassVar,
            **dict.fromkeys(fields, float),
        },
        "__module__": __name__,
        "__doc__": "A likelihood with a fault.",
        **fields,
    }
    return type(Likelihood)("FaultyLikelihood", (Likelihood,), body)


class MeanSquaredError(Normal):
    """What is called a reconstruction loss: no normaliser."""

    def each(self, x):
        return -(x - self.mean).square()


class AveragedOverPixels(Normal):
    def log_prob(self, x):
        return self.each(x).mean((-3, -2, -1))


class OnePixelIgnored(Normal):
    """The last column counts only where it is the only one."""

    def log_prob(self, x):
        return self.each(x)[..., : max(1, x.shape[-1] - 1)].sum((-3, -2, -1))


class LastPixelTwice(Normal):
    def log_prob(self, x):
        each = self.each(x)
        return each.sum((-3, -2, -1)) + (each[..., -1, -1, -1] if x.shape[-1] > 1 else 0.0)


class WideSamples(Normal):
    def sample(self):
        return self.mean + 1.1 * SIGMA * torch.randn_like(self.mean)


class MeanAsSample(Normal):
    def sample(self):
        return self.mean.clone()


class OneNoiseForAllPixels(Normal):
    def sample(self):
        return self.mean + SIGMA * torch.randn_like(self.mean[..., :1, :1, :1])


class AnotherMean(Normal):
    """The mean that is shown is squashed, the one of the density is not."""

    def __init__(self, outputs):
        super().__init__(outputs)
        self.location, self.mean = self.mean, self.mean.sigmoid()

    def each(self, x):
        return Normal(self.location).each(x)

    def sample(self):
        return Normal(self.location).sample()


class SigmaOfTheBatch(Normal):
    """The optimal sigma of the very batch that is scored: no density of an image."""

    def log_prob(self, x):
        sigma = (
            (x - self.mean).square().mean().sqrt().clamp_min(0.3) if x.shape[-1] > 1 else torch.tensor(SIGMA)
        )
        scaled = ((x - self.mean) / sigma).square()
        return (-0.5 * scaled - (sigma * math.sqrt(2 * math.pi)).log()).sum((-3, -2, -1))


class OthersInTheBatch(Normal):
    """A term of the other images, which vanishes where there is one image or one pixel."""

    def log_prob(self, x):
        others = self.mean.mean((-4, -3, -2, -1)).unsqueeze(-1) - self.mean[..., :1, :, :, :].mean(
            (-3, -2, -1)
        )
        return super().log_prob(x) + others


class OtherSamples(Normal):
    """A term of the other samples of z, which vanishes where there is one."""

    def log_prob(self, x):
        of_z = self.mean.mean((-3, -2, -1))
        return super().log_prob(x) + (
            of_z - of_z.mean(0) + 0.1 if self.mean.shape[0] > 1 and x.shape[0] > 1 else 0.0
        )


class Detached(Normal):
    def each(self, x):
        return Normal(self.mean.detach()).each(x)


class SinglePrecision(Normal):
    def log_prob(self, x):
        return super().log_prob(x).float()


class UnboundedScale(Normal):
    """sigma = exp(output), for each pixel: no floor, no ceiling."""

    def __init__(self, outputs):
        mean, self.log_sigma = outputs.chunk(2, dim=-3)
        super().__init__(mean)
        self.log_sigma = self.log_sigma.to(self.mean)

    def each(self, x):
        scaled = ((x - self.mean) / self.log_sigma.exp()).square()
        return -0.5 * scaled - self.log_sigma - 0.5 * math.log(2 * math.pi)

    def sample(self):
        return self.mean + self.log_sigma.exp() * torch.randn_like(self.mean)


class LogOfSigmoid(BernoulliImage):
    def __init__(self, outputs):
        super().__init__(outputs if outputs.dtype == torch.float64 else outputs.float())

    def log_prob(self, x):
        p = self.logits.sigmoid()
        return (x * p.log() + (1 - x) * (1 - p).log()).sum((-3, -2, -1))


class GreyCrossEntropy(BernoulliImage):
    """A cross-entropy of grey pixels that is called a density on [0, 1]."""

    def __init__(self, outputs):
        super().__init__(outputs if outputs.dtype == torch.float64 else outputs.float())

    def log_prob(self, x):
        return (x * self.logits - F.softplus(self.logits)).sum((-3, -2, -1))


class DensityAsLevels(Normal):
    """A density read off at the 256 levels: its values are no probabilities."""

    def sample(self):
        return (super().sample() * 255).round().clamp(0, 255) / 255


class HalfLevels:
    """Probabilities of the 256 levels; samples fall between them."""

    def __init__(self, outputs):
        self.right = Categorical().build((1, 1, 1))(outputs)
        self.mean = self.right.mean

    def log_prob(self, x):
        return self.right.log_prob(x)

    def sample(self):
        return (self.right.sample() * 254.5 + 0.25) / 255


class ShiftedLevels(HalfLevels):
    def sample(self):
        return (self.right.sample() + 5 / 255).clamp_max(1.0)


FAULTS = {
    MeanSquaredError: (PIXEL, "integrates to 1.77245", {}),
    AveragedOverPixels: (IMAGES, "probability of exp", {}),
    OnePixelIgnored: (IMAGES, "probability of exp", {}),
    LastPixelTwice: (IMAGES, "probability of exp", {}),
    WideSamples: (SAMPLES, "Kolmogorov", {}),
    MeanAsSample: (SAMPLES, "samples", {"support": (-40.0, 40.0)}),
    OneNoiseForAllPixels: (OWN_NOISE, "different pixels have a rank correlation of 1.000", {}),
    AnotherMean: (MEAN, "the expectation of a pixel", {}),
    SigmaOfTheBatch: (IMAGES, "exchanging pixels", {}),
    OthersInTheBatch: (ALONE, "among others", {}),
    OtherSamples: ("importance weights average to one", "average to", {}),
    Detached: (GRADIENTS, "log_prob", {}),
    SinglePrecision: (KINDS, "float32 for outputs in torch.float64", {}),
    UnboundedScale: (EXTREMES, "outputs of", {"outputs": 2}),
    LogOfSigmoid: (EXTREMES, "outputs of 50 at x = 0", {"kind": "binary", "support": (0.0, 1.0)}),
    GreyCrossEntropy: (PIXEL, "integrates to", {"support": (0.0, 1.0)}),
    DensityAsLevels: (PIXEL, "sums to", {"kind": "levels", "support": (0.0, 1.0)}),
    HalfLevels: (SAMPLES, "from the nearest value", {"kind": "levels", "outputs": 256}),
    ShiftedLevels: (SAMPLES, "Kolmogorov", {"kind": "levels", "outputs": 256}),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_a_likelihood_is_found(fault, laws):
    law, words, more = FAULTS[fault]
    with pytest.raises(LawBroken) as caught:
        check_likelihood(likelihood(fault, **more), only=law if laws == "its own" else None)
    assert caught.value.law == law
    assert words in str(caught.value)


def test_a_field_of_a_likelihood_that_does_nothing_is_found():
    with pytest.raises(LawBroken, match=r"FaultyLikelihood.width") as caught:
        check_likelihood(likelihood(Normal, width=2.0))
    assert caught.value.law == SETTINGS


def test_a_field_of_a_component_inside_is_found():
    """Settings of a spread, a net or a schedule count where they are used."""
    from nelbo.likelihoods import Gaussian
    from nelbo.likelihoods.spread import Fixed

    class Idle(Fixed):
        """A spread whose patience does nothing."""

        patience: int = 3

    with pytest.raises(LawBroken, match=r"Idle.patience = 4 .* gives what 3 gives"):
        check_likelihood(Gaussian(sigma=Idle()))


def test_the_plain_gaussian_has_no_fault():
    evidence = check_likelihood(likelihood(Normal))
    assert [law for law, found in evidence.items() if str(found).startswith("does not")] == [SETTINGS]
    assert check_likelihood(Bernoulli)[PIXEL].words.startswith("one pixel's, to ")
