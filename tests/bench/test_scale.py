"""benchmarks/scale.py: its files, its slope and its figure; a very small run of the whole."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def scale(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("scale")
    monkeypatch.setattr(module, "RECORD", tmp_path / "scale.json")
    monkeypatch.setattr(module, "FIGURE", tmp_path / "scale.png")
    yield module
    sys.modules.pop("scale")


def rows(exponent):
    return [
        {"images": n, "seconds": {"median": 3e-5 * n**exponent}} for n in (1000, 10_000, 100_000, 1_000_000)
    ]


@pytest.mark.parametrize("exponent", [1.0, 1.5])
def test_the_slope_is_the_exponent(scale, exponent):
    assert scale.slope(rows(exponent)) == pytest.approx(exponent)
    bent = rows(exponent)
    bent[0]["seconds"]["median"] *= 10  # a thousand images are not what the slope is of
    assert scale.slope(bent) == pytest.approx(exponent)
    assert scale.slope(bent[:2]) is None


def test_the_images_are_the_same_every_time_and_differ(scale, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "BLOCK", 100)
    for name in "ab":
        scale.write(tmp_path / f"{name}.npy", 250)
    images = np.load(tmp_path / "a.npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (images.shape, images.dtype) == ((250, 28, 28), np.uint8)
    assert len(np.unique(images.reshape(250, -1), axis=0)) == 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]


@pytest.mark.slow
def test_a_small_run_records_and_draws(scale, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale.py", "--sizes", "600", "300"])
    monkeypatch.setattr(scale, "SLOPE_FROM", 100)
    scale.main()
    table = json.loads(scale.RECORD.read_text())
    assert [row["images"] for row in table["rows"]] == [300, 600]
    assert table["command"] == "python benchmarks/scale.py --sizes 300 600"
    for row in table["rows"]:
        assert len(row["seconds"]["all"]) == row["epochs"] - 1
        assert row["images_per_second"] == pytest.approx(row["images"] / row["seconds"]["median"], rel=0.1)
        assert 50 < row["mb_before"] <= row["peak_mb"] < 2000
    assert table["environment"]["packages"]["torch"]
    assert scale.FIGURE.read_bytes()[:4] == b"\x89PNG"
    assert "slope" in capsys.readouterr().out
