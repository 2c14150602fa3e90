"""Wrong input: one clear message on stderr, no traceback, the right exit code, nothing half-written."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nelbo.data import mirrors
from nelbo.training import api
from nelbo.training.recipe import Recipe
from nelbo.training.store import Run

TINY_FLAGS = (
    "--model.latent-dim", "2", "--model.encoder.hidden", "8,", "--model.decoder.hidden", "8,",
    "--epochs", "1", "--device", "cpu",
)  # fmt: skip
TRAIN = ("train", "digits", "--data.transforms", "none", "--data.validation", "0", *TINY_FLAGS)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"/"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(nelbo: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., str]:
    """Runs what must be refused, changing nothing under the current folder; the message."""

    def run(*arguments: object, code: int = 2, words: tuple[str, ...] = (), progress: int = 0) -> str:
        before = listing(tmp_path)
        exit_code, out, err = nelbo(*arguments)
        assert listing(tmp_path) == before
        assert (exit_code, out) == (code, ""), err
        assert err.count("nelbo: ") == 1, err
        assert err.splitlines()[progress].startswith("nelbo: "), err
        assert err.endswith("\n")
        for word in words:
            assert word in err, err
        for technical in ("Traceback", "Errno", "  File ", "Error:"):
            assert technical not in err, err
        return err

    return run


# --- data sets --------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mirror is a port of this machine that nobody listens on."""
    for name, remote in mirrors.REMOTES.items():
        dead = dataclasses.replace(remote, mirrors=("http://127.0.0.1:9/",))
        monkeypatch.setitem(mirrors.REMOTES, name, dead)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "emnist"])
def test_a_missing_set_names_files_hashes_folder_and_a_way_out(name, refused, tmp_path):
    message = refused(*TRAIN, "--data", name, progress=1)  # the line before says that it is being fetched
    remote = mirrors.REMOTES[name]
    for file in remote.files:
        assert file.name in message
        assert file.sha256 in message
    assert str(tmp_path / "cache" / remote.folder) in message
    assert "--data digits" in message
    assert "no connection" in message


@pytest.mark.usefixtures("offline")
def test_a_missing_set_is_refused_by_data_get_and_with_json(refused, nelbo, tmp_path):
    refused(
        *("data", "get", "mnist", "--data-dir", tmp_path / "elsewhere"),
        words=(str(tmp_path / "elsewhere"),),
        progress=1,
    )
    code, out, _ = nelbo("data", "get", "mnist", "--json")
    assert code == json.loads(out)["exit_code"] == 2
    assert mirrors.REMOTES["mnist"].files[0].sha256 in json.loads(out)["error"]


def idx(shape: tuple[int, ...]) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
    return gzip.compress(header + bytes(int(np.prod(shape))), mtime=0)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("cut", [200, 20, 3])
def test_a_half_downloaded_file_is_named(cut, refused, tmp_path):
    folder = tmp_path / "cache" / "mnist"
    folder.mkdir(parents=True)
    for file in mirrors.REMOTES["mnist"].files:
        whole = idx((10, 28, 28)) if "idx3" in file.name else idx((10,))
        (folder / file.name).write_bytes(whole[: min(cut, len(whole) - 4)])
    message = refused(*TRAIN, "--data", "mnist")
    assert str(folder / "train-images-idx3-ubyte.gz") in message
    assert "elete" in message


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"])
def test_a_file_with_another_hash_is_named_with_the_right_one(name, refused, tmp_path):
    folder = tmp_path / "cache" / "mnist"
    folder.mkdir(parents=True)
    for file in mirrors.REMOTES["mnist"].files:
        (folder / file.name).write_bytes(idx((10, 28, 28)) if "idx3" in file.name else idx((10,)))
    if not name.endswith(".gz"):
        (folder / f"{name}.gz").unlink()
        (folder / name).write_bytes(gzip.decompress(idx((10, 28, 28))))
    message = refused(*TRAIN, "--data", "mnist")
    assert str(folder / name) in message
    assert mirrors.REMOTES["mnist"].files[0].sha256 in message


