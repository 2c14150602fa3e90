"""The command line: help, exit codes, flags in any order, one JSON object, training that goes on."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nelbo.cli
from nelbo import __version__
from nelbo.cli import flags
from nelbo.cli.overview import verbs
from nelbo.cli.parsing import load
from nelbo.cli.verb import Verb
from nelbo.core import registry
from nelbo.training.store import Run

Cli = Callable[..., tuple[int, str, str]]
NELBO = (sys.executable, "-m", "nelbo")
TINY_FLAGS = (
    "--data.transforms", "binarise",
    "--data.validation", "0.2", "--model.latent-dim", "3", "--model.encoder.hidden", "16,",
    "--model.decoder.hidden", "[16]", "--epochs", "2", "--batch-size", "40", "--device", "cpu",
)  # fmt: skip


def one_object(text: str) -> dict[str, Any]:
    """stdout as the one JSON object that it has to be."""
    assert text.count("\n") == 1, text
    table = json.loads(text)
    assert isinstance(table, dict)
    return table


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


# --- help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["train", "--help"], ["plot", "-h"]])
def test_help_imports_nothing_heavy(arguments):
    heavy = "torch", "numpy", "matplotlib", "sklearn", "pydantic"
    if len(arguments) < 2:
        heavy = (*heavy, "tyro", "rich")
    code = (
        "import sys; from nelbo.cli import main; code = main(sys.argv[1:]); "
        f"print('HEAVY', code, [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "HEAVY 0 []"
    assert done.stderr == ""


def test_garbage_is_collected_again_once_torch_is_there_and_what_was_imported_is_left_alone():
    code = (
        "import gc; from nelbo.cli import main; code = main(['recipes', '--json']); "
        "print(code, gc.isenabled(), gc.get_freeze_count() > 100_000)"
    )
    assert python(code).splitlines()[-1] == "0 True True"


@pytest.mark.slow
def test_help_takes_less_than_0_3_seconds():
    def seconds() -> float:
        begun = time.perf_counter()
        subprocess.run([*NELBO, "--help"], capture_output=True, check=True)
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(5)) < 0.3


def test_overview_lists_every_verb_and_no_other(nelbo):
    code, out, err = nelbo("--help")
    assert (code, err) == (0, "")
    assert set(re.findall(r"^  nelbo (\w+)", out, re.MULTILINE)) == set(verbs())
    assert nelbo() == nelbo("help") == nelbo("-h") == (0, out, "")
    assert max(map(len, out.splitlines())) <= 100


def test_the_overview_leaves_no_verb_out():
    modules = [
        importlib.import_module(f"nelbo.cli.{info.name}") for info in pkgutil.iter_modules(nelbo.cli.__path__)
    ]
    classes = {entry for module in modules for entry in vars(module).values() if isinstance(entry, type)}
    concrete = {entry for entry in classes if issubclass(entry, Verb) and not inspect.isabstract(entry)}
    assert concrete == {load(name) for name in verbs()}
    for name in verbs():
        entry, verb = verbs()[name], load(name)
        assert (entry.usage, entry.summary, entry.order) == (verb.usage, verb.summary, verb.order)


def test_version(nelbo):
    assert nelbo("--version") == (0, f"nelbo {__version__}\n", "")


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_help(verb, nelbo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = nelbo(verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: nelbo {verb}")
    assert "--json" in out
    assert (load(verb).__doc__ or "").strip().splitlines()[0] in out
    for awkward in (
        "(default: None)",
        "(default: False)",
        "(default: )",
        "(default: '')",
        "STR",
        "{True,False}",
    ):
        assert awkward not in out
    assert not re.search(r"default: [^()|│-]*\(default", " ".join(out.split()))  # one default, not two


NEW_VERB = """
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, Importing


@dataclass
class Hello(Importing):
    '''Greet somebody.'''

    usage = "hello NAME"
    summary = "a greeting"
    order = 55

    who: Positional[Annotated[str, plain("a name", metavar="NAME")]]
    loud: Annotated[bool, plain("in capitals")] = False

    def run(self) -> Answer:
        text = f"hello {self.who}"
        text = text.upper() if self.loud else text
        return Answer({"text": text}, lambda: print(text))
