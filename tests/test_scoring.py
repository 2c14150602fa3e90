"""Scores of single images against exact answers: p-values, the log-likelihood and the regret of a known model."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import nelbo as package
from nelbo.core import columns
from nelbo.data import Images, Splits
from nelbo.engine import fixed_seed
from nelbo.errors import ConfigError, DataError
from nelbo.evaluation import scoring
from nelbo.evaluation.codelength import NATS_A_BYTE, code_length
from nelbo.evaluation.conformal import place, place_by_distance
from nelbo.evaluation.regret import regret
from nelbo.metrics import Split
from nelbo.testing.exact import LinearGaussian
from nelbo.training import api

CPU = torch.device("cpu")


# --- p-values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [place, place_by_distance])
def test_p_values_of_exchangeable_images_are_uniform(function):
    """Over all orders of five numbers the last one's p-value is 1/5 .. 5/5, each as often: the law, exactly."""
    numbers = torch.tensor([0.3, -1.7, 2.2, 0.9, -0.1], dtype=torch.float64)
    orders = torch.tensor(list(itertools.permutations(range(5))))
    p = [float(function(numbers[order[4:]], numbers[order[:4]]).p_N) for order in orders]
    assert [sum(abs(value - k / 5) < 1e-9 for value in p) for k in range(1, 6)] == [24] * 5
    among_others = function(numbers, None).p_N  # each image among the other four
    assert sorted(among_others.tolist()) == pytest.approx([k / 5 for k in range(1, 6)])


def test_places_count_ties_and_what_is_not_finite():
    held = torch.tensor([1.0, 2.0, 2.0, 3.0], dtype=torch.float64)
    found = place(torch.tensor([2.0, 9.0, float("nan"), 0.0], dtype=torch.float64), held)
    assert found.p_N.tolist() == pytest.approx([4 / 5, 1 / 5, 1 / 5, 1.0])  # at least as strange: ties count
    assert found.quantile_N.tolist() == pytest.approx([0.25, 1.0, 1.0, 0.0])
    assert float(place_by_distance(torch.tensor([float("-inf")]), held).p_N) == pytest.approx(1 / 5)


# --- a model whose log p(x) is known ------------------------------------------------------------


def test_the_regret_is_what_the_best_posterior_gains():
    """The true posterior of a linear model is a Gaussian of independent dimensions: the gain is the whole gap."""
    vague, exact = LinearGaussian(steps=40), LinearGaussian(exact=True)
    with fixed_seed(0, CPU), torch.no_grad():
        often_BCHW = vague.x_BCHW.repeat(200, 1, 1, 1)  # the gain is measured by few samples an image
        gain_B = regret(vague.model, often_BCHW, 60).view(200, 4).mean(0)
        q = vague.model.encode(vague.x_BCHW)
        # KL(q || true posterior), which is log p(x) - ELBO.
        ratio_BZ = (q.std / vague.std_Z).square()
        off_BZ = ((q.mean - vague.mean_BZ) / vague.std_Z).square()
        gap_B = 0.5 * (ratio_BZ + off_BZ - 1.0 - ratio_BZ.log()).sum(1)
        none_B = regret(exact.model, exact.x_BCHW, 30)
    assert (gap_B > 0.1).all()
    torch.testing.assert_close(gain_B, gap_B, rtol=0.05, atol=0.02)
    assert (none_B >= 0).all()
    assert (none_B < 0.1).all()


def split_of(x_NCHW: Tensor) -> Split:
    images = Images(x_NCHW.float())
    splits = Splits("made", images, None, images, "0" * 16, "real", (-4.0, 4.0))
    return Split(images, splits, CPU)


def test_scores_of_a_linear_model_are_the_exact_ones():
    linear = LinearGaussian(exact=True)
    model = linear.model.float()
    values, missing = scoring._measured(model, split_of(linear.x_BCHW), 50, 5, lambda event: None, "made")
    assert missing == {"complexity": scoring._why_no_code(model, split_of(linear.x_BCHW))}
    # With the true posterior every weight is p(x): one sample is enough, and the bound is log p(x).
    torch.testing.assert_close(values["iw_log_likelihood"], linear.log_px_B, atol=1e-4, rtol=0)
    means = linear.marginal.mean + (linear.mean_BZ @ model.decoder[0].weight.double().T)
    error_B = (linear.x_BCHW.flatten(1) - means).square().mean(1)
    torch.testing.assert_close(values["reconstruction_error"], error_B.detach(), atol=1e-5, rtol=0)
    assert values["regret"].shape == (4,)
    assert (values["regret"] < 0.1).all()


# --- code lengths -------------------------------------------------------------------------------


