"""Faults planted one by one: each is found by the check of its name, with a remedy that can be run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nelbo
from nelbo.core.registry import names
from nelbo.training.store import Run

GREY: dict[str, Any] = {"data.transforms": []}
GAUSSIAN = {"model.likelihood": "gaussian", "objective.beta": 1}
Plant = Callable[[Any, Run, tuple[np.ndarray, np.ndarray]], Any]


def configured(**overrides: Any) -> Plant:
    """A configuration: the digits' with some fields changed (`objective__beta` is objective.beta)."""
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return lambda lab, run, digits: lab.config(changes)


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Plant:
    return lambda lab, run, digits: lab.with_weights(run, change)


def blank_a_tenth(lab: Any, run: Run, digits: tuple[np.ndarray, np.ndarray]) -> Any:
    images = digits[0].copy()
    images[::10] = 77
    return lab.npz(images=images, x_test=digits[1])


def shared_with_test(lab: Any, run: Run, digits: tuple[np.ndarray, np.ndarray]) -> Any:
    return lab.npz(images=digits[0], x_test=np.concatenate([digits[1][:90], digits[0][:10]]))


def upside_down(lab: Any, run: Run, digits: tuple[np.ndarray, np.ndarray]) -> Any:
    images = digits[0].copy()
    images[[70, 700]] = 255 - images[[70, 700]]
    return lab.npz(images=images, x_test=digits[1])


def films(lab: Any, run: Run, digits: tuple[np.ndarray, np.ndarray]) -> Any:
    """Every fifth image is the one before it, one grey level brighter: no two are equal."""
    images = digits[0].copy()
    images[1::5] = np.minimum(images[0:-1:5], 254) + 1
    return lab.npz(images=images, x_test=digits[1])


def collapsed(lab: Any, run: Run, digits: Any) -> Run:
    return lab.train({"epochs": 5, "latent_every": 1, "model.likelihood.sigma": 5.0, **GAUSSIAN})


def failed(lab: Any, run: Run, digits: Any) -> Run:
    return lab.train({"epochs": 4, "optimizer.lr": 1e5, "model.posterior.parametrisation": "raw-sigma"})


def by_heart(lab: Any, run: Run, digits: Any) -> Run:
    wide = {"model.encoder.hidden": [512], "model.decoder.hidden": [512], "model.latent_dim": 16}
    few = {"data.validation": 1338, "batch_size": 16, "epochs": 60, "latent_every": 0, "optimizer.lr": 3e-3}
    return lab.train({"objective.beta": 1, **wide, **few})


def unfinished(lab: Any, run: Run, digits: Any) -> Run:
    copy = lab.copy(run)
    (copy.path / "summary.json").unlink()
    return copy


def black_for_certain(lab: Any, run: Run, digits: Any) -> Run:
    """A continuous Bernoulli whose logits of the first row, black in nearly every digit, have run away."""
    peaked = {"model.likelihood": "continuous-bernoulli", "epochs": 3, "objective.beta": 1, **GREY}
    return lab.with_weights(lab.train(peaked), set_to("decoder.4.bias", -3000.0, slice(0, 64, 8)))


def set_to(key: str, value: float, *index: Any) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key][index if index else ...] = value

    return change


PLANTED: dict[str, Plant] = {
    "blank-images": blank_a_tenth,
    "bounded-mean": configured(model__posterior__parametrisation="tanh"),
    "dark-images": lambda lab, run, digits: lab.npz(images=digits[0] // 16, x_test=digits[1] // 16),
    "dead-units": weights(set_to("encoder.1.bias", -1e3)),
    "density-finer-than-pixels": black_for_certain,
    "diverging": failed,
    "few-images": lambda lab, run, digits: lab.npz(images=digits[0][:60], x_test=digits[1]),
    "grey-pixels": configured(data__transforms=[]),
    "hidden-kl-weight": configured(model__likelihood="gaussian", objective__beta=1.0),
    "ignored-dimensions": weights(set_to("decoder.0.weight", 0.0, slice(None), 1)),
    "kl-weight": configured(objective__beta=5.0),
    "leaked-images": shared_with_test,
    "learning-rate": configured(optimizer__lr=3e-6),
    "output-range": configured(
        model__likelihood="gaussian", model__likelihood__mean="tanh", data__transforms=[]
    ),
    "over-fitting": by_heart,
    "pixel-range": lambda lab, run, digits: lab.npz(images=digits[0] * 1.0, x_test=digits[1] * 1.0),
    "pixels-outside-support": lambda lab, run, digits: lab.config(
        {**GREY, "data.source": str(lab.npz(images=digits[0] / 127.5 - 1.0))}
    ),
    "posterior-collapse": collapsed,
    "repeated-images": films,
    "sampled-posterior": configured(model__posterior__noise="shared"),
    "selection": configured(patience=5),
    "still-falling": lambda lab, run, digits: lab.train(
        {"epochs": 14, "optimizer.lr": 5e-5, "objective.beta": 1}
    ),
    "summed-gradients": configured(batch_reduction="sum", clip_norm=1.0),
    "train-test-gap": by_heart,
    "unbounded-sigma": configured(model__posterior__parametrisation="raw-sigma"),
    "unfinished": unfinished,
    "unusual-images": upside_down,
    "worse-than-a-fixed-image": collapsed,
}


def test_every_check_has_a_planted_fault():
    assert set(PLANTED) == set(names("check"))


@pytest.fixture(scope="module")
def diagnoses() -> dict[Plant, nelbo.doctor.Diagnosis]:
    return {}


@pytest.mark.parametrize("check", PLANTED)
def test_a_planted_fault_is_found(check, lab, healthy, digits, diagnoses):
    plant = PLANTED[check]
    if plant not in diagnoses:
        diagnoses[plant] = nelbo.diagnose(plant(lab, healthy, digits), device="cpu")
    lab.found(diagnoses[plant], check)
    if diagnoses[plant].command:
        lab.can_be_run(diagnoses[plant].command)
