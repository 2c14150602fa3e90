"""A step gives the same numbers whichever way it is run: as it is, compiled, or recorded and replayed in blocks.

The recorder that replays CUDA graphs has a stand-in here that needs no GPU: it runs the recorded function again, in
the same buffers. What it cannot show, real capture and real asynchrony, is in the tests marked `gpu`.
"""

from __future__ import annotations

import json
import math
from typing import ClassVar

import pytest
import torch

from nelbo import api, engine
from nelbo.core import Progress, Terms, lookup, names
from nelbo.data import Batches
from nelbo.engine import compiling
from nelbo.engine.dials import Dials, Hidden, NotFixed, moving, with_dials
from nelbo.errors import TrainingFailed
from nelbo.metrics import Means
from nelbo.objectives import ELBO
from nelbo.optim import WeightAverage
from nelbo.recipe import resolve
from nelbo.schedules import Cosine, Linear, Schedule
from nelbo.state import State
from nelbo.step import make_step

CPU = torch.device("cpu")
WHY_NOT = compiling.why_not(CPU)
compiled = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
# Everything that changes while training, at once.
MOVING = {
    "objective.beta": {"name": "linear", "steps": 50},
    "optimizer.lr": {"name": "cosine", "start": 0.02},
    "clip_norm": 5.0,
    "ema": 0.9,
    "epochs": 20,
}


class Reader(ELBO):
    """Looks at the progress itself."""

    name: ClassVar[str] = "test-reader"

    def __call__(self, draw, progress) -> Terms:
        assert progress.step >= 0
        return super().__call__(draw, progress)


class Rerun:
    """Records a function by remembering it, and undoes what running it once for its outputs has changed."""

    made: ClassVar[list[Rerun]] = []

    def __init__(self, state: State) -> None:
        self.state = state
        self.replays = 0
        Rerun.made.append(self)

    def record(self, function):
        slots = [value for slots in self.state.optimizer.state.values() for value in slots.values()]
        average = self.state.average.module.state_dict().values() if self.state.average else []
        tensors = [*self.state.model.state_dict().values(), *slots, *average]  # with running statistics
        kept, stream = [value.clone() for value in tensors], torch.get_rng_state()
        try:
            self.function, self.output = function, function()
        finally:
            for value, before in zip(tensors, kept, strict=True):
                value.copy_(before)
            torch.set_rng_state(stream)
        return self.output

    def replay(self) -> None:
        self.replays += 1
        self.output.copy_(self.function())


