"""What keeps numbers apart: each cause is planted, is named, and takes exactly the metrics it touches."""

from __future__ import annotations

import shutil

import pytest

from nelbo.evaluation import labels
from nelbo.evaluation.comparison import compare
from nelbo.evaluation.comparison.comparability import classes
from nelbo.metrics.bound import GREY

BETA = {"objective.beta": 4.0}
EVERY = ("nelbo", "reconstruction", "kl", "active_units", "mse")
LOG_PX = ("nelbo", "reconstruction")
IW = {"sections": {"importance": ("iw_nll",)}, "values": {"iw_nll": 1.0}}


def about(found, cause):
    return next((caution for caution in found.warnings if caution.about == cause), None)


@pytest.mark.parametrize(
    ("planted", "cause", "metrics", "words"),
    [
        ({"card": {"images_hash": "x"}}, "images", EVERY, "the files or arrays themselves have changed"),
        ({"card": {"images_hash": "x", "data_hash": "x"}, "settings": {"data.split_seed": 7}}, "images", EVERY,
         "data.split-seed is 42 in A, 7 in B"),
        ({"card": {"images_hash": "x", "data_hash": "x"}, "settings": {"data.transforms": "binarise"}}, "images",
         EVERY, "data.transforms is none in A, [binarise(threshold 128)] in B"),
        ({"likelihood": GREY}, "likelihood", LOG_PX,
         "kind of number: A: log-probability of the pixels; B: cross-entropy of pixels between black and white"),
        ({"card": {"seed": 2}}, "evaluation seed", EVERY, "seed 1 in A, 2 in B; measure again"),
    ],
)  # fmt: skip
def test_what_differs_is_named_and_not_subtracted(planted, cause, metrics, words, made):
    found = compare([made("a"), made("b", **planted | {"settings": BETA | planted.get("settings", {})})])
    caution = about(found, cause)
    assert caution.metrics == metrics
    assert words in caution.message
    assert f"Not compared: {labels.label(metrics[0])}" in caution.message
    assert {one.metric for one in found.paired} == set(EVERY) - set(metrics)
    for row in found.metrics:
        assert row.cells["B"].comparable is (row.name not in metrics)
        assert row.cells["B"].mean is not None, "such numbers are still shown"
        if row.name in metrics:
            assert row.best is None
    assert [other.about for other in found.warnings if other.metrics] == [cause]


def test_another_k_keeps_only_importance_weighted_numbers_apart(made):
    runs = [made("a", card={"samples": 50}, **IW), made("b", card={"samples": 500}, settings=BETA, **IW)]
    found = compare(runs)
    caution = about(found, "K")
    assert caution.metrics == ("iw_nll",)
    assert (
        caution.message
        == "K is 50 in A, 500 in B; measure all alike with --samples 500. Not compared: IW NLL"
    )
    assert {one.metric for one in found.paired} == set(EVERY)


def test_what_is_not_a_bound_has_no_number_to_subtract(made):
    values = {"nelbo": None, "kl": None}
    missing = {
        "nelbo": ("not a bound", "shared noise: singular"),
        "kl": ("infinite", "shared noise: singular"),
    }
    found = compare([made("a"), made("b", values=values, missing=missing, settings=BETA)])
    (caution,) = found.warnings
    assert (caution.about, caution.metrics) == ("no number", ("nelbo", "kl"))
    assert caution.message == ("NELBO and KL: not a bound and infinite in B (shared noise: singular)")
    assert {one.metric for one in found.paired} == {"reconstruction", "active_units", "mse"}
    cell = found.metric("nelbo").cells["B"]
    assert (cell.mean, cell.missing) == (None, "not a bound")


@pytest.mark.parametrize(("field", "value"), [("split", "validation"), ("checkpoint", "last")])
def test_a_card_that_says_it_is_of_another_split_or_checkpoint_is_not_believed_to_be_of_this(
    field, value, made
):
    runs = [made("a"), made("b", settings=BETA)]
    card = runs[1].read_json("evaluation/test-best-k0.json")
    runs[1].write_json("evaluation/test-best-k0.json", card | {field: value})
    found = compare(runs)
    assert about(found, field).metrics == EVERY
    assert found.paired == ()


def test_another_unit_is_another_number(made):
    runs = [made("a"), made("b", settings=BETA)]
    card = runs[1].read_json("evaluation/test-best-k0.json")
    card["metrics"]["mse"]["unit"] = "squared/image"
    runs[1].write_json("evaluation/test-best-k0.json", card)
    assert about(compare(runs), "unit").metrics == ("mse",)


# --- what learns from the training images -----------------------------------------------------


def test_other_training_images_keep_probes_apart_and_leave_the_rest(made):
    probes = {"sections": {"probes": ("linear_probe_accuracy",)}, "values": {"linear_probe_accuracy": 0.5}}
    other = {"card": {"data_hash": "x"}, "settings": {"data.validation": 0.1}}
    found = compare([made("a", **probes), made("b", **probes, **other)])
    caution = about(found, "training data")
    assert caution.metrics == ("linear_probe_accuracy",)
    assert "data.validation is 0.2 in A, 0.1 in B" in caution.message
    assert {one.metric for one in found.paired} == set(EVERY)


def test_other_training_images_alone_only_need_care(made):
    other = {"card": {"data_hash": "x"}, "settings": {"data.validation": 0.1}}
    found = compare([made("a"), made("b", **other)])
    (caution,) = found.warnings
    assert caution.metrics == ()
    assert (
        caution.message
        == "Trained on different images (data.validation is 0.2 in A, 0.1 in B), measured on the same"
    )
    assert {one.metric for one in found.paired} == set(EVERY)


