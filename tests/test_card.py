"""Cards of several K: what does not depend on K is measured once, and only where it is the same number."""

from __future__ import annotations

import json

import pytest

from nelbo import engine
from nelbo.evaluation import card as card_of
from nelbo.training import events
from nelbo.training.store import Run

EVERY = ("bound", "importance", "latent", "error")


@pytest.fixture
def evaluate(run_copy, monkeypatch):
    """(samples, ...) -> the card, and the sections that were measured for it."""
    ran_on = engine.describe(engine.pick_device("cpu")) | {"git": "c0ffee", "uncommitted": False}
    monkeypatch.setattr(card_of.engine, "describe", lambda device: ran_on)

    def measure(samples, metrics=EVERY, **more):
        heard: list[str] = []

        def tell(event):
            if isinstance(event, events.MetricBegun):
                heard.append(event.name)

        return card_of.evaluate(
            run_copy, samples=samples, metrics=metrics, device="cpu", tell=tell, **more
        ), heard

    measure.ran_on = ran_on
    return measure


def change(run: Run, samples: int, **changes) -> None:
    """Writes over fields of a card that is kept."""
    file = run.path / "evaluation" / f"test-best-k{samples}.json"
    table = json.loads(file.read_text())
    file.write_text(json.dumps(table | changes))


def test_another_k_measures_only_what_depends_on_it(evaluate, run_copy):
    few, first = evaluate(4)
    many, second = evaluate(8)
    assert (first, second) == (list(EVERY), ["importance"])
    assert list(many["sections"]) == list(EVERY)
    assert list(many["metrics"]) == list(few["metrics"])
    for section in ("bound", "latent", "error"):
        for name in few["sections"][section]:
            assert many["metrics"][name] == few["metrics"][name]
    assert many["samples"] == 8
    assert many["metrics"]["iw_nll"]["note"].startswith("K = 8;")
    each = card_of.read_per_image(run_copy, many)
    assert set(each) == set(card_of.read_per_image(run_copy, few)) >= {"nelbo", "mse", "iw_nll"}
    assert card_of.read(run_copy, samples=8) == many


def test_what_is_carried_over_is_what_would_be_measured(evaluate, run_copy):
    evaluate(4)
    carried, _ = evaluate(8)
    change(run_copy, 4, weights="0" * 12)
    (run_copy.path / "evaluation" / "test-best-k8.json").unlink()
    measured, heard = evaluate(8)
    assert heard == list(EVERY)
    assert measured["metrics"] == carried["metrics"]


def test_the_same_k_is_measured_again(evaluate):
    evaluate(4)
    assert evaluate(4)[1] == list(EVERY)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "0" * 12},
        {"images_hash": "0" * 16},
        {"data_hash": "0" * 16},
        {"seed": 1},
        {"precision": "bf16"},
        {"environment": {"git": "older"}},
        {"earlier": {name: {"git": "older"} for name in ("bound", "latent", "error")}},
    ],
)
def test_nothing_is_carried_over_from_other_weights_images_noise_or_code(changes, evaluate, run_copy):
    evaluate(4)
    change(run_copy, 4, **changes)
    assert evaluate(8)[1] == list(EVERY)


def test_code_with_changes_may_be_another_code(evaluate):
    evaluate.ran_on["uncommitted"] = True
    evaluate(4)
    assert evaluate(8)[1] == list(EVERY)


def test_a_number_that_was_missing_may_be_there_now(evaluate, run_copy):
    card, _ = evaluate(4)
    card["metrics"]["psnr"]["value"] = None
    change(run_copy, 4, metrics=card["metrics"])
    assert evaluate(8)[1] == ["importance", "error"]


def test_only_what_is_wanted_is_carried_over_and_another_checkpoint_is_another_matter(evaluate):
    evaluate(4)
    card, heard = evaluate(8, metrics=("latent",))
    assert (list(card["sections"]), heard) == (["latent"], [])
    assert evaluate(8, checkpoint="first")[1] == list(EVERY)
    assert evaluate(8, split="train")[1] == list(EVERY)


def test_damaged_cards_are_nobodys_source(evaluate, run_copy):
    evaluate(4)
    (run_copy.path / "evaluation" / "test-best-k4.json").write_text("{cut off")
    (run_copy.path / "evaluation" / "test-best-kx.json").write_text("{}")
    (run_copy.path / "evaluation" / "test-best-k3.json").write_text("{}")
    assert evaluate(8)[1] == list(EVERY)