class Trainer:
    """The loop without files: a recipe's steps, with every number they give."""

    def __init__(self, recipe, recorder=False) -> None:
        splits = recipe.data.load()
        torch.manual_seed(recipe.seed)
        model = engine.place(recipe.model.build(splits.shape), CPU)
        optimizer = recipe.optimizer.build(model.parameters())
        average = WeightAverage(model, recipe.ema) if recipe.ema else None
        self.recipe, self.state, self.said = recipe, State(model, optimizer, average, CPU), []
        self.batches = Batches(
            splits.train, splits.transforms, recipe.batch_size, device=CPU, shuffle_seed=0, training=True
        )
        made = (lambda device: Rerun(self.state)) if recorder else None
        self.step = make_step(recipe, self.state, self.batches, self.said.append, recorder=made)

    def run(self, epochs: int) -> torch.Tensor:
        means = Means()
        done, total = 0, self.recipe.epochs * len(self.batches)
        self.state.model.train()
        torch.manual_seed(1)
        with self.step.running():
            for epoch in range(1, epochs + 1):
                for rows in self.batches.rows(epoch, at_once=self.step.at_once):
                    n = -(-len(rows) // self.recipe.batch_size)
                    moments = [Progress(epoch, self.recipe.epochs, done + i, total) for i in range(n)]
                    found = self.step(rows, moments)
                    means.add_sums(found.names, found.sums_SQ, found.counts)
                    done += n
        self.counts = means.counts
        return means.table() / torch.tensor(means.counts)[:, None]

    def weights(self) -> torch.Tensor:
        """Without biases: before a batch norm theirs have no gradient but rounding, which Adam blows up."""
        module = self.state.evaluated
        return torch.cat([weight.detach().flatten() for weight in module.parameters() if weight.dim() > 1])


@pytest.fixture
def train(tiny_recipe, tmp_path):
    """(overrides, name, tell) -> a finished run under tmp_path."""

    def go(overrides, name="run", tell=api.quiet):
        return api.train(tiny_recipe(overrides), runs=tmp_path, name=name, device="cpu", tell=tell)

    return go


def conv(**more):
    nets = {
        f"model.{side}": {"name": "conv", "channels": [4, 4], "batch_norm": True}
        for side in ("encoder", "decoder")
    }
    return {**nets, **more}


# --- blocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant", [{}, MOVING, {**conv(), **MOVING}, {"data.transforms": ["dynamic-binarise"]}]
)
def test_steps_in_recorded_blocks_are_the_steps_one_by_one(tiny_recipe, variant):
    overrides = {"batch_size": 5, **variant}  # 96 images: 19 full batches and one image
    alone, blocks = Trainer(tiny_recipe(overrides)), Trainer(tiny_recipe(overrides), recorder=True)
    Rerun.made.clear()
    expected, found = alone.run(3), blocks.run(3)
    assert alone.counts == blocks.counts == 3 * [*19 * [5], 1]
    assert torch.allclose(expected, found, rtol=1e-5)
    assert torch.allclose(alone.weights(), blocks.weights(), rtol=1e-4, atol=1e-5)
    assert blocks.said == []
    assert blocks.step.how == {"compiled": False, "steps_at_once": 16}
    # 60 batches: 3 to warm up, 3 short ones; the rest by one graph of 16 steps and one of a single step.
    single, block = Rerun.made
    assert block.replays == 2
    assert single.replays == 3 * 19 - 3 - 16 * block.replays


def test_what_cannot_be_recorded_is_said_once_and_runs_as_it_is(tiny_recipe):
    recipe = tiny_recipe({**MOVING, "batch_size": 5}).model_copy(
        update={"objective": Reader(beta=Linear(steps=50))}
    )
    alone, blocks = Trainer(recipe), Trainer(recipe, recorder=True)
    assert torch.allclose(alone.run(2), blocks.run(2), rtol=1e-5)
    (said,) = blocks.said
    assert "progress.step" in said
    assert "CUDA graph" in said
    assert blocks.step.at_once == 1
    assert {type(group["lr"]) for group in blocks.state.optimizer.param_groups} == {float}


# --- compilation ------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("variant", [MOVING, {**conv(), "model.likelihood": "gaussian"}])
def test_a_compiled_step_gives_the_numbers_of_the_plain_one(tiny_recipe, variant):
    plain = Trainer(tiny_recipe({**variant, "compile": "off"}))
    fast = Trainer(tiny_recipe({**variant, "compile": "on"}))
    expected, found = plain.run(4), fast.run(4)
    assert fast.said == []
    assert fast.step.how["compiled"]
    assert not plain.step.how["compiled"]
    assert torch.allclose(expected, found, rtol=1e-4), (expected - found).abs().max()
    assert torch.allclose(plain.weights(), fast.weights(), rtol=1e-2, atol=1e-4)


@compiled
def test_a_compiled_bf16_step_is_a_plain_float32_step_up_to_its_rounding(tiny_recipe):
    plain = Trainer(tiny_recipe({"compile": "off", "precision": "fp32"}))
    fast = Trainer(tiny_recipe({"compile": "on", "precision": "bf16"}))
    expected, found = plain.run(2), fast.run(2)
    assert fast.said == []
    assert torch.allclose(expected, found, rtol=0.02, atol=0.05), (expected - found).abs().max()
    assert not torch.equal(expected, found), "bf16 rounds to eight bits"


