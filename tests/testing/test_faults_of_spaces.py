"""Posteriors and priors off R^Z with one fault each: the law that forbids it finds it."""

from __future__ import annotations

import pytest
import torch

from nelbo.dists import hyperbolic, onehot
from nelbo.dists.hyperbolic import from_origin, gap
from nelbo.dists.onehot import CategoricalPriorModule, OneHot, one_hot
from nelbo.dists.sphere import UniformSphereModule, log_area, unit
from nelbo.posteriors.gumbel_softmax import CategoricalValue, GumbelSoftmax
from nelbo.posteriors.joint import Joint, JointPriorModule, JointValue
from nelbo.posteriors.poincare import Poincare, WrappedNormal
from nelbo.posteriors.vmf import VMF, Cosines, VonMisesFisherValue
from nelbo.priors.categorical import CategoricalPrior
from nelbo.priors.joint import JointPrior
from nelbo.priors.uniform_sphere import UniformSphere
from nelbo.priors.wrapped_normal import WrappedNormalModule, WrappedNormalPrior
from nelbo.testing import LawBroken, check

INTEGRAL, SAMPLES = "the density integrates to one", "samples match the density"
KL, GRADIENTS = "closed form kl is the monte carlo kl", "gradients match finite differences"
KINDS, OWN_NOISE = "shapes and types are kept", "images have noise of their own"
SETTINGS = "every setting changes something"
WEIGHTS = "importance weights average to one"


def of(cls, method):
    """The method of a class as it is, under the name that a fault calls it by."""
    return getattr(cls, method)


vmf_log_prob, vmf_rsample = of(VonMisesFisherValue, "log_prob"), of(VonMisesFisherValue, "rsample")
cosines, wrapped_rsample = of(Cosines, "sample"), of(WrappedNormal, "rsample")
wrapped_log_prob, wrapped_prior = of(WrappedNormal, "log_prob"), of(WrappedNormalModule, "log_prob")
kl_of_vmf, kl_of_categories = of(VonMisesFisherValue, "kl_to"), of(CategoricalValue, "kl_to")
kl_of_joint, joint_rsample = of(JointValue, "kl_to"), of(JointValue, "rsample")
joint_log_prob, hard_rsample = of(JointValue, "log_prob"), of(OneHot, "rsample")


def wide(self, k=1):
    """Samples of another concentration than the density's."""
    return vmf_rsample(VonMisesFisherValue(self.mean, 0.7 * self.kappa), k)


def lengthened(self, k):
    w_KB, across_KB = cosines(self, k)
    return w_KB, across_KB * 1.001


def straight(self, k, hard):
    """The hard sample with a relaxed gradient."""
    soft = self.relaxed(k)
    return (hard + (soft - soft.detach())).flatten(-2)


def doubled(z):
    return 2 * z - z.detach()


def off_gumbel(self, k):
    return straight(self, k, one_hot(self.log_p + torch.randn(k, *self.log_p.shape).to(self.log_p)))


def forgotten(self, z):
    return 0.0 * z.reshape(*z.shape[:-1], *self.log_p.shape[-2:]).sum(-1) + 0.0 * self.log_p[..., 0]


def no_normaliser(self, z):
    return self.kappa.squeeze(-1) * (z * self.mean).sum(-1)


def seldom_the_first(self, n):
    first_C = torch.arange(self.logits_VC.shape[1]) == 0
    return onehot.sample_one_hot(self.logits_VC - 2.0 * first_C.to(self.logits_VC), n)


def state_moves_reals(self, k=1):
    """The reals depend on the category: no product, as the density says."""
    z_KBZ = joint_rsample(self, k)
    reals = self.continuous.mean.shape[-1]
    return torch.cat(
        [z_KBZ[..., :reals] + 0.3 * z_KBZ[..., reals : reals + 1] - 0.15, z_KBZ[..., reals:]], -1
    )


