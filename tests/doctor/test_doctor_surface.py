"""The verb, how its argument is told apart, what is missing, and the commands it prints."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import nelbo
from nelbo import doctor
from nelbo.cli import main
from nelbo.core.catalogue import docline
from nelbo.core.config import parse_flags
from nelbo.core.registry import lookup, names
from nelbo.data import Data
from nelbo.doctor.command import Change, flag_value, merged
from nelbo.doctor.latent import against_collapse
from nelbo.doctor.opening import also, open_case, tell_apart
from nelbo.errors import ConfigError, DataError, RunError
from nelbo.training.recipe import resolve
from nelbo.training.store import Run

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"


# --- the page ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names("check"))
def test_every_check_has_a_section_that_says_what_it_means_looks_at_and_advises(name):
    sections = dict(
        re.findall(r"^### `([a-z-]+)`\n(.*?)(?=^##|\Z)", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    )
    assert name in sections, f"docs/doctor.md has no section on {name}"
    for word in ("**Seen in**", "**Found when**", "**Do**"):
        assert word in sections[name], f"{name}: {word}"
    assert len(docline(lookup("check", name))) > 30


def test_the_page_has_no_section_on_a_check_that_is_not_there():
    assert set(re.findall(r"^### `([a-z-]+)`", PAGE.read_text(encoding="utf-8"), re.M)) == set(names("check"))


# --- which is which ---------------------------------------------------------------------------


def test_a_name_is_a_run_first_then_a_recipe_then_data(healthy, tmp_path):
    assert tell_apart("digits", tmp_path) == "config"
    assert also("digits", "config", tmp_path) == ["data"]
    shutil.copytree(healthy.path, tmp_path / "digits")
    assert tell_apart("digits", tmp_path) == "run"
    assert also("digits", "run", tmp_path) == ["config", "data"]
    assert tell_apart("latest", tmp_path) == "run"
    assert tell_apart("mnist", tmp_path) == "data"
    assert tell_apart("emnist:letters", tmp_path) == "data"
    assert tell_apart("any.toml", tmp_path) == "config"
    assert tell_apart(tmp_path, tmp_path) == "data"
    assert tell_apart(Run(tmp_path), tmp_path) == "run"
    assert tell_apart(resolve("digits"), tmp_path) == "config"
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        tell_apart("digit", tmp_path)


def test_every_way_to_name_a_subject_from_python(healthy, digits):
    for what, kind in [
        (healthy, "run"), (str(healthy.path), "run"), (healthy.path, "run"), ("digits", "config"),
        (resolve("digits"), "config"), (digits[0], "data"),
    ]:  # fmt: skip
        assert nelbo.diagnose(what, device="cpu").kind == kind


@pytest.mark.parametrize(("what", "more", "error", "words"), [
    ("no-such-thing", {}, ConfigError, "is no run, recipe, .toml file, data set or path"),
    ("no-such-thing", {"kind": "run"}, RunError, "no run is called"),
    ("no.toml", {}, ConfigError, "no such configuration file"),
    ("mnist", {"data_dir": "empty"}, DataError, "nelbo data get mnist"),
    ("digits", {"kind": "data", "size": 0}, Exception, "at least 1"),
])  # fmt: skip
def test_what_cannot_be_looked_at_is_refused(what, more, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        nelbo.diagnose(what, **more)


# --- what is missing --------------------------------------------------------------------------


def test_a_configuration_whose_data_is_not_here_is_looked_at_without_it(tmp_path):
    """As published: caught from the configuration alone, and nothing is downloaded."""
    diagnosis = nelbo.diagnose("mlp-sigma-as-published", data_dir=tmp_path)
    assert [f.check for f in diagnosis.findings] == ["learning-rate", "unbounded-sigma", "kl-weight"]
    assert diagnosis.not_looked_at["grey-pixels"] == (
        "the data is not at hand: mnist is not here; bring it with: nelbo data get mnist"
    )
    assert list(tmp_path.iterdir()) == []


def test_every_check_is_either_looked_at_or_not(healthy, digits, tmp_path):
    empty = Run(tmp_path / "empty")
    shutil.copytree(healthy.path, empty.path)
    shutil.rmtree(empty.path / "checkpoints")
    (empty.path / "metrics.jsonl").unlink()
    (empty.path / "summary.json").unlink()
    for what in (healthy, empty, "digits", digits[0]):
        diagnosis = nelbo.diagnose(what, device="cpu")
        assert sorted([*diagnosis.looked_at, *diagnosis.not_looked_at]) == names("check")
        assert all(diagnosis.not_looked_at.values())
    about = nelbo.diagnose(empty, device="cpu").not_looked_at
    assert "no epoch is finished" in about["diverging"]
    assert "no checkpoint 'best'" in about["dead-units"]


def test_a_damaged_run_is_refused_with_the_file(healthy, tmp_path):
    run = Run(Path(shutil.copytree(healthy.path, tmp_path / "run")))
    (run.path / "config.toml").write_text("epochs = 'many'", encoding="utf-8")
    with pytest.raises(RunError, match=r"config\.toml"):
        nelbo.diagnose(run)


# --- the commands -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [
    1.0, 3e-06, -1.5, 7, True, "learned", [-1.0, 1.0], [64], [512, 256], ["resize", "scale"],
    [{"name": "resize", "height": 16}, {"name": "dynamic-binarise"}],
])  # fmt: skip
def test_a_flag_says_the_value_it_was_made_from(value):
    assert parse_flags(["--field", flag_value(value)]) == {"field": value}


def test_no_value_is_none():
    assert flag_value([]) == flag_value(None) == "none"


def test_commands_are_quoted_and_carry_imports():
    change = Change("my runs/a b/config.toml", {"model.latent_dim": 3}, {"runs": ""}, ("my.py",))
    assert change.command == "nelbo train 'my runs/a b/config.toml' --model.latent-dim 3 --import my.py"


def test_changes_are_joined_where_they_agree():
    one, two = Change("digits", {"seed": 1}), Change("digits", {"epochs": 3, "seed": 1})
    python = Change("recipe", {"seed": 1}, in_python=True)
    joined = merged([one, python, two])
    assert joined is not None
    assert joined.fields == {"seed": 1, "epochs": 3}
    assert joined.command == "nelbo train digits --seed 1 --epochs 3"
    assert merged([]) is merged([one]) is merged([one, one]) is None
    assert merged([one, Change("digits", {"seed": 2})]) is None
    assert merged([one, Change("mnist", {"epochs": 2})]) is None
    named = merged([one, Change("digits", {"epochs": 2}, {"name": "x", "runs": ""})])
    assert named is not None
    assert named.command == "nelbo train digits --seed 1 --epochs 2 --name x"


def test_grey_images_are_binarised_behind_what_is_done_once(lab):
    config = lab.config({"data.transforms": [{"name": "resize", "height": 6}]})
    command = lab.found(nelbo.diagnose(config), "grey-pixels").command
    words = shlex.split(command)
    at = words.index("--data.transforms")
    kept = parse_flags(words[at : at + 2])["data.transforms"]
    assert [entry["name"] for entry in kept] == ["resize", "dynamic-binarise"]
    assert kept[0]["height"] == 6


def test_following_the_advice_cures_what_was_found(lab):
    """All of it at once, for a configuration with five faults."""
    config = lab.config({
        "objective.beta": 2, "optimizer.lr": 3e-6, "model.posterior.parametrisation": "raw-sigma",
        "model.posterior.noise": "shared", "batch_reduction": "sum", "clip_norm": 1.0,
    })  # fmt: skip
    sick = nelbo.diagnose(config)
    assert len(sick.findings) == 5
    *_, flags = sick.command.partition(f"{config} ")
    cured = resolve(config, parse_flags(flags.split()))
    assert nelbo.diagnose(cured).findings == ()


@pytest.mark.parametrize("objective", names("objective"))
def test_the_advice_against_a_collapse_is_one_that_the_objective_takes(objective, lab, capsys):
    """Free bits and a weight of the KL are fields that not every objective has."""
    changes: dict[str, object] = {"objective": objective}
    if objective == "vq":
        changes |= {"model": "vq-vae"}
    elif not lookup("objective", objective).needs_density:
        changes |= {"model.posterior": "dirac"} | (
            {"objective.alpha": 1.0} if objective == "info-vae" else {}
        )
    elif "beta" in lookup("objective", objective).model_fields and objective != "tcvae":
        changes |= {"objective.beta": "linear", "objective.beta.epochs": 5}
    followed(changes, lab)
    capsys.readouterr()


def followed(changes, lab):
    """The recipe as it is advised: it can be run, and is another one."""
    file = lab.config(changes)
    remedy, change = against_collapse(open_case(file))
    command = change.command
    assert remedy.endswith(".")
    lab.can_be_run(command)
    advised = resolve(file, parse_flags(shlex.split(command)[3:]))
    assert advised != resolve(file)
    return remedy, advised


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "rae", "objective.latent_weight": 0.0, "model.posterior": "dirac"},
        {"objective.beta": "linear", "objective.beta.epochs": 5, "objective.free_bits": 0.5},
    ],
    ids=str,
)
def test_no_advice_leaves_things_as_they_are(changes, lab, capsys):
    followed(changes, lab)
    capsys.readouterr()


def test_advice_that_changes_the_objective_says_so_and_keeps_its_warm_up(lab, capsys):
    changes = {"objective": "iwae", "objective.k": 8, "objective.beta": "linear", "objective.beta.epochs": 5}
    remedy, advised = followed(changes, lab)
    assert remedy.startswith("Train the ELBO instead")
    assert advised.objective.beta == resolve("digits", changes).objective.beta
    capsys.readouterr()


def test_a_recipe_from_python_gets_python(digits):
    recipe = resolve("digits", {"objective.beta": 5.0})
    (finding,) = nelbo.diagnose(recipe).findings
    assert finding.changes == {"objective.beta": 1.0}
    assert finding.command == "nelbo.train(recipe, overrides={'objective.beta': 1.0})"
    (finding,) = nelbo.diagnose("mlp-tanh-binary", data=digits[0][:80]).findings
    assert finding.check == "few-images"
    assert finding.command.startswith("nelbo.train('mlp-tanh-binary', overrides={")
    assert finding.command.endswith("data=images)")


# --- the verb ---------------------------------------------------------------------------------


def test_the_verb_says_what_it_found_and_what_it_looked_at(lab, capsys):
    file = lab.config({"objective.beta": 5})
    assert main(["doctor", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "1. The KL weighs 5, not 1" in out
    assert f"\n     nelbo train {file} --objective.beta 1\n" in out
    assert "Not looked at, because a configuration has none yet" in out
    assert max(len(line) for line in out.splitlines() if "nelbo train" not in line) <= 110


def test_the_verb_as_json(healthy, lab, capsys):
    assert main(["doctor", str(healthy.path), "--json", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert set(json.loads(out)) == {"subject", "kind", "findings", "command", "looked_at", "not_looked_at"}
    assert main(["doctor", str(lab.config({"objective.beta": 5})), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["findings"][0]) == {
        "what",
        "severity",
        "evidence",
        "remedy",
        "command",
        "changes",
        "check",
    }
    assert {"check", "why"} == set(found["not_looked_at"][0])


def test_a_name_that_could_be_several_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "digits"]) == 0
    assert capsys.readouterr().err == "digits is read as a config; as data: --kind data\n"
    assert main(["doctor", "digits", "--kind", "data"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("digits, a set of images\n\nNothing found. Looked at 7:")
    assert err == ""


def test_data_without_copies_is_written_and_read_back(digits, lab, tmp_path, capsys):
    train, test = digits
    labels = np.array(["even", "odd"])[np.arange(300) % 2]
    file = lab.npz(images=np.concatenate([train[:200], train[:100]]), labels=labels, x_test=test)
    out = tmp_path / "new.npz"
    assert main(["doctor", str(file), "--distinct", str(out)]) == 0
    assert "200 of 300 training images are new" in capsys.readouterr().err
    splits = Data(source=str(out)).load()
    assert np.array_equal(splits.train.pixels_NCHW[:, 0], train[:200])
    assert np.array_equal(splits.test.pixels_NCHW[:, 0], test)
    assert splits.train.class_names == ("even", "odd")
    assert splits.train.labels_N.tolist() == [i % 2 for i in range(200)]


@pytest.mark.parametrize(("flags", "words"), [
    (["--distinct", "new.txt"], "ending in .npz"),
    (["--distinct", "there.npz"], "such a file already"),
    (["--distinct", "there.npz/new.npz"], "is a file"),
    (["--kind", "config", "--distinct", "new.npz"], "is about data"),
    (["--kind", "recipe"], ""),
])  # fmt: skip
def test_wrong_use_of_the_verb(flags, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("there.npz").touch()
    assert main(["doctor", "digits", *flags]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]


@pytest.mark.usefixtures("_forgotten")
def test_a_check_may_come_from_a_file(tmp_path, lab, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "from nelbo.doctor import Finding, check\n"
        "@check('configuration')\n"
        "def odd_seed(case):\n"
        "    '''A seed that is odd.'''\n"
        "    if case.recipe.seed % 2:\n"
        "        yield Finding('It is odd.', 'worth knowing', 'seed 1', 'Add one.', case.retrain({'seed': 2}))\n",
        encoding="utf-8",
    )
    config = lab.config({"seed": 1})
    assert main(["doctor", str(config), "--import", str(file), "--json"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["check"] == "odd-seed"
    assert finding["command"] == f"nelbo train {config} --seed 2 --import {file}"


def test_the_package_exports_what_a_check_needs():
    assert {"Case", "Finding", "NotLooked", "check", "diagnose"} <= set(doctor.__all__)