"""


def test_a_new_verb_is_one_file(nelbo, tmp_path, monkeypatch):
    (tmp_path / "verbs").mkdir()
    (tmp_path / "verbs" / "hello.py").write_text(NEW_VERB, encoding="utf-8")
    (tmp_path / "registers.py").write_text("print('imported')\n", encoding="utf-8")
    monkeypatch.setattr("nelbo.cli.__path__", [*sys.modules["nelbo.cli"].__path__, str(tmp_path / "verbs")])
    _, overview, _ = nelbo("--help")
    rows = re.findall(r"^  nelbo (\w+)", overview, re.MULTILINE)
    assert rows[rows.index("hello") - 1 : rows.index("hello") + 2] == ["report", "hello", "doctor"]
    assert "  nelbo hello NAME                  a greeting\n" in overview
    code, out, _ = nelbo("hello", "--help")
    assert code == 0
    assert out.startswith("usage: nelbo hello")
    assert "Greet somebody." in out
    assert out.index("--loud") < out.index("--import") < out.index("--json")
    assert nelbo("hello", "--loud", "you") == (0, "HELLO YOU\n", "")
    assert nelbo("hello", "--json", "you") == (0, '{"text": "hello you"}\n', "")
    assert nelbo("hello", "you", "--import", "registers.py") == (0, "imported\nhello you\n", "")
    assert nelbo("hello", "you", "--loudd")[0] == 2


# --- wrong usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "digits"], ["no verb is called 'trian'", "'train'"]),
        (["evaluate", "x", "--sampels", "3"], ["--sampels", "--samples"]),
        (["evaluate"], ["RUN"]),
        (["train"], ["RECIPE"]),
        (["train", "digits", "mnist"], ["mnist"]),
        (["evaluate", "x", "--samples", "many"], ["--samples", "many"]),
        (["evaluate", "x", "--checkpoint", "worst"], ["--checkpoint", "worst", "best"]),
        (["train", "digits", "--epoch", "3"], ["--epoch", "'epochs'"]),
        (["train", "digits", "--overwrit"], ["--overwrit", "'overwrite'"]),
        (["train", "digits", "--nam", "x"], ["--nam", "'name'"]),
        (["train", "digits", "--epochs"], ["--epochs needs a value"]),
        (["train", "digits", "--epochs", "--seed", "1"], ["--epochs needs a value"]),
        (["train", "digits", "--model.latent-dimm", "3"], ["model.latent-dimm", "'latent-dim'"]),
        (["train", "digits", "--model.encoder.hiden", "3"], ["model.encoder.hiden", "'hidden'"]),
        (["train", "digitz"], ["no recipe is called 'digitz'", "'digits'"]),
        (["train", "digits", "--objective", "elbow"], ["no objective is called 'elbow'", "'elbo'"]),
        (["train", "digits", "--epochs", "many"], ["epochs", "'many'"]),
        (["data", "frobnicate"], ["frobnicate", "check"]),
        (["data", "get"], ["nelbo data get"]),
        (["list", "objectivs"], ["no axis is called", "'objective'"]),
        (["recipes", "--foo"], ["--foo"]),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_message_and_2(arguments, words, nelbo, tmp_path):
    code, out, err = nelbo(*arguments)
    assert (code, out) == (2, "")
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["evaluate", "nope"], ["evaluate", "x", "--sampels"], ["train", "digitz"]]
)
def test_a_mistake_with_json_is_one_object_too(arguments, nelbo):
    code, out, err = nelbo(*arguments, "--json")
    table = one_object(out)
    assert code == table["exit_code"] == 2
    assert table["error"]
    assert err


def test_a_closed_pipe_ends_quietly():
    code = "import sys; from nelbo.cli import main; sys.exit(main(['recipes']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


# --- flags ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["digits", "--epochs", "3", "--model.latent-dim", "5", "--model.encoder.hidden", "32,16", "--name", "x"],
        ["--epochs=3", "--model.latent_dim=5", "digits", "--model.encoder.hidden=[32, 16]", "--name=x"],
        ["--name", "x", "--model.encoder.hidden", "[32,16]", "--model.latent-dim", "5", "--epochs", "3", "digits"],
        ["--model.encoder", "mlp", "--epochs", "3", "digits", "--model.encoder.hidden", "32, 16",
         "--model.latent-dim", "5", "--name", "x"],
    ],
)  # fmt: skip
def test_flags_before_and_after_the_recipe_mean_the_same(arguments, nelbo):
    code, out, err = nelbo("train", *arguments, "--dry-run", "--json")
    assert (code, err) == (0, "")
    table = one_object(out)
    assert table["run"] == "runs/x"
    assert table["config"]["epochs"] == 3
    assert table["config"]["model"]["latent_dim"] == 5
    assert table["config"]["model"]["encoder"]["hidden"] == [32, 16]
    assert table["config"]["model"]["decoder"]["hidden"] == [128, 256]  # the recipe's own


def test_sort_puts_names_first_and_leaves_negative_numbers():
    @dataclasses.dataclass
    class Walk:
        steps: int = 0
        n: int = 0
        json: bool = False
        dry_run: bool = False

    words = ["--steps", "3", "run", "--n", "-1", "--json", "-0.5", "--odd", "4", "--dry_run", "last"]
    assert flags.sort(words, Walk) == (
        ["run", "-0.5", "last", "--steps", "3", "--n", "-1", "--json", "--dry_run"],
        ["--odd", "4"],
    )


def test_dry_run_prints_a_configuration_that_can_be_trained(nelbo, tmp_path):
    arguments = ("--objective.beta", "linear", "--objective.beta.epochs", "7", "--data.transforms", "none")
    code, out, err = nelbo("train", "digits", *arguments, "--seed", 3, "--dry-run")
    assert (code, err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine.toml").write_text(out, encoding="utf-8")
    again = nelbo("train", "mine.toml", "--dry-run")
    assert again == (0, out, "")
    table = one_object(nelbo("train", "mine.toml", "--dry-run", "--json")[1])
    assert table["config"]["objective"]["beta"] == {"name": "linear", "epochs": 7} | {
        key: value
        for key, value in table["config"]["objective"]["beta"].items()
        if key not in ("name", "epochs")
    }
    assert table["config"]["seed"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


# --- training ---------------------------------------------------------------------------------


@pytest.fixture
def trained(nelbo, tiny_data: Path) -> tuple[int, str, str]:
    """`runs/t`, trained by the command line for two epochs."""
    return nelbo("train", "digits", "--data", tiny_data, *TINY_FLAGS, "--name", "t", "--json", "--no-figures")


def test_train_reports_one_object_and_a_line_an_epoch(trained, tmp_path):
    code, out, err = trained
    table = one_object(out)
    assert code == 0
    assert table["run"] == "t"
    assert table["epochs"] == 2
    assert table["images_per_second"] > 0
    assert {"train", "data", "evaluate"} <= set(table["seconds"])
    assert all(seconds >= 0 for seconds in table["seconds"].values())
    assert {"nelbo", "reconstruction", "kl", "mse"} <= set(table["metrics"])
    lines = err.splitlines()
    assert lines[0].startswith("tiny: 96 training, 24 validation and 40 test images, 8 x 8 x 1")
    assert [line.split(" | ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "\r" not in err
    assert "\x1b" not in err
    folder = tmp_path / "runs" / "t"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.toml", "env.json", "evaluation", "metrics.jsonl", "model", "summary.json",
    ]  # fmt: skip
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_the_same_command_on_a_finished_run_says_so(trained, nelbo, tiny_data, tmp_path):
    before = (tmp_path / "runs/t/checkpoints/last.safetensors").read_bytes()
    code, out, err = nelbo("train", "digits", "--data", tiny_data, *TINY_FLAGS, "--name", "t")
    assert code == 0
    assert "is finished already" in err
    assert "--overwrite" in err
    assert "epoch 1" not in err
    assert "nelbo" in out
    assert (tmp_path / "runs/t/checkpoints/last.safetensors").read_bytes() == before


def test_another_configuration_under_the_same_name_is_refused(trained, nelbo, tiny_data, tmp_path):
    before = {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    code, out, err = nelbo("train", "digits", "--data", tiny_data, *TINY_FLAGS, "--name", "t", "--seed", "5")
    assert (code, out) == (2, "")
    assert "another configuration" in err
    assert "seed: 0 -> 5" in err
    assert "--overwrite" in err
    assert {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()} == before


def test_overwrite_trains_anew_and_draws(trained, nelbo, tiny_data, tmp_path):
    again = ("train", "digits", "--data", tiny_data, *TINY_FLAGS, "--name", "t")
    code, out, err = nelbo(*again, "--seed", "5", "--overwrite", "--epochs", "1")
    assert code == 0
    assert "epoch 1/1" in err
    assert re.search(r"\d+ pictures in runs/t/figures", err)
    assert (tmp_path / "runs/t/figures/reconstructions.png").is_file()
    assert "Next:  nelbo evaluate runs/t" in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_a_toml_file_trains_with_flags_on_top(nelbo, tiny_data, tmp_path):
    (tmp_path / "mine.toml").write_text(
        f'recipe = "digits"\nepochs = 9\n[data]\nsource = "{tiny_data}"\ntransforms = []\n'
        "[model]\nlatent-dim = 2\n[model.encoder]\nhidden = [8]\n",
        encoding="utf-8",
    )
    code, out, _ = nelbo("train", "mine.toml", "--epochs", 1, "--no-figures", "--json", "--name", "from-file")
    assert code == 0
    assert one_object(out)["epochs"] == 1
    recipe = Run(tmp_path / "runs/from-file").recipe
    assert (recipe.epochs, recipe.model.latent_dim, recipe.model.encoder.hidden) == (1, 2, (8,))  # type: ignore[attr-defined]
    assert recipe.data.transforms == ()


def test_an_imported_objective_trains_and_its_run_can_be_used(nelbo, tiny_data, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from nelbo.objectives import ELBO\n\n\n"
        'class HeavyToy(ELBO):\n    """The ELBO with a weight."""\n\n    weight: float = 2.0\n',
        encoding="utf-8",
    )
    with registry.temporary():
        code, _, _ = nelbo(
            "train", "--import", "mine.py", "digits", "--data", tiny_data, *TINY_FLAGS, "--epochs", "1",
            "--objective", "heavy-toy", "--objective.weight", "3", "--name", "toy", "--no-figures",
        )  # fmt: skip
        assert code == 0
        assert Run(tmp_path / "runs/toy").recipe.objective.weight == 3.0  # type: ignore[attr-defined]
        listed = one_object(nelbo("list", "objective", "--import", "mine.py", "--json")[1])
        assert "weight 2.0" in listed["objective"]["heavy-toy"]["fields"]
    code, _, err = nelbo("evaluate", "toy")  # a new process without the file
    assert code == 2
    assert "no objective is called 'heavy-toy'" in err
    for verb in (["evaluate", "toy", "--samples", "2"], ["plot", "toy", "kl"], ["sample", "toy"]):
        with registry.temporary():
            assert nelbo(*verb, "--import", "mine.py")[0] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, ["no such file"]), ("1 / 0", ["ZeroDivisionError"]), ("def", ["SyntaxError"])],
)
def test_an_import_that_cannot_be_run_names_the_file(content, words, nelbo, tmp_path):
    if content:
        (tmp_path / "broken.py").write_text(content, encoding="utf-8")
    code, out, err = nelbo("train", "digits", "--import", "broken.py")
    assert (code, out) == (2, "")
    for word in ["--import broken.py", *words]:
        assert word in err


def test_interrupted_training_goes_on_by_the_same_command(nelbo, tiny_data, tmp_path):
    command = [
        "train", "digits", "--data", str(tiny_data), *TINY_FLAGS, "--epochs", "200", "--latent-every", "0",
        "--name", "t", "--no-figures", "--json",
    ]  # fmt: skip
    log = tmp_path / "stderr"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [*NELBO, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=stream, text=True
        )
        deadline = time.monotonic() + 120
        while "epoch   2/200" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    err = log.read_text(encoding="utf-8")
    assert process.returncode == 130, err
    assert json.loads(out)["exit_code"] == 130
    assert "Traceback" not in err
    assert "the same command goes on" in err
    run = Run(tmp_path / "runs" / "t")
    _, about = run.load("last")
    assert 2 <= about["epoch"] <= 200
    assert not run.finished
    code, out, err = nelbo(*command)
    assert code == 0, err
    assert f"going on with epoch {about['epoch']}, batch {about['batch'] + 1}" in err
    assert "epoch   1/200" not in err
    assert json.loads(out)["epochs"] == 200
    assert [row["epoch"] for row in run.history()] == list(range(1, 201))


# --- reports ----------------------------------------------------------------------------------


def test_evaluate_json_has_the_promised_keys(tiny_run, nelbo, run_copy):
    code, out, _ = nelbo("evaluate", run_copy.path, "--samples", "10", "--json")
    card = one_object(out)
    assert code == 0
    assert {"run", "checkpoint", "split", "n", "data_hash", "metrics"} <= set(card)
    assert (card["run"], card["checkpoint"], card["split"], card["n"]) == ("tiny", "best", "test", 40)
    assert re.fullmatch(r"[0-9a-f]{16}", card["data_hash"])
    names = ["nelbo", "reconstruction", "kl", "iw_nll", "grey_cross_entropy", "active_units", "mse"]
    assert set(names) <= set(card["metrics"])
    assert list(card["metrics"])[:3] == names[:3]
    for entry in card["metrics"].values():
        assert list(entry) == [
            "value",
            "unit",
            "standard_error",
            "note",
            "missing",
            "conditions",
            "details",
            "warning",
        ]
    assert card["metrics"]["iw_nll"]["note"].startswith("K = 10")
    file = json.loads((run_copy.path / "evaluation" / "test-best-k10.json").read_text(encoding="utf-8"))
    assert file["metrics"] == card["metrics"]


def test_evaluate_is_deterministic_and_compares(nelbo, run_copy):
    arguments = ("evaluate", run_copy.path, "--samples", "5", "--compare-first", "--json")
    card, again = (one_object(nelbo(*arguments)[1]) for _ in range(2))
    for side in (card, card["first"], again, again["first"]):
        side.pop("seconds")
    assert card == again
    assert (card["checkpoint"], card["first"]["checkpoint"], card["first"]["epoch"]) == ("best", "first", 1)
    code, out, _ = nelbo(*arguments[:-1])
    assert code == 0
    assert "first (epoch 1)" in out
    assert "best (epoch" in out


@pytest.mark.parametrize("columns", [None, "80", "70"])
def test_the_card_fits_the_width(columns, nelbo, run_copy, monkeypatch):
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = nelbo("evaluate", run_copy.path, "--samples", "5")
    assert code == 0
    assert out.endswith("\n")
    assert max(map(len, out.splitlines())) <= int(columns or 110)
    for name in ("NELBO", "Reconstruction", "IW NLL", "Active units", "MSE", "nats/image"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["recipes"], {"digits", "fashion-mlp", "mlp-sigma", "mlp-sigma-as-published"}),
        (["list"], {"objective", "prior", "likelihood", "net", "dataset", "picture", "recipe"}),
        (["list", "picture"], {"picture"}),
        (["data", "list"], {"datasets"}),
        (["data", "get", "digits"], {"name", "hash", "shape", "n", "pixels"}),
        (["env"], {"python", "packages", "cores", "device", "auto_precision", "compiles"}),
        (["plot", "RUN", "kl", "curves"], {"run", "checkpoint", "split", "files", "left_out"}),
        (["sample", "RUN", "-n", "2"], {"run", "checkpoint", "split", "files"}),
        (["sample", "RUN", "-n", "2", "--like", "all"], {"files"}),
        (["reconstruct", "RUN", "-n", "2"], {"files", "mse"}),
        (["encode", "RUN"], {"files", "arrays"}),
        (["interpolate", "RUN", "class:cat", "class:dog"], {"files"}),
        (["traverse", "RUN", "--dimensions", "0,2"], {"files"}),
    ],
)
def test_json_is_one_object_and_nothing_else(arguments, keys, nelbo, run_copy):
    words = [str(run_copy.path) if word == "RUN" else word for word in arguments]
    code, out, _ = nelbo(*words, "--json")
    assert code == 0
    table = one_object(out)
    assert keys <= set(table)
    for file in table.get("files", []):
        assert Path(file).is_file()
    code, out, err = nelbo(*words)
    assert code == 0
    assert out.endswith("\n")
    assert "Traceback" not in err


def test_flags_may_stand_between_a_run_and_its_pictures(nelbo, run_copy, tmp_path):
    code, _, _ = nelbo(
        "plot", "--format", "pdf,svg", run_copy.path, "--out", "here", "kl", "--seed", 1, "scatter"
    )
    assert code == 0
    expected = {f"{name}.{kind}" for name in ("kl", "kl-history", "scatter") for kind in ("pdf", "svg")}
    assert {path.name for path in (tmp_path / "here").iterdir()} == expected
    assert (tmp_path / "here/kl.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in (tmp_path / "here/kl.svg").read_bytes()[:1000]


def test_a_run_is_a_folder_a_name_or_latest(nelbo, run_copy, tmp_path):
    by_folder = one_object(nelbo("sample", run_copy.path, "-n", 1, "--json")[1])
    by_name = one_object(nelbo("sample", "tiny", "-n", 1, "--json")[1])
    latest = one_object(nelbo("sample", "latest", "-n", 1, "--json")[1])
    assert by_folder["run"] == by_name["run"] == latest["run"] == "tiny"


def test_like_can_be_repeated(nelbo, run_copy):
    arguments = ("--like", "example:cat", "-n", "2", "--like", "example:owl", "--like", "3", "--out", "out")
    code, out, _ = nelbo("sample", *arguments, "tiny", "--json")
    assert code == 0
    names = {Path(file).name for file in one_object(out)["files"]}
    assert {"sample-cat-0.png", "sample-cat-1.png", "sample-owl-0.png", "sample-image3-1.png"} <= names


def test_noise_goes_with_like_alone_and_is_above_0(nelbo, run_copy):
    code, out, _ = nelbo(
        "sample", "tiny", "--like", "3", "-n", "2", "--noise", "1.5", "--out", "out", "--json"
    )
    assert code == 0
    assert len(one_object(out)["files"]) == 5
    for arguments, words in [
        (("--noise", "1"), "--like all"),
        (("--noise", "0", "--like", "3"), "a standard deviation above 0"),
        (("--noise", "nan", "--like", "3"), "a standard deviation above 0"),
        (("--noise", "-1", "--like", "3"), "a standard deviation above 0"),
    ]:
        code, _, err = nelbo("sample", "tiny", *arguments)
        assert (code, words in err) == (2, True), err


def test_library_prints_nothing_to_stdout_and_a_line_an_epoch_to_stderr(tiny_recipe, tmp_path, capsys, nelbo):
    from nelbo.evaluation import card as card_of
    from nelbo.training import api, events

    recipe = tiny_recipe({"epochs": 2})
    api.train(recipe, runs=tmp_path, name="quiet", device="cpu", tell=events.quiet)
    assert capsys.readouterr() == ("", "")
    run = api.train(recipe, runs=tmp_path, name="told", device="cpu")
    out, told = capsys.readouterr()
    assert out == ""
    assert [line[:9] for line in told.splitlines() if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "tiny: 96 training, 24 validation and 40 test images, 8 x 8 x 1" in told
    assert "under a Bernoulli: NELBO below is a cross-entropy plus KL" in told
    (tmp_path / "own.toml").write_bytes((run.path / "config.toml").read_bytes())
    printed = nelbo("train", "own.toml", "--name", "cli", "--device", "cpu", "--no-figures")[2]
    assert printed.startswith(told)  # the same words on the command line
    card_of.evaluate(run, samples=2, device="cpu")
    assert capsys.readouterr() == ("", "")
