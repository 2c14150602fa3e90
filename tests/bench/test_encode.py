"""benchmarks/encode.py on a few images: every verb runs, and the page shows what the record holds."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
VERBS = ("encode", "reconstruct", "sample")


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("tables")
    yield module
    for name in ("tables", "speed_pages"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_benchmark_times_every_use_and_every_command(tmp_path, tables, monkeypatch):
    line = [
        sys.executable,
        str(BENCHMARKS / "encode.py"),
        "--images",
        "30",
        "--repeat",
        "2",
        "--only",
        "mlp-sigma",
    ]
    subprocess.run(
        [*line, "--record", str(tmp_path / "encode.json")], check=True, capture_output=True, timeout=120
    )
    table = json.loads((tmp_path / "encode.json").read_text())
    assert (table["images"], table["environment"]["device"]) == (30, "cpu")
    row = table["recipes"]["mlp-sigma"]
    for part in ("seconds", "commands"):
        assert tuple(row[part]) == VERBS
        for verb, timed in row[part].items():
            once = part == "commands" and verb != "encode"  # a PNG an image
            assert len(timed["all"]) == (1 if once else 2)
            assert min(timed["all"]) <= timed["median"] <= max(timed["all"])
    assert all(row["commands"][verb]["median"] > row["seconds"][verb]["median"] for verb in VERBS)
    assert all(row["commands"][verb]["peak_mb"] > 50 for verb in VERBS)
    monkeypatch.setattr(tables.speed_pages, "RECORDS", tmp_path)
    shown = tables.encode_table()
    assert f"| `mlp-sigma` | {row['seconds']['encode']['median']:.3g} (" in shown
    assert f" {row['commands']['sample']['median']:.3g} (" in shown
    assert "Seconds for 30 images" in shown


def test_without_a_record_the_page_says_so(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables.speed_pages, "RECORDS", tmp_path)
    assert "Not recorded yet" in tables.encode_table()