def test_a_code_length_is_that_of_a_compressor():
    stream = np.random.RandomState(0)
    noise, flat = stream.randint(0, 256, (16, 16)).astype(np.uint8), np.full((16, 16), 7, np.uint8)
    x_BCHW = torch.from_numpy(np.stack([noise, flat]))[:, None] / 255
    view = split_of(x_BCHW)
    grey = dataclasses.replace(view, data=dataclasses.replace(view.data, range=(0.0, 1.0), pixels="grey"))
    lengths = (code_length(x_BCHW, grey) / NATS_A_BYTE).round().tolist()
    assert 256 <= lengths[0] <= len(zlib.compress(noise.tobytes(), 9))
    assert lengths[1] <= len(zlib.compress(flat.tobytes(), 9)) < 20
    # Levels with uniform noise of their own width are the same levels; bits cost an eighth.
    noisy = dataclasses.replace(grey, data=dataclasses.replace(grey.data, pixels="dequantised"))
    levels_BCHW = (x_BCHW * 255).round()
    assert torch.equal(code_length((levels_BCHW + 0.7) / 256, noisy), code_length(x_BCHW, grey))
    binary = dataclasses.replace(grey, data=dataclasses.replace(grey.data, pixels="binary"))
    assert code_length((x_BCHW > 0.5).float(), binary)[0] < 60 * NATS_A_BYTE


# --- the whole ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """12 images in which 3 are unlike the run's: noise, called so."""
    folder, stream = tmp_path_factory.mktemp("odd"), np.random.RandomState(9)
    for i in range(12):
        image = stream.randint(0, 90, (8, 8))
        image[3 * (i % 3) : 3 * (i % 3) + 2] += 150
        if i in (2, 5, 7):
            image = 255 - image
        file = folder / ("odd" if i in (2, 5, 7) else "usual") / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(file)
    return folder


def test_the_strangest_images_come_first_with_their_names(odd, run_copy):
    scores = package.score(run_copy, odd, samples=20, steps=20, device="cpu")
    assert set(scores.values) == {*scoring.SCORES} - {"complexity"}
    assert "cross-entropy of grey pixels is no code length" in scores.missing["complexity"]
    assert scores.reference == "24 validation images of tiny"
    names = scoring.names_of(scores.split.images)
    for by in ("bound", "reconstruction_error"):
        assert {names[i].split("/")[0] for i in scores.strangest(by, 3)} == {"odd"}, by
        assert all(scores.places[by].p_N[i] == 1 / 25 for i in scores.strangest(by, 3))
    assert (scores.values["regret"] >= 0).all()
    card = package.evaluate(run_copy, data=odd, samples=0, metrics=["bound"], device="cpu")
    assert -float(scores.values["bound"].mean()) == pytest.approx(card["metrics"]["nelbo"]["value"])
    again = package.score(run_copy, odd, samples=20, steps=20, device="cpu")
    assert all(torch.equal(again.values[name], scores.values[name]) for name in scores.values)


def test_images_are_not_their_own_reference(tiny_run, tiny_recipe, tmp_path):
    quick = {"samples": 0, "steps": 0, "device": "cpu"}
    own = package.score(tiny_run, **quick)
    assert (own.reference, own.n_reference) == ("24 validation images of tiny", 24)
    assert package.score(tiny_run, split="validation", **quick).reference == "40 test images of tiny"
    assert (
        package.score(tiny_run, split="train", held_out=9, **quick).reference
        == "9 of 24 validation images of tiny"
    )
    without = api.train(tiny_recipe({"data.validation": 0, "epochs": 1}), runs=tmp_path, device="cpu")
    alone = package.score(without, **quick)
    assert alone.reference.startswith("the other 39 test images of")
    assert float(alone.places["bound"].p_N.min()) == pytest.approx(1 / 40)
    assert set(alone.missing) == {"iw_log_likelihood", "regret", "complexity"}


def test_a_model_without_a_bound_has_the_error_alone(tiny_recipe, tmp_path):
    run = api.train(
        tiny_recipe({"model.posterior": "dirac", "objective": "rae", "epochs": 1}),
        runs=tmp_path,
        device="cpu",
    )
    scores = package.score(run, device="cpu")
    assert list(scores.values) == ["reconstruction_error"]
    assert scores.best() == "reconstruction_error"
    assert "one point" in scores.missing["bound"]
    with pytest.raises(ConfigError, match="no score 'bound' of these images: a posterior that is one point"):
        scores.strangest("bound", 3)


def test_the_complexity_is_what_the_model_needs_beyond_a_compressor(odd, tiny_recipe, tmp_path):
    recipe = tiny_recipe({"model.likelihood": "discretised-logistic", "epochs": 2})
    scores = package.score(
        api.train(recipe, runs=tmp_path, device="cpu"), odd, samples=0, steps=0, device="cpu"
    )
    assert scores.best() == "complexity"
    lengths_N = code_length(next(iter(scores.split.batches())), scores.split)
    torch.testing.assert_close(scores.values["complexity"], -scores.values["bound"] - lengths_N)


