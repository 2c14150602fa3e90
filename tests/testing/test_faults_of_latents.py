"""Posteriors and priors with one fault each: the law that forbids it finds it, and names it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nelbo.core.distributions import Sample
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.posteriors import Posterior
from nelbo.priors import Prior
from nelbo.testing import LawBroken, check_posterior, check_prior

INTEGRAL, SAMPLES = "the density integrates to one", "samples match the density"
ALONE, KINDS = "images are judged alone", "shapes and types are kept"
GRADIENTS, SETTINGS = "gradients match finite differences", "every setting changes something"
KL, OWN_NOISE = "closed form kl is the monte carlo kl", "images have noise of their own"
WEIGHTS = "importance weights average to one"
FACTORS = "independent dimensions have densities of their own"


def posterior(value_class=DiagonalNormal, factorises=True, **fields):
    """A posterior class whose head gives `value_class(mean, std, log_var)`."""

    class Head(nn.Module):
        def __init__(self, features, latent_dim):
            super().__init__()
            self.linear = nn.Linear(features, 2 * latent_dim)

        def forward(self, features_BF):
            outputs = self.linear(features_BF)
            mean, raw = (outputs if outputs.dtype == torch.float64 else outputs.float()).chunk(2, dim=-1)
            return value_class(mean, (0.5 * raw).exp(), raw)

    body = {
        "build": lambda self, features, latent_dim: Head(features, latent_dim),
        "__annotations__": dict.fromkeys(fields, float),
        "__module__": __name__,
        "__doc__": "A posterior with a fault.",
        "factorises": factorises,
        **fields,
    }
    return type(Posterior)("FaultyPosterior", (Posterior,), body)


class WideSamples(DiagonalNormal):
    def rsample(self, k=1):
        return self.mean + 1.1 * (super().rsample(k) - self.mean)


class MovedSamples(DiagonalNormal):
    def rsample(self, k=1):
        return super().rsample(k) + 0.1


class SharedNoise(DiagonalNormal):
    """One number an image moves every latent; it claims a bound none the less."""

    not_a_bound = None

    def __init__(self, mean, std, log_var):
        super().__init__(mean, std, log_var, shared_noise=True)


class OneNoiseForAll(DiagonalNormal):
    """One draw serves the whole batch."""

    def rsample(self, k=1):
        noise = torch.randn(k, 1, self.mean.shape[-1], dtype=self.mean.dtype)
        return self.mean + self.std * noise


class Repeated(DiagonalNormal):
    """Every other sample is the one before."""

    def rsample(self, k=1):
        return super().rsample((k + 1) // 2).repeat_interleave(2, dim=0)[:k]


class NoNormaliser(DiagonalNormal):
    def log_prob(self, z):
        return super().log_prob(z) + 0.5 * self.log_var.sum(-1)


class AveragedLogProb(DiagonalNormal):
    def log_prob(self, z):
        return super().log_prob(z) / z.shape[-1]


class IgnoredLatent(DiagonalNormal):
    def log_prob(self, z):
        return DiagonalNormal(self.mean[..., :1], self.std[..., :1], self.log_var[..., :1]).log_prob(
            z[..., :1]
        )


def changed_kl(change):
    """`kl_to` with another number, where there is one."""

    def kl_to(self, prior):
        kl_BZ = DiagonalNormal.kl_to(self, prior)
        return None if kl_BZ is None else change(kl_BZ)

    return kl_to


class NegativeKL(DiagonalNormal):
    kl_to = changed_kl(lambda kl_BZ: -kl_BZ)


class MeanKL(DiagonalNormal):
    kl_to = changed_kl(lambda kl_BZ: kl_BZ / kl_BZ.shape[-1])


class WithoutTheHalf(DiagonalNormal):
    kl_to = changed_kl(lambda kl_BZ: 2 * kl_BZ)


class DetachedStd(DiagonalNormal):
    def rsample(self, k=1):
        return DiagonalNormal(self.mean, self.std.detach(), self.log_var).rsample(k)


class DetachedKL(DiagonalNormal):
    kl_to = changed_kl(lambda kl_BZ: kl_BZ.detach())


class OfTheBatch(DiagonalNormal):
    def __init__(self, mean, std, log_var):
        super().__init__(mean - 0.1 * mean.mean(0, keepdim=True), std, log_var)


class Single(DiagonalNormal):
    def log_prob(self, z):
        return super().log_prob(z).float()


class MixedUp(DiagonalNormal):
    def log_prob_each(self, z):
        return super().log_prob_each(z).flip(-1)

    def log_prob(self, z):
        return super().log_prob_each(z).sum(-1)


class Doubled(DiagonalNormal):
    """Each latent's density is right up to a factor that log_prob does not have."""

    def log_prob_each(self, z):
        return 2 * super().log_prob_each(z)

    def log_prob(self, z):
        return super().log_prob_each(z).sum(-1)


