"""Priors with weights, and priors made of posteriors and images, with one fault each: a law finds it, and names it.

The toy encoder and images that the laws lend such priors are what lets them be held at all; that weights are moved
before the density is integrated is what finds a fault that the standard normal, where many begin, does not show.
"""

from __future__ import annotations

import math

import pytest
import torch

from nelbo.dists.flows import AffineCoupling, MaskedAutoregressive
from nelbo.priors.exemplar import Exemplar, ExemplarModule
from nelbo.priors.flow import FlowPrior
from nelbo.priors.learned_normal import LearnedNormal, LearnedNormalModule
from nelbo.priors.maf import MAF
from nelbo.priors.mixture import Mixture, MixtureModule
from nelbo.priors.real_nvp import RealNVP
from nelbo.priors.vamp import Vamp, VampModule
from nelbo.testing import LawBroken, check_prior

INTEGRAL, SAMPLES = "the density integrates to one", "samples match the density"
GRADIENTS, SETTINGS = "gradients match finite differences", "every setting changes something"
KINDS, ALONE = "shapes and types are kept", "latents are judged alone"


def faulty(spec_class, build):
    """The prior with another module: `build(spec, latents)`."""
    body = {"build": build, "__module__": __name__, "__doc__": "A prior with a fault."}
    return type(spec_class)(f"Faulty{spec_class.__name__}", (spec_class,), body)


class WithoutVariance(LearnedNormalModule):
    def log_prob(self, z):
        return super().log_prob(z) + 0.5 * self.log_var_Z.sum()


class UnitNoise(LearnedNormalModule):
    def sample(self, n):
        return self.mean_Z + torch.randn(n, len(self.mean_Z)).to(self.mean_Z)


class Logits(MixtureModule):
    def parts(self):
        mean_CZ, log_var_CZ, _ = super().parts()
        return mean_CZ, log_var_CZ, self.logits_C


class FirstComponent(MixtureModule):
    def sample(self, n):
        mean_CZ, log_var_CZ, _ = self.parts()
        noise_NZ = torch.randn(n, mean_CZ.shape[1]).to(mean_CZ)
        return mean_CZ[0] + (0.5 * log_var_CZ[0]).exp() * noise_NZ


class Sum(VampModule):
    def log_prob(self, z):
        return super().log_prob(z) + math.log(self.components)


class OnePseudoInput(VampModule):
    def sample(self, n):
        return self.posteriors(torch.zeros(n, dtype=torch.int64)).rsample(1)[0]


class NeverLearned(VampModule):
    def posteriors(self, which=None):
        if which is not None:
            return super().posteriors(which)
        return self.encode(self.inputs_CCHW.detach().clamp(0, 1))


class NoBlur(ExemplarModule):
    def sample(self, n):
        return self.mean_NZ[torch.randint(len(self.mean_NZ), (n,))]


class OfItsOwnBatch(ExemplarModule):
    def log_prob(self, z):
        return super().log_prob(z - 0.01 * z.mean(-2, keepdim=True))


class Undetermined(AffineCoupling):
    def inverse(self, y, context=None):
        z, log_det = super().inverse(y, context)
        return z, torch.zeros_like(log_det)


class WrongSign(MaskedAutoregressive):
    def inverse(self, y, context=None):
        z, log_det = super().inverse(y, context)
        return z, -log_det


FAULTS = {
    WithoutVariance: (LearnedNormal, INTEGRAL, "integrates to"),
    UnitNoise: (LearnedNormal, SAMPLES, "Kolmogorov"),
    Logits: (Mixture, INTEGRAL, "integrates to"),
    FirstComponent: (Mixture, SAMPLES, "Kolmogorov"),
    Sum: (Vamp, INTEGRAL, "integrates to"),
    OnePseudoInput: (Vamp, SAMPLES, "Kolmogorov"),
    NeverLearned: (Vamp, GRADIENTS, "finite differences"),
    NoBlur: (Exemplar, SAMPLES, "Kolmogorov"),
    OfItsOwnBatch: (Exemplar, ALONE, "among others"),
    Undetermined: (RealNVP, INTEGRAL, "integrates to"),
    WrongSign: (MAF, INTEGRAL, "integrates to"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_a_prior_with_weights_is_found(fault, laws):
    spec_class, law, words = FAULTS[fault]

    def build(spec, latents):
        if issubclass(fault, LearnedNormalModule):
            return fault(latents)
        if issubclass(fault, AffineCoupling | MaskedAutoregressive):
            return FlowPrior(fault(latents, spec.hidden), latents)
        return fault(spec, latents)

    with pytest.raises(LawBroken) as caught:
        check_prior(faulty(spec_class, build), skip=[SETTINGS], only=law if laws == "its own" else None)
    assert caught.value.law == law
    assert words in str(caught.value)


def test_a_setting_that_only_training_knows_is_not_found_idle_and_one_that_nobody_reads_is():
    assert "exemplars" in str(check_prior(Exemplar)[SETTINGS]), "it matters in training mode alone"

    def build(spec, latents):
        return ExemplarModule(Exemplar(images=spec.images), latents)

    with pytest.raises(LawBroken, match="exemplars") as caught:
        check_prior(faulty(Exemplar, build))
    assert caught.value.law == SETTINGS


def test_samples_in_another_precision_are_found():
    class Single(MixtureModule):
        def sample(self, n):
            return super().sample(n).float()

    with pytest.raises(LawBroken) as caught:
        check_prior(faulty(Mixture, lambda spec, latents: Single(spec, latents)))
    assert caught.value.law == KINDS
