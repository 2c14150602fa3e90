"""A data set in which few images have a label, from training to pictures: -1 is no class."""

from __future__ import annotations

import json

import matplotlib.colors
import numpy as np
import pytest

import nelbo
from nelbo import plots
from nelbo.cli import main
from nelbo.pictures.base import image_name
from nelbo.pictures.view import View
from nelbo.training.store import Run

N = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("few")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, N)
    labels[rng.random(N) < 0.8] = -1
    pixels = rng.integers(0, 60, (N, 8, 8)) + 60 * (labels[:, None, None] + 1)
    np.savez(folder / "few.npz", images=pixels.astype(np.uint8), labels=labels)
    overrides = {"data.transforms": [], "epochs": 1, "data.source": str(folder / "few.npz")}
    return nelbo.train("digits", overrides=overrides, name="few", runs=folder, device="cpu")


def test_the_line_is_recorded_and_printed(run, capsys):
    notes = run.read_json("env.json")["data"]["notes"]
    assert len(notes) == 1
    assert "of 300 images have no label, or one below 0, which means none" in notes[0]
    main(["data", "check", run.recipe.data.source, "--json"])
    assert json.loads(capsys.readouterr().out)["notes"][0].startswith(notes[0].partition(" (")[0])


def test_probes_and_classifier_know_three_classes(run, monkeypatch, tmp_path):
    monkeypatch.setenv("NELBO_CACHE", str(tmp_path))
    metrics = nelbo.evaluate(run, samples=0)["metrics"]
    note = metrics["linear_probe_accuracy"]["note"]
    assert "images have no label and are left out" in note
    assert "3 clusters" in metrics["clustering_nmi"]["note"]
    (classifier,) = (tmp_path / "classifiers").iterdir()
    assert "-3-v" in classifier.name


def test_pictures_by_class_show_three_classes(run, tmp_path):
    view = View.open(run, device="cpu")
    assert view.classes == [0, 1, 2]
    without = int(np.flatnonzero(view.labels_N < 0)[0])
    assert image_name(view, without) == f"image {without}"
    assert view.class_name(-1) == "no label"
    files = nelbo.pictures.draw(view, ["data", "scatter", "class-means", "resampled"], tmp_path)[0]
    assert len(files) >= 4


def test_points_without_a_label_are_grey_and_unnamed():
    points = np.random.default_rng(0).normal(size=(9, 2))
    labels = np.array([-1, -5, -1, 0, 0, 0, 2, 2, 2])
    figure = plots.scatter(points, labels, title="few", class_names=("ant", "bee", "cat"))
    (ax,) = figure.axes
    colours = [matplotlib.colors.to_hex(colour) for colour in ax.collections[0].get_facecolors()]
    assert colours.count("#c8c8c8") == 3
    assert {text.get_text() for text in ax.texts} == {"ant", "cat"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no label", "ant", "cat"]
    plots.scatter(points, np.full(9, -1), title="none")