# --- images and arrays ------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of twelve good 8x8 images."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.new("L", (8, 8), 20 * number).save(folder / f"{number:02}.png")
    return folder


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(*TRAIN, "--data", "empty", words=("empty", "no image files", "png"))
    refused("data", "check", "empty", words=("empty", "no image files"))


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\n" + bytes(40), None])
def test_an_unreadable_image(content, refused, pictures):
    bad = pictures / "05.png"
    bad.write_bytes((pictures / "04.png").read_bytes()[:-30] if content is None else content)
    refused(*TRAIN, "--data", pictures, words=(str(bad),))


def test_images_of_several_sizes(refused, nelbo, pictures):
    Image.new("L", (9, 7)).save(pictures / "07.png")
    message = refused(*TRAIN, "--data", pictures, words=("8 x 8", "7 x 9", str(pictures / "07.png")))
    assert "--data.size" in message
    assert nelbo(*TRAIN, "--data", pictures, "--data.size", "8", "--no-figures")[0] == 0  # the remedy helps


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((20, 8, 8), np.nan, np.float32), ("x.npy", "not finite", "image 0")),
        (
            np.where(np.arange(20)[:, None, None] == 7, np.inf, np.zeros((20, 8, 8))),
            ("not finite", "image 7"),
        ),
        (np.full((20, 8, 8), 3.5, np.float32), ("[0, 3.5]", "bernoulli", "[0, 1]", "gaussian")),
        (np.full((20, 8, 8), -1.0), ("[-1, 1]", "bernoulli")),
        (np.full((20, 8, 8), 300), ("x.npy", "outside 0..255")),
        (np.zeros((20, 64), np.uint8), ("(20, 64)", "(N, H, W)")),
        (np.zeros((20, 8, 8, 2), np.uint8), ("(20, 8, 8, 2)", "channels")),
        (np.zeros((0, 8, 8), np.uint8), ("(0, 8, 8)",)),
        (np.zeros((20, 8, 8), complex), ("complex",)),
        (np.array([["a"], ["b"]]), ("x.npy",)),
    ],
)
def test_arrays_that_are_no_images(array, words, refused, tmp_path):
    np.save(tmp_path / "x.npy", array)
    refused(*TRAIN, "--data", "x.npy", words=words)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_a_damaged_array_file(name, content, refused, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused(*TRAIN, "--data", name, words=(name,))


def test_pickled_arrays_are_not_opened(refused, tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(*TRAIN, "--data", "x.npy", words=("x.npy", "without objects"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--data", "nowhere"), ("'nowhere'", "digits")),
        (("--data", "digitz"), ("'digitz'", "'digits'")),
        (("--data", "digits:5"), ("digits", "no variants")),
        (("--data", "emnist:leters"), ("emnist", "letters")),
        (("--data.test", "1.5"), ("data.test",)),
        (("--data.validation", "-1"), ("data.validation", "-1")),
        (("--data.validation", "5000"), ("5000", "leave none")),
        (("--data.size", "0"), ("data.size",)),
        (("--data.transforms", "binarize"), ("'binarize'", "'binarise'")),
        (
            ("--data.transforms", '[{name="dynamic-binarise"}, {name="resize", height=4}]'),
            ("resize", "dynamic-binarise"),
        ),
        (("--data.transforms", '[{name="scale", low=-1}]'), ("[-1, 1]", "bernoulli")),
    ],
)
def test_data_settings_that_cannot_be(flags, words, refused):
    refused(*TRAIN, *flags, words=words)


# --- configurations and devices ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model.latent-dim", "0"), ("model.latent-dim", "(got 0)")),
        (("--model.latent-dim", "-3"), ("model.latent-dim", "(got -3)")),
        (("--model.latent-dim", "two"), ("model.latent-dim", "'two'")),
        (("--model.encoder.hidden", "0,"), ("model.encoder.hidden",)),
        (("--model.encoder.hidden", "32"), ("model.encoder.hidden", "list")),
        (("--model.likelihood", "bernouli"), ("'bernouli'", "'bernoulli'")),
        (("--model", "vee"), ("no model", "'vee'")),
        (("--epochs", "0"), ("epochs", "(got 0)")),
        (("--epochs", "-2"), ("epochs", "(got -2)")),
        (("--epochs", "1.5"), ("epochs", "1.5")),
        (("--batch-size", "0"), ("batch-size",)),
        (("--optimizer.lr", "-1"), ("optimizer.lr",)),
        (("--optimizer.lr", "nan"), ("optimizer.lr",)),
        (("--objective", "elbow"), ("'elbow'", "'elbo'")),
        (("--objective.betta", "4"), ("objective.betta", "'beta'")),
        (("--seed", "-1"), ("seed",)),
        (("--precision", "fp8"), ("precision", "fp8")),
        (("--device", "cuda:9"), ("cuda:9", "cpu")),
        (("--device", "nonsense"), ("nonsense", "auto")),
        (("--device", "meta"), ("meta", "cpu")),
    ],
)
def test_settings_that_cannot_be(flags, words, refused):
    refused(*TRAIN, *flags, words=words)
    refused(*TRAIN, *flags, "--dry-run", words=words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epochs = = 3", ("mine.toml", "line 1")),
        ("epochs = 0", ("mine.toml", "epochs")),
        ("epoch = 3", ("mine.toml", "epoch", "'epochs'")),
        ("[model]\nlatent_dim = 2", ("mine.toml", "model")),
        ("[modell]\nlatent_dim = 2", ("modell", "'model'")),
        ('recipe = "digitz"', ("'digitz'", "'digits'")),
        ('[data]\nsource = "nowhere"', ("nowhere",)),
        ("[data]\nsource = 3", ("data.source",)),
        ('model = "vae"\n[objective]\nname = "elbow"', ("elbow",)),
        ("\x00", ("mine.toml",)),
    ],
)
def test_a_configuration_file_that_cannot_be_used(content, words, refused, tmp_path):
    (tmp_path / "mine.toml").write_text(content, encoding="utf-8")
    refused("train", "mine.toml", words=words)