class EmptyReason(DiagonalNormal):
    not_a_bound = "no"


POSTERIORS = {
    WideSamples: (SAMPLES, "Kolmogorov"),
    MovedSamples: (SAMPLES, "Kolmogorov"),
    SharedNoise: (SAMPLES, "along the difference of both axes"),
    OneNoiseForAll: (OWN_NOISE, "different images have a rank correlation of 1.000"),
    Repeated: (OWN_NOISE, "successive"),
    MixedUp: (FACTORS, "with the first latent moved"),
    Doubled: (FACTORS, "log_prob_each adds up to"),
    NoNormaliser: (INTEGRAL, "1 latents integrates to"),
    AveragedLogProb: (INTEGRAL, "2 latents integrates to"),
    IgnoredLatent: (INTEGRAL, "2 latents integrates to"),
    NegativeKL: (KL, "in closed form"),
    MeanKL: (KL, "3 latents"),
    WithoutTheHalf: (KL, "in closed form"),
    DetachedStd: (GRADIENTS, "rsample"),
    DetachedKL: (GRADIENTS, "kl_to"),
    OfTheBatch: (ALONE, "mean"),
    Single: (KINDS, "log_prob has shape (6, 2) and torch.float32"),
    EmptyReason: (KINDS, "not_a_bound is 'no'"),
}


@pytest.mark.parametrize("fault", POSTERIORS, ids=lambda fault: fault.__name__)
def test_a_fault_of_a_posterior_is_found(fault, laws):
    law, words = POSTERIORS[fault]
    with pytest.raises(LawBroken) as caught:
        check_posterior(posterior(fault), only=law if laws == "its own" else None)
    assert caught.value.law == law
    assert words in str(caught.value)


def test_a_field_of_a_posterior_that_does_nothing_is_found():
    with pytest.raises(LawBroken, match=r"FaultyPosterior.width = .* gives what 1.0 gives") as caught:
        check_posterior(posterior(width=1.0))
    assert caught.value.law == SETTINGS


def test_samples_that_are_not_the_densitys_show_in_the_importance_weights_too():
    """What the tests of samples find, the bound feels: with that law skipped, the weights do not average to one."""
    with pytest.raises(LawBroken, match="average to") as caught:
        check_posterior(posterior(Narrow), only=WEIGHTS)
    assert caught.value.law == WEIGHTS


def test_a_sample_that_remembers_another_density_shows_in_the_importance_weights():
    """The density of any point is right; that which samples bring along is not."""

    class FalseMemory(DiagonalNormal):
        def rsample_and_log_prob(self, k=1):
            z_KBZ = self.rsample(k)
            return Sample(z_KBZ, self, self.log_prob(z_KBZ) - 0.1)

        def kl_to(self, prior):
            return None

    with pytest.raises(LawBroken, match="average to") as caught:
        check_posterior(posterior(FalseMemory))
    assert caught.value.law == WEIGHTS


class Narrow(DiagonalNormal):
    def rsample(self, k=1):
        return self.mean + 0.8 * (super().rsample(k) - self.mean)


def test_a_posterior_that_says_it_is_singular_is_no_liar():
    class Honest(SharedNoise):
        not_a_bound = DiagonalNormal.not_a_bound

    evidence = check_posterior(posterior(Honest))
    assert str(evidence[SAMPLES]).startswith("does not apply: it says itself")
    assert str(evidence[WEIGHTS]).startswith(
        "does not apply: not a bound: the posterior's noise is one number"
    )


