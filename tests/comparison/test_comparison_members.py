"""Which runs are compared, what is measured for it, and what is said of those that are not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nelbo.core import config
from nelbo.errors import ConfigError, RunError
from nelbo.evaluation import card
from nelbo.evaluation.comparison import compare
from nelbo.evaluation.comparison.members import unique_names
from nelbo.evaluation.comparison.words import by_group, by_value, labels, letters, listed, shown
from nelbo.training import api, events
from nelbo.training.store import Run

BETA = {"objective.beta": 4.0}


@pytest.fixture
def real(tiny_run, tmp_path):
    """Two real runs without cards: the same weights, the second said to have been trained at beta 4."""
    runs = []
    for name, settings in (("one", {}), ("two", BETA)):
        run = Run(tmp_path / "runs" / name)
        shutil.copytree(tiny_run.path, run.path, ignore=shutil.ignore_patterns("evaluation"))
        (run.path / "config.toml").write_text(config.dumps(config.override(tiny_run.recipe, settings)))
        runs.append(run)
    return runs


@pytest.fixture
def told():
    """Hears what is measured: [(run, metrics, samples), ...]."""
    heard = []

    def tell(event):
        if isinstance(event, events.RunMeasured):
            heard.append((event.run, event.metrics, event.samples))

    tell.heard = heard
    return tell


def cards_of(run):
    return sorted(file.name for file in (run.path / "evaluation").glob("*.json"))


# --- which runs -------------------------------------------------------------------------------


def test_runs_are_found_by_folder_by_name_as_latest_and_as_runs(made, tmp_path):
    runs = [made("a"), made("b", seed=1), made("c", seed=2), made("d", seed=3)]
    found = compare([runs[0], runs[1].path, "c", "latest"], runs=tmp_path / "runs")
    assert [run.name for run in found.groups[0].runs] == ["a", "b", "c", "d"]


def test_a_shells_glob_may_hold_what_is_no_run(made, tmp_path):
    a, b = made("run-a"), made("run-b", seed=1)
    (tmp_path / "runs" / "run-notes").mkdir()
    (tmp_path / "runs" / "run.txt").write_text("notes")
    half = made("run-half", seed=2, summary={"finished": False})
    found = compare(sorted((tmp_path / "runs").glob("run*")))
    assert [run.name for run in found.groups[0].runs] == [a.name, b.name]
    assert {name.rpartition("/")[2]: why for name, why in found.left_out.items()} == {
        "run-notes": "is not a run: it has no config.toml",
        "run.txt": "is not a run: it has no config.toml",
        "run-half": "has not finished (epoch 0 of 20); the command that started it goes on",
    }
    assert half.path.is_dir()


def test_a_run_given_twice_counts_once(made, tmp_path):
    a, b = made("a"), made("b", seed=1)
    found = compare([a, b, a.path, tmp_path / "runs" / ".." / "runs" / "b"])
    assert [run.name for run in found.groups[0].runs] == ["a", "b"]
    assert list(found.left_out.values()) == ["was given twice"] * 2


def test_a_damaged_run_is_left_out_with_the_reason(made):
    runs = [made("a"), made("b", seed=1), made("c", seed=2), made("d", seed=3)]
    (runs[2].path / "config.toml").write_text("epochs = [")
    (runs[3].path / "checkpoints" / "best.safetensors").unlink()
    found = compare(runs)
    assert len(found.groups[0].runs) == 2
    assert "not readable as TOML" in found.left_out["c"]
    assert "has no checkpoint 'best'" in found.left_out["d"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], r"name them, as in nelbo compare RUN RUN"),
        (
            ["a"],
            r"there is only a; its own checkpoints are compared with: nelbo evaluate .*a --compare-first",
        ),
        (["a", "a"], r"there is only a.*\n  a was given twice"),
        (["a", "half"], r"there is only a.*\n  half has not finished"),
        (["a", "halff"], r"no run is called 'halff'; did you mean"),
    ],
)
def test_fewer_than_two_runs_are_no_comparison(names, says, made, tmp_path):
    made("a")
    made("other")
    made("half", summary={"finished": False})
    with pytest.raises(RunError, match=says):
        compare(names, runs=tmp_path / "runs")


def test_runs_of_one_name_are_told_apart_by_their_folders(made, tmp_path):
    first = made("a")
    other = Run(tmp_path / "elsewhere" / "a")
    shutil.copytree(first.path, other.path)
    (other.path / "config.toml").write_text(config.dumps(config.override(first.recipe, BETA)))
    found = compare([first, other])
    assert [group.runs[0].name for group in found.groups] == ["runs/a", "elsewhere/a"]
    assert unique_names([first, Run(tmp_path / "b")]) == ["a", "b"]


# --- wrong arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"samples": -1}, "samples must be 0 or more"),
        ({"checkpoint": "worst"}, "no checkpoint is called 'worst'"),
        ({"split": "tset"}, "no split is called 'tset'; did you mean 'test'"),
        ({"metrics": ["bond"]}, "no metric is called 'bond'; did you mean 'bound'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(call, says):
    with pytest.raises(ConfigError, match=says):
        compare(["no such run"], **call)


# --- what is measured -------------------------------------------------------------------------


def test_a_missing_card_is_measured_and_kept(real, told):
    found = compare(real, tell=told)
    assert told.heard == [("one", card.quick(), 0), ("two", card.quick(), 0)]
    assert [cards_of(run) for run in real] == [["test-best-k0.json"]] * 2
    assert found.metric("nelbo").cells["A"].mean == card.read(real[0])["metrics"]["nelbo"]["value"]
    (one,) = [one for one in found.paired if one.metric == "nelbo"]
    assert (one.value, one.over_images, one.note) == (0.0, None, "the same on every image")
    told.heard.clear()
    assert compare(real, tell=told) == found
    assert told.heard == []


def test_samples_ask_for_that_k_of_every_run(real, told):
    card.evaluate(real[0], samples=20, metrics=["importance"], device="cpu")
    found = compare(real, samples=20, tell=told)
    assert told.heard == [("one", card.quick(), 20), ("two", (*card.quick(), "importance"), 20)]
    assert found.metric("iw_nll").cells["B"].mean is not None
    assert found.warnings == ()


def test_without_samples_cards_are_taken_as_they_are(real, told):
    for run, k in zip(real, (10, 20), strict=True):
        card.evaluate(run, samples=k, metrics=["bound", "importance"], device="cpu")
    found = compare(real, tell=told)
    assert told.heard == []
    assert [w.about for w in found.warnings] == ["K"]


def test_metrics_ask_for_these_and_importance_for_a_k(real, told):
    compare(real, metrics=["error"], tell=told)
    assert told.heard == [("one", ("error",), 0), ("two", ("error",), 0)]
    told.heard.clear()
    compare(real, metrics=["error", "importance"], samples=7, tell=told)
    assert told.heard == [("one", ("error", "importance"), 7), ("two", ("error", "importance"), 7)]


@pytest.mark.parametrize("change", [{"weights": "0" * 12}, {"images_hash": None}, {"precision": "bf16"}])
def test_a_card_of_other_weights_or_of_an_older_nelbo_is_measured_again(change, real, told):
    compare(real)
    file = real[1].path / "evaluation" / "test-best-k0.json"
    table = {**json.loads(file.read_text()), **change}
    table["metrics"]["nelbo"]["value"] = 12345.0
    file.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))
    found = compare(real, tell=told)
    assert [name for name, *_ in told.heard] == ["two"]
    assert found.metric("nelbo").cells["B"].mean < 1000


def test_without_its_data_a_run_without_a_card_is_left_out_and_one_with_a_card_is_not(real, told, tmp_path):
    other = Run(tmp_path / "runs" / "three")
    shutil.copytree(real[0].path, other.path)
    compare(real)
    for run in (*real, other):
        text = (run.path / "config.toml").read_text()
        (run.path / "config.toml").write_text(text.replace("tiny.npz", "gone.npz"))
    found = compare([*real, other], metrics=["bound", "importance"], samples=0, tell=told)
    assert found.left_out["three"].startswith("cannot be measured: three was trained on")
    assert [run.name for group in found.groups for run in group.runs] == ["one", "two"]
    assert found.metric("nelbo") is not None


def test_a_split_that_a_run_does_not_have_is_said(real, tiny_recipe, tmp_path):
    recipe = tiny_recipe({"data.validation": 0, "epochs": 1})
    without = api.train(recipe, runs=tmp_path, name="without", device="cpu")
    found = compare([*real, without], split="validation")
    assert "has no validation split" in found.left_out["without"]
    assert found.split == "validation"


def test_the_card_tells_equal_images_from_others(real, tiny_data, tmp_path):
    with np.load(tiny_data) as arrays:
        other = dict(arrays)
    first = card.evaluate(real[0], samples=0, metrics=["error"], device="cpu")
    assert (first["log_px"].partition(":")[0], len(first["images_hash"])) == (
        "cross-entropy of pixels between black and white",
        16,
    )
    hashes = {}
    for what, change in {
        "validation": lambda a: a | {"images": a["images"][:100], "labels": a["labels"][:100]},
        "pixel": lambda a: a | {"x_test": np.where(np.arange(64).reshape(8, 8) == 9, 0, a["x_test"])},
        "order": lambda a: a | {"x_test": a["x_test"][::-1], "y_test": a["y_test"][::-1]},
    }.items():
        np.savez(tmp_path / f"{what}.npz", **change(other))
        recipe = config.override(real[0].recipe, {"data.source": str(tmp_path / f"{what}.npz"), "epochs": 1})
        run = api.train(recipe, runs=tmp_path, name=what, device="cpu")
        hashes[what] = card.evaluate(run, samples=0, metrics=["error"], device="cpu")["images_hash"]
    assert hashes["validation"] == first["images_hash"], "training images do not enter"
    assert len({first["images_hash"], hashes["pixel"], hashes["order"]}) == 3


# --- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (True, "true"), (4.0, "4"), (1e-05, "1e-05"), ([], "none"), ([256, 128], "[256, 128]"),
        ("relu", "relu"), ({"name": "binarise", "threshold": 128}, "binarise(threshold 128)"),
        ({"name": "adam"}, "adam"),
        ({"name": "mlp", "batch_norm": False, "hidden": [3]}, "mlp(batch-norm false, hidden [3])"),
    ],
)  # fmt: skip
def test_settings_are_shown_as_they_would_be_typed(value, text):
    assert shown(value) == text


def test_groups_in_words():
    assert [listed("A"), listed("AB"), listed("ABC")] == ["A", "A and B", "A, B and C"]
    assert by_value({"A": 4.0, "B": 1, "C": 4.0}) == "4 in A and C, 1 in B"
    assert by_group({"A": "a phrase", "B": "b", "C": "a phrase"}) == "A and C: a phrase; B: b"
    names = letters(54)
    assert (names[0], names[25], names[26], names[51:]) == ("A", "Z", "AA", ["AZ", "BA", "BB"])


def test_labels_tell_equal_ends_apart():
    differing = {"model.encoder.hidden": {"A": [3], "B": [4]}, "model.decoder.hidden": {"A": [3], "B": [5]}}
    assert labels(differing, {"A": ["x-s0", "x-s1"], "B": ["y"]}) == [
        "x", "model.encoder.hidden 4, model.decoder.hidden 5",
    ]  # fmt: skip