def test_a_configuration_file_that_is_not_there(refused, tmp_path):
    refused("train", "none.toml", words=("none.toml", "no such configuration file"))
    (tmp_path / "folder.toml").mkdir()
    refused("train", "folder.toml", words=("folder.toml",))


# --- where things are written -----------------------------------------------------------------


def test_runs_below_a_file(refused, tmp_path, tiny_data):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for runs in ("file", "file/deeper"):
        refused(*TRAIN, "--runs", runs, words=("--runs", "file"))
        refused(*TRAIN, "--runs", runs, "--dry-run", words=("--runs", "file"))
    refused("evaluate", "latest", "--runs", "file", words=("file",))


def test_a_folder_that_is_no_run_is_left_alone(refused, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
    for more in ((), ("--overwrite",)):
        refused(*TRAIN, "--name", "mine", *more, words=("mine", "not a run folder", "--name"))
    (tmp_path / "runs" / "file").write_text("mine", encoding="utf-8")
    for more in ((), ("--overwrite",)):
        refused(*TRAIN, "--name", "file", *more, words=("file",))


@pytest.mark.parametrize(
    "verb",
    [
        ["sample", "tiny"],
        ["reconstruct", "tiny"],
        ["interpolate", "tiny"],
        ["traverse", "tiny"],
        ["plot", "tiny", "kl"],
        ["encode", "tiny"],
    ],
)
def test_an_out_that_cannot_be_written(verb, refused, run_copy, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    out = "file/x.npz" if verb[0] == "encode" else "file"
    refused(*verb, "--out", out, words=("--out", "file"))
    refused(*verb, "--out", f"file/deeper/{out}", words=("--out", "file"))


@pytest.mark.parametrize("name", ["latents", "latents.txt", "latents.npy.gz"])
def test_encode_to_another_format(name, refused, run_copy):
    refused("encode", "tiny", "--out", name, words=(name, ".npy", ".npz"))


def test_what_the_system_refuses_is_one_line(refused, run_copy, tmp_path, monkeypatch):
    (tmp_path / "latents.npz").mkdir()
    refused("encode", "tiny", "--out", "latents.npz", words=("latents.npz",))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/full/disk")

    monkeypatch.setattr("nelbo.pictures.export.encode", full)
    refused("encode", "tiny", code=1, words=("/full/disk: No space left on device",))


# --- runs -------------------------------------------------------------------------------------


def test_a_run_that_does_not_exist(refused, run_copy):
    refused("evaluate", "tinny", words=("'tinny'", "'tiny'"))
    refused("plot", "nothing-like-it", words=("'nothing-like-it'", "tiny"))
    refused("sample", "latest", "--runs", "elsewhere", words=("elsewhere", "nelbo train digits"))
    refused("evaluate", "x", "--runs", "elsewhere", words=("'x'", "nelbo train digits"))
    refused("evaluate", "runs", words=("runs", "no config.toml"))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "checkpoints/best.safetensors": lambda file: file.write_bytes(
        file.read_bytes()[: file.stat().st_size // 2]
    ),
    "checkpoints/best.safetensors ": lambda file: file.write_bytes(b""),
    "checkpoints/best.safetensors  ": lambda file: file.unlink(),
    "config.toml": lambda file: file.write_text("epochs = = 3", encoding="utf-8"),
    "config.toml ": lambda file: file.write_text("epochs = 3\nfrom_the_future = 1\n", encoding="utf-8"),
    "env.json": lambda file: file.unlink(),
    "env.json ": lambda file: file.write_text('{"data": {"sha', encoding="utf-8"),
    "env.json  ": lambda file: file.write_text("[]", encoding="utf-8"),
    "env.json   ": lambda file: file.write_text("{}", encoding="utf-8"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_names_the_file(name, refused, run_copy):
    DAMAGE[name](run_copy.path / name.strip())
    word = "best" if "safetensors" in name else name.strip()
    for verb in ("evaluate", "plot", "sample", "encode"):
        refused(verb, "tiny", words=(word, "tiny"))


def test_weights_of_another_configuration(refused, run_copy):
    file = run_copy.path / "config.toml"
    file.write_text(
        file.read_text(encoding="utf-8").replace("latent_dim = 3", "latent_dim = 4"), encoding="utf-8"
    )
    refused("evaluate", "tiny", words=("best.safetensors", "config.toml"))


def test_a_damaged_run_does_not_go_on(refused, nelbo, run_copy):
    (run_copy.path / "summary.json").unlink()
    command = ("train", run_copy.path / "config.toml", "--name", "tiny", "--device", "cpu")
    for name, content in (("checkpoints/last.safetensors", b"half"), ("config.toml", b"epochs = = 3")):
        file = run_copy.path / name
        whole = file.read_bytes()
        file_of_user = shutil.copy(run_copy.path / "config.toml", run_copy.path.parent.parent / "given.toml")
        file.write_bytes(content)
        refused("train", file_of_user, *command[2:], words=(Path(name).name,))
        file.write_bytes(whole)
    assert nelbo(*command, "--no-figures")[0] == 0


def test_history_that_is_damaged(refused, run_copy):
    (run_copy.path / "metrics.jsonl").write_text('{"event": "epo\nch', encoding="utf-8")
    refused("plot", "tiny", "curves", words=("metrics.jsonl", "damaged"))


def test_data_that_changed_since(refused, tiny_recipe, tiny_data, tmp_path):
    arrays = dict(np.load(tiny_data))
    np.savez(tmp_path / "mine.npz", **arrays)
    recipe = tiny_recipe({"epochs": 1, "data.source": str(tmp_path / "mine.npz")})
    api.train(recipe, runs=tmp_path / "runs", name="r", device="cpu")
    np.savez(tmp_path / "mine.npz", **{**arrays, "x_test": arrays["x_test"][::-1]})
    for verb in ("evaluate", "plot", "encode"):
        refused(verb, "r", words=("r was trained on data with hash", "Bring the same data back"))
    (tmp_path / "mine.npz").unlink()
    refused("evaluate", "r", words=("mine.npz",))


# --- questions that a run cannot answer -------------------------------------------------------


@pytest.fixture(scope="session")
def unlabelled(tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on images without labels and without a validation split."""
    folder = tmp_path_factory.mktemp("unlabelled")
    np.save(folder / "plain.npy", np.random.RandomState(0).randint(0, 256, (40, 8, 8)).astype(np.uint8))
    recipe = tiny_recipe({"data.source": str(folder / "plain.npy"), "data.validation": 0, "epochs": 1})
    return api.train(recipe, runs=folder, name="plain", device="cpu")


@pytest.mark.parametrize(
    "verb",
    [
        ["sample", "RUN", "--like", "all"],
        ["sample", "RUN", "--like", "example:1"],
        ["interpolate", "RUN", "class:1", "0"],
        ["traverse", "RUN", "class:1"],
        ["reconstruct", "RUN", "example:1"],
        ["plot", "RUN", "class-means"],
        ["plot", "RUN", "resampled"],
        ["plot", "RUN", "class-interpolation"],
    ],
)
def test_classes_where_there_are_no_labels(verb, refused, unlabelled):
    before = listing(unlabelled.path)
    refused(
        *[str(unlabelled.path) if word == "RUN" else word for word in verb], words=("plain has no labels",)
    )
    assert listing(unlabelled.path) == before


@pytest.mark.parametrize("verb", ["evaluate", "plot", "encode", "sample"])
def test_a_split_that_is_not_there(verb, refused, unlabelled):
    run = str(unlabelled.path)
    refused(verb, run, "--split", "validation", words=("no validation split", "--data.validation"))
    refused(verb, run, "--split", "tset", words=("'tset'", "'test'"))


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (["evaluate", "tiny", "--samples", "-1"], ("samples", "-1")),
        (["evaluate", "tiny", "--device", "cuda:9"], ("cuda:9", "cpu")),
        (["plot", "tiny", "scater"], ("'scater'", "'scatter'")),
        (["plot", "tiny", "kl", "scater"], ("'scater'", "'scatter'")),
        (["plot", "tiny", "--format", "jpg"], ("jpg", "png", "pdf", "svg")),
        (["plot", "tiny", "--device", "nonsense"], ("nonsense", "auto")),
        (["sample", "tiny", "-n", "0"], ("--n", "(got 0)")),
        (["sample", "tiny", "-n", "-5"], ("--n", "(got -5)")),
        (["sample", "tiny", "-n", "0", "--like", "0"], ("--n", "(got 0)")),
        (["sample", "tiny", "--like", "class:cat"], ("example:CLASS",)),
        (["sample", "tiny", "--like", "40"], ("40", "0 to 39")),
        (["sample", "tiny", "--like", "example:dgo"], ("'dgo'", "'dog'")),
        (["sample", "tiny", "--like", "example:3"], ("'3'", "cat")),
        (["sample", "tiny", "--like", "example:--1"], ("'--1'",)),
        (["reconstruct", "tiny", "-n", "0"], ("--n", "(got 0)")),
        (["reconstruct", "tiny", "40"], ("40", "0 to 39")),
        (["reconstruct", "tiny", "nofile.png"], ("'nofile.png'", "image file")),
        (["reconstruct", "tiny", "class:cat"], ("class:cat", "example:CLASS")),
        (["reconstruct", "tiny", "²"], ("'²'",)),
        (["reconstruct", "tiny", "-1"], ("'-1'",)),
        (["interpolate", "tiny", "--steps", "1"], ("2 steps", "(got 1)")),
        (["interpolate", "tiny", "0", "99999"], ("99999", "0 to 39")),
        (["interpolate", "tiny", "class:", "0"], ("'class:'",)),
        (["interpolate", "tiny", "class:mouse"], ("'mouse'", "cat, dog, owl")),
        (["traverse", "tiny", "--dimensions", "3"], ("dimension 3", "0 to 2")),
        (["traverse", "tiny", "--dimensions", "one"], ("--dimensions", "one")),
        (["traverse", "tiny", "--steps", "1"], ("2 steps", "(got 1)")),
    ],
)
def test_questions_that_a_run_cannot_answer(verb, words, refused, run_copy):
    refused(*verb, words=words)


def test_an_image_file_that_does_not_fit(refused, run_copy, tmp_path):
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    refused("reconstruct", "tiny", "wide.png", words=("wide.png", "8 x 9", "8 x 8"))
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    refused("sample", "tiny", "--like", "text.png", words=("text.png", "cannot be read as an image"))


def test_a_loss_that_is_not_finite_fails_with_1_and_keeps_the_run_readable(nelbo, tmp_path, tiny_data):
    command = (*TRAIN, "--data", tiny_data, "--name", "wild", "--optimizer.lr", "1e30", "--epochs", "5")
    code, out, err = nelbo(*command)
    assert (code, out) == (1, "")
    assert "the loss or a weight is not finite" in err
    assert "--optimizer.lr" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "runs").rglob(".*"))
    assert not Run(tmp_path / "runs" / "wild").finished


@pytest.mark.parametrize("verb", [("doctor",), ("data", "check"), ("doctor", "--distinct", "new.npz")])
def test_a_size_that_is_none_is_wrong_usage(verb, refused):
    refused(*verb, "digits", *(["--kind", "data"] if verb[0] == "doctor" else []), "--size", "-3",
            words=("size", "at least 1", "-3"))  # fmt: skip
