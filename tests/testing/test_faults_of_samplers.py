"""Samplers with one fault each: the law that forbids it finds it, and names it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nelbo.errors import ConfigError
from nelbo.samplers import Sampler
from nelbo.testing import LawBroken, check_sampler

SHAPES, SETTINGS = "shapes and types are kept", "every setting changes something"
SEED, MODEL = "the same seed gives the same latents", "nothing of the model changes"
FOLLOW = "samples follow the latents or a stated density"
POINT = "a point and a dead dimension are no trouble"
FEW, SPACE = "too few latents are refused", "latents of another space are refused"


class Gaussian:
    """A Gaussian with the mean and the covariance of the latents: right, but for what a fault changes."""

    def __init__(self, z_NZ, scale=1.0, moved=0.0):
        self.mean_Z = z_NZ.mean(0) + moved
        covariance_ZZ = z_NZ.T.cov() + 1e-9 * torch.eye(z_NZ.shape[1]).to(z_NZ)
        self.root_ZZ = scale * torch.linalg.cholesky(covariance_ZZ)

    def sample(self, n):
        return self.mean_Z + torch.randn(n, len(self.mean_Z)).to(self.mean_Z) @ self.root_ZZ.T


class States(Gaussian):
    def log_prob(self, z_BZ):
        reference = torch.distributions.MultivariateNormal(self.mean_Z, scale_tril=self.root_ZZ)
        return reference.log_prob(z_BZ)


class StatesAnother(States):
    """Samples are a tenth wider than the density that it states."""

    def sample(self, n):
        return self.mean_Z + 1.1 * (super().sample(n) - self.mean_Z)


class Doubles(Gaussian):
    def sample(self, n):
        return super().sample(n).double()


class OneLess(Gaussian):
    def sample(self, n):
        return super().sample(max(1, n - 1))


class Numpys(Gaussian):
    """Its noise comes from numpy, which nobody seeds."""

    def sample(self, n):
        noise = torch.from_numpy(np.random.standard_normal((n, len(self.mean_Z))))
        return self.mean_Z + noise.to(self.mean_Z) @ self.root_ZZ.T


class Frozen(Gaussian):
    """Whatever the seed, the same latents."""

    def sample(self, n):
        noise = torch.randn(n, len(self.mean_Z), generator=torch.Generator().manual_seed(0))
        return self.mean_Z + noise.to(self.mean_Z) @ self.root_ZZ.T


class Standardised(Gaussian):
    """Divides by deviations, one of which is zero."""

    def sample(self, n):
        std_Z = (self.root_ZZ @ self.root_ZZ.T).diagonal().sqrt()
        std_Z = torch.where(std_Z < 1e-3, 0.0, std_Z)
        return self.mean_Z + (super().sample(n) - self.mean_Z) / std_Z * std_Z


def sampler(fitted=Gaussian, /, fit=None, **body):
    """A sampler class whose fit gives `fitted(z)`, or calls `fit(model, train)`."""

    def made(self, model, train, validation):
        return fit(self, model, train) if fit else fitted(train.z_NZ)

    content = {
        "fitted": made,
        "__module__": __name__,
        "__doc__": "A sampler with a fault.",
        "__annotations__": {key: float for key, value in body.items() if isinstance(value, float)},
    }
    return type(Sampler)("FaultySampler", (Sampler,), content | body)


def moves_numpy(self, model, train):
    np.random.standard_normal()
    return Gaussian(train.z_NZ)


def moves_random(self, model, train):
    random.random()
    return Gaussian(train.z_NZ)


def trains_the_model(self, model, train):
    model.std = model.std * 2  # no parameter and no buffer
    model.register_buffer("extra", torch.ones(1))
    return Gaussian(train.z_NZ)


def leaves_training_mode(self, model, train):
    model.train()
    return Gaussian(train.z_NZ)


def of_means(self, model, train):
    return Gaussian(train.mean_NZ, scale=0.7)


def of_a_few(self, model, train):
    return Gaussian(train.z_NZ[:20], moved=0.3)


def with_gradients(self, model, train):
    class Tracked(Gaussian):
        def sample(self, n):
            return super().sample(n).requires_grad_(True)

    return Tracked(train.z_NZ)


FAULTS = {
    "another type": (SHAPES, lambda: sampler(Doubles)),
    "one less": (SHAPES, lambda: sampler(OneLess)),
    "gradients": (SHAPES, lambda: sampler(fit=with_gradients)),
    "a setting without effect": (SETTINGS, lambda: sampler(scale=2.0)),
    "numpy's noise": (SEED, lambda: sampler(Numpys)),
    "numpy's stream moved": (SEED, lambda: sampler(fit=moves_numpy)),
    "random's stream moved": (SEED, lambda: sampler(fit=moves_random)),
    "one draw for ever": (SEED, lambda: sampler(Frozen)),
    "the model changed": (MODEL, lambda: sampler(fit=trains_the_model)),
    "training mode": (MODEL, lambda: sampler(fit=leaves_training_mode)),
    "means, and too narrow": (FOLLOW, lambda: sampler(fit=of_means)),
    "a few latents only": (FOLLOW, lambda: sampler(fit=of_a_few)),
    "wider than stated": (FOLLOW, lambda: sampler(StatesAnother)),
    "neither latents nor density": (FOLLOW, lambda: sampler(follows=False)),
    "divided by zero": (POINT, lambda: sampler(Standardised)),
    "any number will do": (FEW, lambda: sampler(fewest=lambda self, latent_dim: 3, fit=None)),
    "every space is fine": (SPACE, lambda: sampler(check=lambda self, space: None)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_its_law(fault, laws):
    law, make = FAULTS[fault]
    cls = make()
    if fault == "any number will do":  # and the check that refuses is taken away
        cls.fit = lambda self, model, train, validation=None: self.fitted(model, train, validation)
    with pytest.raises(LawBroken) as found:
        check_sampler(cls, only=law if laws == "its own" else None)
    assert found.value.law == law, found.value


def test_what_has_no_fault_keeps_the_laws():
    assert len(check_sampler(sampler())) == 8
    evidence = check_sampler(sampler(States))
    assert "match its density" in str(evidence[FOLLOW])


def test_a_refusal_that_names_nothing_is_found():
    def check(self, space):
        if space != "real":
            raise ConfigError("no")

    with pytest.raises(LawBroken, match="name what works") as found:
        check_sampler(sampler(check=check))
    assert found.value.law == SPACE
