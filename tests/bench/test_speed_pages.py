"""The speed tables and the figure say what the records hold, and that there is none where there is none."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
ENVIRONMENT = {
    "processor": "a processor",
    "threads": 2,
    "packages": {"torch": "2.13.0"},
    "git": "abc",
    "device": "cpu",
}


@pytest.fixture
def speed(monkeypatch):
    """The module of benchmarks/speed.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("speed")
    sys.modules.pop("speed")
    sys.modules.pop("speed_pages")


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """The module, with records and figure in an empty folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("speed_pages")
    monkeypatch.setattr(module, "RECORDS", tmp_path)
    monkeypatch.setattr(module, "FIGURE", tmp_path / "speed.png")
    yield module
    sys.modules.pop("speed_pages")


def both(median, *every):
    return {"median": median, "all": list(every)}


def speed_record() -> dict:
    def side(seconds, precision):
        return {
            "seconds": both(seconds, seconds, 9.0), "ratio": both(4.0, 3.0, 5.0), "images_per_second": 27_000.0,
            "percent_of_product_rate": 61.7, "compile_seconds": 7.3, "precision": precision, "how": "compiled",
            "threads": 2, "peak_mb": 456.0, "notes": [],
        }  # fmt: skip

    row = {
        "baseline_s": both(8.0, 6.0, 10.0), "nelbo_s": both(2.0, 2.0, 2.0), "ratio": both(4.0, 3.0, 5.0),
        "loader": "pil", "precision": "bf16", "percent_of_product_rate": 61.7,
        "sides": {"nelbo-compiled": side(2.0, "bf16"), "nelbo-fp32-compiled": side(3.0, "fp32")},
    }  # fmt: skip
    jax = {
        "fp32": {"seconds": both(1.6, 1.5, 1.7), "ratio": both(5.0, 4.0, 6.0), "images_per_second": 33_000.0}
    }
    return {
        "command": "the command", "environment": ENVIRONMENT, "products": {"fp32": 4e11, "bf16": 8e11},
        "repeat": 2, "epochs": 3, "headline": "nelbo-compiled", "images": {"fashion-mlp": 54_000},
        "seconds_an_epoch": {"fashion-mlp": row},
        "geometric_mean": {"headline": 4.0, "sides": {"nelbo-compiled": 4.0, "nelbo-fp32-compiled": 2.7}},
        "jax": {"about": "jax 1 on cpu, after the others", "rows": {"fashion-mlp": jax}},
    }  # fmt: skip


def test_the_tables_hold_every_number_of_the_record(pages, tmp_path):
    (tmp_path / "speed.json").write_text(json.dumps(speed_record()))
    head = pages.speed_table()
    for words in (
        "| 8.00 | 2.00 | **4.0×** (3.0, 5.0) | 62 % bf16 | 3.00 | 4.0× |",
        "**4.00×**",
        "2 runs of 3 epochs",
        "abc",
    ):
        assert words in head
    sides = pages.sides_table()
    for words in (
        "`nelbo-compiled` | 2.00 (2.00, 9.00) | 27,000 | 4.00 | bf16, compiled | 62 % | 7.3 | 456 |",
        "`nelbo-fp32-compiled` | 3.00",
        "JAX, an epoch as one scan | 1.60 (1.50, 1.70) | 33,000 | 5.00 | fp32, XLA",
        "`nelbo-compiled` 4.00, `nelbo-fp32-compiled` 2.70",
        "fp32 400, bf16 800",
        "jax 1 on cpu",
    ):
        assert words in sides
    for table in (head, sides):  # every row has the columns of its head
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) == 1


def test_without_a_record_the_page_says_so(pages):
    assert "Not recorded yet: `python benchmarks/result.py`" in pages.result_table()
    assert "Not recorded yet: `python benchmarks/speed.py" in pages.sides_table()


def test_the_result_table_names_each_clock(pages, tmp_path):
    run = {
        "command": "nelbo train fashion-mlp --no-figures", "wall": both(70.0, 69.0, 71.0),
        "seconds": {"train": both(60.0, 60.0), "compile": both(5.0, 5.0)}, "images_per_second": both(45_000.0, 1.0),
        "nelbo": [239.21], "precision": "bf16", "compiled": True, "peak_mb": 700.0,
    }  # fmt: skip
    start = {"help": both(0.03, 0.03), "step": {"digits": both(2.0, 2.0)}}
    target = {"nats": 524.16, "seconds": None}
    record = {"command": "c", "environment": ENVIRONMENT, "run": run, "target": target, "start": start}
    (tmp_path / "result.json").write_text(json.dumps(record))
    found = pages.result_table()
    for words in (
        "| 70 (69, 71) |",
        "of it train | 60",
        "of it compile | 5",
        "not reached",
        "45,000 images/s",
        "239.2",
    ):
        assert words in found


def test_the_figure_has_a_bar_for_each_side(pages, tmp_path):
    (tmp_path / "speed.json").write_text(json.dumps(speed_record()))
    found = pages.bars(speed_record())
    assert {name: row["fashion-mlp"][0] for name, row in found.items()} == {
        "the tutorial's own code": 8.0, "nelbo": 2.0, "JAX, an epoch as one scan, fp32": 1.6,
    }  # fmt: skip
    assert found["nelbo"]["fashion-mlp"][1].strip() == "4.0×", "the ratio that the table shows"
    assert pages.draw().read_bytes().startswith(b"\x89PNG")


# --- benchmarks/speed.py ----------------------------------------------------------------------


def given(speed, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["speed.py", "--baseline", "seeds.py", *words])
    return speed.arguments()


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], "python benchmarks/speed.py --baseline seeds.py --repeat 3 --epochs 3"),
        (["--only", "conv-2d", "--epochs", "5", "--device", "cuda"],
         "python benchmarks/speed.py --baseline seeds.py --repeat 3 --epochs 5 --device cuda --only conv-2d"),
        (["--sides", "nelbo", "--jax", "/there/jax_peer.py"],
         "python benchmarks/speed.py --baseline seeds.py --repeat 3 --epochs 3 --sides nelbo "
         "--jax jax_peer.py --jax-repeat 1"),
    ],
)  # fmt: skip
def test_the_record_names_the_command_that_made_it(speed, monkeypatch, words, command):
    assert speed.command_of(given(speed, monkeypatch, *words)) == command


def test_baseline_and_sides_take_turns_and_the_first_side_is_the_headline(speed, monkeypatch):
    order = []

    def of_baseline(_, recipe):
        order.append("baseline")
        return {"s_epoch": 8.0, "loader": "pil"}

    def of_ours(_, recipe, side):
        order.append(side)
        row = {
            "seconds_an_epoch": {"median": 2.0 if side == "nelbo-fp32" else 4.0}, "images": 100, "peak_mb": None,
            "percent_of_product_rate": 50.0, "compile_seconds": {"median": 1.0}, "precision": "fp32",
            "how": "eager", "threads": 2, "notes": ["a note"],
        }  # fmt: skip
        return {"recipes": {recipe: {"rows": {side: row}}}}

    monkeypatch.setattr(speed, "of_baseline", of_baseline)
    monkeypatch.setattr(speed, "of_ours", of_ours)
    words = ["--repeat", "2", "--sides", "nelbo-fp32", "nelbo"]
    row, _ = speed.measure(given(speed, monkeypatch, *words), "fashion-mlp")
    assert order == ["baseline", "nelbo-fp32", "nelbo"] * 2
    assert row["ratio"] == {"median": 4.0, "all": [4.0, 4.0]}
    assert row["sides"]["nelbo"]["ratio"]["median"] == 2.0
    assert row["sides"]["nelbo-fp32"]["images_per_second"] == 50.0
    assert (row["sides"]["nelbo"]["peak_mb"], row["sides"]["nelbo"]["notes"]) == (None, ["a note"])


def test_jax_is_run_where_it_can_be_imported_and_what_took_too_long_is_said(speed, monkeypatch):
    line = json.dumps({"seed": "S4", "peer": "jax 1", "device": "cpu", "s_epoch": 2.0}).encode()

    def run(command, **more):
        if "-c" in command:
            return subprocess.CompletedProcess(command, 0)
        if "--bf16" in command:
            raise subprocess.TimeoutExpired(command, 1.0, output=line)
        return subprocess.CompletedProcess(command, 0, stdout=line.decode(), stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    rows = {"fashion-mlp": {"baseline_s": {"median": 5.0}}}
    found = speed.of_jax(given(speed, monkeypatch, "--jax", "peer.py"), rows)
    assert found["rows"]["fashion-mlp"]["fp32"]["ratio"] == {"median": 2.5, "all": [2.5]}
    assert set(found["rows"]["fashion-mlp"]) == {"fp32", "bf16"}
    assert "not done after 600" in found["about"]
    assert "jax 1 on cpu" in found["about"]


def test_without_jax_its_reason_is_recorded(speed, monkeypatch):
    assert speed.of_jax(given(speed, monkeypatch), {}) == {"about": "JAX was not run", "rows": {}}
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    found = speed.of_jax(given(speed, monkeypatch, "--jax", "peer.py"), {})
    assert "cannot import it" in found["about"]


def test_a_command_that_fails_ends_the_measurement_with_its_message(speed):
    with pytest.raises(SystemExit, match="no such recipe"):
        speed.lines_of([sys.executable, "-c", "import sys; sys.exit('no such recipe')"])