def test_only_fields_that_can_be_the_reason_are_named(made):
    """B differs from A in its validation share and measures the same images, so that is not why C measures others."""
    runs = [
        made("a"),
        made("b", settings={"data.validation": 0.1}, card={"data_hash": "x"}),
        made(
            "c",
            settings={"data.validation": 0.3, "data.split_seed": 7},
            card={"images_hash": "x", "data_hash": "y"},
        ),
    ]
    found = compare(runs)
    assert about(found, "images").message.startswith(
        "Measured on different images (data.split-seed is 42 in A and B, 7 in C). Not compared"
    )
    assert about(found, "training data").values == {"A": ["d" * 16], "B": ["x"]}


def test_quality_in_the_features_of_another_classifier_is_another_scale(made):
    name = "frechet_classifier_distance"
    shown = {"quality": (name, "classifier_accuracy")}
    values = {name: 1.0, "classifier_accuracy": 0.9}

    def of(fingerprint):
        return {"sections": shown, "values": values, "classifier": fingerprint}

    found = compare([made("a", **of("f00")), made("b", settings=BETA, **of("ba2"))])
    caution = about(found, "classifier")
    assert caution.metrics == (name, "classifier_accuracy")
    assert "classifier f00 in A, ba2 in B" in caution.message
    assert (
        about(compare([made("a", **of("f00")), made("b", settings=BETA, **of("f00"))]), "classifier") is None
    )


# --- what only needs care ---------------------------------------------------------------------


def test_a_gap_says_what_to_measure(made):
    found = compare([made("a", card={"samples": 50}, **IW), made("b", settings=BETA)])
    (caution,) = found.warnings
    assert caution.about == "not measured"
    assert caution.message == (
        "Not measured everywhere. Missing in B: importance. Measure it with --metrics importance --samples 50"
    )
    assert "B" not in found.metric("iw_nll").cells


def test_a_gap_inside_a_group_leaves_the_group_without_a_mean(made):
    found = compare([made("a", **IW), made("b", seed=1), made("c", settings=BETA, **IW)])
    cell = found.metric("iw_nll").cells["A"]
    assert (cell.mean, cell.values, cell.missing) == (None, (1.0, None), "not measured")
    (caution,) = [one for one in found.warnings if one.about == "not measured"]
    assert "Missing in b (A): importance. " in caution.message, "the run that lacks it, not its whole group"
    assert caution.values == {"b (A)": ["importance"]}
    assert "iw_nll" not in {one.metric for one in found.paired}


def test_a_section_that_holds_nothing_is_no_gap(made):
    runs = [made("a", sections={"factors": ()}), made("b", settings=BETA)]
    assert not [one for one in compare(runs).warnings if one.about == "not measured"]


def test_runs_of_one_group_on_different_images_are_no_group_to_compare(made):
    found = compare([made("a"), made("b", seed=1, card={"images_hash": "x"}), made("c", settings=BETA)])
    assert about(found, "images").values == {"A": ["i" * 16, "x"], "B": "i" * 16}
    assert found.paired == ()
    assert not any(
        cell.comparable for row in found.metrics for name, cell in row.cells.items() if name == "B"
    )


@pytest.mark.parametrize(
    ("planted", "cause", "words"),
    [
        ({"summary": {"selection": "last epoch: no validation split"}}, "selection", "last epoch"),
        ({"env": {"git": "5eed"}}, "code", "nelbo 0.1.0 at 5eed"),
        ({"summary": {"threads": 64}}, "hardware", ", 64 threads"),
    ],
)
def test_what_only_needs_care_is_said_and_takes_no_metric(planted, cause, words, made):
    found = compare([made("a"), made("b", settings=BETA, **planted)])
    (caution,) = found.warnings
    assert (caution.about, caution.metrics) == (cause, ())
    assert words in caution.message
    assert {one.metric for one in found.paired} == set(EVERY)


def test_code_that_differs_inside_a_group_is_said(made):
    found = compare([made("a"), made("b", seed=1, env={"git": "5eed"}), made("c", settings=BETA)])
    assert "at c0ffee" in about(found, "code").message
    assert "at 5eed" in about(found, "code").message


def test_selection_does_not_matter_to_another_checkpoint(made, tiny_run):
    runs = [made("a", card={"checkpoint": "last"})]
    runs += [made("b", card={"checkpoint": "last"}, settings=BETA, summary={"selection": "otherwise"})]
    for run in runs:
        shutil.copy(tiny_run.checkpoint_path("best"), run.checkpoint_path("first"))
    cards = [run.read_json("evaluation/test-last-k0.json") | {"checkpoint": "first"} for run in runs]
    for run, card in zip(runs, cards, strict=True):
        run.write_json("evaluation/test-first-k0.json", card)
    assert compare(runs, checkpoint="first").warnings == ()


# --- classes ----------------------------------------------------------------------------------


def test_groups_on_one_basis_are_a_class_and_mixed_or_empty_ones_stand_alone():
    one, other = {"images": 1}, {"images": 2}
    bases = {
        "A": [one, one],
        "B": [one],
        "C": [other],
        "D": [None],
        "E": [one, other],
        "F": [other],
        "G": [None],
    }
    assert classes(bases) == (("A", "B"), ("C", "F"), ("D",), ("E",), ("G",))