FAULTS = {
    "the normaliser of one more dimension": (
        VMF, VonMisesFisherValue, "log_prob", lambda self, z: vmf_log_prob(self, z) + log_area(1) - log_area(2),
        INTEGRAL,
    ),
    "no normaliser": (
        VMF, VonMisesFisherValue, "log_prob", no_normaliser, INTEGRAL,
    ),
    "wide samples": (VMF, VonMisesFisherValue, "rsample", wide, SAMPLES),
    "samples off the sphere": (VMF, Cosines, "sample", lengthened, SAMPLES),
    "the direction turned": (
        VMF, VonMisesFisherValue, "rsample", lambda self, k=1: vmf_rsample(self, k).roll(1, -1), SAMPLES,
    ),
    "no area in the KL": (
        VMF, VonMisesFisherValue, "kl_to",
        lambda self, prior: None if kl_of_vmf(self, prior) is None else kl_of_vmf(self, prior) - log_area(2), KL,
    ),
    "a detached concentration": (
        VMF, Cosines, "sample", lambda self, k: tuple(part.detach() for part in cosines(self, k)), GRADIENTS,
    ),
    "the ball's own volume": (
        Poincare, WrappedNormal, "log_prob",
        lambda self, z: wrapped_log_prob(self, z) + z.shape[-1] * (gap(z) / 2.0).log().squeeze(-1), INTEGRAL,
    ),
    "a ball without curvature": (
        Poincare, hyperbolic, "_asinh_over", lambda s2: torch.ones_like(s2), INTEGRAL,
    ),
    "a tanh without its half": (
        Poincare, WrappedNormal, "rsample",
        lambda self, k=1: from_origin(2.0 * hyperbolic.to_origin(wrapped_rsample(self, k))), SAMPLES,
    ),
    "one noise for all images": (
        Poincare, WrappedNormal, "rsample",
        lambda self, k=1: wrapped_rsample(WrappedNormal(self.mean[:1], self.log_scale[:1]), k).expand(
            k, *self.mean.shape
        ),
        SAMPLES,
    ),
    "relaxed samples": (GumbelSoftmax, OneHot, "rsample", lambda self, k: self.relaxed(k).flatten(-2), SAMPLES),
    "noise that is no Gumbel's": (
        GumbelSoftmax, OneHot, "rsample", off_gumbel, SAMPLES,
    ),
    "a gradient twice as large": (
        GumbelSoftmax, OneHot, "rsample", lambda self, k: doubled(hard_rsample(self, k)), GRADIENTS,
    ),
    "no gradient through samples": (
        GumbelSoftmax, OneHot, "rsample",
        lambda self, k: hard_rsample(self, k).detach() + 0 * self.log_p.sum(), SETTINGS,
    ),
    "a mean over categories": (
        GumbelSoftmax, CategoricalValue, "kl_to",
        lambda self, prior: None if kl_of_categories(self, prior) is None else kl_of_categories(self, prior) / 2, KL,
    ),
    "probabilities that were forgotten": (
        GumbelSoftmax, OneHot, "log_prob_each", forgotten, INTEGRAL,
    ),
    "a KL of the reals alone": (
        Joint, JointValue, "kl_to",
        lambda self, prior: None if kl_of_joint(self, prior) is None else self.continuous.kl_to(prior.continuous), KL,
    ),
    "reals that depend on the category": (Joint, JointValue, "rsample", state_moves_reals, SAMPLES),
    "a density of the reals alone": (
        Joint, JointValue, "log_prob",
        lambda self, z: self.continuous.log_prob(z[..., : self.continuous.mean.shape[-1]]), INTEGRAL,
    ),
    "the area of one dimension less": (
        UniformSphere, UniformSphereModule, "log_prob",
        lambda self, z: torch.full_like(z[..., 0], -log_area(len(self.origin) - 1)), INTEGRAL,
    ),
    "a cube drawn onto the sphere": (
        UniformSphere, UniformSphereModule, "sample",
        lambda self, n: unit(2 * torch.rand(n, len(self.origin), dtype=self.origin.dtype) - 1), SAMPLES,
    ),
    "a prior by the ball's own volume": (
        WrappedNormalPrior, WrappedNormalModule, "log_prob",
        lambda self, z: wrapped_prior(self, z) + z.shape[-1] * (gap(z) / 2.0).log().squeeze(-1), INTEGRAL,
    ),
    "a normal cut off at the boundary": (
        WrappedNormalPrior, WrappedNormalModule, "sample",
        lambda self, n: hyperbolic.inside(0.5 * torch.randn(n, len(self.log_scale)).to(self.log_scale)), SAMPLES,
    ),
    "one category too many": (
        CategoricalPrior, CategoricalPriorModule, "log_prob",
        lambda self, z: -z.sum(-1) * torch.tensor(self.logits_VC.shape[-1] + 1.0).log(), INTEGRAL,
    ),
    "a category that is seldom drawn": (
        CategoricalPrior, CategoricalPriorModule, "sample",
        seldom_the_first, SAMPLES,
    ),
    "wide reals": (
        JointPrior, JointPriorModule, "sample",
        lambda self, n: torch.cat([1.1 * self.continuous.sample(n), self.discrete.sample(n)], -1), SAMPLES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_off_the_real_space_is_found(name, laws, monkeypatch):
    spec, owner, method, fault, law = FAULTS[name]
    monkeypatch.setattr(owner, method, fault)
    with pytest.raises(LawBroken) as caught:
        check(spec, only=law if laws == "its own" else None)
    assert caught.value.law == law, str(caught.value)


def test_what_samples_hide_the_weights_show(monkeypatch):
    monkeypatch.setattr(VonMisesFisherValue, "rsample", wide)
    with pytest.raises(LawBroken, match="average to") as caught:
        check(VMF, only=WEIGHTS)
    assert caught.value.law == WEIGHTS


def test_a_sample_that_is_no_one_hot_vector_is_called_that(monkeypatch):
    monkeypatch.setattr(OneHot, "rsample", FAULTS["relaxed samples"][3])
    with pytest.raises(LawBroken, match="no one-hot vectors"):
        check(GumbelSoftmax, only=SAMPLES)
