"""One file adds a metric: its facts stand in its decorator, and nothing else is edited."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nelbo import cli
from nelbo.core.catalogue import docline
from nelbo.core.registry import lookup

ROOT = Path(__file__).parent.parent
OWN = '''
import os

from nelbo.metrics import Missing, Number, Value, metric


@metric(order=15, learns=False, label="PIX", numbers={"pix_level": Number("Level of PIX", better="lower")})
def pix(model, split):
    """The level of the pixels."""
    levels_N = split.images.labels_N.double()
    yield "pix_level", Value.over_images(levels_N, "levels", "a note", {"palette": os.environ["PALETTE"]})
    yield "pix_depth", Value.none("bits", Missing("too deep", "nobody can say"))
'''


@pytest.fixture
def own(run_copy, tmp_path, monkeypatch, capsys, _forgotten):
    """A command line on two copies of a run, with the file of the metric; gives what it printed."""
    monkeypatch.setenv("PALETTE", "web")
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    runs = run_copy.path.parent
    other = runs / "other"
    other.mkdir()
    for part in ("env.json", "summary.json", "checkpoints/best.safetensors"):
        (other / part).parent.mkdir(exist_ok=True)
        (other / part).write_bytes((run_copy.path / part).read_bytes())
    config = (run_copy.path / "config.toml").read_text(encoding="utf-8")
    (other / "config.toml").write_text(config.replace("lr = ", "lr = 1"), encoding="utf-8")

    def run(*words, file=file):
        code = cli.main([*words, "--runs", str(runs), "--device", "cpu", "--import", str(file)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


def test_a_card_shows_it_at_its_place_under_its_names(own):
    lines = own("evaluate", "tiny", "--metrics", "pix,error,bound", "--samples", "0").splitlines()
    starts = [line.split("  ")[0] for line in lines]
    assert starts.index("NELBO") < starts.index("Level of PIX") < starts.index("MSE")
    assert "too deep" in next(line for line in lines if line.startswith("Pix depth"))
    assert "The level of the pixels." in docline(lookup("metric", "pix"))


def test_a_comparison_knows_its_better_direction_and_its_conditions(own, monkeypatch):
    compared = json.loads(own("compare", "tiny", "other", "--metrics", "pix", "--json"))
    row = next(row for row in compared["metrics"] if row["name"] == "pix_level")
    assert (row["section"], row["better"], row["classes"]) == ("pix", "lower", [["A", "B"]])
    assert [one["about"] for one in compared["warnings"] if "pix_level" in one["metrics"]] == []
    monkeypatch.setenv("PALETTE", "pastel")
    own("evaluate", "other", "--metrics", "pix", "--samples", "0")
    compared = json.loads(own("compare", "tiny", "other", "--metrics", "pix", "--json"))
    (caution,) = [one for one in compared["warnings"] if "pix_level" in one["metrics"]]
    assert caution["about"] == "palette"
    assert caution["message"] == "palette is web in A, pastel in B. Not compared: Level of PIX"


def test_the_metric_of_the_page_stands_where_the_page_says(own, tmp_path):
    page = (ROOT / "docs" / "metrics" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.S | re.M)
    file = tmp_path / "page.py"
    file.write_text(code, encoding="utf-8")
    lines = own(
        "evaluate", "tiny", "--metrics", "brightness,error,quality", "--samples", "0", file=file
    ).splitlines()
    starts = [line.split("  ")[0] for line in lines]
    assert (
        starts.index("SSIM") < starts.index("Brightness error") < starts.index("Fréchet classifier distance")
    )
