"""benchmarks/energy.py: joules over packages and round the end of a counter; a reason where none can be read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

CPU = torch.device("cpu")


@pytest.fixture
def energy_counters(monkeypatch):
    """The module of benchmarks/energy.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("energy")
    sys.modules.pop("energy")


def powercap(folder, microjoules, limit=10_000_000):
    for name, value in microjoules.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "energy_uj").write_text(f"{value}\n")
        (folder / name / "max_energy_range_uj").write_text(f"{limit}\n")


def test_energy_is_counted_over_packages_and_round_the_end_of_a_counter(
    energy_counters, monkeypatch, tmp_path
):
    monkeypatch.setattr(energy_counters, "POWERCAP", tmp_path)
    parts = {"intel-rapl:0": 1_000_000, "intel-rapl:1": 9_000_000, "intel-rapl:0:0": 0}
    powercap(tmp_path, parts)
    energy = energy_counters.Energy(CPU)
    assert energy.source == "RAPL, all processor packages"
    energy.step(1, 5)
    powercap(tmp_path, {"intel-rapl:0": 3_000_000, "intel-rapl:1": 1_000_000, "intel-rapl:0:0": 77})
    energy.step(2, 5)
    energy.step(5, 5)
    assert energy.epochs == [pytest.approx((2.0 + 2.0) * 5 / 4)], "steps 2 to 5, scaled to five"
    energy.step(1, 5)
    energy.step(5, 5)
    assert energy.timed == (0.0,), "without the first epoch"


@pytest.mark.parametrize("there", [False, True])
def test_energy_that_cannot_be_read_is_none_and_says_why(energy_counters, monkeypatch, tmp_path, there):
    monkeypatch.setattr(energy_counters, "POWERCAP", tmp_path)
    if there:
        (tmp_path / "intel-rapl:0" / "energy_uj").mkdir(parents=True)
    energy = energy_counters.Energy(CPU)
    assert ("cannot be read" if there else "no RAPL counters") in energy.source
    energy.step(1, 2)
    energy.step(2, 2)
    assert energy.timed == ()


def test_a_training_is_counted(energy_counters, monkeypatch, tmp_path):
    monkeypatch.setattr(energy_counters, "POWERCAP", tmp_path)
    powercap(tmp_path, {"intel-rapl:0": 1_000_000})
    row = energy_counters.of_recipe("digits", 2, "cpu", tmp_path)
    assert (row["recipe"], row["joules_an_epoch"]) == ("digits", (0.0,))
