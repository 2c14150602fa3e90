"""`nelbo bench`: what it reports and in which order, its counters, its mistakes. Nothing here asserts a time."""

from __future__ import annotations

import json
import mmap
import re
import statistics

import pytest
import torch

from nelbo.bench import SIDES, Lap, bench, lap, machine, running, spread
from nelbo.bench import nelbo as side
from nelbo.engine.compiling import why_not
from nelbo.errors import ConfigError, Interrupted, TrainingFailed

CPU = torch.device("cpu")
BF16 = SIDES["nelbo-bf16"].overrides
RATES = {"fp32": {"flops_per_second": 1000.0}, "bf16": {"flops_per_second": 4000.0}}


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    monkeypatch.setitem(machine.LARGE, "cpu", 256)


# --- the verb ---------------------------------------------------------------------------------


EVERY = pytest.param(list(SIDES), id="every side", marks=pytest.mark.slow)  # each compiles anew


@pytest.mark.parametrize(
    "sides", [pytest.param(["plain", "nelbo", "nelbo-bf16"], id="what compiles nothing"), EVERY]
)
def test_a_small_bench_is_one_complete_object(sides, nelbo, tmp_path):
    flags = ["--epochs", "2", "--repeat", "1", "--target", "30", "--sides", ",".join(sides)]
    code, out, err = nelbo("bench", "digits", *flags, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    found = json.loads(out)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    assert {"python", "processor", "threads", "packages", "command"} <= set(found["environment"])
    assert found["settings"] == {"repeat": 1, "epochs": 2, "target": 30.0, "device": "cpu"}
    for precision in ("fp32", "bf16"):
        assert found["machine"]["products"][precision]["flops_per_second"] > 0
    (recipe,) = found["recipes"].values()
    assert (recipe["images"], recipe["batch_size"]) == (1294, 64)
    rows, left_out = recipe["rows"], recipe["left_out"]
    assert [*rows, *left_out] == sorted([*rows, *left_out], key=list(SIDES).index)
    assert set(rows) | set(left_out) == set(sides)
    assert left_out == {}
    plain = rows["plain"]["images_per_second"]["median"]
    for name, row in rows.items():
        (seconds,) = row["seconds_an_epoch"]["all"]
        (speed,) = row["images_per_second"]["all"]
        assert speed == pytest.approx(row["images"] / seconds)
        assert row["ratio_to_plain"]["median"] == pytest.approx(speed / plain)
        assert row["flops_per_second"] == pytest.approx(speed * recipe["flops_an_image"])
        rate = found["machine"]["products"][row["precision"]]["flops_per_second"]
        assert row["percent_of_product_rate"] == pytest.approx(100 * row["flops_per_second"] / rate)
        if name.endswith(("fp32", "bf16", "fp32-compiled", "bf16-compiled")):
            assert row["precision"] in name
        if name.endswith("compiled"):
            reason = why_not(CPU)  # no compiler on this machine, say
            assert row["how"] == ("eager" if reason else "compiled")
            assert (reason in row["notes"][0]) if reason else (row["notes"] == [])
        elif name in ("plain", "nelbo-fp32", "nelbo-bf16"):
            assert (row["how"], row["compile_seconds"]["median"]) == ("eager", 0.0)


def test_the_table_names_sides_machine_and_what_was_left_out(nelbo, monkeypatch):
    def refused(*arguments, **more):
        raise ConfigError("not this recipe")

    lap_of = running.lap_of
    monkeypatch.setattr(
        running, "lap_of", lambda side, *more: (refused if side.overrides == BF16 else lap_of)(side, *more)
    )
    code, out, err = nelbo(
        "bench", "--epochs", "2", "--repeat", "2", "--sides", "nelbo-bf16,nelbo-fp32,plain"
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "digits: 1,294 images, batches of 64"
    assert [line.split()[0] for line in lines[2:4]] == ["plain", "nelbo-fp32"]
    assert "…" not in out
    assert max(map(len, lines[:5])) <= 110
    assert "left out nelbo-bf16: not this recipe" in out
    assert re.search(r"medians of 2; .*threads, torch .*commit", out)
    assert "GFLOP/s: fp32" in out
    turns = re.findall(r"(\S+), turn (\d)", err)
    assert turns == [("plain", "1"), ("nelbo-fp32", "1"), ("plain", "2"), ("nelbo-fp32", "2")], "in turn"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digitz"], ["no recipe is called 'digitz'", "'digits'"]),
        (["--epochs", "1"], ["--epochs 1", "at least 2", "first epoch"]),
        (["--repeat", "0"], ["--repeat 0", "at least 1"]),
        (["--sides", "plian"], ["--sides plian", "'plain'"]),
        (["--sides", ","], ["--sides", "plain"]),
        (["--device", "cuda:77"], ["--device cuda:77", "cpu"]),
        (["--target", "low"], ["--target", "low"]),
        (["digits", "digits"], ["named twice", "digits"]),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_trained(arguments, words, nelbo, monkeypatch):
    monkeypatch.setattr(running, "lap_of", None)
    code, out, err = nelbo("bench", *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_data_that_is_not_there_is_refused_too(nelbo, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "lap_of", None)
    (tmp_path / "empty").mkdir()
    code, _, err = nelbo("bench", tmp_path / "missing.toml")
    assert code == 2
    assert "missing.toml" in err


# --- from Python ------------------------------------------------------------------------------


def test_what_one_side_cannot_do_is_left_out_and_the_others_go_on(tiny_recipe, monkeypatch):
    tried = []

    def lap_of(side, recipe, splits, shared):
        tried.append(side.program)
        if side.program == "nelbo":
            raise ConfigError("not this one")
        return Lap(epochs=(2.0, 4.0), images=96, precision="fp32")

    monkeypatch.setattr(running, "lap_of", lap_of)
    found = bench([tiny_recipe()], repeat=2, sides=["nelbo", "plain"], device="cpu")["recipes"]["custom"]
    assert tried == ["plain", "nelbo", "plain"], "not asked again"
    assert found["left_out"] == {"nelbo": "not this one"}
    assert found["rows"]["plain"]["seconds_an_epoch"]["all"] == [3.0, 3.0]


def test_a_side_that_fails_in_a_later_turn_has_no_row(tiny_recipe, monkeypatch):
    turns = iter([None, TrainingFailed("the loss is not finite")])

    def lap_of(side, recipe, splits, shared):
        if error := next(turns):
            raise error
        return Lap(epochs=(2.0,), images=96, precision="fp32")

    monkeypatch.setattr(running, "lap_of", lap_of)
    found = bench([tiny_recipe()], repeat=2, sides=["nelbo"], device="cpu")["recipes"]["custom"]
    assert (found["rows"], found["left_out"]) == ({}, {"nelbo": "the loss is not finite"})


def test_a_recipe_of_one_epoch_is_trained_for_two_and_patience_does_not_end_it(tiny_recipe):
    recipe = tiny_recipe({"epochs": 1, "patience": 1, "optimizer.lr": 0.0})
    found = bench([recipe], repeat=1, epochs=4, sides=["nelbo-fp32"], device="cpu")["recipes"]["custom"]
    assert found["rows"]["nelbo-fp32"]["seconds_an_epoch"]["median"] > 0


def test_interrupted_it_ends_at_once_and_promises_nothing(tiny_recipe, monkeypatch):
    def interrupted(*arguments, **more):
        raise Interrupted("the same command goes on from there")

    monkeypatch.setattr(side.api, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench([tiny_recipe()], repeat=1, sides=["nelbo"], device="cpu")


def test_a_row_is_medians_and_ratios_turn_by_turn():
    mine = [Lap(epochs=(1.0,), images=90, precision="bf16", peak_mb=5.0),
            Lap(epochs=(3.0, 1.0, 2.0), images=90, precision="bf16", peak_mb=7.0),
            Lap(epochs=(4.0,), images=90, precision="bf16")]  # fmt: skip
    theirs = [Lap(epochs=(10.0,), images=100, precision="fp32") for _ in mine]
    found = running.row(SIDES["nelbo"], mine, 2.0, RATES, theirs)
    assert found["seconds_an_epoch"] == {"median": 2.0, "low": 1.0, "high": 4.0, "all": [1.0, 2.0, 4.0]}
    assert found["images_per_second"]["all"] == [90.0, 45.0, 22.5]
    assert found["ratio_to_plain"]["all"] == [9.0, 4.5, 2.25]
    assert found["flops_per_second"] == 90.0
    assert found["percent_of_product_rate"] == pytest.approx(100 * 90 / 4000)
    assert found["peak_mb"] == 7.0
    assert found["seconds_to_target"] is None
    alone = running.row(SIDES["nelbo"], mine, 2.0, RATES, [])
    assert alone["ratio_to_plain"] is None


def test_a_target_that_one_turn_missed_is_not_reached():
    laps = [Lap(epochs=(1.0,), images=9, precision="fp32", target_seconds=value) for value in (1.0, 3.0)]
    found = running.row(SIDES["nelbo"], laps, 1.0, RATES, [])
    assert found["seconds_to_target"]["median"] == 2.0
    missed = Lap(epochs=(1.0,), images=9, precision="fp32")
    assert running.row(SIDES["nelbo"], [*laps, missed], 1.0, RATES, [])["seconds_to_target"] is None


def test_spread():
    values = [3.0, 1.0, 2.0, 8.0]
    assert spread(values) == {"median": statistics.median(values), "low": 1.0, "high": 8.0, "all": values}


# --- counters ---------------------------------------------------------------------------------


def test_seconds_to_a_target_are_of_the_step_that_reaches_it():
    bounds = [[-700.0, -600.0, -500.0, -400.0], [-100.0] * 4]
    assert lap.seconds_to_target(bounds, [8.0, 4.0], None) is None
    assert lap.seconds_to_target(bounds, [8.0, 4.0], 700.0) == 2.0
    assert lap.seconds_to_target(bounds, [8.0, 4.0], 600.0) == 6.0, "the mean of 700, 600, 500"
    assert lap.seconds_to_target(bounds, [8.0, 4.0], 460.0) == 9.0, (
        "2,300 / 5, one step into the second epoch"
    )
    assert lap.seconds_to_target(bounds, [8.0, 4.0], 100.0) is None
    long = [[-700.0] * 20 + [-1.0] * 20]
    assert lap.seconds_to_target(long, [40.0], 1.0) == 20.0 + lap.WINDOW, "a mean over the last batches only"


def test_the_largest_memory_is_of_the_side_and_not_of_an_earlier_one():
    if lap.Memory(CPU).peak_mb() is None:
        pytest.skip("this system does not reset or tell a process's largest memory")
    before = lap.Memory(CPU).peak_mb()
    large = lap.Memory(CPU)
    with mmap.mmap(-1, 40 * 2**20) as block:  # new pages: an allocator may hand out what it has kept
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        with_block = large.peak_mb()
    assert with_block > before + 30
    assert lap.Memory(CPU).peak_mb() < with_block - 20


def test_memory_is_unknown_where_it_cannot_be_reset(monkeypatch, tmp_path):
    monkeypatch.setattr(lap, "PROCESS", tmp_path / "no such folder")
    assert lap.Memory(CPU).peak_mb() is None


@pytest.mark.gpu
def test_a_gpus_row_says_which_and_how_it_ran():
    found = bench(["digits"], repeat=1, sides=["plain", "nelbo"], device="cuda")
    assert torch.cuda.get_device_name() in found["environment"]["gpus"]
    row = found["recipes"]["digits"]["rows"]["nelbo"]
    assert "captured" in row["how"]
    assert row["peak_mb"] > 0
