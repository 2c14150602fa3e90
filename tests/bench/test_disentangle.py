"""benchmarks/disentangle.py on a few images: every objective trains, and the page shows what the record holds."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from nelbo.core import config
from nelbo.training.recipe import resolve

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def disentangle(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("disentangle")
    monkeypatch.setattr(module, "RECORD", tmp_path / "disentangle.json")
    yield module
    sys.modules.pop("disentangle")


@pytest.mark.slow
def test_a_small_run_is_recorded_and_shown(disentangle, monkeypatch, capsys):
    assert "Not recorded yet" in disentangle.table()
    line = ["disentangle.py", "--epochs", "1", "--images", "400", "--jobs", "1", "--only", "VAE", "DIP-VAE-I"]
    monkeypatch.setattr(sys, "argv", [*line, "--seeds", "0", "1"])
    disentangle.main()
    found = json.loads(disentangle.RECORD.read_text())
    assert found["command"] == "python benchmarks/disentangle.py --epochs 1 --images 400"
    assert [(row["method"], row["seed"]) for row in found["rows"]] == [
        ("VAE", 0), ("VAE", 1), ("DIP-VAE-I", 0), ("DIP-VAE-I", 1),
    ]  # fmt: skip
    for row in found["rows"]:
        assert set(row["metrics"]) == set(disentangle.KEPT)
        assert row["metrics"]["nelbo"]["value"] > 100
        assert row["n"] == 80
    nelbos = [row["metrics"]["nelbo"]["value"] for row in found["rows"][:2]]
    assert found["summary"]["VAE"]["nelbo"]["mean"] == pytest.approx(sum(nelbos) / 2)
    assert found["summary"]["VAE"]["seeds"] == [0, 1]
    shown = disentangle.table()
    assert "| VAE: `--objective elbo --objective.beta 1` |" in shown
    assert "--objective.kind I --objective.diagonal 100" in shown
    assert "400 images of `shapes`, 1 epochs" in shown
    assert "MIG" in shown
    capsys.readouterr()


def test_rows_of_the_same_settings_are_kept(disentangle):
    def row(method, seed, nelbo):
        values = dict.fromkeys(disentangle.KEPT, None) | {"nelbo": nelbo}
        metrics = {name: {"value": value, "note": ""} for name, value in values.items()}
        return {"method": method, "seed": seed, "metrics": metrics, "commit": "c", "n": 9}

    environment = {"data": {"hash": "h"}, "processor": "p", "packages": {"torch": "t"}}
    about = {"command": "c", "epochs": 3, "images": None}
    disentangle.write([row("beta-VAE", 1, 5.0), row("VAE", 0, 1.0)], environment, about)
    disentangle.write([row("VAE", 0, 2.0)], environment, about)
    found = json.loads(disentangle.RECORD.read_text())
    assert [(one["method"], one["metrics"]["nelbo"]["value"]) for one in found["rows"]] == [
        ("VAE", 2.0),
        ("beta-VAE", 5.0),
    ]
    assert found["summary"]["VAE"] == {"seeds": [0], "nelbo": {"mean": 2.0, "spread": None}}
    disentangle.write([row("VAE", 0, 3.0)], environment, about | {"epochs": 4})
    assert len(json.loads(disentangle.RECORD.read_text())["rows"]) == 1


def test_each_command_trains_what_the_benchmark_trains(disentangle):
    for method, changes in disentangle.METHODS.items():
        command = disentangle.command(method, 2, 7).split()
        assert command[:3] == ["nelbo", "train", "shapes"]
        flags = config.parse_flags(command[3:])
        assert resolve("shapes", flags) == resolve("shapes", changes | {"seed": 2, "epochs": 7})