@compiled
def test_compiled_code_is_used_for_every_full_batch_and_made_once(tiny_recipe, monkeypatch):
    fast = Trainer(tiny_recipe({**MOVING, "compile": "on"}))
    fast.run(2)
    counters = torch._dynamo.utils.counters
    before = counters["stats"]["unique_graphs"]
    fast.run(3)  # schedules have moved, epochs have changed, a short batch has passed
    assert counters["stats"]["unique_graphs"] == before
    assert fast.state.seconds["compile"] > 0


def test_what_cannot_be_compiled_is_said_once_and_runs_as_it_is(tiny_recipe, monkeypatch):
    monkeypatch.setattr(compiling, "why_not", lambda device: "no compiler here")
    plain, fast = (Trainer(tiny_recipe({**MOVING, "compile": how})) for how in ("off", "on"))
    assert torch.equal(plain.run(2), fast.run(2))
    assert fast.said == ["the step could not be compiled and runs as it is: no compiler here"]
    assert not fast.step.how["compiled"]


@compiled
def test_an_objective_that_reads_progress_itself_is_not_compiled_wrongly(tiny_recipe):
    recipe = tiny_recipe({"compile": "on"}).model_copy(update={"objective": Reader()})
    plain, fast = Trainer(recipe.model_copy(update={"compile": "off"})), Trainer(recipe)
    assert torch.equal(plain.run(2), fast.run(2))
    (said,) = fast.said
    assert "could not be compiled" in said


@compiled
def test_a_loss_that_is_not_finite_in_a_compiled_step_ends_the_run_as_one(train):
    with pytest.raises(TrainingFailed, match="not finite since batch"):
        train({"compile": "on", "optimizer.lr": 1e30, "epochs": 2})


@compiled
def test_a_compiled_run_goes_on_bit_for_bit(train, tiny_recipe):
    """Also checks what the summary says."""
    whole = train({"compile": "on", **MOVING, "epochs": 4}, name="whole")
    seen: list[int] = []

    def stop(event, row):
        if event == "step":
            seen.append(row["batch"])
            if len(seen) == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train({"compile": "on", **MOVING, "epochs": 4}, name="parts", tell=stop)
    parts = train({"compile": "on", **MOVING, "epochs": 4}, name="parts")
    (left, _), (right, _) = whole.load("last"), parts.load("last")
    assert [key for key in left if not torch.equal(left[key], right[key])] == []
    assert whole.summary["compiled"] is True
    assert whole.summary["precision"] == "fp32"
    assert whole.summary["seconds"]["compile"] > whole.summary["seconds"]["train"] > 0


def test_auto_counts_steps_and_never_times(monkeypatch):
    monkeypatch.setattr(compiling, "why_not", lambda device: None)
    assert engine.compiles("auto", CPU, compiling.PAYS_FROM["cpu"])
    assert not engine.compiles("auto", CPU, compiling.PAYS_FROM["cpu"] - 1)
    assert not engine.compiles("auto", torch.device("mps"), 10**9)
    assert engine.compiles("on", CPU, 1)
    assert not engine.compiles("off", CPU, 10**9)
    monkeypatch.setattr(compiling, "why_not", lambda device: "no compiler")
    assert not engine.compiles("auto", CPU, 10**9)


def test_without_a_compiler_the_reason_names_it(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX" in str(compiling.why_not(CPU))


def test_settings_of_torch_are_put_back():
    from torch._dynamo import config

    before, seen = config.trace_autograd_ops, []

    def fails():
        with compiling.compiling():
            seen.append(config.trace_autograd_ops)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (seen, config.trace_autograd_ops) == ([True], before)


# --- dials ------------------------------------------------------------------------------------


def test_dials_show_what_the_schedules_say():
    recipe = resolve("digits", {"objective.beta": {"name": "linear", "steps": 4}})
    rate = Cosine(start=1.0)
    dials = Dials([*moving(recipe.objective), rate], CPU)
    fixed = with_dials(recipe.objective, dials)
    beta, rate_dial = fixed.beta(Hidden()), dials.of(rate)
    for step in (0, 1, 3, 9):
        progress = Progress(1, 1, step, 10)
        dials.turn(progress)
        assert float(beta) == pytest.approx(recipe.objective.beta(progress))
        assert float(rate_dial) == pytest.approx(rate(progress))
    assert moving(ELBO(beta=4.0)) == []
    with pytest.raises(NotFixed, match=r"progress\.epoch"):
        _ = Hidden().epoch


def test_the_clock_inside_a_clock_stops_the_outer_one(tiny_recipe, monkeypatch):
    ticks = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    state = State(torch.nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)]), None, CPU)  # type: ignore[arg-type]
    with state.clock("train"), state.clock("compile"):
        pass
    assert state.seconds == {"compile": 3.0, "train": 7.0}


