"""Runs that were written before files had a format open, are measured, and go on.

`tests/data/runs-before-format` was made by the code before the move to folders: one finished run with an evaluation
and three stopped after the first of three epochs (a plain VAE, one with a critic, one with a codebook).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import nelbo
from nelbo.training.store import Run

RUNS = Path(__file__).parent / "data" / "runs-before-format"
INTERRUPTED = ["interrupted", "interrupted-critic", "interrupted-codes"]


@pytest.fixture
def old(tmp_path):
    """A copy of the old runs, and the function that finds one."""
    folder = Path(shutil.copytree(RUNS, tmp_path / "runs"))
    return lambda name: Run(folder / name)


def test_a_finished_run_opens_and_is_measured_as_it_was(old):
    run = old("finished")
    before = run.read_json("evaluation/test-best-k10.json")["metrics"]
    assert nelbo.load(run, device="cpu").sample(2).shape == (2, 1, 8, 8)
    shutil.rmtree(run.path / "evaluation")
    after = nelbo.evaluate(run, samples=10, metrics=["bound", "importance", "latent"], device="cpu")[
        "metrics"
    ]
    assert after.keys() >= before.keys()
    for name in ("nelbo", "reconstruction", "kl", "iw_nll"):
        # another processor's products end in other digits; a thousandth of the standard error is none of its rounding
        assert after[name]["value"] == pytest.approx(before[name]["value"], abs=1e-3), name


def test_its_card_is_read_compared_and_diagnosed(old):
    run = old("finished")
    other = shutil.copytree(run.path, run.path.parent / "again")
    compared = nelbo.compare([str(run.path), str(other)], device="cpu")
    assert compared.to_dict()["metrics"]
    assert nelbo.diagnose(str(run.path), device="cpu").kind == "run"


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run_goes_on_where_it_was(old, name, tmp_path):
    run = old(name)
    first = run.history()
    nelbo.train(run.path / "config.toml", runs=run.path.parent, name=name, device="cpu")
    rows = run.history()
    assert run.finished
    assert len(rows) == 3
    assert rows[0] == first[0], "the first epoch was not trained again"
    whole = nelbo.train(run.path / "config.toml", runs=tmp_path / "whole", name=name, device="cpu")
    weights = [each.load("last")[0] for each in (run, whole)]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        if key.startswith(("model.", "own.")) and value.is_floating_point():
            # the first epoch ran on one processor, the rest may run on another; other libraries moved weights by 1e-6
            assert torch.allclose(value, weights[1][key], rtol=0, atol=1e-4), key
