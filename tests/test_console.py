"""What people see: tables that fit, numbers with their errors, a line an epoch."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch

from nelbo.cli import console
from nelbo.engine import Measured
from nelbo.evaluation import tables
from nelbo.training import events

CARD = {
    "run": "r[1]",
    "checkpoint": "best",
    "epoch": 3,
    "split": "test",
    "n": 40,
    "metrics": {
        "nelbo": {"value": 105.678, "standard_error": 0.213, "unit": "nats/image", "note": "grey [pixels]"},
        "kl": {"value": 0.00211, "standard_error": None, "unit": "nats/image", "note": ""},
        "iw_nll": {
            "value": None,
            "standard_error": None,
            "unit": "nats/image",
            "note": "shared noise",
            "missing": "not a bound",
        },
        "active_units": {
            "value": 1.0,
            "standard_error": None,
            "unit": "dimensions",
            "note": "of 2",
            "warning": "posterior collapse: 0 of 2 latent dimensions are active.",
        },
        "kl_per_dimension": {"value": [0.5, 2.25, 1.0], "standard_error": None, "unit": "nats", "note": ""},
    },
    "sections": {"all": ["nelbo", "kl", "iw_nll", "active_units", "kl_per_dimension"], "none": []},
}
ROW = {
    "event": "epoch",
    "epoch": 2,
    "beta": 0.5,
    "train": {"total": 12.0, "reconstruction": 10.0, "kl": 4.0, "bound": -14.0},
    "validation": {"total": 13.0, "reconstruction": 11.0, "kl": 4.0, "bound": -15.0},
    "latent": {"active_units": 3, "dimensions": 4},
    "best_epoch": 2,
}


@pytest.fixture(autouse=True)
def _no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def test_a_card_shows_values_errors_units_and_notes(capsys):
    console.show_card(CARD)
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "r[1] · best (epoch 3) · test, n = 40"
    rows = [line.split() for line in out.splitlines()[2:]]
    assert rows == [
        ["NELBO", "105.68", "±", "0.21", "nats/image", "grey", "[pixels]"],
        ["KL", "(rate)", "0.002110", "nats/image"],
        ["IW", "NLL", "not", "a", "bound", "nats/image", "shared", "noise"],
        ["Active", "units", "1", "dimensions", "of", "2"],
        ["KL", "per", "dimension", "0.5000", "to", "2.250", "nats"],
    ]
    assert out.endswith("\n")
    assert all(line == line.rstrip() for line in out.splitlines())


LONG = "mixture of all 40 posteriors, which the standard error takes as given"


def test_what_several_metrics_say_is_said_once(capsys):
    both = [("kl", f"at most 5; {LONG}"), ("nelbo", LONG), ("active_units", "of 2")]
    metrics = {name: CARD["metrics"][name] | {"note": note} for name, note in both}
    console.show_card(CARD | {"metrics": metrics, "sections": {"all": list(metrics)}})
    out = capsys.readouterr().out
    assert out.count(LONG) == 1
    kl, nelbo, active = (
        next(line for line in out.splitlines() if line.startswith(name)) for name in ("KL", "NEL", "Act")
    )
    assert kl.endswith("at most 5; [1]")
    assert nelbo.endswith("nats/image  [1]")
    assert active.endswith("of 2")
    assert out.splitlines()[-1] == f"[1]  {LONG}"


def test_where_notes_have_no_room_they_stand_below(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "76")
    console.show_card(CARD)
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("NELBO")).endswith("nats/image  [1]")
    assert "[1]  grey [pixels]" in lines


def test_a_collapse_is_said_below_the_table(capsys):
    console.show_card(CARD)
    assert "collapse" not in capsys.readouterr().out
    console.warn(CARD)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "warning: best: posterior collapse: 0 of 2 latent dimensions are active.\n"


def test_two_cards_stand_side_by_side(capsys):
    first = CARD | {
        "checkpoint": "first",
        "epoch": 1,
        "metrics": {"nelbo": CARD["metrics"]["nelbo"] | {"value": 200.0}},
    }
    console.show_table(tables.of_two_cards(first, CARD))
    out = capsys.readouterr().out
    assert "first (epoch 1)" in out
    assert "best (epoch 3)" in out
    (row,) = [line for line in out.splitlines() if line.startswith("NELBO")]
    assert row.index("200.00 ± 0.21") < row.index("105.68 ± 0.21")
    (row,) = [line for line in out.splitlines() if line.startswith("KL ") and "dimension" not in line]
    assert " - " in row  # the first checkpoint has no such number


@pytest.mark.parametrize(("columns", "width"), [(None, 110), ("80", 80), ("200", 200), ("wide", 110)])
def test_tables_fit_the_width(columns, width, capsys, monkeypatch):
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    console.show(["name", "what"], [("a-name-that-stays-whole", "word " * 100), ("b", "[bold]kept[/bold]")])
    lines = capsys.readouterr().out.splitlines()
    assert width - 10 < max(map(len, lines)) <= width
    assert any(line.startswith("a-name-that-stays-whole  word") for line in lines)
    assert any("[bold]kept[/bold]" in line for line in lines)


def test_json_is_one_line_without_nan(capsys):
    console.emit({"a": [1, None], "b": "ä"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": [1, None], "b": "ä"}
    assert (out.count("\n"), err) == (1, "")
    with pytest.raises(ValueError, match="JSON"):
        console.emit({"a": float("nan")})


def test_long_lists_of_files_are_cut(capsys):
    console.show_files([Path("out") / f"{index}.png" for index in range(20)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  out/0.png"
    assert len(lines) == console.LISTED + 1
    assert lines[-1] == "  and 8 more in out"
    console.show_files([])
    assert capsys.readouterr().out == ""


def test_an_epoch_is_one_plain_line(capsys):
    with console.Training(10) as listener:
        listener(events.StepDone(1, 3, Measured(("total",), torch.ones(1, 1), [1])))
        listener(events.EpochDone(ROW))
        listener(events.Warned("posterior collapse"))
        listener(events.Resumed(3, 4))
        listener(events.Event())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "epoch  2/10 | beta 0.5 | train loss 12.00, recon 10.00, KL 4.00, NELBO 14.00"
        " | validation loss 13.00, recon 11.00, KL 4.00, NELBO 15.00 | 3/4 active | best",
        "warning: posterior collapse",
        "going on with epoch 3, batch 5",
    ]


def test_an_objective_without_a_bound_claims_none(capsys):
    with console.Training(3) as listener:
        listener(events.EpochDone({"epoch": 1, "train": {"total": 7.0}, "best_epoch": 1}))
        listener(
            events.EpochDone(
                ROW | {"epoch": 3, "validation": {"total": 1.0, "reconstruction": 1.0, "kl": 0.0}}
            )
        )
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1/3 | train loss 7.00"
    assert lines[1].count("NELBO") == 1
    assert "best" not in lines[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_the_same_lines(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with console.Training(10) as listener:
        listener(events.StepDone(1, 3, Measured(("total",), torch.ones(1, 1), [1])))
        listener(events.EpochDone(ROW))
    text = terminal.getvalue()
    assert "\x1b[" in text
    assert "epoch  2/10 | beta 0.5 | train loss 12.00" in text
    assert "epoch 3" in text


@pytest.mark.parametrize("tty", [True, False])
def test_measuring_a_fast_metric_speaks_on_a_terminal_only(tty, monkeypatch):
    stream = Terminal() if tty else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(console, "SLOW", 60.0)
    monkeypatch.setenv("TERM", "xterm")
    with console.Measuring() as listener:
        listener(events.MetricBegun("importance"))
        listener(events.MetricGoesOn("importance", 5, 10))
        listener(events.Event())
    assert ("measuring importance" in stream.getvalue()) == tty
    assert stream.getvalue() == "" or tty


def test_a_slow_metric_is_named_on_a_pipe_with_the_time_that_is_left(monkeypatch, capsys):
    monkeypatch.setattr(console, "SLOW", 0.05)
    with console.Measuring() as listener:
        listener(events.MetricBegun("probes"))
        listener.lines.timer.join(60)  # it tells nothing on its way
        listener(events.MetricBegun("importance"))
        listener.lines.timer.cancel()
        clock = [listener.lines.begun]
        begun = clock[0]
        monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
        for seconds, done in (
            (0.01, 1),
            (9.0, 1),
            (10.0, 20),
            (11.0, 22),
            (25.0, 50),
            (26.0, 100),
            (60.0, 1),
            (70.0, 20),
        ):
            clock[0] = begun + seconds
            listener(events.MetricGoesOn("importance", done, 100))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "measuring probes ...",
        "measuring importance: 20% after 10 s, about 40 s left",
        "measuring importance: 50% after 25 s, about 25 s left",
        "measuring importance: 20% after 70 s, about 40 s left",  # of its second part
    ]


def test_what_is_over_is_not_named_later(monkeypatch, capsys):
    monkeypatch.setattr(console, "SLOW", 0.2)
    with console.Measuring() as listener:
        listener(events.MetricBegun("bound"))
        timer = listener.lines.timer
    timer.join(60)
    assert not timer.is_alive()
    assert capsys.readouterr().err == ""
