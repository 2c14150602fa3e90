"""A healthy run on the embedded digits, and a laboratory in which faults are planted into copies of it."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import nelbo
from nelbo.cli import main
from nelbo.cli.parsing import parse
from nelbo.core import config
from nelbo.data import Data
from nelbo.doctor import Diagnosis, Finding
from nelbo.errors import TrainingFailed
from nelbo.training import api
from nelbo.training.recipe import resolve
from nelbo.training.store import Run

SHORT: dict[str, Any] = {
    "epochs": 16,
    "seed": 3,  # seed 0 ends so near the threshold of still-falling that rounding decides
    "objective.beta.epochs": 4,
    "optimizer.lr": 3e-3,
    "latent_every": 1,
}


class Lab:
    """Makes the subjects of a diagnosis: runs, configurations and data with one thing wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.made = 0

    def path(self, suffix: str) -> Path:
        self.made += 1
        return self.folder / f"made{self.made}{suffix}"

    def train(self, overrides: dict[str, Any], **more: Any) -> Run:
        name = f"run{self.made}"
        self.made += 1
        try:
            return nelbo.train("digits", overrides=overrides, runs=self.runs, name=name, device="cpu", **more)
        except TrainingFailed:
            return Run(self.runs / name)

    def copy(self, run: Run) -> Run:
        return Run(Path(shutil.copytree(run.path, self.runs / f"copy{self.made}-{self.path('').name}")))

    def with_weights(self, run: Run, change: Callable[[dict[str, Tensor]], None]) -> Run:
        """A copy of the run whose best checkpoint was changed."""
        copy = self.copy(run)
        tensors, about = copy.load("best")
        change(tensors)
        copy.save("best", tensors, about)
        return copy

    def with_history(self, run: Run, change: Callable[[list[dict[str, Any]]], None]) -> Run:
        """A copy of the run whose logged epochs were changed."""
        copy = self.copy(run)
        rows = copy.history()
        change(rows)
        file = copy.path / "metrics.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return copy

    def config(self, overrides: dict[str, Any]) -> Path:
        file = self.path(".toml")
        file.write_text(config.dumps(resolve("digits", overrides)), encoding="utf-8")
        return file

    def npz(self, **arrays: Any) -> Path:
        file = self.path(".npz")
        np.savez(file, **arrays)
        return file

    @staticmethod
    def found(diagnosis: Diagnosis, check: str) -> Finding:
        """The finding of that check, complete, and with a remedy that can be run."""
        findings = [finding for finding in diagnosis.findings if finding.check == check]
        assert len(findings) == 1, f"{check}: {diagnosis}"
        finding = findings[0]
        assert finding.severity in ("serious", "worth knowing")
        assert finding.what.endswith(".")
        assert len(finding.remedy) > 10
        assert any(letter.isdigit() for letter in finding.evidence), f"no number in: {finding.evidence}"
        Lab.can_be_run(finding.command)
        return finding

    @staticmethod
    def can_be_run(command: str) -> None:
        """A training command passes its own dry run; other verbs parse; Python builds the recipe it asks for."""
        if not command.startswith("nelbo "):
            expression = ast.parse(command).body[0]
            names = {
                "nelbo": Planner(),
                "images": np.zeros((50, 8, 8), np.uint8),
                "recipe": resolve("digits"),
            }
            if isinstance(expression, ast.Expr):
                eval(command, names)
            else:
                assert ast.unparse(expression) == "images = nelbo.doctor.distinct(images)"
            return
        _, verb, *words = shlex.split(command)
        if verb == "train":
            assert main([verb, *words, "--dry-run"]) == 0, command
        else:
            parse(verb, words)


class Planner:
    """`nelbo.train` up to the point where it would read the images."""

    def train(self, recipe: Any, **more: Any) -> None:
        api.plan(
            recipe,
            more.get("overrides"),
            data=more["data"],
            runs=more.get("runs", "runs"),
            name=more.get("name"),
        )


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def healthy(lab: Lab) -> Run:
    """Sixteen epochs on the binarised digits. Shared: read it, or change a copy."""
    return lab.train(SHORT)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,438 training and 359 test images, uint8 (N, 8, 8)."""
    splits = Data(source="digits").load()
    return splits.train.pixels_NCHW[:, 0].numpy(), splits.test.pixels_NCHW[:, 0].numpy()
