"""The Python surface: refuses early, writes nothing by halves, measures on the data it was trained on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import nelbo
from nelbo.core.layout import Entry
from nelbo.data import Data
from nelbo.errors import (
    ConfigError,
    DataError,
    DeviceError,
    NelboError,
    RunError,
    TrainingFailed,
    UnknownName,
)
from nelbo.evaluation import card as card_of
from nelbo.optim import FusedAdam
from nelbo.training import api, events
from nelbo.training.recipe import Recipe, resolve
from nelbo.training.store import Run, start


@pytest.fixture
def images(tiny_data):
    with np.load(tiny_data) as arrays:
        return {key: arrays[key] for key in arrays.files}


def short(**overrides) -> Recipe:
    return resolve(Recipe(), {"epochs": 1, "model.latent_dim": 2, "model.encoder.hidden": [8], **overrides})


# --- refused before any data is read ----------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ({"recipe": "digts"}, UnknownName, "did you mean 'digits'"),
        ({"recipe": "nowhere.toml"}, ConfigError, "no such configuration file"),
        ({"overrides": {"model.latnt_dim": 2}}, ConfigError, "did you mean 'latent-dim'"),
        ({"overrides": {"epochs": "many"}}, ConfigError, "got 'many'"),
        ({"overrides": {"data.transforms": [{"name": "scale", "low": -1}]}}, ConfigError, "bernoulli"),
        ({"overrides": {"data": "mnits"}}, DataError, "did you mean 'mnist'"),
        ({"overrides": {"data": "/no/such/folder"}}, DataError, "/no/such/folder"),
        ({"name": "taken"}, RunError, "epochs: 3 -> 100"),
        ({"name": "thesis"}, RunError, "is not a run folder"),
        ({"device": "cuda:99"}, DeviceError, "cuda:99"),
        ({"device": "gpu"}, DeviceError, "'gpu'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_refused_before_data_is_read_and_nothing_is_written(
    tmp_path, monkeypatch, call, error, says
):
    start(resolve("digits", {"epochs": 3}), tmp_path / "taken")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(Data, "load", lambda *a, **k: pytest.fail("data was read"))
    with pytest.raises(error, match=says) as caught:
        api.train(**{"recipe": "digits", "runs": tmp_path, "device": "cpu", **call})
    assert isinstance(caught.value, NelboError)
    assert caught.value.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_is_the_resolved_recipe_and_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(Data, "load", lambda *a, **k: pytest.fail("data was read"))
    assert api.plan("digits", {"seed": 2}, runs=tmp_path) == api.Plan(
        resolve("digits", {"seed": 2}), tmp_path / "digits-s2", overwrite=False, finished=False
    )
    assert api.plan("digits", runs=tmp_path, name="mine").folder == tmp_path / "mine"
    assert api.plan("digits", {"epochs": 3}, runs=tmp_path).folder.name.startswith("digits-s0-")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_trained_without_planning_again(tiny_recipe, tmp_path, monkeypatch):
    plan = api.plan(tiny_recipe({"epochs": 1}), runs=tmp_path, name="planned")
    monkeypatch.setattr(api, "plan", lambda *a, **k: pytest.fail("planned twice"))
    run = api.train(plan, device="cpu")
    assert run.path == tmp_path / "planned"
    assert run.recipe == plan.recipe
    assert run.finished
    before = (run.path / "summary.json").read_bytes()
    assert api.train(plan, device="cpu").path == run.path
    assert (run.path / "summary.json").read_bytes() == before
    monkeypatch.undo()
    assert api.plan(plan.recipe, runs=tmp_path, name="planned").finished
    assert not api.plan(plan.recipe, runs=tmp_path, name="planned", overwrite=True).finished
    with pytest.raises(ConfigError, match="a Plan has overrides"):
        api.train(plan, overrides={"epochs": 2})


# --- nothing by halves ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        ({"data": "broken.npz"}, DataError, r"broken\.npz: not readable as an array"),
        ({"data": "empty"}, DataError, "empty"),
        ({"data.validation": 5000}, ConfigError, "leave none to train on"),
        (
            {"model.encoder": {"name": "conv", "channels": [4] * 5}},
            ConfigError,
            "too many for images of 8 x 8",
        ),
    ],
)
def test_nothing_is_written_when_the_data_cannot_be_used(tmp_path, monkeypatch, overrides, error, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not all of it")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=says):
        api.train("digits", overrides=overrides, device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.npz", "empty"]


def test_pixels_that_the_likelihood_cannot_take_are_refused(tmp_path):
    bright = np.random.default_rng(0).random((30, 4, 4), dtype=np.float32) * 200
    with pytest.raises(
        DataError, match=r"pixels lie in \[0, 1\d\d.*bernoulli likelihood needs them in \[0, 1\]"
    ):
        nelbo.train(short(), data=bright, runs=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()
    gaussian = nelbo.train(
        short(**{"model.likelihood": "gaussian"}), data=bright, runs=tmp_path, device="cpu"
    )
    assert gaussian.finished


# --- images from Python -----------------------------------------------------------------------


class Items:
    """A torch-style data set of (image, label)."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return torch.from_numpy(self.images[index])[None], int(self.labels[index])


