"""Values on the command line: text where text is meant, truths that stand alone, short names, several seeds."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nelbo.cli import seeds
from nelbo.core.config import field_types, parse_as
from nelbo.core.registry import names, temporary
from nelbo.doctor.command import Change
from nelbo.errors import ConfigError
from nelbo.evaluation import card
from nelbo.metrics.base import Missing, Value
from nelbo.training.recipe import GROUPS, SHORT, Recipe, in_full, resolve
from nelbo.training.store import Run

TINY = ("--data.transforms", "none", "--epochs", 1, "--device", "cpu", "--no-figures", "--model.encoder.hidden", "8,",
        "--model.decoder.hidden", "8,")  # fmt: skip


def folder(path: str, n: int = 10, side: int = 8) -> None:
    """A folder of small grey pictures."""
    random = np.random.default_rng(0)
    Path(path).mkdir(parents=True)
    for index in range(n):
        Image.fromarray(random.integers(0, 256, (side, side)).astype(np.uint8)).save(f"{path}/{index}.png")


def source(nelbo, *arguments: object) -> str:
    """The data source that a dry run of the recipe `digits` comes to."""
    code, out, err = nelbo("train", "digits", "--data.transforms", "none", *arguments, "--dry-run", "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["config"]["data"]["source"]


TEXTS = [
    "2024.10",
    "1_000",
    "1e5",
    "0x10",
    "none",
    "true",
    "null",
    "a, b/scan",
    "[1]",
    "'quoted'",
    "007",
    "inf",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("flag", ["--data", "--data.source", "--data="])
def test_a_data_source_is_taken_as_it_is(flag, text, nelbo, tmp_path):
    (tmp_path / text).mkdir(parents=True)
    np.save(tmp_path / "x.npy", np.zeros((10, 8, 8), np.uint8))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / text / "0.png")
    words = [flag + text] if flag.endswith("=") else [flag, text]
    assert source(nelbo, *words) == str(tmp_path / text)


def test_two_folders_with_numbers_for_names_stay_two(nelbo):
    folder("2024.10", 60, 32)
    folder("2024.1", 40)
    arguments = ("train", "digits", "--data", "2024.10", *TINY, "--data.validation", 0.1, "--name", "dated")
    code, _, err = nelbo(*arguments)
    assert code == 0
    assert err.startswith("2024.10: 42 training, 6 validation and 12 test images, 32 x 32 x 1")


def test_a_file_of_toml_means_what_toml_says(tmp_path):
    (tmp_path / "a.toml").write_text('recipe = "digits"\n[data]\nsource = "1e5"\n', encoding="utf-8")
    assert resolve(tmp_path / "a.toml").data.source == "1e5"


@pytest.mark.parametrize("text", ['recipe = "digits"\nepochs = 2\n', 'recipe = "digits"\r\nepochs = 2\r\n'])
def test_a_file_of_toml_may_begin_with_a_byte_order_mark(text, nelbo, tmp_path):
    (tmp_path / "bom.toml").write_bytes(text.encode("utf-8-sig"))
    code, out, err = nelbo("train", "bom.toml", "--dry-run", "--json")
    assert (code, json.loads(out)["config"]["epochs"]) == (0, 2), err


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_of_another_encoding_says_so(encoding, nelbo, tmp_path):
    (tmp_path / "a.toml").write_bytes('recipe = "digits" # ö\n'.encode(encoding))
    code, out, err = nelbo("train", "a.toml", "--dry-run")
    assert (code, out) == (2, "")
    assert "a.toml: not readable as TOML: 'utf-8' codec can't decode byte" in err


def test_a_folder_with_the_name_of_a_data_set_is_said(nelbo):
    folder("mnist")
    code, _, err = nelbo("train", "digits", "--data", "digits", *TINY, "--name", "one")
    assert (code, "for the folder" in err) == (0, False)
    folder("digits")
    code, _, err = nelbo("train", "./digits", *TINY[2:6], "--dry-run")
    assert (code, "for the folder" in err) == (0, False)
    code, out, _ = nelbo("train", "vae-of-mine.toml", "--data", "digits")
    assert code == 2
    code, out, _ = nelbo("train", "shapes", "--data", "digits", "--data.transforms", "none", "--dry-run")
    assert code == 0, out
    assert "digits is the data set of that name; for the folder write --data ./digits" in out


def test_a_path_with_a_comma_goes_from_the_doctor_to_train(nelbo, tmp_path):
    folder("lab, june/scan")
    line = Change("digits", {"data.source": "lab, june/scan", "data.transforms": [], "epochs": 2}).command
    words = shlex.split(line)
    assert "'lab, june/scan'" in line
    code, out, _ = nelbo(*words[1:], "--dry-run", "--json")
    assert (code, json.loads(out)["config"]["data"]["source"]) == (0, str(tmp_path / "lab, june/scan"))
    _, out, _ = nelbo("doctor", "lab, june/scan", "--kind", "data")
    for printed in [each.strip() for each in out.splitlines() if each.strip().startswith("nelbo ")]:
        assert "'lab, june/scan'" in printed


def test_the_word_latest_is_no_name(nelbo, tmp_path):
    code, out, err = nelbo("train", "digits", "--name", "latest")
    assert (code, out) == (2, "")
    assert "--name latest: that is the word for the newest run" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["2024.10", "none", "true", "1_000"])
def test_a_name_is_text(name, nelbo):
    code, out, _ = nelbo("train", "digits", "--name", name, "--dry-run", "--json")
    assert (code, json.loads(out)["run"]) == (0, f"runs/{name}")


def test_text_that_may_be_missing_can_be_taken_away():
    assert parse_as("none", [str, type(None)]) is None
    assert parse_as("none", [str]) == "none"
    assert parse_as("1,2", [tuple]) == [1, 2]
    assert str in field_types(Recipe, ["data"])
    assert field_types(Recipe, ["data", "nothing"]) == field_types(Recipe, ["nothing"]) == []


# --- true and false ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "log_steps", "batch_norm"),
    [
        (["digits", "--log-steps"], True, False),
        (["--log-steps", "digits"], True, False),
        (["--log-steps", "false", "digits"], False, False),
        (["--log-steps=false", "digits", "--model.encoder.batch-norm"], False, True),
        (["--encoder.batch_norm", "digits", "--log-steps", "true"], True, True),
        (["--log_steps", "--encoder.batch-norm", "False", "digits"], True, False),
    ],
)
def test_a_flag_that_is_true_or_false_stands_alone(arguments, log_steps, batch_norm, nelbo):
    code, out, err = nelbo("train", *arguments, "--dry-run", "--json")
    assert (code, err) == (0, "")
    config = json.loads(out)["config"]
    assert (config["log_steps"], config["model"]["encoder"]["batch_norm"]) == (log_steps, batch_norm)


@pytest.mark.parametrize("flag", ["--epochs", "--model.latent-dim", "--data", "--lr", "--objective"])
def test_any_other_flag_needs_a_value(flag, nelbo):
    for arguments in (["digits", flag], [flag, "--log-steps", "digits"]):
        code, out, err = nelbo("train", *arguments, "--dry-run")
        assert (code, out) == (2, "")
        assert f"{flag} needs a value" in err


def test_fields_of_the_data_stand_alone_too(nelbo, tmp_path):
    folder("scan", 20)
    (tmp_path / "scan" / "broken.png").write_bytes(b"no picture")
    for arguments in (
        ("data", "check", "--data.skip-unreadable", "scan"),
        ("doctor", "--data.skip-unreadable", "scan", "--kind", "data"),
        ("train", "digits", "--data", "scan", *TINY, "--data.skip-unreadable", "--name", "x"),
    ):
        code, _, err = nelbo(*arguments)
        assert code == 0, err
    assert Run(tmp_path / "runs/x").recipe.data.skip_unreadable
    code, out, _ = nelbo("train", "digits", "--data.channels-last", "--dry-run", "--json")
    assert (code, json.loads(out)["config"]["data"]["channels_last"]) == (0, True)


def test_a_truth_takes_no_other_word(nelbo):
    code, _, err = nelbo("train", "digits", "--log-steps=many", "--dry-run")
    assert code == 2
    assert "log-steps" in err
    assert "'many'" in err


# --- short names ------------------------------------------------------------------------------


def test_short_names_are_the_whole_ones(nelbo):
    short = ("--lr", 3e-4, "--beta", "linear", "--beta.epochs", 7, "--encoder", "conv", "--encoder.channels", "8,16",
             "--decoder", "mlp", "--decoder.hidden", "[16]", "--prior", "mixture")  # fmt: skip
    whole = [in_full(word[2:]) if str(word).startswith("--") else word for word in short]
    whole = [f"--{new}" if str(old).startswith("--") else old for old, new in zip(short, whole, strict=True)]
    outputs = [nelbo("train", "digits", *arguments, "--dry-run") for arguments in (short, whole)]
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == 0
    assert {name: resolve("digits", {name: value}) for name, value in (("lr", 0.5), ("beta", 2))} == {
        "lr": resolve("digits", {"optimizer.lr": 0.5}),
        "beta": resolve("digits", {"objective.beta": 2}),
    }


def test_every_short_name_is_of_a_field():
    for name, whole in SHORT.items():
        assert name not in Recipe.model_fields
        resolve(
            "digits",
            {name: resolve("digits").setting(whole.partition(".")[0]).setting(whole.partition(".")[2])},
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lrr", "1"], ["--lrr", "'lr'"]),
        (["--betta", "1"], ["--betta", "'beta'"]),
        (["--encodr", "mlp"], ["--encodr", "'encoder'"]),
        (["--seds", "0:3"], ["--seds", "'seeds'"]),
        (["--lr", "1e-3", "--optimizer.lr", "1e-4"], ["optimizer.lr is set twice"]),
        (["--encoder", "cnv"], ["no net is called 'cnv'", "'conv'"]),
        (["--beta", "much"], ["objective.beta"]),
    ],
)
def test_a_wrong_short_name_or_value_is_named(arguments, words, nelbo):
    code, out, err = nelbo("train", "digits", *arguments, "--dry-run")
    assert (code, out) == (2, "")
    for word in words:
        assert word in err


def test_a_name_set_twice_is_refused_in_python_too():
    with pytest.raises(ConfigError, match="set twice"):
        resolve("digits", {"beta": 1, "objective.beta": 2})


# --- seeds ------------------------------------------------------------------------------------


def test_seeds_are_runs_one_after_the_other(nelbo, tmp_path):
    folder("scan", 30)
    train = ("train", "digits", "--data", "scan", *TINY)
    assert nelbo(*train, "--seed", 1, "--name", "three-s1")[0] == 0
    before = (tmp_path / "runs/three-s1/summary.json").read_bytes()
    code, out, err = nelbo(*train, "--seeds", "0:3", "--name", "three")
    assert code == 0, err
    assert re.findall(r"^seed (\d) of 0 to 2: runs/three-s\d$", err, re.MULTILINE) == ["0", "1", "2"]
    assert "runs/three-s1 is finished already" in err
    assert (tmp_path / "runs/three-s1/summary.json").read_bytes() == before
    runs = [Run(tmp_path / f"runs/three-s{seed}") for seed in range(3)]
    assert [run.recipe.seed for run in runs] == [0, 1, 2]
    values = [run.summary["metrics"]["nelbo"]["value"] for run in runs]
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / 3**0.5)
    (row,) = [line for line in out.splitlines() if line.startswith("mean of 3")]
    words = row.split()
    assert abs(float(words[3]) - mean) < 0.06
    assert words[4] == "±"
    assert abs(float(words[5]) - error) <= 0.051 * error
    assert row.endswith("over seeds")
    assert "nelbo compare runs/three-s0 runs/three-s1 runs/three-s2" in out
    code, out, _ = nelbo(*train, "--seeds", "0:3", "--name", "three", "--json")
    table = json.loads(out)
    assert [run["run"] for run in table["runs"]] == ["three-s0", "three-s1", "three-s2"]
    assert (table["nelbo"]["value"], table["nelbo"]["standard_error"]) == pytest.approx((mean, error))


def test_seeds_have_the_names_of_single_runs(nelbo, tmp_path):
    code, out, _ = nelbo("train", "digits", "--seeds", "4:6", "--dry-run", "--json")
    assert code == 0
    assert [run["run"] for run in json.loads(out)["runs"]] == ["runs/digits-s4", "runs/digits-s5"]
    assert [run["config"]["seed"] for run in json.loads(out)["runs"]] == [4, 5]
    assert (
        nelbo("train", "digits", "--seeds", "4:6", "--dry-run")[1].count("# would train in runs/digits-s")
        == 2
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["3", "0:0", "3:1", "a:b", "-1:2", "0:", ":3", "0:3:1", "0:9999999", "", "1.5:2"]
)
def test_seeds_that_are_no_range_are_refused(text, nelbo, tmp_path):
    code, out, err = nelbo("train", "digits", f"--seeds={text}")
    assert (code, out) == (2, "")
    assert f"--seeds {text!r}: expected FIRST:END, as in 0:3" in err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_a_later_seed_is_said_before_the_first_is_trained(nelbo, tmp_path):
    (tmp_path / "runs/two-s1").mkdir(parents=True)
    (tmp_path / "runs/two-s1/notes.txt").write_text("mine", encoding="utf-8")
    for arguments, words in [
        (("--name", "two"), "runs/two-s1 exists and is not a run folder"),
        (("--seed", 1), "--seed and --seeds exclude each other"),
        (("--name", "a/b"), "expected a plain folder name"),
    ]:
        code, _, err = nelbo("train", "digits", "--seeds", "0:2", *arguments)
        assert (code, words in err) == (2, True), err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["two-s1"]


def test_without_a_bound_the_mean_says_why():
    none = Value.none("nats/image", Missing("not a bound", "why")).to_dict()
    number = Value(3.0, "nats/image").to_dict()
    assert seeds._mean([number, none])["value"] is None
    assert seeds._mean([number, none])["missing"] == "not a bound"
    one = seeds._mean([number])
    assert (one["value"], one["standard_error"]) == (3.0, None)


# --- the list of recipes ----------------------------------------------------------------------

MINE = """
from nelbo.training.recipe import Recipe, recipe

