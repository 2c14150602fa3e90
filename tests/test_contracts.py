"""What every registered thing must be. A new class in a new file is tested here without another edit."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch
from methods import METHODS, recipe_of

from nelbo.core import Progress, config
from nelbo.core.catalogue import docline
from nelbo.core.distributions import PosteriorValue
from nelbo.core.registry import HOMES, lookup, names
from nelbo.core.spec import Spec
from nelbo.likelihoods import Likelihood
from nelbo.models import VAE, BuiltModel
from nelbo.nets import MLP
from nelbo.objectives import Objective
from nelbo.posteriors import Posterior
from nelbo.priors import Prior
from nelbo.testing.toys import built, shown
from nelbo.testing.trials import called
from nelbo.training.recipe import Recipe
from tests.conftest import recipes

SPECS = [
    (axis, name)
    for axis in HOMES
    for name in names(axis)
    if inspect.isclass(lookup(axis, name)) and issubclass(lookup(axis, name), Spec)
]
NEEDS_SETTINGS = {
    "constant": {"value": 2.0},
    "linear": {"epochs": 3},
    "sigmoid": {"epochs": 3},
    "cosine": {"start": 1.0},
    "resize": {"height": 9},
}
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 33, 17), (2, 9, 14)]


def make(axis: str, name: str) -> Spec:
    return lookup(axis, name)(**NEEDS_SETTINGS.get(name, {}))


@pytest.mark.parametrize(("axis", "name"), SPECS)
def test_a_spec_is_its_configuration(axis, name):
    spec = make(axis, name)
    base = next(cls for cls in type(spec).__mro__ if issubclass(cls, Spec) and cls.is_abstract())
    table = config.to_dict(spec)
    assert table["name"] == name
    assert config.build(base, table) == spec
    assert all(field in repr(spec) for field in type(spec).model_fields)
    for field in type(spec).model_fields:
        with pytest.raises(Exception, match="frozen"):
            setattr(spec, field, 1)
    assert hash(spec) == hash(config.build(base, table))


@pytest.mark.parametrize("axis", HOMES)
def test_every_axis_has_entries_and_every_entry_says_what_it_is(axis):
    assert names(axis), f"axis {axis} is empty"
    for name in names(axis):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), name
        assert len(docline(lookup(axis, name))) >= 12, f"{axis} {name} has no docstring"


@pytest.mark.parametrize("name", names("objective"))
def test_an_objective_names_its_source_and_reports_nats_an_image(name):
    objective = lookup("objective", name)()
    assert isinstance(objective, Objective)
    assert re.search(r"(19|20)\d\d", inspect.getdoc(type(objective)) or ""), "no paper"
    model = VAE(latent_dim=3, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,))).build((1, 4, 4))
    x = torch.rand(5, 1, 4, 4).round()
    terms = called(objective, model.draw(x, objective.k), Progress())
    assert terms.loss_B.shape == (5,)
    assert terms.bound_B is None or terms.bound_B.shape == (5,)
    assert {"reconstruction", "kl"} <= set(terms.parts)
    terms.loss_B.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", names("net"))
def test_a_net_fits_any_image(name, shape):
    net = lookup("net", name)()
    encoder = net.encoder(shape)
    assert encoder(torch.rand(3, *shape)).shape == (3, encoder.features)
    for likelihood_channels in (1, 2):
        outputs = (shape[0] * likelihood_channels, *shape[1:])
        assert net.decoder(7, outputs)(torch.randn(3, 7)).shape == (3, *outputs)


@pytest.mark.parametrize("name", names("posterior"))
def test_a_posterior_is_a_distribution_over_latents(name):
    spec = lookup("posterior", name)()
    assert isinstance(spec, Posterior)
    value = spec.build(11, 4)(torch.randn(5, 11))
    assert isinstance(value, PosteriorValue)
    z = value.rsample(6)
    assert value.mean.shape == (5, 4)
    assert z.shape == (6, 5, 4)
    assert value.not_a_bound is None or isinstance(value.not_a_bound, str)
    if not spec.has_density:
        assert value.is_point
        assert value.not_a_bound
        return
    assert value.log_prob(z).shape == (6, 5)
    assert not torch.equal(value.rsample(6), z)


@pytest.mark.parametrize("name", names("prior"))
def test_a_prior_is_a_distribution_over_latents(name):
    spec = lookup("prior", name)()
    assert isinstance(spec, Prior)
    module = built(spec, 4)
    assert module.sample(9).shape == (9, 4)
    assert module.log_prob(torch.randn(6, 5, 4)).shape == (6, 5)


@pytest.mark.parametrize("name", names("likelihood"))
def test_a_likelihood_is_a_log_probability_summed_over_pixels(name):
    spec = lookup("likelihood", name)()
    assert isinstance(spec, Likelihood)
    shape = (3, 4, 5)
    value = spec.build(shape)(torch.randn(6, 2, 3 * spec.channels, 4, 5))
    x = torch.rand(2, *shape).round()
    assert value.log_prob(x).shape == (6, 2), "one number an image and sample, broadcast over samples"
    assert value.mean.shape == (6, 2, *shape)
    assert value.sample().shape == (6, 2, *shape)
    if spec.support is not None:
        assert value.mean.min() >= spec.support[0]
        assert value.mean.max() <= spec.support[1]


@pytest.mark.parametrize("name", names("model"))
def test_a_model_can_draw(name):
    model = lookup("model", name)().build((3, 9, 7))
    x = torch.rand(5, 3, 9, 7).round()
    assert isinstance(model, BuiltModel)
    draw = model.draw(x, 4)
    for value in (draw.log_px_KB, draw.log_pz_KB, draw.log_qz_KB):
        assert value.shape == (4, 5)
    assert draw.z_KBZ.shape[:2] == (4, 5)
    model.eval()
    assert model.sample(6).shape == (6, 3, 9, 7)
    assert torch.equal(model.reconstruct(x), model.reconstruct(x)), "reconstructions come from the mean"
    assert model.log_weights(x, 11).shape == (11, 5)
    assert model.log_prob(x, 11).shape == (5,)
    assert not model.log_prob(x, 11).requires_grad


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_builds_and_promises(name):
    recipe = recipe_of(name)
    assert isinstance(recipe, Recipe)
    assert recipe.recipe == ("digits" if name in METHODS else name)
    assert config.build(Recipe, config.to_dict(recipe)) == recipe
    shape = {"digits": (1, 8, 8), "conv-bn-128": (1, 32, 32), "shapes": (3, 32, 32)}.get(name, (1, 28, 28))
    model = shown(recipe.model.build(shape).eval())
    assert model.sample(2).shape == (2, *shape)
    promise = METHODS[name].promise if name in METHODS else docline(lookup("recipe", name))
    assert re.search(r"\d", promise), "a promise has a number in it"


@pytest.mark.parametrize("name", names("schedule"))
def test_a_schedule_gives_a_number_at_every_moment(name):
    schedule = make("schedule", name)
    for step in (0, 1, 50, 99, 100):
        value = schedule(Progress(epoch=step // 10 + 1, epochs=10, step=step, steps=100))
        assert isinstance(value, float)
        assert math.isfinite(value)


@pytest.mark.parametrize("name", names("optimizer"))
def test_an_optimizer_minimises(name):
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    spec = lookup("optimizer", name)(lr=0.1)
    optimizer = spec.build([weight])
    for _ in range(200):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.abs().max() < 0.05
