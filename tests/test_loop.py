"""The loop: what it logs, keeps, selects and refuses; and that a stopped run goes on bit for bit."""

from __future__ import annotations

import math
import signal

import pytest
import torch

import nelbo.training.loop as loop
from nelbo.data import Batches
from nelbo.errors import Interrupted, TrainingFailed
from nelbo.metrics import Split, latent_statistics
from nelbo.models.vae import VAEModule
from nelbo.objectives import ELBO
from nelbo.optim import WeightAverage
from nelbo.training import api, events
from nelbo.training.loop import fit, train_epoch
from nelbo.training.state import State
from nelbo.training.step import make_step
from nelbo.training.store import Run, start

CPU = torch.device("cpu")


@pytest.fixture
def train(tiny_recipe, tmp_path):
    """(overrides, name, tell) -> a finished run under tmp_path."""

    def go(overrides=None, name="run", tell=events.quiet, **more) -> Run:
        return api.train(tiny_recipe(overrides), runs=tmp_path, name=name, device="cpu", tell=tell, **more)

    return go


def rows(run: Run) -> list[dict]:
    """What the run logged, without the clocks."""
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for event in ("epoch", "steps")
        for row in run.history(event)
    ]


def assert_same_run(a: Run, b: Run) -> None:
    assert rows(a) == rows(b)
    for name in ("first", "best", "last"):
        (left, about_left), (right, about_right) = a.load(name), b.load(name)
        assert {**about_left, "seconds": 0} == {**about_right, "seconds": 0}
        assert set(left) == set(right)
        different = [key for key in left if not torch.equal(left[key], right[key])]
        assert different == [], name
    for key in ("epochs", "best_epoch", "selection"):
        assert a.summary[key] == b.summary[key]


def step_once(recipe, lr: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """All weights before and after one step of plain gradient descent."""
    splits = recipe.data.load()
    torch.manual_seed(0)
    model = recipe.model.build(splits.shape)
    state = State(model, torch.optim.SGD(model.parameters(), lr=lr), None, CPU)
    batches = Batches(
        splits.train, splits.transforms, recipe.batch_size, device=CPU, shuffle_seed=0, training=True
    )
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    step = make_step(recipe, state, batches, print)
    train_epoch(recipe, state, batches, step, lambda: True, events.quiet)
    assert (state.step, state.batch, state.images) == (1, 1, recipe.batch_size)
    return before, torch.nn.utils.parameters_to_vector(model.parameters()).detach()


# --- stopping and going on --------------------------------------------------------------------

VARIANTS = {
    "plain": {},
    "ema": {"ema": 0.9, "log_steps": True},
    "noise": {"data.transforms": "dynamic-binarise"},
    "schedules": {
        "objective.beta": "linear",
        "objective.beta.steps": 7,
        "optimizer.lr": "cosine",
        "optimizer.lr.start": 0.05,
        "objective.free_bits": 0.05,
        "clip_norm": 5.0,
    },
    "conv": {
        "model.encoder": {"name": "conv", "channels": [4, 6], "batch_norm": True},
        "model.decoder": {"name": "conv", "channels": [6, 4], "batch_norm": True, "top": 8},
        "ema": 0.5,
        "patience": 5,
    },
}


class Signal:
    """A `tell` that presses Ctrl-C once, at the n-th time an event is heard."""

    def __init__(self, event: type[events.Event], n: int, number: int = signal.SIGINT) -> None:
        self.event, self.left, self.number, self.heard = event, n, number, []

    def __call__(self, event) -> None:
        self.heard.append(event)
        if isinstance(event, self.event):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.number)


