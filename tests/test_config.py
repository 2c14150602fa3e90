"""Specs <-> TOML <-> flags. Constructing is configuring, and a mistake is named before anything runs."""

from __future__ import annotations

import math
import tomllib

import pytest
from methods import every, recipe_of
from pydantic import ValidationError

from nelbo.core.config import build, differences, dumps, override, parse_flags, parse_value, to_dict
from nelbo.core.registry import HOMES, lookup, names
from nelbo.core.spec import Spec, kebab
from nelbo.data import Binarise, Data, Scale
from nelbo.errors import ConfigError, UnknownName
from nelbo.likelihoods import Gaussian, Learned
from nelbo.models import VAE
from nelbo.nets import MLP, Conv
from nelbo.objectives import ELBO
from nelbo.objectives.critic import Critic, ImageCritic
from nelbo.optim import Adam
from nelbo.schedules import Constant, Cosine, Linear
from nelbo.training.recipe import Recipe, named, resolve

CLASSES = {
    cls.__name__: cls
    for axis in HOMES
    for cls in (lookup(axis, name) for name in names(axis))
    if isinstance(cls, type)
} | {"Recipe": Recipe, "Data": Data, "Critic": Critic, "ImageCritic": ImageCritic}


# --- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", every())
def test_a_recipe_survives_tables_toml_and_its_own_repr(name, tmp_path):
    recipe = recipe_of(name)
    assert build(Recipe, to_dict(recipe)) == recipe
    assert build(Recipe, tomllib.loads(dumps(recipe))) == recipe
    assert eval(repr(recipe), CLASSES) == recipe
    file = tmp_path / "config.toml"
    file.write_text(dumps(recipe), encoding="utf-8")
    assert resolve(file) == recipe


@pytest.mark.parametrize(
    "spec",
    [
        Recipe(ema=0.9, clip_norm=1.0, patience=2, data=Data(size=(9, 7), validation=5)),
        Recipe(data=Data(transforms=(Binarise(threshold=3), Scale(low=0.1, high=0.9)))),
        Recipe(model=VAE(encoder=Conv(channels=(4,), top=3), likelihood=Gaussian(sigma=Learned(start=0.1)))),
        Recipe(objective=ELBO(beta=Linear(steps=7)), optimizer=Adam(lr=Cosine(start=0.1), betas=(0.5, 0.9))),
    ],
)
def test_a_recipe_with_every_kind_of_field_survives_too(spec):
    again = build(Recipe, tomllib.loads(dumps(spec)))
    assert again == spec
    assert repr(again) == repr(spec)
    assert hash(again) == hash(spec)


def test_fields_that_are_none_are_left_out_and_a_constant_is_written_as_its_number():
    table = to_dict(Recipe(objective=ELBO(beta=4)))
    assert not {"ema", "clip_norm", "patience"} & set(table)
    assert table["objective"]["beta"] == 4.0
    assert table["objective"]["name"] == "elbo"
    assert table["data"]["source"] == "digits"


@pytest.mark.parametrize("value", [4, 4.0, {"name": "constant", "value": 4}, Constant(value=4)])
def test_a_scalar_is_a_constant_schedule(value):
    assert ELBO(beta=value).beta == Constant(value=4.0)


@pytest.mark.parametrize("value", [ELBO(beta=2), {"name": "elbo", "beta": 2}])
def test_a_component_is_an_instance_or_a_table(value):
    assert Recipe(objective=value).objective == ELBO(beta=2)


def test_a_component_is_also_its_name():
    assert Recipe(objective="elbo").objective == ELBO()
    assert VAE(encoder="conv").encoder == Conv()


def test_specs_are_frozen_and_take_keywords_only():
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        ELBO().beta = Constant(value=2)
    with pytest.raises(TypeError):
        ELBO(4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DiagonalGaussian", "diagonal-gaussian"),
        ("IWAE", "iwae"),
        ("VAE", "vae"),
        ("latent_dim", "latent-dim"),
    ],
)
def test_names_are_kebab_case(name, expected):
    assert kebab(name) == expected


# --- mistakes ---------------------------------------------------------------------------------