@pytest.mark.parametrize("name", [name for name in names("objective") if not name.startswith("test-")])
def test_every_objective_reads_its_schedules_from_dials(name, tiny_recipe):
    """What makes an objective compile and capture: `Hidden` raises where it looks at progress itself."""
    kind = lookup("objective", name)
    fields = [field for field, about in kind.model_fields.items() if about.annotation is Schedule]
    spec = kind(**dict.fromkeys(fields, Linear(start=0.5, end=2.0, steps=10)))
    dials = Dials(moving(spec), CPU)
    model = tiny_recipe().model.build((1, 8, 8))
    for step in (0, 4, 30):
        progress = Progress(1, 1, step, 40)
        dials.turn(progress)
        found = []
        for objective, now in ((spec, progress), (with_dials(spec, dials), Hidden())):
            torch.manual_seed(3)
            found.append(objective(model.draw(torch.rand(6, 1, 8, 8), spec.k), now))
        torch.testing.assert_close(found[0].loss_B, found[1].loss_B)


# --- on a GPU ---------------------------------------------------------------------------------


def on_cuda(tiny_recipe, tmp_path, name, **overrides):
    return api.train(
        tiny_recipe({"batch_size": 5, **MOVING, **overrides}), runs=tmp_path, name=name, device="cuda"
    )


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["off", "on"])
def test_captured_steps_on_a_gpu_train_like_the_cpu(tiny_recipe, tmp_path, how):
    run = on_cuda(tiny_recipe, tmp_path, how, compile=how, epochs=4)
    assert run.summary["steps_at_once"] == 16
    assert run.summary["compiled"] is (how == "on")
    plain = api.train(
        tiny_recipe({"batch_size": 5, **MOVING, "epochs": 4}), runs=tmp_path, name=f"cpu-{how}", device="cpu"
    )
    last, reference = run.history()[-1], plain.history()[-1]
    assert last["train"]["bound"] == pytest.approx(reference["train"]["bound"], rel=0.05)


@pytest.mark.gpu
def test_no_step_of_an_epoch_on_a_gpu_waits_for_it(tiny_recipe, tmp_path):
    def tell(event, row):
        if event == "epoch":  # from the second epoch on; the first warms up and records
            torch.cuda.set_sync_debug_mode("default")
        if event == "step" and row["batch"] > 1 and armed:
            torch.cuda.set_sync_debug_mode("error")
        if event == "epoch":
            armed.append(True)

    armed: list[bool] = []
    try:
        api.train(
            tiny_recipe({"batch_size": 5, "epochs": 3}), runs=tmp_path, name="quiet", device="cuda", tell=tell
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_a_loss_that_is_not_finite_in_a_captured_step_ends_the_run_as_one(tiny_recipe, tmp_path):
    with pytest.raises(TrainingFailed, match="not finite since batch"):
        on_cuda(tiny_recipe, tmp_path, "nan", **{"optimizer.lr": 1e30})


@pytest.mark.gpu
def test_graphs_outlive_garbage_collection(tiny_recipe, tmp_path):
    import gc

    def tell(event, row):
        if event == "step":
            gc.collect()

    run = api.train(
        tiny_recipe({"batch_size": 5, "compile": "on"}), runs=tmp_path, name="kept", device="cuda", tell=tell
    )
    assert math.isfinite(run.history()[-1]["train"]["total"])
    assert json.dumps(run.summary)
