"""Groups, means over seeds, paired differences and the mark of the best, from cards whose numbers are known."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

import nelbo
from nelbo.core import files
from nelbo.core.catalogue import entries
from nelbo.evaluation.comparison import Comparison, compare, draw
from nelbo.evaluation.comparison.compared import _best
from nelbo.evaluation.comparison.values import Cell

from .conftest import N, numbers

BETA = {"objective.beta": 4.0}


@pytest.fixture
def two_by_three(made) -> Comparison:
    """Two configurations of three seeds each; the second is one nat worse, its seeds spread by 0.1."""
    runs = [made(f"plain-s{s}", 20.0 + 0.1 * s, s) for s in range(3)]
    runs += [made(f"beta-s{s}", 21.0 + 0.1 * s, s, settings=BETA) for s in range(3)]
    return compare(runs)


# --- groups -----------------------------------------------------------------------------------


def test_runs_that_differ_only_in_the_seed_are_one_group(two_by_three):
    first, second = two_by_three.groups
    assert (first.name, first.label, first.seeds) == ("A", "plain", (0, 1, 2))
    assert (second.name, second.label, second.seeds) == ("B", "beta 4", (0, 1, 2))
    assert [run.name for run in second.runs] == ["beta-s0", "beta-s1", "beta-s2"]
    assert two_by_three.differences == {"objective.beta": {"A": 1.0, "B": 4.0}}
    assert (two_by_three.baseline, two_by_three.n) == ("A", N)


def test_a_healthy_comparison_has_no_warning_and_leaves_nothing_out(two_by_three):
    assert two_by_three.warnings == ()
    assert two_by_three.left_out == {}
    assert all(cell.comparable for row in two_by_three.metrics for cell in row.cells.values())


def test_the_group_of_the_first_run_is_the_baseline(made):
    runs = [made("b0", settings=BETA), made("a0"), made("b1", seed=1, settings=BETA)]
    found = compare(runs)
    assert [[run.name for run in group.runs] for group in found.groups] == [["b0", "b1"], ["a0"]]
    assert found.baseline == "A"


def test_a_seed_that_comes_twice_is_no_replication(made):
    found = compare([made("a"), made("b", seed=1), made("again")])
    assert [group.seeds for group in found.groups] == [(0, 1), (0,)]
    assert found.differences == {}
    assert "already" in next(w.message for w in found.warnings if w.about == "repeated seed")


def test_one_configuration_alone_has_a_mean_and_no_differences(made):
    found = compare([made("a"), made("b", seed=1)])
    assert len(found.groups) == 1
    assert found.paired == ()
    assert found.metric("nelbo").cells["A"].standard_error > 0


def test_components_of_other_names_are_one_difference_with_all_that_is_in_them(made):
    runs = [made("a"), made("b", settings={"objective.beta": "linear", "objective.beta.epochs": 5})]
    found = compare(runs)
    assert found.differences == {
        "objective.beta": {"A": 1.0, "B": {"name": "linear", "start": 0.0, "end": 1.0, "epochs": 5}}
    }
    assert found.groups[1].label == "beta linear"
    faster = compare(
        [*runs[1:], made("c", settings={"objective.beta": "linear", "objective.beta.epochs": 9})]
    )
    assert faster.differences == {"objective.beta.epochs": {"A": 5, "B": 9}}


def test_a_field_that_only_one_has_is_none_in_the_other(made):
    found = compare([made("a"), made("b", settings={"clip_norm": 1.0})])
    assert found.differences == {"clip_norm": {"A": None, "B": 1.0}}


def test_many_differences_are_called_by_the_runs(made):
    many = {"clip_norm": 1.0, "ema": 0.9, "optimizer.lr": 0.5, "objective.beta": 2.0}
    found = compare([made("a"), *(made(f"tuned-s{s}", seed=s, settings=many) for s in range(2))])
    assert [group.label for group in found.groups] == ["a", "tuned"]


def test_recipes_are_called_by_their_names(made):
    found = compare(
        [made("a", settings={"recipe": "digits"}), made("b", settings={"recipe": "conv-2d", **BETA})]
    )
    assert [group.label for group in found.groups] == ["digits", "conv-2d"]


def test_cost_comes_from_the_run(made):
    summary = {"epochs": 7, "best_epoch": 5, "images_per_second": 12.5, "seconds": {"train": 3.5}}
    env = {"processor": "Abacus", "packages": {"nelbo": "9", "torch": "8"}}
    runs = [made("a", summary={**summary, "threads": 2, "device": "cpu"}, env=env)]
    runs += [made("b", seed=1, summary={**summary, "device": "cuda:1"}, env={"gpus": ["X1", "X2"]})]
    first, second = compare(runs).groups[0].runs
    assert (first.epochs, first.best_epoch, first.images_per_second, first.train_seconds) == (7, 5, 12.5, 3.5)
    assert (first.hardware, second.hardware) == ("Abacus, 2 threads", "X2")
    assert first.code == "nelbo 9 at c0ffee, torch 8"
    model = nelbo.load(runs[0], device="cpu")
    assert first.weights == sum(p.numel() for p in model.parameters())


# --- metrics ----------------------------------------------------------------------------------


def test_a_cell_is_the_mean_and_standard_error_over_seeds(two_by_three):
    values = [float(numbers(21.0 + 0.1 * s, s)["nelbo"].mean()) for s in range(3)]
    cell = two_by_three.metric("nelbo").cells["B"]
    assert cell.values == pytest.approx(values)
    assert cell.mean == pytest.approx(np.mean(values))
    assert cell.standard_error == pytest.approx(stats.sem(values))


def test_a_single_run_shows_no_spread(made):
    found = compare([made("a"), made("b", settings=BETA)])
    assert found.metric("nelbo").cells["A"].standard_error is None
    assert all(one.over_seeds is None for one in found.paired)


def test_metrics_come_in_the_order_of_a_card_and_lists_are_left_out(made):
    shown = {"latent": ("kl_per_dimension",), "probes": ("linear_probe_accuracy",), "own": ("mine",)}
    values = {"kl_per_dimension": [1.0, 2.0], "linear_probe_accuracy": 0.5, "mine": 1.0}
    found = compare(
        [made(name, settings=s, sections=shown, values=values) for name, s in (("a", {}), ("b", BETA))]
    )
    names = [row.name for row in found.metrics]
    assert names == ["nelbo", "reconstruction", "kl", "mse", "linear_probe_accuracy", "mine"]


def test_the_paired_difference_averages_each_image_over_seeds_first(two_by_three):
    found = next(one for one in two_by_three.paired if one.metric == "nelbo")
    groups = [
        np.mean([numbers(level + 0.1 * s, s)["nelbo"] for s in range(3)], axis=0) for level in (20.0, 21.0)
    ]
    expected = stats.ttest_rel(groups[1], groups[0]).confidence_interval(0.95)
    assert found.value == pytest.approx(float((groups[1] - groups[0]).mean()))
    assert (found.over_images.low, found.over_images.high) == pytest.approx((expected.low, expected.high))
    assert found.over_images.n == (N,)


def test_the_interval_over_seeds_is_between_the_means_of_the_runs(two_by_three):
    found = next(one for one in two_by_three.paired if one.metric == "nelbo")
    row = two_by_three.metric("nelbo")
    test = stats.ttest_ind(row.cells["B"].values, row.cells["A"].values, equal_var=False)
    expected = test.confidence_interval(0.95)
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx((expected.low, expected.high))
    assert found.over_seeds.n == (3, 3)


def test_pairing_sees_what_independent_samples_would_not(made):
    """Images spread by 6 nats, the difference by 0.7: the interval has the width of the difference."""
    found = compare([made("a", 20.0, 0), made("b", 20.5, 1, settings=BETA)])
    one = next(one for one in found.paired if one.metric == "reconstruction")
    assert one.over_images.high - one.over_images.low < 0.5
    assert one.over_images.excludes_zero


def test_a_number_that_is_no_mean_over_images_has_no_interval_over_them(two_by_three):
    one = next(one for one in two_by_three.paired if one.metric == "active_units")
    assert (one.value, one.over_images, one.note) == (0.0, None, "no mean over images")


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda kept: kept | {"nelbo": kept["nelbo"] + 1}, "not those of the card"),
        (lambda kept: kept | {"nelbo": kept["nelbo"].mean().repeat(3)}, "different numbers of images"),
        (lambda kept: {k: v for k, v in kept.items() if k != "nelbo"}, "no mean over images"),
    ],
)
def test_numbers_of_single_images_that_do_not_fit_are_not_paired(damage, note, made):
    runs = [made("a"), made("b", settings=BETA)]
    file = runs[1].path / "evaluation" / "test-best-k0.safetensors"
    kept, about = files.read_tensors(file)
    files.write_tensors(file, damage(kept), about)
    one = next(one for one in compare(runs).paired if one.metric == "nelbo")
    assert one.over_images is None
    assert note in one.note


# --- the best ---------------------------------------------------------------------------------


def test_the_best_is_marked_where_every_interval_excludes_zero(two_by_three):
    row = two_by_three.metric("nelbo")
    assert (row.better, row.best, row.best_of) == ("lower", "A", "seeds")


def test_what_is_traded_has_no_best(two_by_three):
    assert [(row.name, row.best) for row in two_by_three.metrics if not row.better] == [
        ("reconstruction", None), ("kl", None), ("active_units", None),
    ]  # fmt: skip


def test_single_runs_are_only_the_best_of_these_weights(made):
    row = compare([made("a", 25.0), made("b", 20.0, settings=BETA)]).metric("nelbo")
    assert (row.best, row.best_of) == ("B", "images")


def test_seeds_that_disagree_leave_no_best_though_images_agree(made):
    runs = [made(f"a{s}", 20.0 + 3 * s, s) for s in range(3)]
    runs += [made(f"b{s}", 21.0 + 3 * s, s, settings=BETA) for s in range(3)]
    found = compare(runs)
    one = next(one for one in found.paired if one.metric == "nelbo")
    assert one.over_images.excludes_zero
    assert not one.over_seeds.excludes_zero
    assert found.metric("nelbo").best is None


def test_higher_is_better_where_it_is(made):
    shown = {"probes": ("linear_probe_accuracy",)}
    right = np.arange(N) % 2.0
    values = [
        {"linear_probe_accuracy": right},
        {"linear_probe_accuracy": np.maximum(right, np.arange(N) > 20)},
    ]
    runs = [made("a", sections=shown, values=values[0])]
    runs += [made("b", sections=shown, values=values[1], settings=BETA)]
    assert compare(runs).metric("linear_probe_accuracy").best == "B"


def wrongly_marked(levels, spreads, n_seeds, trials=600):
    """How often a best is marked among groups of these true levels and spreads over seeds, the first two equal."""
    stream, marked = np.random.default_rng(4), 0
    for _ in range(trials):
        groups = {}
        for name, level, spread in zip("ABCD", levels, spreads, strict=False):
            seeds = stream.normal(level, spread, (n_seeds, 1))
            groups[name] = [
                SimpleNamespace(
                    value={"nelbo": float(column.mean())}.get, per_image={"nelbo": torch.from_numpy(column)}
                )
                for column in seeds + stream.normal(0.0, 1.0, (n_seeds, 50))
            ]
        cells = {
            name: Cell(float(np.mean([member.value("nelbo") for member in own])), None, (), "", True)
            for name, own in groups.items()
        }
        marked += _best(groups, "nelbo", list(groups), cells, "lower")[0] is not None
    return marked / trials


@pytest.mark.parametrize(
    ("levels", "spreads", "least"),
    [
        ((0, 0), (1, 1), 0.02),
        ((0, 0, 50), (1, 1, 1), 0.02),  # the hardest: two equal ones, and another far behind
        ((0, 0, 50, 50), (1, 3, 1, 1), 0.02),
        ((0, 0, 0, 0), (1, 1, 1, 1), 0.0),
    ],
)
def test_where_the_two_best_are_equal_a_best_is_marked_in_five_of_a_hundred_at_most(levels, spreads, least):
    assert least < wrongly_marked(levels, spreads, n_seeds=4) + 1e-9 <= 0.05 + 0.02


def test_every_number_with_facts_is_one_that_is_measured():
    composed = {  # of the features' name and of what is measured
        f"frechet_{features}_{what}" for features in ("classifier", "untrained")
        for what in ("distance", "draws", "means", "reconstructions", "train")
    }  # fmt: skip
    for metric in entries("metric").values():
        source = inspect.getsource(
            inspect.getmodule(metric)
        )  # once in the decorator, once where it is yielded
        named_once = [name for name in metric.numbers if len(re.findall(rf'"{name}"', source)) < 2]
        assert set(named_once) <= composed, metric


# --- the picture ------------------------------------------------------------------------------


def test_the_plane_shows_each_run_and_the_mean_of_each_group(two_by_three):
    figure, why_not = draw(two_by_three)
    assert why_not == ""
    means = {
        tuple(map(float, dots.get_offsets()[0]))
        for dots in figure.axes[0].collections
        if len(dots.get_offsets()) == 1
    }
    for name in "AB":
        cells = [two_by_three.metric(metric).cells[name] for metric in ("kl", "reconstruction")]
        assert any(point == pytest.approx((cells[0].mean, cells[1].mean)) for point in means)
        small = [dots.get_offsets() for dots in figure.axes[0].collections if len(dots.get_offsets()) == 3]
        runs = np.array([cells[0].values, cells[1].values]).T
        assert any(np.allclose(points, runs) for points in small)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "A: plain (3\N{NO-BREAK SPACE}runs)",
        "B: beta 4 (3\N{NO-BREAK SPACE}runs)",
    ]


def test_only_groups_that_can_be_compared_are_in_one_plane(made):
    other = {"images_hash": "o" * 16}
    runs = [made("a", card=other), made("b", settings=BETA), made("c", settings={"optimizer.lr": 0.5})]
    figure, _ = draw(compare(runs))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["B: beta 4", "C: lr 0.5"]
    assert "Not drawn, because it cannot be compared: A." in figure.get_supxlabel()
    assert "no KL" not in figure.get_supxlabel()


def test_a_group_without_a_kl_is_not_drawn_and_named(made):
    missing = {"nelbo": ("not a bound", "shared noise"), "kl": ("infinite", "shared noise")}
    runs = [made("a"), made("b", values={"nelbo": None, "kl": None}, missing=missing, settings=BETA)]
    figure, _ = draw(compare(runs))
    assert "Not drawn, because it has no KL: B." in figure.get_supxlabel()
    assert "small: one run" not in figure.get_supxlabel()


def test_without_a_bound_there_is_no_plane(made):
    none = {"nelbo": None, "kl": None}
    missing = {"nelbo": ("not a bound", "shared noise"), "kl": ("infinite", "shared noise")}
    runs = [made("a", values=none, missing=missing), made("b", values=none, missing=missing, settings=BETA)]
    figure, why_not = draw(compare(runs))
    assert figure is None
    assert "no run has both a KL and a reconstruction" in why_not


# --- plain values -----------------------------------------------------------------------------


def test_a_comparison_is_plain_values(two_by_three, plain):
    table = plain(two_by_three)
    assert set(table) == {
        "split", "checkpoint", "n", "samples", "baseline", "groups", "differences", "metrics", "paired", "warnings",
        "left_out",
    }  # fmt: skip
    assert set(table["groups"][0]) == {"name", "label", "log_px", "runs", "seeds"}
    assert [group["seeds"] for group in table["groups"]] == [[0, 1, 2], [0, 1, 2]]
    assert set(table["groups"][0]["runs"][0]) == {
        "name", "path", "seed", "epochs", "best_epoch", "epoch", "weights", "train_seconds", "images_per_second",
        "hardware", "code",
    }  # fmt: skip
    row = table["metrics"][0]
    assert set(row) == {"name", "section", "unit", "better", "cells", "classes", "best", "best_of"}
    assert set(row["cells"]["A"]) == {"mean", "standard_error", "values", "note", "comparable", "missing"}
    one = table["paired"][0]
    assert set(one) == {"metric", "group", "baseline", "value", "over_images", "over_seeds", "note"}
    assert set(one["over_images"]) == {"low", "high", "over", "n", "degrees", "level"}


def test_compare_is_the_packages():
    assert nelbo.compare is compare
