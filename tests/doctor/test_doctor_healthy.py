"""What is healthy has no finding: false alarms are the worst defect of a doctor."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import nelbo
from nelbo.data import Data
from nelbo.doctor.copies import distinct

DATA = os.environ.get("NELBO_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="needs MNIST and Fashion-MNIST in NELBO_DATA")


def checks(diagnosis):
    return [finding.check for finding in diagnosis.findings]


def test_a_healthy_run_has_no_finding_and_everything_was_looked_at(healthy):
    diagnosis = nelbo.diagnose(healthy, device="cpu")
    assert diagnosis.findings == ()
    assert diagnosis.not_looked_at == {}
    assert diagnosis.kind == "run"
    assert diagnosis.command == ""


def test_the_same_run_gives_the_same_diagnosis_and_is_not_changed(healthy):
    before = {file: file.stat().st_mtime_ns for file in healthy.path.rglob("*")}
    stream = torch.random.get_rng_state()
    first = nelbo.diagnose(healthy, device="cpu").to_dict()
    assert nelbo.diagnose(healthy, device="cpu").to_dict() == first
    assert {file: file.stat().st_mtime_ns for file in healthy.path.rglob("*")} == before
    assert torch.equal(torch.random.get_rng_state(), stream)


@pytest.mark.parametrize("overrides", [
    {},
    {"model.posterior.parametrisation": "positive"},
    {"model.likelihood": "gaussian", "model.likelihood.sigma": "learned"},
    {"model.likelihood": "gaussian", "model.likelihood.sigma": 0.3, "model.likelihood.mean": "sigmoid"},
    {"objective.beta": 1, "patience": 5},
    {"objective.beta": "cosine", "objective.beta.start": 0.5, "objective.beta.end": 1},
    {"objective.free_bits": 0.1, "optimizer": "adamw", "clip_norm": 1.0},
    {"batch_reduction": "sum"},
    {"data.transforms": ["dynamic-binarise"], "model.latent_dim": 64},
    {"data.transforms": [], "model.likelihood": "discretised-logistic"},
])  # fmt: skip
def test_configurations_that_are_as_they_should_be(lab, overrides):
    assert checks(nelbo.diagnose(lab.config(overrides), device="cpu")) == []


def test_a_tanh_fits_pixels_that_were_scaled_to_it(lab):
    scaled = {"data.transforms": [{"name": "scale", "low": -1.0, "high": 1.0}]}
    gaussian = {
        "model.likelihood": "gaussian",
        "model.likelihood.sigma": 0.3,
        "model.likelihood.mean": "tanh",
    }
    assert checks(nelbo.diagnose(lab.config(scaled | gaussian))) == []
    wrong = gaussian | {"model.likelihood.mean": "sigmoid"}
    assert checks(nelbo.diagnose(lab.config(scaled | wrong))) == ["output-range"]


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_embedded_data_has_no_finding(name):
    assert checks(nelbo.diagnose(name, kind="data")) == []


def test_images_that_are_alike_but_not_copies():
    """The digits again with noise of a tenth of their spread: no nearer to each other than handwriting is."""
    splits = Data(source="digits").load()
    grey = splits.train.pixels_NCHW.float() / 255
    noise = torch.randn(grey.shape, generator=torch.Generator().manual_seed(0))
    images = torch.cat([grey, (grey + 0.04 * noise).clamp(0, 1)])
    assert checks(nelbo.diagnose(images)) == []


def test_data_made_distinct_has_no_copies_left(digits):
    train, test = digits
    images = np.concatenate([train, train[:500], np.zeros((50, 8, 8), np.uint8), test[:100]])
    diagnosis = nelbo.diagnose({"train": images, "test": test})
    assert set(checks(diagnosis)) == {"blank-images", "repeated-images", "leaked-images"}
    clean = distinct({"train": images, "test": test})
    assert len(clean.train) == len(train)
    assert len(clean.test) == len(test)
    assert checks(nelbo.diagnose(clean)) == []


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_data_has_no_finding(name):
    assert checks(nelbo.diagnose(name, kind="data")) == []


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(("recipe", "expected"), [
    ("mlp-tanh-binary", []),
    ("mlp-sigma", ["grey-pixels"]),
    ("fashion-mlp", ["grey-pixels"]),
    ("mlp-sigma-as-published", ["learning-rate", "unbounded-sigma", "grey-pixels", "kl-weight"]),
    ("mlp-tanh-binary-as-published", ["sampled-posterior", "unbounded-sigma", "bounded-mean", "kl-weight"]),
    ("conv-bn-128", ["hidden-kl-weight"]),
])  # fmt: skip
def test_the_tutorials_recipes(recipe, expected):
    """As published they are caught by their configuration; corrected, only what their page itself says is left."""
    diagnosis = nelbo.diagnose(recipe, kind="config")
    assert checks(diagnosis) == expected