OBJECTS = {
    "array": lambda x, y: x,
    "tensor": lambda x, y: torch.from_numpy(x)[:, None],
    "pair": lambda x, y: (x, y),
    "float": lambda x, y: x.astype(np.float64) / 255,
    "dataset": lambda x, y: Items(x, y),
    "torch": lambda x, y: TensorDataset(torch.from_numpy(x)[:, None].float() / 255, torch.from_numpy(y)),
    "splits": lambda x, y: {"train": x[:80], "test": x[80:]},
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_train_and_are_measured_when_they_are_passed_again(tmp_path, images, kind):
    labels = np.unique(images["labels"], return_inverse=True)[1]
    data = OBJECTS[kind](images["images"], labels)
    run = nelbo.train(short(), data=data, runs=tmp_path, name="mine", device="cpu")
    assert run.recipe.data.source == "python"
    card = nelbo.evaluate(run, data=data, samples=2, device="cpu")
    assert card["n"] == (40 if kind == "splits" else 24)
    assert card["metrics"]["nelbo"]["value"] > 0
    with pytest.raises(DataError, match="passed from Python; pass them again as data="):
        nelbo.evaluate(run, device="cpu")
    with pytest.raises(DataError, match="was trained on data with hash"):
        nelbo.evaluate(run, data=images["x_test"], device="cpu")
    assert nelbo.train(short(), data=data, runs=tmp_path, name="mine", device="cpu").path == run.path


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected a NumPy array, a tensor"):
        nelbo.train(short(), data=3, runs=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


# --- the same data ----------------------------------------------------------------------------


def test_changed_data_is_refused(tmp_path, images):
    file = tmp_path / "own.npz"
    np.savez(file, **images)
    recipe = short(data=str(file))
    run = api.train(recipe, runs=tmp_path, name="own", device="cpu")
    before = run.read_json("env.json")["data"]["hash"]
    assert card_of.evaluate(run, samples=0, device="cpu")["data_hash"] == before
    images["images"][0, 0, 0] ^= 1
    np.savez(file, **images)
    with pytest.raises(DataError, match=rf"own was trained on data with hash {before}, but own now has"):
        card_of.evaluate(run, samples=0, device="cpu")
    (run.path / "summary.json").unlink()  # as if it had been interrupted
    with pytest.raises(DataError, match="Bring the same data back"):
        api.train(recipe, runs=tmp_path, name="own", device="cpu")
    assert run.read_json("env.json")["data"]["hash"] == before
    again = api.train(recipe, runs=tmp_path, name="own", device="cpu", overwrite=True)
    assert again.read_json("env.json")["data"]["hash"] != before


def test_overwriting_with_data_that_cannot_be_read_keeps_the_old_run(tmp_path, images):
    file = tmp_path / "own.npz"
    np.savez(file, **images)
    recipe = short(data=str(file))
    run = api.train(recipe, runs=tmp_path, name="own", device="cpu")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    file.write_bytes(b"PK")
    with pytest.raises(DataError):
        api.train(recipe, runs=tmp_path, name="own", device="cpu", overwrite=True)
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


# --- the model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny_run):
    return nelbo.load(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def x_BCHW(tiny_run):
    return tiny_run.recipe.data.load().test.pixels_NCHW[:6] / 255


def test_loading_is_ready_to_measure(tiny_run, model):
    assert not model.training
    assert model.shape == (1, 8, 8)
    best = tiny_run.load("best")[0]
    assert all(torch.equal(value, best[key]) for key, value in model.state_dict().items())


def test_a_run_is_loaded_by_name_folder_or_object(tiny_run, model):
    runs = tiny_run.path.parent
    for what in ("tiny", "latest", tiny_run.path, str(tiny_run.path), tiny_run):
        again = nelbo.load(what, runs=runs, device="cpu")
        assert torch.equal(again.encoder[1].weight, model.encoder[1].weight)
    with pytest.raises(RunError, match="did you mean 'tiny'"):
        nelbo.load("tinny", runs=runs)


def test_reconstructions_and_latents_are_means_and_so_the_same_twice(model, x_BCHW):
    assert torch.equal(model.reconstruct(x_BCHW), model.reconstruct(x_BCHW))
    assert model.reconstruct(x_BCHW).shape == x_BCHW.shape
    mean = model.encode(x_BCHW).mean
    assert torch.equal(mean, model.encode(x_BCHW).mean)
    assert mean.shape == (6, 3)
    assert torch.equal(model.reconstruct(x_BCHW), model.decode(mean).mean)
    assert not torch.equal(model.draw(x_BCHW).z_KBZ, model.draw(x_BCHW).z_KBZ)  # a draw is one


def test_samples_follow_the_temperature_and_nothing_asks_for_gradients(model, x_BCHW):
    samples = model.sample(5)
    assert samples.shape == (5, 1, 8, 8)
    assert 0 <= samples.min() < samples.max() <= 1
    cold = model.sample(5, temperature=0.0)
    assert torch.allclose(cold, cold[:1].expand(5, -1, -1, -1))
    assert torch.allclose(cold[0], model.decode(torch.zeros(3)).mean, atol=1e-6)
    for value in (samples, model.reconstruct(x_BCHW), model.log_prob(x_BCHW, 3)):
        assert not value.requires_grad


def test_many_images_go_through_the_networks_in_batches(model, x_BCHW, monkeypatch):
    sizes, decode = [], model.decode
    monkeypatch.setattr("nelbo.models.base.IMAGES_AT_ONCE", 4)
    monkeypatch.setattr(model, "decode", lambda z: sizes.append(len(z)) or decode(z))
    again = model.reconstruct(x_BCHW)
    torch.testing.assert_close(again, decode(model.encode(x_BCHW).mean).mean, rtol=1e-5, atol=1e-6)
    torch.manual_seed(0)
    samples = model.sample(9, temperature=0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(samples, decode(0.5 * model.sample_prior(9)).mean, rtol=1e-5, atol=1e-6)
    assert sizes == [4, 2, 4, 4, 1]
    assert model.sample(0).shape == (0, 1, 8, 8)


def test_log_prob_tightens_with_k(model, x_BCHW):
    torch.manual_seed(0)
    loose = torch.stack([model.log_prob(x_BCHW, 1) for _ in range(200)]).mean(0)
    tight = torch.stack([model.log_prob(x_BCHW, 50) for _ in range(20)]).mean(0)
    assert loose.shape == tight.shape == (6,)
    assert (tight > loose).all()


# --- the card ---------------------------------------------------------------------------------


def test_a_card_says_what_was_measured_and_is_kept(run_copy):
    card = card_of.evaluate(run_copy, samples=10, device="cpu")
    assert list(card) == [
        *[
            "run",
            "checkpoint",
            "epoch",
            "split",
            "n",
            "samples",
            "seed",
            "data_hash",
            "images_hash",
            "log_px",
            "weights",
            "precision",
            "environment",
        ],
        *["seconds", "metrics", "sections"],
    ]
    assert (card["run"], card["checkpoint"], card["split"], card["n"]) == ("tiny", "best", "test", 40)
    assert card["epoch"] == run_copy.summary["best_epoch"]
    assert card["data_hash"] == run_copy.read_json("env.json")["data"]["hash"]
    assert list(card["metrics"])[:3] == ["nelbo", "reconstruction", "kl"]
    assert [name for names in card["sections"].values() for name in names] == list(card["metrics"])
    each = card_of.read_per_image(run_copy, card)
    for name, numbers in each.items():
        assert len(numbers) == card["n"]
        assert float(numbers.mean()) == pytest.approx(card["metrics"][name]["value"])
    assert {"nelbo", "iw_nll", "mse"} <= set(each)
    assert not (run_copy.path / "evaluation" / "unfinished").exists() or not any(
        (run_copy.path / "evaluation" / "unfinished").iterdir()
    )
    for value in card["metrics"].values():
        assert list(value) == list(Entry.__annotations__)
    assert run_copy.read_json("evaluation/test-best-k10.json") == card


def test_every_checkpoint_and_split_is_measured(run_copy):
    epochs, nelbos = {}, {}
    for checkpoint in ("first", "best", "last"):
        card = card_of.evaluate(run_copy, checkpoint=checkpoint, samples=0, device="cpu")
        epochs[checkpoint] = card["epoch"]
        nelbos[checkpoint] = card["metrics"]["nelbo"]["value"]
    assert epochs == {"first": 1, "best": run_copy.summary["best_epoch"], "last": 20}
    assert len(set(nelbos.values())) == 3
    assert nelbos["first"] > nelbos["best"]
    counts = {
        s: card_of.evaluate(run_copy, split=s, samples=0, device="cpu")["n"] for s in ("train", "validation")
    }
    assert counts == {"train": 96, "validation": 24}
    logged = run_copy.history()[epochs["best"] - 1]["validation"]["bound"]
    measured = run_copy.read_json("evaluation/validation-best-k0.json")["metrics"]["nelbo"]["value"]
    assert -logged == pytest.approx(measured, rel=1e-6)  # one code, one noise: the log is the evaluation


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ({"checkpoint": "bets"}, RunError, "did you mean 'best'"),
        ({"split": "tset"}, ConfigError, "did you mean 'test'"),
        ({"metrics": ["bond"]}, UnknownName, "did you mean 'bound'"),
        ({"samples": -1}, ConfigError, "samples must be 0 or more"),
        ({"samples": 10**13}, ConfigError, "10,000,000 at most"),
        ({"device": "cuda:99"}, DeviceError, "cuda:99"),
    ],
)
def test_a_measurement_that_cannot_be_made_is_refused(run_copy, call, error, says):
    with pytest.raises(error, match=says):
        card_of.evaluate(run_copy, **{"device": "cpu", **call})
    assert not (run_copy.path / "evaluation").exists()


def test_a_split_that_was_not_taken_says_how_to_take_it(tmp_path, tiny_recipe):
    run = api.train(tiny_recipe({"data.validation": 0, "epochs": 1}), runs=tmp_path, name="run", device="cpu")
    with pytest.raises(ConfigError, match=r"has no validation split.*--data\.validation"):
        card_of.evaluate(run, split="validation", device="cpu")


def test_only_the_metrics_asked_for_are_measured(run_copy):
    card = card_of.evaluate(run_copy, metrics=["error"], device="cpu")
    assert list(card["metrics"]) == ["mse", "psnr", "ssim"]
    assert list(card["sections"]) == ["error"]
    more = card_of.evaluate(run_copy, metrics=["latent"], device="cpu")  # added to what is there
    assert list(more["sections"]) == ["latent", "error"]
    assert more["metrics"]["mse"] == card["metrics"]["mse"]
    card_of.evaluate(run_copy, checkpoint="first", metrics=["error"], device="cpu")
    (run_copy.path / "evaluation" / "test-best-k500.json").write_text("{}")
    fresh = card_of.evaluate(run_copy, metrics=["error"], device="cpu")
    assert list(fresh["sections"]) == ["error"], "a card of unknown weights is replaced"


def test_cards_of_other_weights_are_not_mixed(run_copy, tiny_run):
    card_of.evaluate(run_copy, metrics=["latent"], samples=0, device="cpu")
    file = run_copy.checkpoint_path("best")
    file.write_bytes(tiny_run.checkpoint_path("first").read_bytes())
    other = card_of.evaluate(run_copy, metrics=["error"], samples=0, device="cpu")
    assert list(other["sections"]) == ["error"]
    assert set(card_of.read_per_image(run_copy, other)) == {"mse", "psnr", "ssim"}


def test_a_section_measured_elsewhere_keeps_its_environment(run_copy):
    """Numbers of another version or device are not passed off as those of this one."""
    card = card_of.evaluate(run_copy, metrics=["latent", "error"], samples=0, device="cpu")
    elsewhere = card["environment"] | {"device": "cuda:3"}
    run_copy.write_json("evaluation/test-best-k0.json", card | {"environment": elsewhere})
    more = card_of.evaluate(run_copy, metrics=["error"], samples=0, device="cpu")
    assert (more["environment"], more["earlier"]) == (card["environment"], {"latent": elsewhere})
    still = card_of.evaluate(run_copy, metrics=["bound"], samples=0, device="cpu")
    assert still["earlier"] == more["earlier"], "the third knows where the first was measured"
    assert "earlier" not in card_of.evaluate(run_copy, metrics=["latent"], samples=0, device="cpu")


def test_single_images_of_a_value_that_is_gone_are_not_kept(run_copy):
    card = card_of.evaluate(run_copy, metrics=["error"], samples=0, device="cpu")
    card_of._keep(
        run_copy, card, {"mse": torch.zeros(40, dtype=torch.float64)}
    )  # psnr had no value this time
    assert set(card_of.read_per_image(run_copy, card)) == {"mse"}


def test_an_evaluation_leaves_what_another_has_not_finished(run_copy):
    def stop(event):
        if isinstance(event, events.MetricGoesOn):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        card_of.evaluate(run_copy, samples=30, metrics=["importance"], device="cpu", tell=stop)
    (unfinished,) = (run_copy.path / "evaluation" / "unfinished").rglob("*.safetensors")
    card_of.evaluate(run_copy, samples=3, metrics=["importance"], device="cpu")
    card_of.evaluate(run_copy, samples=30, checkpoint="first", metrics=["importance"], device="cpu")
    assert unfinished.is_file()
    card_of.evaluate(run_copy, samples=30, metrics=["importance"], device="cpu")
    assert not (run_copy.path / "evaluation" / "unfinished").exists()


# --- the package ------------------------------------------------------------------------------


def test_importing_the_package_is_cheap_and_its_functions_survive_its_modules():
    code = (
        "import sys, nelbo; assert 'torch' not in sys.modules, 'torch was imported';"
        "assert 'pydantic' not in sys.modules;"
        "import nelbo.training.loop, nelbo.training.api, nelbo.training.store, nelbo.cli;"
        "assert all(callable(getattr(nelbo, name)) for name in nelbo.__all__);"
        "from nelbo import train, evaluate, load, Recipe, Run;"
        "from nelbo.training import api; from nelbo.evaluation import card;"
        "assert train is api.train and load is api.load and evaluate is card.evaluate"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'trian'"):
        _ = nelbo.trian


def test_batch_norm_and_a_last_batch_of_one_image_are_refused_together(tmp_path):
    from nelbo.models import VAE
    from nelbo.nets import MLP

    images = np.random.default_rng(0).integers(0, 256, size=(41, 6, 6), dtype=np.uint8)
    model = VAE(latent_dim=2, encoder=MLP(hidden=(8,), batch_norm=True), decoder=MLP(hidden=(8,)))
    data = (images, np.zeros(41, dtype=np.int64))
    recipe = Recipe(model=model, epochs=1, batch_size=8)
    with pytest.raises(ConfigError, match="batch-size: with 33 training images and batches of 8"):
        nelbo.train(recipe, data=data, runs=tmp_path)
    assert not list(tmp_path.iterdir())
    assert nelbo.train(recipe.model_copy(update={"batch_size": 7}), data=data, runs=tmp_path).finished


def test_patience_needs_a_validation_split(tmp_path, tiny_recipe):
    recipe = tiny_recipe({"patience": 3, "data.validation": 0})
    with pytest.raises(ConfigError, match=r"patience needs a validation split; set --data\.validation 0\.1"):
        nelbo.train(recipe, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_returned_for_other_images(tmp_path):
    """Both calls have the same configuration; only the images differ."""
    images = np.random.default_rng(0).integers(0, 256, size=(2, 60, 6, 6), dtype=np.uint8)
    overrides = {"epochs": 1, "data.transforms": []}
    run = nelbo.train("digits", data=images[0], runs=tmp_path, overrides=overrides)
    assert nelbo.train("digits", data=images[0], runs=tmp_path, overrides=overrides).path == run.path
    with pytest.raises(DataError, match="the images"):
        nelbo.train("digits", data=images[1], runs=tmp_path, overrides=overrides)


@pytest.mark.parametrize("name", ["../keep", "a/b", "..", "."])
def test_a_name_is_one_folder(name, tmp_path):
    with pytest.raises(ConfigError, match="--name"):
        nelbo.train("digits", runs=tmp_path / "runs", name=name, overwrite=True)


def test_overwrite_spares_what_is_no_run(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.toml").write_text("title = 'my site'")
    (tmp_path / "site" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is no run"):
        nelbo.train("digits", runs=tmp_path, name="site", overwrite=True)
    assert (tmp_path / "site" / "thesis.txt").read_text() == "years of work"


def test_what_is_shared_can_be_loaded_anywhere(run_copy, tmp_path):
    import shutil

    shutil.copytree(run_copy.path / "model", tmp_path / "copied")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(
        nelbo.load(tmp_path / "copied", device="cpu").reconstruct(x),
        nelbo.load(run_copy, device="cpu").reconstruct(x),
    )
    (tmp_path / "copied" / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config\.json"):
        nelbo.load(tmp_path / "copied")


def test_weights_that_are_not_finite_are_never_saved(tmp_path, tiny_recipe):
    """A finite loss whose gradient is not: the last good checkpoint stays."""
    recipe = tiny_recipe({"epochs": 3})
    calls = {"n": 0}

    def tell(event):
        if isinstance(event, events.EpochDone):
            calls["n"] += 1

    original = FusedAdam.step

    def step(self, *args, **kwargs):
        out = original(self, *args, **kwargs)
        if calls["n"] == 2:
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = float("nan")
        return out

    FusedAdam.step = step
    try:
        with pytest.raises(TrainingFailed, match="epoch 3; the checkpoint of epoch 2 is kept"):
            nelbo.train(recipe, runs=tmp_path, name="x", tell=tell)
    finally:
        FusedAdam.step = original
    for name in ("best", "last"):
        tensors, _ = Run(tmp_path / "x").load(name)
        assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


def test_log_prob_of_a_singular_posterior_is_refused():
    from nelbo.errors import NotABound

    model = resolve("mlp-tanh-binary-as-published").model.build((1, 28, 28))
    with pytest.raises(NotABound, match="shared by all latent dimensions"):
        model.log_prob(torch.rand(2, 1, 28, 28).round(), k=3)


def test_binary_pixels_are_selected_on_a_bound(tmp_path):
    run = nelbo.train("digits", runs=tmp_path, overrides={"epochs": 1})
    assert run.summary["selection"] == "highest validation bound at beta 1"
