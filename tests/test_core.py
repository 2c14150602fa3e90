"""The registry, and the values that models and objectives hand to each other."""

from __future__ import annotations

import types

import pytest
import torch

from nelbo.core import Draw, Progress, Terms
from nelbo.core.catalogue import docline, entries, import_files
from nelbo.core.registry import HOMES, lookup, names, register
from nelbo.errors import ConfigError, UnknownName, did_you_mean, nearest


@pytest.mark.parametrize("axis", HOMES)
def test_every_entry_is_found_by_its_name_in_either_spelling_and_says_what_it_is(axis):
    assert names(axis) == sorted(names(axis)) != []
    for name, entry in entries(axis).items():
        assert lookup(axis, name) is lookup(axis, name.replace("-", "_")) is entry
        assert docline(entry), f"{axis} {name} has no docstring"


@pytest.mark.parametrize(
    ("axis", "typed", "meant"),
    [
        ("objective", "ebo", "elbo"),
        ("posterior", "diagonal_gausian", "diagonal-gaussian"),
        ("recipe", "fashionmlp", "fashion-mlp"),
        ("dataset", "MNIST ", "mnist"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_one(axis, typed, meant):
    with pytest.raises(UnknownName) as caught:
        lookup(axis, typed)
    message = str(caught.value)
    assert axis in message
    assert repr(typed) in message
    assert f"did you mean {meant!r}" in message
    assert caught.value.exit_code == 2


def test_nearest_offers_nothing_when_nothing_is_near_and_completes_prefixes():
    assert nearest("zzzz", ["elbo", "iwae"]) == []
    assert nearest("fash", ["mnist", "fashion-mnist"]) == ["fashion-mnist"]
    assert "did you mean" not in did_you_mean("zzzz", ["elbo"])
    assert did_you_mean("zzzz", ["b", "a"]).endswith("Known: a, b")


@pytest.mark.usefixtures("_forgotten")
def test_two_different_entries_of_one_name_are_refused_and_the_same_one_is_not():
    def first() -> None: ...

    def second() -> None: ...

    assert register("metric", "made-up", first) is first
    assert register("metric", "made-up", first) is first
    with pytest.raises(ValueError, match="made-up"):
        register("metric", "made-up", second)
    assert lookup("metric", "made-up") is first


@pytest.mark.usefixtures("_forgotten")
def test_importing_a_file_registers_what_it_defines(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from nelbo.objectives import Objective\nclass MyBound(Objective):\n    '''Mine.'''\n    w: float = 1.0\n"
    )
    import_files([file])
    assert lookup("objective", "my-bound")(w=2).w == 2.0


@pytest.mark.parametrize(
    ("text", "says"), [("1 +", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), (None, "no such file")]
)
def test_a_file_that_cannot_be_imported_is_named(tmp_path, text, says):
    file = tmp_path / "broken.py"
    if text:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rf"broken\.py.*{says}"):
        import_files([file])


class Counting:
    """A distribution that counts how often it is asked."""

    not_a_bound = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    def log_prob(self, z):
        self.asked.append("log_prob")
        return z.sum(-1)

    def kl_to(self, prior):
        self.asked.append("kl_to")
        return torch.zeros(2, 3)


def test_a_draw_computes_each_density_when_first_read_and_only_once():
    posterior, prior = Counting(), Counting()
    z_KBZ = torch.ones(4, 2, 3)
    draw = Draw(z_KBZ=z_KBZ, log_px_KB=torch.zeros(4, 2), posterior=posterior, prior=prior)
    assert posterior.asked == prior.asked == []
    assert draw.not_a_bound is None
    for _ in range(3):
        assert draw.kl_BG.shape == (2, 3)
    assert posterior.asked == ["kl_to"]
    assert prior.asked == []
    for _ in range(3):
        assert draw.log_pz_KB.shape == draw.log_qz_KB.shape == (4, 2)
    assert posterior.asked == ["kl_to", "log_prob"]
    assert prior.asked == ["log_prob"]
    assert draw.decode is draw.decoder_weights is draw.sample is None


def test_progress_is_a_share_of_the_steps():
    assert Progress(step=0, steps=10).fraction == 0.0
    assert Progress(step=5, steps=10).fraction == 0.5
    assert Progress(step=20, steps=10).fraction == 1.0
    assert Progress(step=0, steps=0).fraction == 0.0


# --- frozen --------------------------------------------------------------------------------------

FROZEN = {
    "Draw": {
        "z_KBZ", "log_px_KB", "log_pz_KB", "log_qz_KB", "kl_BG", "posterior", "prior", "x_BCHW", "likelihood", "sample",
        "decode", "decoder_weights", "not_a_bound",
    },
    "Terms": {"loss_B", "bound_B", "parts", "critic_loss_B"},
    "Progress": {"epoch", "epochs", "step", "steps", "images", "fraction"},
}  # fmt: skip
FROZEN_AXES = {
    "objective", "model", "net", "posterior", "prior", "likelihood", "spread", "sampler", "schedule", "optimizer",
    "transform", "dataset", "recipe", "metric", "picture", "check",
}  # fmt: skip


def public(made):
    return {name for name in dir(made) if not name.startswith("_")}


def test_the_vocabulary_is_frozen():
    """What every method of the literature is written in. Whoever changes it says why in docs/log.md, and here."""
    z = torch.zeros(1, 1, 2)
    values = {
        "Draw": Draw(
            z_KBZ=z, log_px_KB=z[..., 0], posterior=types.SimpleNamespace(not_a_bound=None), prior=None
        ),
        "Terms": Terms(loss_B=z, bound_B=None),
        "Progress": Progress(),
    }
    found = {name: public(value) for name, value in values.items()}
    assert found == FROZEN
    assert set(HOMES) == FROZEN_AXES