@recipe
def plain_one() -> Recipe:
    '''A recipe of my own.'''
    return Recipe()

@recipe(group="the clinic")
def grouped_one() -> Recipe:
    '''Another one.'''
    return Recipe()
"""


def test_recipes_are_listed_in_groups(nelbo, tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    with temporary():
        code, out, _ = nelbo("recipes", "--import", "mine.py", "--json")
        table = json.loads(out)
        shown = nelbo("recipes", "--import", "mine.py")[1]
        assert code == 0
        assert set(table) == set(names("recipe"))
        assert table["grouped-one"] == {"group": "the clinic", "what": "Another one."}
    assert list(dict.fromkeys(row["group"] for row in table.values())) == [*GROUPS, "the clinic"]
    of_group = {group: {name for name, row in table.items() if row["group"] == group} for group in GROUPS}
    assert of_group[GROUPS[0]] == {"digits"}
    assert of_group[GROUPS[1]] == {"images"}
    assert {"conv-2d", "mlp-sigma-as-published", "conv-bn-128", "mlp-tanh-binary", "fashion-mlp"} <= of_group[
        GROUPS[2]
    ]
    assert of_group[GROUPS[3]] == {"mnist-vae", "shapes"}
    assert of_group[GROUPS[4]] == {"plain-one"}
    places = [shown.index(f"{group}\n") for group in (*GROUPS, "the clinic")]
    assert places == sorted(places)
    assert places[0] < shown.index("digits ") < places[1] < shown.index("images ") < places[2]


def test_without_a_user_s_own_there_is_no_empty_group(nelbo):
    assert GROUPS[-1] not in nelbo("recipes")[1]


def test_two_checkpoints_are_measured_with_fewer_samples(nelbo, run_copy):
    code, out, err = nelbo("evaluate", "tiny", "--compare-first", "--metrics", "importance", "--json")
    assert code == 0
    assert json.loads(out)["samples"] == json.loads(out)["first"]["samples"] == 50
    assert "K = 50 for two checkpoints; --samples 500 is nearer to the likelihood" in err
    code, out, err = nelbo(
        "evaluate", "tiny", "--compare-first", "--metrics", "importance", "--samples", 3, "--json"
    )
    assert (code, json.loads(out)["samples"], "K =" in err) == (0, 3, False)
    code, out, err = nelbo(
        "evaluate", "tiny", "--compare-first", "--samples", 0, "--metrics", "bound,error", "--json"
    )
    assert (code, err) == (0, "")


def test_the_slowest_metric_of_two_checkpoints_is_left_out_and_said(nelbo, run_copy, monkeypatch):
    asked_for = []

    def evaluate(run, **settings):
        asked_for.append((settings["metrics"], settings["without"], settings["samples"]))
        raise ConfigError("enough")

    monkeypatch.setattr(card, "evaluate", evaluate)
    lines = [
        nelbo("evaluate", "tiny", *arguments)[2]
        for arguments in ([], ["--compare-first"], ["--compare-first", "--metrics", "all"])
    ]
    assert asked_for == [(None, (), 500), (None, ("information", "quality"), 50), (None, (), 50)]
    assert ["left out, for it takes long: information, quality; --metrics all" in text for text in lines] == [
        False,
        True,
        False,
    ]


def test_a_metric_is_left_out_of_all(run_copy):
    every = [name for name in names("metric") if name not in ("bound", "error")]
    measured = card.evaluate(run_copy, samples=0, without=every)
    assert set(measured["sections"]) >= {"bound", "error"}
    assert not {"information", "probes"} & ({*measured["sections"]} - {*card.quick()})