def refused(table, overrides=None) -> str:
    with pytest.raises(ConfigError) as caught:
        override(table, overrides) if overrides else build(Recipe, table)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "where", "says"),
    [
        ({"epoch": 3}, "epoch:", "did you mean 'epochs'"),
        ({"model": {"name": "vae", "latnt-dim": 3}}, "model.latnt-dim:", "did you mean 'latent-dim'"),
        (
            {"model": {"name": "vae", "encoder": {"name": "mlp", "hiden": [3]}}},
            "model.encoder.hiden:",
            "'hidden'",
        ),
        ({"model": {"name": "vea"}}, "model:", "did you mean 'vae'"),
        ({"objective": "elbw"}, "objective:", "did you mean 'elbo'"),
        ({"epochs": "many"}, "epochs:", "got 'many'"),
        ({"epochs": 0}, "epochs:", "got 0"),
        ({"epochs": 2.5}, "epochs:", "got 2.5"),
        ({"model": {"name": "vae", "latent_dim": 0}}, "model.latent-dim:", "got 0"),
        (
            {"model": {"name": "vae", "encoder": {"name": "mlp", "hidden": [3, 0]}}},
            "model.encoder.hidden.1:",
            "got 0",
        ),
        ({"objective": {"name": "elbo", "kl": "closed"}}, "objective.kl:", "'closed-form'"),
        ({"optimizer": {"name": "adam", "lr": math.nan}}, "optimizer.lr", "finite"),
        ({"objective": 4}, "objective:", "the name of an objective"),
        ({"model": {"latent_dim": 3}}, "model:", "the name of a model, or a table with a name"),
        ({"precision": "fp16"}, "precision:", "'fp32' or 'bf16'"),
        ({"ema": 1.0}, "ema:", "less than 1"),
        ({"data": {"validation": 1.5}}, "data.validation:", "a share from 0 up to below 1"),
        ({"data": {"size": 0}}, "data.size:", "at least 1"),
        ({"data": {"transforms": ["binarize"]}}, "data.transforms.0:", "did you mean 'binarise'"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_the_nearest_right_name(table, where, says):
    message = refused(table)
    assert f"\n  {where}" in message
    assert says in message


def test_several_mistakes_are_named_in_one_message():
    message = refused(
        {
            "epochs": 0,
            "seed": "x",
            "model": {"name": "vae", "latent_dimm": 2},
            "objective": {"name": "elbo", "free_bits": -1},
        }
    )
    lines = message.splitlines()[1:]
    assert [line.strip().partition(":")[0] for line in lines] == [
        "model.latent-dimm",
        "objective.free-bits",
        "epochs",
        "seed",
    ]


def test_pixels_below_zero_are_refused_for_a_bernoulli_before_any_data_is_read():
    to_tanh = {"data": {"transforms": [{"name": "scale", "low": -1.0, "high": 1.0}]}}
    message = refused(to_tanh)
    assert "[-1, 1]" in message
    assert "bernoulli" in message
    assert "--model.likelihood gaussian" in message
    assert Recipe(data=Data(transforms=(Scale(low=-1, high=1),)), model=VAE(likelihood=Gaussian()))
    assert Recipe(data=Data(transforms=(Scale(low=0.1, high=0.9),)))


# --- overrides --------------------------------------------------------------------------------


def test_naming_another_class_drops_the_old_fields_and_naming_the_same_keeps_them():
    base = Recipe(model=VAE(latent_dim=7, encoder=MLP(hidden=(3,), activation="elu")))
    assert override(base, {"model.encoder": "conv"}).model.encoder == Conv()
    assert override(base, {"model.encoder": "mlp"}) == base
    swapped = override(base, {"model.encoder.channels": [8], "model.encoder": "conv"})
    assert swapped.model.encoder == Conv(channels=(8,))
    assert swapped.model.latent_dim == 7
    assert "model.encoder.channels" in refused(base, {"model.encoder.channels": [8]})


def test_a_scalar_field_becomes_a_schedule_and_back():
    base = Recipe(objective=ELBO(free_bits=0.1))
    warm = override(base, {"objective.beta": "linear", "objective.beta.epochs": 25})
    assert warm.objective == ELBO(beta=Linear(epochs=25), free_bits=0.1)
    assert override(warm, {"objective.beta.epochs": 5}).objective.beta == Linear(epochs=5)
    assert override(warm, {"objective.beta.end": 2}).objective.beta == Linear(epochs=25, end=2)
    assert override(warm, {"objective.beta": 4}).objective.beta == Constant(value=4)
    assert override(base, {"objective.beta.value": 3}).objective.beta == Constant(value=3)
    assert "objective.beta.epochs: unknown field" in refused(base, {"objective.beta.epochs": 3})


def test_a_source_keeps_the_other_fields_of_the_data():
    base = Recipe(data=Data(validation=0.2, transforms=(Binarise(),)))
    changed = override(base, {"data": "mnist"}).data
    assert changed == Data(source="mnist", validation=0.2, transforms=(Binarise(),))


def test_none_takes_a_setting_back():
    base = Recipe(ema=0.9, clip_norm=1.0)
    assert override(base, {"ema": None}) == Recipe(clip_norm=1.0)
    conv = Recipe(model=VAE(encoder=Conv(top=8)))
    assert override(conv, {"model.encoder.top": None}).model.encoder == Conv()


def test_a_list_of_transforms_is_replaced_as_a_whole():
    base = Recipe(data=Data(transforms=(Binarise(threshold=3),)))
    assert (
        override(base, {"data.transforms": "dynamic-binarise"}).data.transforms[0].name == "dynamic-binarise"
    )
    assert override(base, {"data.transforms": []}).data.transforms == ()
    two = override(base, {"data.transforms": [{"name": "resize", "height": 4}, "binarise"]}).data.transforms
    assert [step.name for step in two] == ["resize", "binarise"]


@pytest.mark.parametrize(
    "key", ["nothing.at.all", "seed.x", "objective.k.x", "model.encoder.hidden.0", "", "."]
)
def test_a_path_that_leads_nowhere_is_refused(key):
    assert "unknown field" in refused(Recipe(), {key: 3})


def test_overriding_changes_a_copy():
    base = Recipe()
    override(base, {"epochs": 3, "model.latent_dim": 2, "optimizer.betas": [0.5, 0.9]})
    assert base == Recipe()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.latent-dim", "16"], {"model.latent_dim": 16}),
        (["--ema=0.99", "--epochs", "3"], {"ema": 0.99, "epochs": 3}),
        (["--x", "-1"], {"x": -1}),
        (["--x=-1e-3"], {"x": -0.001}),
        (["--x", ".001"], {"x": 0.001}),
        (["--x", "1."], {"x": 1.0}),
        (["--x", "-.5e2"], {"x": -50.0}),
        (["--x", "none"], {"x": None}),
        (["--x", "True"], {"x": True}),
        (["--x", "512,256"], {"x": [512, 256]}),
        (["--x", "[512, 256]"], {"x": [512, 256]}),
        (["--x", "binarise,resize"], {"x": ["binarise", "resize"]}),
        (["--x", '"a, b"'], {"x": "a, b"}),
        (["--x", "'7'"], {"x": "7"}),
        (["--x", "a=b"], {"x": "a=b"}),
        (["--x=a=b"], {"x": "a=b"}),
        (["--x="], {"x": ""}),
        (["--x", "2024-01-01"], {"x": "2024-01-01"}),
        (["--x", "/data/my images"], {"x": "/data/my images"}),
        (["--x", "{name = 'conv', channels = [8]}"], {"x": {"name": "conv", "channels": [8]}}),
    ],
)
def test_flags_become_values(arguments, expected):
    found = parse_flags(arguments)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--x"], "--x needs a value, as in --x VALUE"),
        (["--x", "--y", "1"], "--x needs a value"),
        (["x"], "unexpected argument 'x'"),
        (["-x", "1"], "unexpected argument '-x'"),
    ],
)
def test_flags_that_are_none_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        parse_flags(arguments)


