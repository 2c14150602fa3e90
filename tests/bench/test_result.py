"""benchmarks/result.py on a training of seconds: every clock, every start, one record that the page can show."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def result(monkeypatch, tmp_path):
    """The module, on three epochs of digits, with its record in an empty folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("result")
    recipe = tmp_path / "short.toml"
    recipe.write_text('recipe = "digits"\nepochs = 3\n', encoding="utf-8")
    for name, value in {
        "RECIPE": str(recipe), "PUBLISHED": 40.0, "FIRST_STEPS": ("digits",), "RECORD": tmp_path / "result.json",
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, value)
    yield module
    sys.modules.pop("result")


@pytest.mark.slow
def test_the_record_holds_every_clock_and_every_start(result, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["result.py", "--repeat", "1", "--data", str(tmp_path)])
    result.main()
    capsys.readouterr()
    found = json.loads((tmp_path / "result.json").read_text())
    run = found["run"]
    assert {"data", "train", "validation", "latent", "checkpoint", "evaluate"} <= set(run["seconds"])
    inside = sum(clock["median"] for clock in run["seconds"].values())
    assert 0 < inside < run["wall"]["median"], "the clocks are parts of the whole"
    assert run["images_per_second"]["median"] > 0
    assert 10 < run["nelbo"][0] < 50
    assert run["peak_mb"] > 50
    assert (run["precision"], run["compiled"]) == ("fp32", False)
    assert 0 < found["start"]["help"]["median"] < found["start"]["step"]["digits"]["median"]
    reached = found["target"]["seconds"]
    assert found["target"]["nats"] == 40.0
    assert 0 < reached["median"] < run["seconds"]["train"]["median"]
    pages = importlib.import_module("speed_pages")
    monkeypatch.setattr(pages, "RECORDS", tmp_path)
    assert "training until the NELBO is 40.0" in pages.result_table()


def test_a_run_that_fails_ends_the_measurement(result, monkeypatch, tmp_path):
    monkeypatch.setattr(result, "RECIPE", "digitz")
    with pytest.raises(SystemExit, match=r"nelbo train digitz.*ended with 2"):
        result.whole_run(tmp_path, "cpu")
