"""Shared by all tests: one thread, small made-up data, a recipe that trains in a blink, one finished run."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; tests run beside each other
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# What is compiled stays from one session to the next: it is torch's to know whether it is still right.
# A folder for each processor setting: code that was compiled under another one may not load.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR",
    os.path.join(
        tempfile.gettempdir(), "nelbo-tests-compiled-" + os.environ.get("ATEN_CPU_CAPABILITY", "own")
    ),
)

import numpy as np
import pytest
import torch
from methods import every

from nelbo import cli
from nelbo.core import registry
from nelbo.engine import precision
from nelbo.testing import samplers, settings
from nelbo.training import api, events
from nelbo.training.recipe import Recipe, resolve
from nelbo.training.store import Run

CLASSES = ("cat", "dog", "owl")
TINY: dict[str, Any] = {
    "data.validation": 0.2,
    "model.latent_dim": 3,
    "model.encoder.hidden": [32],
    "model.decoder.hidden": [32],
    "optimizer.lr": 0.02,
    "epochs": 3,
    "batch_size": 40,  # 96 training images: 40, 40 and a short batch of 16
}


# Recipes and methods that between them use every kind of model, objective and step; tests over all are `slow`.
REPRESENTATIVES = (
    "digits", "factor-vae", "vq-vae", "hierarchical-vae", "vamp-prior", "iaf", "conv-bn-128", "iwae",
)  # fmt: skip


def recipes() -> list[Any]:
    """Return every recipe and method as a parameter of a test; the default run takes the representatives."""
    return [
        name if name in REPRESENTATIVES else pytest.param(name, marks=pytest.mark.slow) for name in every()
    ]


@pytest.fixture(autouse=True, scope="session")
def _threads() -> Iterator[None]:
    """As many threads as OMP_NUM_THREADS says, which is one unless `make machines` sets it."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _machine() -> Iterator[None]:
    """What nelbo takes the processor for, where NELBO_TESTS_MACHINE says so: `make machines`.

    `onednn` multiplies float32 matrices with the library that is faster on AMD processors, `bf16` has bf16
    instructions, `plain` has neither.
    """
    machine = os.environ.get("NELBO_TESTS_MACHINE")
    if machine is None:
        yield
        return
    flags = "avx512f avx512_bf16" if machine == "bf16" else "avx2"
    faster: Any = functools.cache(lambda: machine == "onednn")
    faster.__wrapped__ = precision.onednn_is_faster.__wrapped__  # its own tests call what it hides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "processor", lambda field: flags if field == "flags" else "")
        patch.setattr(precision, "onednn_is_faster", faster)
        precision.features.cache_clear()
        yield
        precision.features.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What nelbo keeps for later is kept for this session only, and nothing of the user's is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NELBO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("NELBO_INCEPTION", raising=False)
        yield


@pytest.fixture
def nelbo(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in an empty folder, with no data sets at hand: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NELBO_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(params=["as-it-is", pytest.param("every-setting", marks=pytest.mark.slow)])
def every_setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """True where laws are also held against each entry with one setting changed, which takes four times as long."""
    if request.param == "as-it-is":
        others = settings.variations
        monkeypatch.setattr(
            settings, "variations", lambda spec, *field: others(spec, *field) if field else ()
        )
        # A learned sampler must be as near after half the steps: the law's tolerances stay what they are.
        monkeypatch.setitem(samplers.ENOUGH, "steps", samplers.ENOUGH["steps"] // 2)
    return bool(request.param == "every-setting")


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """What a test registers is gone after it."""
    with registry.temporary():
        yield


def make_images(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """n grey 8x8 images, uint8: a bright band a class, with noise; and their class names."""
    stream = np.random.RandomState(seed)
    classes = stream.randint(0, 3, n)
    images = stream.randint(0, 90, (n, 8, 8))
    for image, label in zip(images, classes, strict=True):
        image[3 * label : 3 * label + 2] += 150
    return images.astype(np.uint8), np.array(CLASSES)[classes]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.npz: 120 training and 40 test images, 8x8, grey, three named classes."""
    images, labels = make_images(120, seed=1)
    x_test, y_test = make_images(40, seed=2)
    file = tmp_path_factory.mktemp("tiny-data") / "tiny.npz"
    np.savez(file, images=images, labels=labels, x_test=x_test, y_test=y_test)
    return file


@pytest.fixture(scope="session")
def tiny_recipe(tiny_data: Path) -> Callable[..., Recipe]:
    """(overrides) -> a Recipe on tiny.npz: 3 epochs of 3 batches. Dotted keys: {"objective.beta": 4}."""

    def make(overrides: dict[str, Any] | None = None) -> Recipe:
        return resolve(resolve(Recipe(), {"data": str(tiny_data), **TINY}), overrides)

    return make


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run named `tiny`, 20 epochs, a healthy posterior. Shared: read it, or change a `run_copy`."""
    runs = tmp_path_factory.mktemp("runs")
    return api.train(tiny_recipe({"epochs": 20, "log_steps": True}), runs=runs, name="tiny", device="cpu")


@pytest.fixture(scope="session")
def reported(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Any]:
    """The tiny run in a folder of its own, for reports are written into it; and all that a report says of it.

    All pictures included. Shared by the tests of reports: read the facts, or change a copy of them.
    """
    from nelbo.report import Request
    from nelbo.report.gathered import gather

    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("report") / "runs" / "tiny")))
    return run, gather(run, Request(samples=20, device="cpu"), events.quiet)


@pytest.fixture
def run_copy(tiny_run: Run, tmp_path: Path) -> Run:
    """The finished run again, under `tmp_path/runs/tiny`, to damage."""
    return Run(Path(shutil.copytree(tiny_run.path, tmp_path / "runs" / "tiny")))
