"""What is registered compiles (likelihoods, posteriors, priors, objectives, nets), and then gives the plain numbers."""

from __future__ import annotations

import pytest
import torch

from nelbo.core.registry import lookup, names
from nelbo.priors import Prior
from nelbo.testing.spaces import beside, some_latents
from tests.test_stepping import Trainer, compiled, conv

pytestmark = [pytest.mark.slow, compiled]

LIKELIHOODS = [{"model.likelihood": name} for name in names("likelihood") if not name.startswith("test-")]
# Of latents in R^Z: others have posteriors of their own.
PRIORS = [{"model.prior": name} for name in names("prior") if lookup("prior", name).space == "real"]
OBJECTIVES = [
    {"objective": name} | ({"model": "vq-vae"} if lookup("objective", name).commits else {})
    for name in names("objective")
    if not name.startswith("test-")
]
MODELS = [{"model": name} for name in names("model") if not lookup("model", name).quantises]
POSTERIORS = [  # those that go with the objective and the prior of the recipe
    {"model.posterior": name}
    for name in names("posterior")
    if lookup("posterior", name).has_density and lookup("posterior", name).space == "real"
]
OTHERS = [
    {"model.likelihood": "gaussian", "model.likelihood.sigma": "optimal"},
    {"model.likelihood": "gaussian", "model.likelihood.sigma": "per-pixel"},
    {"model.likelihood": "laplace", "model.likelihood.scale": "learned"},
    {"model.posterior.parametrisation": "positive"},
    {"model.posterior.parametrisation": "raw-sigma"},
    {"model.posterior.parametrisation": "tanh", "model.posterior.noise": "shared"},
    {"objective.free_bits": 0.5},
    {"objective.kl": "monte-carlo", "objective.k": 3},
    {"objective.free_bits": 0.5, "objective.group": 3},
    {"objective": "iwae", "objective.gradient": "stl"},
    {"objective": "iwae", "objective.gradient": "dreg"},
    {"objective": "iwae", "objective.resample": 2},
    {"objective": "piwae", "objective.resample": 2},
    {"objective": "geco", "objective.constraint": "squared-error"},
    {"objective.beta": {"name": "cyclic", "period": 2, "unit": "steps"}},
    {"model.encoder.batch_norm": True},
    {"model.encoder.activation": "gated"},
    {"model.decoder.spectral_norm": True},
    {"data.transforms": ["dynamic-binarise"]},
    {"data.transforms": ["dynamic-binarise"], "model.prior": "exemplar", "model.prior.exemplars": 20},
    {"model.prior": "vamp", "ema": 0.9},
    {"batch_reduction": "sum", "optimizer": "adamw"},
    conv(),
]


# Posteriors off R^Z, each with the first prior that lives there too.
ELSEWHERE = [
    {
        "model.latent_dim": some_latents(posterior, 3),
        "model.posterior": posterior.name,
        "model.prior": beside(posterior, Prior).name,
    }
    for posterior in (lookup("posterior", name)() for name in names("posterior"))
    if posterior.space != "real"
]
VARIANTS = [*LIKELIHOODS, *MODELS, *PRIORS, *OBJECTIVES, *POSTERIORS, *ELSEWHERE, *OTHERS]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_it_compiles_and_gives_the_plain_numbers(tiny_recipe, variant):
    overrides = {"optimizer.lr": 1e-3, **variant}
    plain = Trainer(tiny_recipe({"compile": "off", **overrides}))
    fast = Trainer(tiny_recipe({"compile": "on", **overrides}))
    expected, found = plain.run(2), fast.run(2)
    assert fast.said == []
    assert fast.step.how["compiled"]
    assert torch.allclose(expected, found, rtol=2e-3, atol=1e-3, equal_nan=True), (
        (expected - found).abs().max()
    )
