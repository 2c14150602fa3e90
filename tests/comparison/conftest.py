"""Run folders with cards written by hand: what is in them is known, so what a comparison says of them is too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nelbo.core import config, files
from nelbo.evaluation import card as cards
from nelbo.metrics import Value
from nelbo.metrics.bound import PROBABILITY, note_for
from nelbo.training import api
from nelbo.training.store import Run

N = 60
NAMES = {"bound": ("nelbo", "reconstruction", "kl"), "latent": ("active_units",), "error": ("mse",)}
CONDITIONS = {
    "likelihood": ("nelbo", "reconstruction", "iw_nll"),
    "K": ("iw_nll",),
    "training data": ("linear_probe_accuracy", "frechet_classifier_distance", "classifier_accuracy"),
    "classifier": ("frechet_classifier_distance", "classifier_accuracy"),
}
CARD = {"K": "samples", "training data": "data_hash"}  # where a card says the same of all its numbers
UNITS = {"active_units": "dimensions", "mse": "squared/pixel", "fid": "", "linear_probe_accuracy": "share"}


def numbers(level: float, seed: int, spread: float = 0.5) -> dict[str, Any]:
    """One made-up number an image: images differ by far more than runs do."""
    image = np.random.default_rng(99).gamma(9.0, 2.0, N)
    noise = np.random.default_rng([seed, round(1000 * level)]).normal(0.0, spread, (3, N))
    reconstruction, kl = image + level + noise[0], 0.1 * image + 5.0 + noise[1]
    return {
        "nelbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl,
        "active_units": 3.0, "mse": 0.001 * image + 0.01 * (level + noise[2]),
    }  # fmt: skip


@pytest.fixture
def made(tiny_run: Run, tmp_path: Path) -> Callable[..., Run]:
    """(name, level, seed, ...) -> a finished run under `tmp_path/runs` whose card holds these numbers.

    settings  fields of its configuration;  values  of metrics, an array where there is one number an image
    missing   {metric: (word, why)};  classifier  of image quality;  likelihood  of log p(x | z)
     sections  {section: names} beside the usual ones;  card, env, summary  replace entries
    """
    weights = cards.fingerprint(api.load(tiny_run, device="cpu"))

    def make(
        name: str,
        level: float = 20.0,
        seed: int = 0,
        *,
        settings: dict[str, Any] | None = None,
        values: dict[str, Any] | None = None,
        missing: dict[str, tuple[str, str]] | None = None,
        classifier: str = "c1a",
        likelihood: str = PROBABILITY,
        sections: dict[str, tuple[str, ...]] | None = None,
        card: dict[str, Any] | None = None,
        env: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
    ) -> Run:
        run = Run(tmp_path / "runs" / name)
        for part in ("env.json", "summary.json", "checkpoints/best.safetensors"):
            (run.path / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_run.path / part, run.path / part)
        recipe = config.override(tiny_run.recipe, {"seed": seed, **(settings or {})})
        (run.path / "config.toml").write_text(config.dumps(recipe))
        run.write_json("env.json", run.read_json("env.json") | {"git": "c0ffee"} | (env or {}))
        run.write_json("summary.json", run.summary | (summary or {}))
        found = numbers(level, seed) | (values or {})
        shown = NAMES | (sections or {})
        facts = {"likelihood": likelihood, "K": 0, "training data": "d" * 16, "classifier": classifier}
        facts |= {key: value for key, name in CARD.items() if (value := (card or {}).get(name)) is not None}
        entries, kept = {}, {}
        for metric in [name for own in shown.values() for name in own]:
            unit, (word, note) = UNITS.get(metric, "nats/image"), (missing or {}).get(metric, ("", ""))
            value = found[metric]
            own = {key: facts[key] for key, metrics in CONDITIONS.items() if metric in metrics}
            if isinstance(value, np.ndarray):
                kept[metric] = torch.from_numpy(value)
                entries[metric] = Value.over_images(kept[metric], unit, note, own).to_dict()
            else:
                entries[metric] = Value(value, unit, None, note, missing=word, conditions=own).to_dict()
        table = {
            "run": name, "checkpoint": "best", "epoch": 20, "split": "test", "n": N, "samples": 0,
            "seed": 1, "data_hash": "d" * 16, "images_hash": "i" * 16, "log_px": note_for(likelihood),
            "weights": weights, "precision": "fp32", "environment": {}, "seconds": 0.0,
            "metrics": entries, "sections": {section: list(own) for section, own in shown.items()},
        } | (card or {})  # fmt: skip
        stem = cards.stem(table["split"], table["checkpoint"], table["samples"])
        run.write_json(f"{stem}.json", table)
        files.write_tensors(run.path / f"{stem}.safetensors", kept, {"weights": table["weights"]})
        return run

    return make


@pytest.fixture
def plain() -> Callable[[Any], Any]:
    """A comparison as JSON would hand it on: fails on anything that JSON cannot hold."""
    return lambda found: json.loads(json.dumps(found.to_dict(), allow_nan=False))