def test_other_kinds_of_numbers_are_not_compared(tiny_recipe, tiny_data, tmp_path):
    stream = np.random.RandomState(0)
    np.save(tmp_path / "bits.npy", stream.randint(0, 2, (40, 8, 8)) * 255)
    run = api.train(
        tiny_recipe({"data.source": str(tmp_path / "bits.npy"), "epochs": 1}), runs=tmp_path, device="cpu"
    )
    with pytest.raises(DataError, match=r"grey pixels and .* was trained on binary ones"):
        package.score(run, stream.randint(0, 256, (5, 8, 8)).astype(np.uint8), device="cpu")


def test_the_verb_writes_a_table_and_a_picture(odd, run_copy, nelbo, tmp_path):
    words = ["score", run_copy.path, "--data", odd, "--samples", 5, "--steps", 5, "-n", 4]
    code, out, err = nelbo(*words, "--by", "reconstruction_error")
    assert code == 0, err
    assert "odd/2.png" in out
    assert "24 validation images of tiny" in out
    files = [Path(line.strip()) for line in out.splitlines()[-2:]]
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert [row["name"] for row in rows][:2] == ["odd/2.png", "odd/5.png"]
    assert {row["label"] for row in rows} == {"odd", "usual"}
    for name in {*scoring.SCORES} - {"complexity"}:
        assert {name, f"p_{name}", f"quantile_{name}"} <= rows[0].keys()
    with Image.open(files[1]) as picture:
        assert min(picture.size) > 100
    code, out, _ = nelbo(*words, "--out", tmp_path / "s.json", "--json")
    assert code == 0
    assert [row["image"].split("/")[0] for row in json.loads(out)["strangest"][:3]] == ["odd"] * 3
    stored = json.loads((tmp_path / "s.json").read_text())
    assert (stored["n"], stored["n_reference"], len(stored["images"])) == (12, 24, 12)
    assert stored["images"][0]["bound"] == pytest.approx(float(rows[0]["bound"]))
    code, _, err = nelbo(*words, "--out", tmp_path / "s.json")
    assert code == 2
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--by", "entropy"], "expected one of bound, iw_log_likelihood"),
        (["--out", "z.xlsx"], "ends in .csv, .json or .parquet"),
        (["-n", "0"], "--n must be 1 or more"),
        (["--samples", "-1"], "--samples must be 0 or more"),
        (["--held-out", "0"], "--held-out must be 1 or more"),
        (["--split", "all"], "no split is called 'all'"),
        (["--reference", "x"], "--reference is for other images"),
        (["--steps", "0", "--by", "regret"], "left out by --steps 0"),
    ],
)
def test_a_wrong_flag_is_refused(flags, says, tiny_run, nelbo):
    code, _, err = nelbo("score", tiny_run.path, "--samples", "2", "--steps", "1", *flags)
    assert code == 2
    assert says in err
    assert not (tiny_run.path / "generated").exists()


# --- tables -------------------------------------------------------------------------------------


def test_a_table_reads_back_from_every_format(tmp_path):
    table = {
        "name": np.array(["a,b.png", "ü.png"]),
        "mean": np.array([[0.1, -2.5e-7], [1 / 3, 4.0]], np.float32),
        "bound": np.array([-math.pi, float("nan")]),
    }
    for kind in (".csv", ".json", ".parquet", ".npz"):
        columns.write(tmp_path / f"t{kind}", table, {"n": 2})
    rows = list(csv.reader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["name", "mean_0", "mean_1", "bound"]
    assert rows[1][0] == "a,b.png"
    assert np.float32(rows[2][1]) == table["mean"][1, 0]
    assert float(rows[1][3]) == -math.pi
    stored = json.loads((tmp_path / "t.json").read_text())
    assert (stored["n"], stored["images"][1]["bound"]) == (2, None)
    with np.load(tmp_path / "t.npz", allow_pickle=False) as arrays:
        assert all(np.array_equal(arrays[name], table[name], equal_nan=name == "bound") for name in table)
    parquet = pytest.importorskip("pyarrow.parquet")
    read = parquet.read_table(tmp_path / "t.parquet")
    assert read.column_names == rows[0]
    assert read.column("mean_0").to_pylist() == table["mean"][:, 0].tolist()


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow: pip install 'nelbo\[files\]'; or write \.csv"):
        columns.check_file(tmp_path / "z.parquet", (".csv", ".parquet"), overwrite=False)
    (tmp_path / "z.csv").mkdir()
    with pytest.raises(ConfigError, match="this is a folder"):
        columns.check_file(tmp_path / "z.csv", (".csv", ".parquet"), overwrite=True)
