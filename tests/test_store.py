"""The run folder: written whole or not at all, read back or refused by name, never overwritten by accident."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import nelbo
import nelbo.training.store as store
from nelbo.core.config import dumps, to_dict
from nelbo.core.files import atomic, finite
from nelbo.errors import ConfigError, RunError
from nelbo.training import api
from nelbo.training.recipe import Recipe
from nelbo.training.store import CHECKPOINTS, Run, check_free, default_name, find, start

SOURCE = Path(store.__file__).parent


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- writing ----------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")

    def fail() -> None:
        with atomic(file) as temporary:
            temporary.write_text("half")
            assert file.read_text() == "old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert listing(tmp_path) == {"a.json": b"old"}
    with atomic(file) as temporary:
        temporary.write_text("new")
        inode = temporary.stat().st_ino
        assert file.read_text() == "old"
    assert listing(tmp_path) == {"a.json": b"new"}
    assert file.stat().st_ino == inode  # moved into place, not copied


def test_values_that_json_refuses_leave_the_old_file(tmp_path):
    run = Run(tmp_path)
    run.write_json("summary.json", {"a": 1})
    for bad in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            run.write_json("summary.json", bad)
    assert listing(tmp_path) == {"summary.json": b'{\n  "format": 1,\n  "a": 1\n}\n'}


def test_a_written_file_is_readable_by_others(tmp_path):
    with atomic(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_a_checkpoint_comes_back_as_it_was_and_is_plain_safetensors(tmp_path):
    run = Run(tmp_path)
    tensors = {"w": torch.randn(3, 2).t(), "n": torch.tensor(3), "bytes": torch.arange(4, dtype=torch.uint8)}
    run.save("last", tensors, {"epoch": 3, "bound": float("-inf"), "names": ["a"]})
    back, about = run.load("last")
    assert about == {"epoch": 3, "bound": None, "names": ["a"]}
    assert set(back) == set(tensors)
    for key, value in load_file(run.checkpoint_path("last")).items():
        assert torch.equal(value, tensors[key])
        assert torch.equal(back[key], tensors[key])
        assert value.dtype == tensors[key].dtype


def test_numbers_that_are_not_finite_are_logged_as_null(tmp_path):
    run = Run(tmp_path)
    run.log({"event": "epoch", "a": float("nan"), "b": [1.0, float("inf")], "c": {"d": -float("inf")}})
    assert run.history() == [{"event": "epoch", "a": None, "b": [1.0, None], "c": {"d": None}}]
    assert finite({"x": 1.5, "y": "nan"}) == {"x": 1.5, "y": "nan"}


def test_nothing_is_pickled():
    pickled = re.compile(
        r"\bimport (pickle|cloudpickle|dill|joblib|shelve)\b|torch\.(save|load)\(|allow_pickle=True"
    )
    guilty = [p.name for p in SOURCE.rglob("*.py") if pickled.search(p.read_text(encoding="utf-8"))]
    assert guilty == []


def test_a_finished_run_holds_what_it_promises_and_only_text_and_safetensors(tiny_recipe, tmp_path):
    # A run of its own: of a shared one other tests keep evaluations.
    run = api.train(tiny_recipe({"epochs": 1}), runs=tmp_path, device="cpu")
    files = listing(run.path)
    assert set(files) == {
        "config.toml",
        "env.json",
        "metrics.jsonl",
        "summary.json",
        "model/config.json",
        "model/model.safetensors",
        *(f"checkpoints/{name}.safetensors" for name in CHECKPOINTS),
    }
    for name, content in files.items():
        if name.endswith(".safetensors"):
            assert load_file(run.path / name)
        else:
            content.decode()
    environment = run.read_json("env.json")
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["data"]["n"] == {"train": 96, "validation": 24, "test": 40}
    assert environment["command"]
    assert len(environment["data"]["hash"]) == 16


def test_what_is_shared_rebuilds_the_best_model(tiny_run):
    table = tiny_run.read_json("model/config.json")
    assert table["shape"] == [1, 8, 8]
    assert table["class_names"] == ["cat", "dog", "owl"]
    assert table["model"] == to_dict(tiny_run.recipe.model)
    shared, best = load_file(tiny_run.path / "model/model.safetensors"), tiny_run.load("best")[0]
    assert set(shared) == set(best)
    assert all(torch.equal(shared[key], best[key]) for key in best)


# --- the log ----------------------------------------------------------------------------------


def test_rows_after_the_last_checkpoint_are_forgotten_and_half_lines_too(tmp_path):
    run = Run(tmp_path)
    run.forget_after(3)  # nothing there yet
    for epoch in (1, 2, 3):
        run.log({"event": "steps", "epoch": epoch})
        run.log({"event": "epoch", "epoch": epoch})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "epo')
    assert [row["epoch"] for row in run.history()] == [1, 2, 3]  # a line being written is not yet there
    run.forget_after(2)
    assert [row["epoch"] for row in run.history()] == [1, 2]
    assert [row["epoch"] for row in run.history("steps")] == [1, 2]


# --- damage -----------------------------------------------------------------------------------


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("harm", [cut, lambda f: f.write_bytes(b""), lambda f: f.write_bytes(b"\x00" * 64)])
def test_a_damaged_checkpoint_is_named(run_copy, checkpoint, harm):
    harm(run_copy.checkpoint_path(checkpoint))
    with pytest.raises(RunError, match=rf"{checkpoint}\.safetensors cannot be read.*--overwrite"):
        api.load(run_copy, checkpoint=checkpoint, device="cpu")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("summary.json", "{", r"summary\.json cannot be read"),
        ("summary.json", "[1]", r"summary\.json holds no table"),
        ("env.json", "", r"env\.json cannot be read"),
        ("env.json", None, r"env\.json cannot be read"),
        ("config.toml", "epochs = ", r"config\.toml"),
        ("config.toml", "epoch = 1", r"config\.toml.*\n.*did you mean 'epochs'"),
        ("config.toml", None, r"is not a run: it has no config\.toml"),
        ("checkpoints/best.safetensors", None, "has no checkpoint 'best'; it has first, last"),
    ],
)
def test_a_damaged_file_is_named(run_copy, file, content, says):
    path = run_copy.path / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises((RunError, ConfigError), match=says) as caught:
        api.load(Run(run_copy.path) if run_copy.summary else run_copy, device="cpu")
    assert caught.value.exit_code == 2
    assert str(run_copy.path) in str(caught.value)


def test_a_config_of_another_shape_is_damage(run_copy):
    config = run_copy.path / "config.toml"
    config.write_text(config.read_text().replace("latent_dim = 3", "latent_dim = 4"))
    with pytest.raises(
        RunError, match=r"best\.safetensors does not fit the run's config\.toml .*size mismatch"
    ):
        api.load(run_copy, device="cpu")


def test_an_unknown_checkpoint_gets_the_nearest(tiny_run):
    with pytest.raises(RunError, match="no checkpoint is called 'bst'; did you mean 'best'"):
        tiny_run.load("bst")


# --- finding ----------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path) -> Path:
    for index, name in enumerate(("digits-s0", "fashion-mlp-s1", "other")):
        start(Recipe(seed=index), tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "config.toml", (1000 + index % 2, 1000 + index % 2))
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def test_a_run_is_found_by_folder_name_and_latest(runs):
    assert find(runs / "digits-s0").path == runs / "digits-s0"
    assert find("digits-s0", runs).path == runs / "digits-s0"
    assert find("latest", runs).name == "fashion-mlp-s1"
    run = Run(runs / "other")
    assert find(run) is run
    assert run.recipe == Recipe(seed=2)
    assert not run.finished


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("digits-s1", "no run is called 'digits-s1'; did you mean 'digits-s0'"),
        ("notes", r"notes is not a run: it has no config\.toml"),
        ("qqqq", "Known: digits-s0, fashion-mlp-s1, other"),
    ],
)
def test_a_run_that_is_not_there_gets_the_nearest_name(runs, what, says):
    with pytest.raises(RunError, match=says):
        find(what, runs)


@pytest.mark.parametrize("what", ["latest", "digits-s0"])
def test_an_empty_place_says_how_to_start(tmp_path, what):
    with pytest.raises(RunError, match="nelbo train digits"):
        find(what, tmp_path / "runs")


# --- starting ---------------------------------------------------------------------------------


def test_the_name_says_recipe_and_seed_and_what_differs_gets_a_hash():
    plain = Recipe(recipe="digits")
    assert default_name(plain, plain) == "digits-s0"
    assert default_name(plain.model_copy(update={"seed": 3}), plain) == "digits-s3"
    longer, longest = (plain.model_copy(update={"epochs": n}) for n in (3, 4))
    assert re.fullmatch(r"digits-s0-[0-9a-f]{6}", default_name(longer, plain))
    assert default_name(longer, plain) != default_name(longest, plain)
    assert re.fullmatch(r"custom-s0-[0-9a-f]{6}", default_name(Recipe(), None))


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path):
    start(Recipe(), tmp_path / "a").log({"event": "epoch", "epoch": 1})
    before = listing(tmp_path)
    with pytest.raises(RunError) as caught:
        start(Recipe(epochs=3, ema=0.5), tmp_path / "a")
    message = str(caught.value)
    assert "ema: None -> 0.5" in message
    assert "epochs: 20 -> 3" in message
    assert "--name" in message
    assert "--overwrite" in message
    assert "seed" not in message
    assert listing(tmp_path) == before
    assert start(Recipe(), tmp_path / "a").recipe == Recipe()  # the same one goes on with what is there
    assert listing(tmp_path) == before


def test_overwrite_replaces_a_run(tmp_path):
    start(Recipe(), tmp_path / "a")
    (tmp_path / "a" / "metrics.jsonl").write_text("{}")
    start(Recipe(epochs=3), tmp_path / "a", overwrite=True)
    assert listing(tmp_path) == {"a/config.toml": b"format = 1\n" + dumps(Recipe(epochs=3)).encode()}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_run_is_refused_and_stays(tmp_path, overwrite, kind):
    place = tmp_path / "thesis"
    if kind == "folder":
        place.mkdir()
        (place / "chapter.tex").write_text("years of work")
    else:
        place.write_text("years of work")
    before = listing(tmp_path)
    for begin in (check_free, start):
        with pytest.raises(RunError, match="is not a run folder, so nothing is written there"):
            begin(Recipe(), place, overwrite=overwrite)
    assert listing(tmp_path) == before


def test_an_empty_folder_is_free(tmp_path):
    check_free(Recipe(), tmp_path)
    assert start(Recipe(), tmp_path).recipe == Recipe()


def test_checking_writes_nothing(tmp_path):
    check_free(Recipe(), tmp_path / "runs" / "new")
    assert list(tmp_path.iterdir()) == []


def test_rebuilding_leaves_the_callers_random_stream(tiny_run):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    api.load(tiny_run, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_summary_is_json_that_anybody_reads(tiny_run):
    summary = json.loads((tiny_run.path / "summary.json").read_text())
    assert summary["finished"] is True
    assert tiny_run.finished
    assert summary["epochs"] == 20
    assert summary["images_per_second"] > 0
    assert {"data", "train", "validation", "checkpoint"} <= set(summary["seconds"])


# --- the format of the files --------------------------------------------------------------------


def test_every_file_of_a_run_says_its_format(run_copy):
    run = run_copy
    nelbo.evaluate(run, samples=5, device="cpu")
    tables = [
        *run.path.glob("*.json"),
        *run.path.glob("evaluation/*.json"),
        run.path / "model" / "config.json",
    ]
    assert len(tables) >= 4
    assert {json.loads(file.read_text())["format"] for file in tables} == {1}
    assert (run.path / "config.toml").read_text().startswith("format = 1\n")
    for file in (run.path / "checkpoints").iterdir():
        with safe_open(file, framework="pt") as stored:
            assert json.loads(stored.metadata()["nelbo"])["format"] == 1


@pytest.mark.parametrize("name", ["config.toml", "env.json", "summary.json", "model/config.json"])
def test_a_file_of_a_newer_version_is_said_to_be_that(run_copy, name):
    file = run_copy.path / name
    text = file.read_text()
    file.write_text(text.replace("format = 1", "format = 2").replace('"format": 1', '"format": 2'))
    assert file.read_text() != text
    readers = {
        "config.toml": lambda: run_copy.recipe,
        "model/config.json": lambda: nelbo.load(run_copy.path / "model", device="cpu"),
    }
    with pytest.raises(RunError, match=r"newer nelbo \(format 2, this one reads up to 1\): update nelbo"):
        readers.get(name, lambda: run_copy.read_json(name))()
