"""What a person reads about colour images under a Bernoulli: nowhere that they are grey."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from nelbo.cli import main
from nelbo.training.events import DataRead

TABLE = """
epochs = 1
batch_size = 20
[data]
source = "{source}"
validation = 0.2
[model]
name = "vae"
latent_dim = 2
encoder = {{name = "mlp", hidden = [8]}}
decoder = {{name = "mlp", hidden = [8]}}
likelihood = "{likelihood}"
"""
GREY = re.compile(r"\bgr[ae]y", re.I)


def made(folder, name, likelihood, channels=3):
    images = np.random.RandomState(channels).randint(0, 256, (60, channels, 8, 8)).astype(np.uint8)
    np.save(folder / f"{name}.npy", images)
    (folder / f"{name}.toml").write_text(TABLE.format(source=folder / f"{name}.npy", likelihood=likelihood))
    return str(folder / f"{name}.toml")


def test_training_evaluation_doctor_report_and_comparison(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = made(tmp_path, "photos", "bernoulli")
    assert main(["train", file, "--name", "a", "--no-figures"]) == 0
    assert main(["doctor", "a"]) in (0, 1)
    assert main(["train", file, "--name", "b", "--model.likelihood", "gaussian", "--no-figures"]) == 0
    assert main(["compare", "a", "b", "--samples", "3"]) == 0
    assert main(["report", "a", "--out", "a.html"]) == 0
    printed = capsys.readouterr()
    html = re.sub(
        r"<style>.*?</style>|<svg.*?</svg>", "", (tmp_path / "a.html").read_text("utf-8"), flags=re.S
    )
    text = "\n".join([printed.out, printed.err, re.sub(r"<[^>]*>", " ", html)])
    # Names that programs read: of the check and of the metric.
    spoken = text.replace("grey-pixels", "").replace("grey_cross_entropy", "")
    assert "colour pixels" in text
    assert [line for line in spoken.splitlines() if GREY.search(line)] == []
    assert "cross-entropy of pixels between black and white" in text
    assert "density of pixels that were not dequantised" in text
    files = [next((tmp_path / "runs" / name).rglob("test-best-k*.json")) for name in "ab"]
    entries = [json.loads(file.read_text("utf-8"))["metrics"]["nelbo"] for file in files]
    kinds = [
        entry["conditions"]["likelihood"] for entry in entries
    ]  # for programs: older cards have them too
    assert kinds == ["cross-entropy of grey pixels", "density of grey levels that were not dequantised"]


@pytest.mark.parametrize(
    ("channels", "pixels", "words"),
    [
        (1, "grey", "grey"),
        (3, "grey", "colour"),
        (4, "grey", "colour"),
        (2, "grey", "graded"),
        (3, "binary", "binary"),
    ],
)
def test_the_kind_of_pixels_in_words(channels, pixels, words):
    event = DataRead("x", (channels, 8, 8), {"train": 1}, pixels, "0", "binary", "NELBO")
    assert event.pixels_in_words == words