def test_flags_reach_the_recipe():
    flags = "--objective elbo --objective.beta 4 --model.encoder conv --model.encoder.channels 8,16 --optimizer adamw"
    recipe = override(Recipe(), parse_flags(flags.split()))
    assert recipe.objective == ELBO(beta=4)
    assert recipe.model.encoder == Conv(channels=(8, 16))
    assert recipe.optimizer.name == "adamw"


def test_parse_value_of_text_is_the_text():
    assert parse_value("fashion-mnist") == "fashion-mnist"
    assert parse_value("007") == "007"


def test_differences_are_dotted_fields():
    a, b = to_dict(Recipe()), to_dict(Recipe(epochs=3, ema=0.5, model=VAE(latent_dim=2)))
    assert differences(a, b) == ["ema: None -> 0.5", "epochs: 20 -> 3", "model.latent-dim: 16 -> 2"]
    assert differences(a, a) == []


# --- files ------------------------------------------------------------------------------------


def test_a_file_may_start_from_a_recipe_and_name_what_differs(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'recipe = "fashion-mlp"\nepochs = 3\n'
        "[model]\nlatent-dim = 8\n[model.encoder]\nhidden = [64]\n"
        "[objective.beta]\nepochs = 2\n[data]\nsource = 'digits'\n"
    )
    base = named("fashion-mlp")
    found = resolve(file, {"seed": 4})
    assert differences(to_dict(base), to_dict(found)) == [
        "data.source: 'fashion-mnist' -> 'digits'",
        "epochs: 50 -> 3",
        "model.encoder.hidden: [512, 256] -> [64]",
        "model.latent-dim: 32 -> 8",
        "objective.beta.epochs: 25 -> 2",
        "seed: 0 -> 4",
    ]