@pytest.mark.parametrize("at", [1, 5], ids=["first-batch", "mid-epoch-2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_run_goes_on_bit_for_bit(train, variant, at):
    whole = train(VARIANTS[variant], "whole")
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        train(VARIANTS[variant], "parts", tell=Signal(events.StepDone, at))
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    parts = Run(whole.path.parent / "parts")
    assert not parts.finished
    _, about = parts.load("last")
    assert (about["epoch"], about["batch"], about["step"]) == (1 + at // 3, at % 3, at)
    heard = []
    torch.manual_seed(99)  # another process has another random stream
    train(VARIANTS[variant], "parts", tell=heard.append)
    assert events.Resumed(1 + at // 3, at % 3) in heard
    assert sum(isinstance(event, events.StepDone) for event in heard) == 9 - at
    assert_same_run(whole, parts)


def test_sigterm_and_two_interruptions_change_nothing_either(train):
    whole = train({"ema": 0.9}, "whole")
    for stop in (
        Signal(events.StepDone, 2, signal.SIGTERM),
        Signal(events.StepDone, 1),
        Signal(events.EpochDone, 1),
    ):
        with pytest.raises(Interrupted):
            train({"ema": 0.9}, "parts", tell=stop)
    assert_same_run(whole, train({"ema": 0.9}, "parts"))


def test_a_second_ctrl_c_stops_at_once(train):
    def impatient(event):
        if isinstance(event, events.StepDone):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tell=impatient)


def test_an_interruption_in_the_last_batch_of_all_comes_too_late(train):
    whole = train(name="whole")
    assert_same_run(whole, train(name="parts", tell=Signal(events.StepDone, 9)))


class Crash(Exception):
    pass


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_crash_at_an_epochs_end_goes_on_bit_for_bit(train, variant):
    whole = train(VARIANTS[variant], "whole")

    def crash(event):
        if isinstance(event, events.EpochDone) and event.row["epoch"] == 2:
            raise Crash

    with pytest.raises(Crash):
        train(VARIANTS[variant], "parts", tell=crash)
    torch.manual_seed(99)
    assert_same_run(whole, train(VARIANTS[variant], "parts"))


@pytest.mark.parametrize(
    ("lost", "epoch"), [("first", 1), ("best", 1), ("last", 1), ("best", 2), ("last", 2)]
)
def test_a_crash_between_log_and_checkpoint_leaves_no_stale_rows(train, monkeypatch, lost, epoch):
    whole = train({"log_steps": True}, "whole")
    save, calls = Run.save, []

    def crash(self, name, *arguments):
        calls.append(name)
        if name == lost and (calls.count(name) == epoch or name == "first"):
            raise Crash
        save(self, name, *arguments)

    monkeypatch.setattr(Run, "save", crash)
    with pytest.raises(Crash):
        train({"log_steps": True}, "parts")
    monkeypatch.setattr(Run, "save", save)
    assert Run(whole.path.parent / "parts").history()  # the row is there, its checkpoint is not
    assert_same_run(whole, train({"log_steps": True}, "parts"))


def test_the_same_call_on_a_finished_run_does_nothing(train):
    run = train()
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.path.rglob("*") if p.is_file()}
    heard = []
    again = train(tell=heard.append)
    assert again.path == run.path
    assert heard == []
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.path.rglob("*") if p.is_file()}


def test_the_last_checkpoint_pairs_the_optimiser_with_its_own_weights(train):
    """Not with the best epoch's: such a pair could not go on."""
    run = train({"epochs": 6, "optimizer.lr": 0.3})
    assert run.summary["best_epoch"] < 6
    last, about = run.load("last")
    best, _ = run.load("best")
    assert (about["epoch"], about["batch"], about["step"]) == (7, 0, 18)
    assert float(last["optimizer.0.step"]) == 18
    assert any(not torch.equal(last[f"model.{key}"], value) for key, value in best.items())


def test_the_best_epoch_so_far_is_remembered(train):
    settings = {"epochs": 6, "optimizer.lr": 0.3}
    whole = train(settings, "whole")
    with pytest.raises(Interrupted):
        train(settings, "parts", tell=Signal(events.StepDone, 16))  # the first batch of the last epoch
    parts = train(settings, "parts")
    assert_same_run(whole, parts)
    assert 0 < parts.summary["best_epoch"] < 6


# --- determinism ------------------------------------------------------------------------------


def test_a_seed_gives_its_numbers_again_and_another_gives_others(train):
    a = train(name="a")
    torch.manual_seed(1234)  # what the caller did before does not matter
    assert_same_run(a, train(name="b"))
    other = train({"seed": 1}, "c")
    assert rows(other)[0]["train"] != rows(a)[0]["train"]
    start_a, start_b = (run.load("first")[0] for run in (a, other))
    assert any(not torch.equal(start_a[key], start_b[key]) for key in start_a)


def test_what_only_looks_does_not_change_the_training(train):
    plain = train({"epochs": 4}, "plain")
    looking = train({"epochs": 4, "latent_every": 0, "log_steps": True}, "looking")
    kept, other = plain.load("last")[0], looking.load("last")[0]
    assert all(torch.equal(kept[key], other[key]) for key in kept)
    unvalidated = train({"epochs": 4, "data.validation": 0}, "more-images")
    assert rows(unvalidated)[0]["train"] != rows(plain)[0]["train"]


@pytest.mark.parametrize(
    "setting",
    [
        {"clip_norm": 0.5},
        {"batch_size": 39},
        {"objective.beta": 4},
        {"objective.free_bits": 1.0},
        {"objective.kl": "monte-carlo"},
        {"objective.k": 3},
        {"optimizer.eps": 0.1},
        {"optimizer.lr": {"name": "cosine", "start": 0.02}},
        {"precision": "bf16"},
        {"data.split_seed": 1},
        {"model.posterior.parametrisation": "positive"},
    ],
    ids=str,
)
def test_every_setting_changes_the_training(train, setting):
    plain, changed = train(name="plain").history()[-1], train(setting, "changed").history()[-1]
    assert changed["train"] != plain["train"]
    assert all(math.isfinite(value) for value in changed["train"].values())


# --- gradients --------------------------------------------------------------------------------


def test_the_sum_of_a_batch_has_its_size_times_the_gradient_of_the_mean(tiny_recipe):
    before, mean = step_once(tiny_recipe(), lr=1e-4)
    same, total = step_once(tiny_recipe({"batch_reduction": "sum"}), lr=1e-4 / 40)
    assert torch.equal(before, same)
    assert not torch.equal(before, mean)
    torch.testing.assert_close(total - before, mean - before, rtol=1e-3, atol=1e-7)


def test_clipping_bounds_the_gradient_and_keeps_its_direction(tiny_recipe):
    before, free = step_once(tiny_recipe())
    _, clipped = step_once(tiny_recipe({"clip_norm": 0.01}))
    _, loose = step_once(tiny_recipe({"clip_norm": 1e6}))
    assert torch.equal(free, loose)
    assert (free - before).norm() > 0.02
    assert (clipped - before).norm() == pytest.approx(0.01, rel=1e-3)
    assert torch.cosine_similarity(free - before, clipped - before, dim=0) > 0.9999


def test_batch_norm_learns_its_statistics_in_every_epoch_and_in_no_validation(train):
    run = train({"model.encoder.batch_norm": True, "ema": 0.9})
    plain = train({"model.encoder.batch_norm": True}, "plain")
    for weights in (run.load("last")[0], plain.load("last")[0]):
        counts = [int(v) for key, v in weights.items() if key.endswith("num_batches_tracked")]
        assert set(counts) == {9}


# --- the log ----------------------------------------------------------------------------------


def test_training_and_validation_log_the_same_quantities(tiny_run):
    history = tiny_run.history()
    assert [row["epoch"] for row in history] == list(range(1, 21))
    assert [row["step"] for row in history] == list(range(3, 61, 3))
    for row in history:
        assert list(row["train"]) == list(row["validation"]) == ["total", "reconstruction", "kl", "bound"]
        for side in (row["train"], row["validation"]):
            assert side["bound"] == pytest.approx(-(side["reconstruction"] + side["kl"]), rel=1e-6)
            assert side["total"] == pytest.approx(side["reconstruction"] + row["beta"] * side["kl"], rel=1e-6)


def test_every_steps_loss_is_kept_and_the_epoch_is_its_mean_by_count(tiny_run):
    counts = torch.tensor([40.0, 40.0, 16.0], dtype=torch.float64)
    steps, epochs = tiny_run.history("steps"), tiny_run.history()
    assert len(steps) == len(epochs) == 20
    batch_means_differ = False
    for row, epoch in zip(steps, epochs, strict=True):
        losses = torch.tensor(row["loss"], dtype=torch.float64)
        assert losses.shape == (3,)
        assert float((losses * counts).sum() / 96) == pytest.approx(epoch["train"]["total"], rel=1e-12)
        batch_means_differ |= float(losses.mean()) != pytest.approx(epoch["train"]["total"], rel=1e-4)
    assert batch_means_differ


def test_steps_are_not_logged_unless_asked_for(train):
    assert train().history("steps") == []


def test_the_validation_log_is_the_mean_over_images_whatever_the_batch(train, monkeypatch):
    """With a fixed posterior mean the reconstruction of 24 images is exact: batches of 7 leave a short one."""
    monkeypatch.setattr(
        "nelbo.dists.normal.DiagonalNormal.rsample", lambda self, k=1: self.mean.expand(k, -1, -1)
    )
    run = train({"epochs": 1})
    splits, model = run.recipe.data.load(), api.load(run, checkpoint="first", device="cpu")
    split = Split(splits.validation, splits, CPU, batch_size=7)
    kl_N = torch.cat([model.encode(x).kl_to(model.prior).sum(-1) for x in split.batches()]).double()
    log_px_N = torch.cat([model.draw(x).log_px_KB[0] for x in split.batches()]).double()
    logged = run.history()[0]["validation"]
    assert len(kl_N) == 24
    assert logged["kl"] == pytest.approx(float(kl_N.detach().mean()), rel=1e-6)
    assert logged["reconstruction"] == pytest.approx(-float(log_px_N.detach().mean()), rel=1e-6)


def test_the_warm_up_is_logged_as_it_is_used(train):
    run = train({"epochs": 4, "objective.beta": "linear", "objective.beta.epochs": 2})
    for row, beta in zip(run.history(), [0.5, 1.0, 1.0, 1.0], strict=True):
        assert row["beta"] == beta
        for side in (row["train"], row["validation"]):
            assert side["total"] == pytest.approx(side["reconstruction"] + beta * side["kl"], rel=1e-6)


def test_latent_statistics_come_every_n_epochs_and_at_the_end(train):
    run = train({"epochs": 5, "latent_every": 2})
    assert ["latent" in row for row in run.history()] == [False, True, False, True, True]
    latent = run.history()[-1]["latent"]
    assert latent["dimensions"] == len(latent["kl_per_dimension"]) == 3
    assert sum(latent["kl_per_dimension"]) == pytest.approx(run.history()[-1]["validation"]["kl"], abs=1e-4)
    never = train({"latent_every": 0}, "never")
    assert not any("latent" in row for row in never.history())


@pytest.mark.parametrize("validation", [0, 0.2])
def test_latent_statistics_are_of_the_last_weights_and_encode_every_image_once(
    train, monkeypatch, validation
):
    seen, measuring, encode = [], [], VAEModule.encode

    def counted(self, x_BCHW):
        if not torch.is_grad_enabled() and measuring:
            seen.append(len(x_BCHW))
        return encode(self, x_BCHW)

    batches = Split.batches
    monkeypatch.setattr(VAEModule, "encode", counted)
    monkeypatch.setattr(Split, "batches", lambda self, *a: measuring.append(1) or batches(self, *a))
    run = train({"epochs": 1, "data.validation": validation, "compile": "off"})
    monkeypatch.undo()
    splits, model = run.recipe.data.load(), api.load(run, checkpoint="last", device="cpu")
    images = splits.train if splits.validation is None else splits.validation
    assert sum(seen) == len(images)
    expected = latent_statistics(model, Split(images, splits, CPU)).to_row()
    assert run.history()[0]["latent"] == expected


# --- selection --------------------------------------------------------------------------------


def test_the_best_epoch_has_the_best_validation_bound_at_beta_1_while_beta_changes(train):
    warm_up = {"objective.beta": "linear", "objective.beta.epochs": 12, "optimizer.lr": 0.05}
    run = train({"epochs": 12, **warm_up})
    bounds = [row["validation"]["bound"] for row in run.history()]
    totals = [row["validation"]["total"] for row in run.history()]
    best = run.summary["best_epoch"]
    assert best == 1 + bounds.index(max(bounds))
    assert best != 1 + totals.index(min(totals))  # the weighted loss would have chosen another
    assert run.summary["selection"] == "lowest validation cross-entropy plus KL, at beta 1"
    assert run.load("best")[1] == {"epoch": best}
    assert run.load("last")[1]["best_bound"] == max(bounds)


def test_each_checkpoint_holds_the_weights_of_its_epoch(train, monkeypatch):
    kept = {}

    def close(recipe, state, splits, run, original=loop.close_epoch):
        row = original(recipe, state, splits, run)
        kept[row["epoch"]] = {key: value.clone() for key, value in state.model.state_dict().items()}
        return row

    monkeypatch.setattr(loop, "close_epoch", close)
    run = train({"epochs": 6, "optimizer.lr": 0.3})
    best = run.summary["best_epoch"]
    assert 1 < best < 6
    for checkpoint, epoch in (("first", 1), ("best", best), ("last", 6)):
        state = api.load(run, checkpoint=checkpoint, device="cpu").state_dict()
        assert all(torch.equal(state[key], kept[epoch][key]) for key in state), checkpoint
        assert not all(torch.equal(state[key], kept[1 + epoch % 6][key]) for key in state), checkpoint


def test_with_an_average_it_is_the_average_that_is_kept_and_measured(train):
    run = train({"ema": 0.9, "epochs": 2})
    last, _ = run.load("last")
    loaded = api.load(run, checkpoint="last", device="cpu").state_dict()
    best = run.load("best")[0]
    assert run.summary["best_epoch"] == 2
    for key, value in loaded.items():
        assert torch.equal(value, last[f"average.{key}"])
        assert torch.equal(value, best[key])
    assert any(not torch.equal(last[f"average.{key}"], last[f"model.{key}"]) for key in loaded)


def test_without_validation_the_last_epoch_is_kept_and_the_summary_says_why(train):
    run = train({"data.validation": 0})
    assert run.summary["best_epoch"] == 3
    assert run.summary["selection"] == "last epoch: there is no validation split to select on"
    assert run.load("best")[1] == {"epoch": 3}
    assert all("validation" not in row for row in run.history())
    last = run.load("last")[0]
    assert all(torch.equal(value, last[f"model.{key}"]) for key, value in run.load("best")[0].items())


def test_without_a_bound_the_last_epoch_is_kept_and_the_summary_says_why(train):
    run = train({"model.posterior.noise": "shared", "patience": 1})
    assert run.summary["epochs"] == run.summary["best_epoch"] == 3
    assert run.summary["selection"] == "last epoch: the objective reports no bound to select on"
    assert all("bound" not in row["train"] and "bound" not in row["validation"] for row in run.history())


def bounds_from(monkeypatch, bounds: list[float]) -> None:
    """Validation as it is, except for the bound, which is given."""
    left = iter(bounds)
    validate = loop.validate
    monkeypatch.setattr(loop, "validate", lambda *a: {**validate(*a), "bound": next(left)})


def test_training_stops_when_patience_is_out(train, monkeypatch):
    bounds_from(monkeypatch, [-50, -40, -41, -39, -42, -40, -41, -1, -1])
    run = train({"epochs": 9, "patience": 3})
    assert run.summary["epochs"] == len(run.history()) == 7
    assert run.summary["best_epoch"] == 4
    assert run.finished


def test_a_bound_that_is_not_finite_is_never_the_best(train, monkeypatch):
    bounds_from(monkeypatch, [-50, -40, math.nan, math.inf, -math.inf])
    run = train({"epochs": 5})
    assert run.summary["best_epoch"] == 2
    assert run.load("best")[1] == {"epoch": 2}
    assert run.history()[2]["validation"]["bound"] is None


# --- failures and warnings --------------------------------------------------------------------


def poison(monkeypatch, epoch: int, batch: int) -> None:
    """The loss of one batch is NaN."""
    call = ELBO.__call__

    def poisoned(self, draw, progress):
        terms = call(self, draw, progress)
        if torch.is_grad_enabled() and progress.step == 3 * (epoch - 1) + batch - 1:
            terms.loss_B.data.fill_(math.nan)
        return terms

    monkeypatch.setattr(ELBO, "__call__", poisoned)


def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_keeps_the_checkpoint_before(
    train, tmp_path, monkeypatch
):
    one = train({"epochs": 1}, "one")
    healthy = ELBO.__call__
    poison(monkeypatch, epoch=2, batch=2)
    with pytest.raises(TrainingFailed) as caught:
        train(name="run")
    monkeypatch.setattr(ELBO, "__call__", healthy)
    message = str(caught.value)
    assert "batch 2 of 3 in epoch 2" in message
    assert "the checkpoint of epoch 1 is kept" in message
    assert "--optimizer.lr" in message
    assert caught.value.exit_code == 1
    run = Run(tmp_path / "run")
    assert not run.finished
    assert [row["epoch"] for row in run.history()] == [1]
    kept = run.load("last")[0]
    assert all(torch.equal(kept[key], value) for key, value in one.load("last")[0].items())
    assert all(value.isfinite().all() for value in kept.values())
    train(name="run")  # without the poison the same call goes on
    assert run.finished


def test_a_diverging_rate_fails_in_the_first_epoch(train):
    with pytest.raises(TrainingFailed, match=r"of 3 in epoch 1; no epoch was finished"):
        train({"optimizer.lr": 1e30})


def test_a_collapse_is_told_once_and_a_healthy_run_is_not_scolded(train):
    heard = []
    train({"objective.beta": 1000, "epochs": 8}, "flat", tell=heard.append)
    warnings = [event.message for event in heard if isinstance(event, events.Warned)]
    assert len(warnings) == 1
    assert "posterior collapse" in warnings[0]
    assert "of 3 latent dimensions" in warnings[0]
    assert "--objective.beta" in warnings[0]
    heard.clear()
    train({"epochs": 10, "latent_every": 10}, "healthy", tell=heard.append)
    kinds = [type(event) for event in heard]
    assert events.Warned not in kinds
    assert kinds.count(events.EpochDone) == 10
    assert kinds.count(events.StepDone) == 30


# --- state ------------------------------------------------------------------------------------


def test_a_state_packed_and_unpacked_is_the_same(tiny_recipe, tmp_path):
    recipe = tiny_recipe({"ema": 0.9})
    splits, run = recipe.data.load(), start(recipe, tmp_path / "run")
    with pytest.raises(Interrupted):
        fit(recipe, splits, run, CPU, Signal(events.StepDone, 2))
    tensors, about = run.load("last")
    torch.manual_seed(7)
    model = recipe.model.build(splits.shape)
    fresh = State(model, recipe.optimizer.build(model.parameters()), WeightAverage(model, 0.9), CPU)
    fresh.unpack(tensors, about)
    again, about_again = fresh.pack()
    assert about_again == about
    assert set(again) == set(tensors)
    assert all(torch.equal(again[key].cpu(), tensors[key]) for key in tensors)
    assert {key.partition(".")[0] for key in tensors} == {"model", "average", "optimizer", "random", "means"}
    assert fresh.means.per_batch("total") == [pytest.approx(v) for v in fresh.means.per_batch("total")]
    assert len(fresh.means.table()) == 2
    assert fresh.evaluated is fresh.average.module
    assert torch.equal(torch.get_rng_state(), tensors["random.cpu"])