def test_heavy_tails_and_kinks_are_no_faults():
    """Quadrature and the tests of samples hold for densities that are neither smooth nor Gaussian."""

    class Laplace(DiagonalNormal):
        def rsample(self, k=1):
            noise = torch.distributions.Laplace(0.0, 1.0).sample((k, *self.mean.shape)).to(self.mean)
            return self.mean + self.std * noise

        def log_prob_each(self, z):
            return -((z - self.mean).abs() / self.std + self.log_var / 2 + math.log(2))

        def kl_to(self, prior):
            return None

    class StudentT(Laplace):
        """With five degrees of freedom."""

        def rsample(self, k=1):
            noise = (
                torch.randn(k, *self.mean.shape) / torch.randn(5, k, *self.mean.shape).square().mean(0).sqrt()
            )
            return self.mean + self.std * noise.to(self.mean)

        def log_prob_each(self, z):
            scaled = ((z - self.mean) / self.std).square() / 5
            return -3 * scaled.log1p() - self.log_var / 2 + math.log(8 / (3 * math.pi * 5**0.5))

    for value_class in (Laplace, StudentT):
        evidence = check_posterior(posterior(value_class))
        assert str(evidence[KL]) == "does not apply: no prior has a closed form"
        assert "mean weight" in str(evidence[WEIGHTS])


# --- priors ---------------------------------------------------------------------------------------


def prior(**methods):
    """A prior class whose module is a standard normal with other methods."""
    fields = {name: methods.pop(name) for name in list(methods) if not callable(methods[name])}
    module = type("Module", (StandardNormalModule,), methods)
    body = {
        "build": lambda self, latent_dim: module(latent_dim),
        "__annotations__": dict.fromkeys(fields, float),
        "__module__": __name__,
        "__doc__": "A prior with a fault.",
        **fields,
    }
    return type(Prior)("FaultyPrior", (Prior,), body)


NORMAL = StandardNormalModule
PRIORS = {
    "wide samples": (SAMPLES, {"sample": lambda self, n: 1.05 * NORMAL.sample(self, n)}),
    "one number for all latents": (
        SAMPLES,
        {"sample": lambda self, n: NORMAL.sample(self, n)[:, :1].expand(n, len(self.origin))},
    ),
    "no normaliser": (INTEGRAL, {"log_prob": lambda self, z: -0.5 * z.square().sum(-1)}),
    "a mean over latents": (INTEGRAL, {"log_prob": lambda self, z: NORMAL.log_prob(self, z) / z.shape[-1]}),
    "a latent ignored": (INTEGRAL, {"log_prob": lambda self, z: NORMAL.log_prob(self, z[..., :1])}),
    "detached": (GRADIENTS, {"log_prob": lambda self, z: NORMAL.log_prob(self, z.detach())}),
    "single precision": (KINDS, {"log_prob": lambda self, z: NORMAL.log_prob(self, z).float()}),
    "of the batch": (
        "latents are judged alone",
        {
            "log_prob": lambda self, z: NORMAL.log_prob(
                self, z - (z.mean(-2, keepdim=True) if z.dim() > 2 else 0)
            )
        },
    ),
    "one sample": (INTEGRAL, {"sample": lambda self, n: torch.ones(n, len(self.origin)).to(self.origin)}),
    "a field that does nothing": (SETTINGS, {"width": 1.0}),
    "another density for several images": (
        WEIGHTS,
        {"log_prob": lambda self, z: NORMAL.log_prob(self, z) + 0.2 * (z.dim() == 3)},
    ),
}


@pytest.mark.parametrize("fault", PRIORS)
def test_a_fault_of_a_prior_is_found(fault, laws):
    law, methods = PRIORS[fault]
    with pytest.raises(LawBroken) as caught:
        check_prior(prior(**methods), only=law if laws == "its own" else None)
    assert caught.value.law == law
    assert caught.value.component.startswith("FaultyPrior(")


def test_another_prior_is_no_fault():
    """log p(x) is then by quadrature, and no closed-form KL is claimed for it."""
    wide = {
        "sample": lambda self, n: 2 * NORMAL.sample(self, n) + 1,
        "log_prob": lambda self, z: NORMAL.log_prob(self, (z - 1) / 2) - z.shape[-1] * math.log(2),
    }
    evidence = check_prior(prior(**wide))
    assert "mean weight" in str(evidence[WEIGHTS])