def test_a_file_without_a_recipe_starts_from_the_defaults(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('[objective]\nname = "elbo"\nbeta = 4\n')
    assert resolve(file) == Recipe(objective=ELBO(beta=4))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs = \nseed = 1", r"bad\.toml: not readable as TOML.*line 1"),
        ("a = 1\na = 2", r"bad\.toml: not readable as TOML"),
        (b"\xff\xfe", r"bad\.toml: not readable as TOML"),
        ("epoch = 2", r"(?s)bad\.toml cannot be used.*did you mean 'epochs'"),
        (
            'recipe = "digits"\n[model]\nlatnt-dim = 2',
            r"(?s)bad\.toml cannot be used.*model\.latnt-dim.*'latent-dim'",
        ),
        ('recipe = "digts"', r"did you mean 'digits'"),
        (None, r"bad\.toml: no such configuration file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, says):
    file = tmp_path / "bad.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=says):
        resolve(file)


def test_a_folder_is_no_configuration_file(tmp_path):
    with pytest.raises(ConfigError, match=r"\.toml: cannot be read"):
        resolve(tmp_path.rename(tmp_path.with_suffix(".toml")))


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        resolve("digit")


def test_a_recipe_or_its_name_resolves_to_itself():
    assert resolve("digits") == named("digits")
    assert resolve(Recipe(seed=3)) == Recipe(seed=3)


def test_a_spec_without_an_axis_is_a_plain_table():
    class Loose(Spec):
        """A spec without an axis is not registered."""

        x: int = 1

    assert not Loose.is_abstract()
    assert to_dict(Loose()) == {"x": 1}
    with pytest.raises(ConfigError, match="expected a table of x"):
        build(Loose, 3)


@pytest.mark.parametrize(
    "table", [{"epochs": True}, {"model": {"latent_dim": True}}, {"objective": {"beta": True}}]
)
def test_true_is_not_one(table):
    with pytest.raises(ConfigError):
        build(Recipe, table)


def test_a_runs_own_configuration_trains_the_same_run(tmp_path):
    """A resolved file leaves out what is none, and must not be laid over its recipe again."""
    wanted = resolve("fashion-mlp", {"objective.beta": {"name": "linear", "steps": 100}, "data.size": None})
    (tmp_path / "config.toml").write_text(dumps(wanted))
    assert resolve(tmp_path / "config.toml") == wanted
