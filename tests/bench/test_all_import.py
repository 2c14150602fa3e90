"""Every benchmark is a program that starts: a name that moved is found here, and not by whoever records anew."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.usefixtures("_forgotten")  # some register components
@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.py")))
def test_a_benchmark_can_be_imported(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module(name)
    assert module.__doc__
    sys.modules.pop(name, None)


def test_the_planted_codes_are_scored(monkeypatch):
    """The model that the benchmarks of codes share is a whole one."""
    monkeypatch.syspath_prepend(str(FOLDER))
    planted = importlib.import_module("planted")
    splits = planted.Data(source="shapes").load()
    images = splits.test.select(planted.torch.arange(300))
    codes_NZ = planted.codes(images)["noise in ten dimensions"]
    assert planted.scores(codes_NZ, images)["mig"] < 0.2
