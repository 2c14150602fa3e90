"""A step gives the same numbers whichever way it is run: as it is, compiled, or recorded and replayed in blocks.

The recorder that replays CUDA graphs has a stand-in here that needs no GPU: it runs the recorded function again, in
the same buffers. What it cannot show, real capture and real asynchrony, is in the tests marked `gpu`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import signal
import subprocess
import tempfile
import weakref
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nelbo import engine
from nelbo.cli import console
from nelbo.core import Progress, Terms
from nelbo.core.registry import lookup, names
from nelbo.data import Batches
from nelbo.engine import capturing, compiling, stepping
from nelbo.engine.dials import Dials, Hidden, NotFixed, moving, with_dials
from nelbo.errors import Interrupted, TrainingFailed
from nelbo.metrics import Means
from nelbo.objectives import ELBO
from nelbo.optim import FusedAdam, WeightAverage
from nelbo.schedules import Cosine, Linear, Schedule
from nelbo.testing.trials import called
from nelbo.training import api, events
from nelbo.training.recipe import resolve
from nelbo.training.state import State
from nelbo.training.step import contiguous, make_step

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

    axis: ClassVar[str] = ""  # known to this file alone

    def __call__(self, draw, progress) -> Terms:
        assert progress.step >= 0
        return super().__call__(draw, progress)


class Counter(ELBO):
    """Counts its calls, which a compiler takes for a fixed number each time."""

    axis: ClassVar[str] = ""  # known to this file alone
    calls: ClassVar[list[int]] = [0]

    def __call__(self, draw, progress) -> Terms:
        self.calls[0] += 1
        return super().__call__(draw, progress)


class Copier(ELBO):
    """Brings a number from the host."""

    axis: ClassVar[str] = ""  # known to this file alone

    def __call__(self, draw, progress) -> Terms:
        terms = super().__call__(draw, progress)
        return Terms(terms.loss_B * torch.tensor(2.0).to(terms.loss_B.device), terms.bound_B, terms.parts)


class Waiter(ELBO):
    """Reads a number from the device."""

    axis: ClassVar[str] = ""  # known to this file alone

    def __call__(self, draw, progress) -> Terms:
        assert draw.log_px_KB.detach().sum().item() < 0
        return super().__call__(draw, progress)


class Rerun:
    """Records a function by remembering it, and undoes what running it once for its outputs has changed."""

    made: ClassVar[list[Rerun]] = []

    def __init__(self, state: State) -> None:
        self.state = state
        self.replays = 0
        Rerun.made.append(self)

    def record(self, function):
        assert not gc.isenabled(), "a graph that is collected now would end a recording"
        slots = [value for slots in self.state.optimizer.state.values() for value in slots.values()]
        average = self.state.average.module.state_dict().values() if self.state.average else []
        owned = self.state.critic.state_dict().values() if self.state.critic else []
        tensors = [
            *self.state.model.state_dict().values(),
            *slots,
            *average,
            *owned,
        ]  # with running statistics
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


class Watching(TorchDispatchMode):
    """Notes every operation of what is recorded that has to do with a tensor on the host."""

    seen: ClassVar[list[str]] = []

    def __init__(self, state: State) -> None:
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor)}
        if devices - {"meta"}:
            self.seen.append(str(func))
        return found

    def record(self, function):
        with self:
            return function()

    def replay(self) -> None:
        pass


class Trainer:
    """The loop without files: a recipe's steps, with every number they give."""

    def __init__(self, recipe, recorder=None, device=CPU) -> None:
        splits = recipe.data.load()
        state = State.fresh(recipe, splits.shape, device)
        self.recipe, self.state, self.said = recipe, state, []
        self.batches = Batches(
            splits.train, splits.transforms, recipe.batch_size, device=device, shuffle_seed=0, training=True
        )
        state.observe_training_images(self.batches)
        made = (lambda device: recorder(state)) if recorder else None
        self.step = make_step(recipe, self.state, self.batches, self.said.append, recorder=made)

    def run(self, epochs: int) -> torch.Tensor:
        means = Means()
        done, total = 0, self.recipe.epochs * len(self.batches)
        self.state.train(True)
        torch.manual_seed(1)
        with self.step.running():
            for epoch in range(1, epochs + 1):
                for rows in self.batches.rows(epoch, at_once=self.step.at_once):
                    n = -(-len(rows) // self.recipe.batch_size)
                    images = self.batches.n
                    moments = [Progress(epoch, self.recipe.epochs, done + i, total, images) for i in range(n)]
                    found = self.step(rows, moments)
                    means.add_sums(found.names, found.sums_SQ, found.counts)
                    done += n
        self.counts = means.counts
        if self.state.device.type == "meta":
            return torch.zeros(0)
        return means.table() / torch.tensor(means.counts)[:, None]

    def weights(self) -> torch.Tensor:
        """Without biases: before a batch norm theirs have no gradient but rounding, which Adam blows up."""
        module = self.state.evaluated
        return torch.cat([weight.detach().flatten() for weight in module.parameters() if weight.dim() > 1])


@pytest.fixture
def train(tiny_recipe, tmp_path):
    """(overrides, name, tell) -> a finished run under tmp_path."""

    def go(overrides, name="run", tell=events.quiet):
        return api.train(tiny_recipe(overrides), runs=tmp_path, name=name, device="cpu", tell=tell)

    return go


def ctrl_c(after):
    """Hears of steps, and presses Ctrl-C at one of them."""
    seen: list[int] = []

    def tell(event):
        if isinstance(event, events.StepDone):
            seen.append(event.batch)
            if len(seen) == after:
                assert event.batch < event.batches
                signal.raise_signal(signal.SIGINT)

    return tell


@pytest.fixture
def shared_cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and torch as if nobody had said where compiled code goes."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # torch's own folder too: code that another processor setting left there may not load under this one
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("NELBO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(compiling.CODE, default_cache_dir())
    return tmp_path / "cache"


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
    alone, blocks = Trainer(tiny_recipe(overrides)), Trainer(tiny_recipe(overrides), recorder=Rerun)
    Rerun.made.clear()
    expected, found = alone.run(3), blocks.run(3)
    assert alone.counts == blocks.counts == 3 * [*19 * [5], 1]
    assert torch.allclose(expected, found, rtol=1e-5)
    assert torch.allclose(alone.weights(), blocks.weights(), rtol=1e-4, atol=1e-5)
    assert blocks.said == []
    assert gc.isenabled()
    assert blocks.step.how == {"compiled": False, "steps_at_once": 16}
    # 60 batches: 3 to warm up, 3 short ones; the rest by one graph of 16 steps and one of a single step.
    single, block = Rerun.made
    assert block.replays == 2
    assert single.replays == 3 * 19 - 3 - 16 * block.replays


def test_what_cannot_be_recorded_is_said_once_and_runs_as_it_is(tiny_recipe):
    recipe = tiny_recipe({**MOVING, "batch_size": 5}).model_copy(
        update={"objective": Reader(beta=Linear(steps=50))}
    )
    alone, blocks = Trainer(recipe), Trainer(recipe, recorder=Rerun)
    assert torch.allclose(alone.run(2), blocks.run(2), rtol=1e-5)
    (said,) = blocks.said
    assert "progress.step" in said
    assert "CUDA graph" in said
    assert blocks.step.at_once == 1
    assert blocks.step.how["steps_at_once"] == 1
    rates = [float(group["lr"]) for group in blocks.state.optimizer.param_groups]
    assert rates == pytest.approx([recipe.optimizer.lr(Progress(2, 20, 39, 400))])


def test_a_schedule_that_comes_back_is_followed_between_blocks_too(tiny_recipe, monkeypatch):
    """The short last batch of each epoch is run alone, and its number is that of the one before."""
    monkeypatch.setattr(WeightAverage, "share", lambda self, now: 0.9 if now.step % 20 == 19 else 0.1)
    overrides = {"batch_size": 5, "ema": 0.9}
    alone, blocks = Trainer(tiny_recipe(overrides)), Trainer(tiny_recipe(overrides), recorder=Rerun)
    alone.run(3)
    blocks.run(3)
    assert torch.allclose(alone.weights(), blocks.weights(), rtol=1e-4, atol=1e-5)


def test_numbers_do_not_depend_on_which_steps_are_recorded(tiny_recipe, monkeypatch):
    """A run that goes on after an interruption warms up again: to the bit, with everything that moves."""
    recipe = tiny_recipe({**conv(), **MOVING, "batch_size": 5})
    found = []
    for warm_up in (3, 14, 10**9):
        monkeypatch.setattr(stepping, "WARM_UP", warm_up)
        trainer = Trainer(recipe, recorder=Rerun)
        found.append((trainer.run(2), trainer.weights()))
    for table, weights in found[1:]:
        assert torch.equal(table, found[0][0])
        assert torch.equal(weights, found[0][1])


@pytest.mark.parametrize(
    "variant",
    [
        {**conv(), **MOVING},
        {"objective.kl": "monte-carlo", "objective.k": 3},
        {"objective.free_bits": 0.1},
        {"model.likelihood": "categorical"},
        {"model.likelihood": "continuous-bernoulli"},
        {"model.likelihood": "discretised-logistic"},
        {"model.likelihood": "discretised-logistic-mixture"},
        {"model.likelihood": "laplace", "model.likelihood.scale": "per-pixel"},
        {"model.likelihood": "gaussian", "model.likelihood.sigma": "learned"},
        {"model.likelihood": "gaussian", "model.likelihood.sigma": "optimal"},
        {"model.posterior.parametrisation": "tanh", "model.posterior.noise": "shared"},
    ],
)
def test_what_is_recorded_touches_nothing_on_the_host(tiny_recipe, variant, monkeypatch):
    """A CUDA graph cannot copy from ordinary memory, nor read a number: a device without data shows both."""
    overrides = {"batch_size": 5, "optimizer.lr": MOVING["optimizer.lr"], **variant}
    assert seen_on_the_host(tiny_recipe(overrides), monkeypatch) == []


@pytest.mark.parametrize("objective", [Copier(), Waiter()])
def test_what_touches_the_host_is_noticed(tiny_recipe, objective, monkeypatch):
    recipe = tiny_recipe({"batch_size": 5}).model_copy(update={"objective": objective})
    assert seen_on_the_host(recipe, monkeypatch) != []


def seen_on_the_host(recipe, monkeypatch) -> list[str]:
    """The operations on tensors of the host, and the failures, of a step that is recorded on another device."""

    def kernel(*lists, lr, **more):  # there is none for a device without data
        assert {tensor.device.type for tensor in tree_leaves(lists)} == {"meta"}
        assert isinstance(lr, float) or lr.device.type == "meta"

    monkeypatch.setattr(FusedAdam, "_kernel", staticmethod(kernel))
    monkeypatch.setattr(stepping, "WARM_UP", 0)
    monkeypatch.setattr(stepping, "STEPS_AT_ONCE", 4)  # each step of a block does what the others do
    Watching.seen.clear()
    trainer = Trainer(recipe, recorder=Watching, device=torch.device("meta"))
    try:
        trainer.run(1)
    except RuntimeError as error:  # as it is, without a recording, it fails on such a device as well
        Watching.seen.append(str(error))
    return Watching.seen + trainer.said


def test_a_recording_that_fails_is_undone(monkeypatch):
    """With stand-ins for torch.cuda: its graph leaves its stream set when it cannot end the recording."""
    log: list[str] = []

    @contextlib.contextmanager
    def entered(name, left=True):
        log.append(f"+{name}")
        try:
            yield
        finally:
            log.append(f"-{name}" if left else "!")
        if not left:
            raise RuntimeError("a previous error")

    def graph(made, stream, capture_error_mode):
        assert (stream, capture_error_mode) == ("side", "thread_local")
        return entered("graph", left=False)

    generator = SimpleNamespace(clone_state=lambda: "as it was", graphsafe_set_state=log.append)
    stand_ins = {
        "CUDAGraph": object,
        "synchronize": lambda device: None,
        "current_device": lambda: 1,
        "default_generators": (None, generator),
        "device": lambda device: entered("device"),
        "stream": entered,
        "graph": graph,
    }
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(capturing, "_side_stream", lambda index: "side")
    with pytest.raises(RuntimeError, match="previous"):
        capturing.CUDARecorder(torch.device("cuda")).record(lambda: log.append("recorded"))
    assert log == ["+device", "+side", "+graph", "recorded", "!", "-side", "as it was", "-device"]


def test_graphs_are_let_go_when_a_run_ends(tiny_recipe):
    """Without waiting for a collection of garbage, which knows nothing of a GPU's memory."""
    Rerun.made.clear()
    trainer = Trainer(tiny_recipe({"batch_size": 5}), recorder=Rerun)
    trainer.run(2)
    for made in Rerun.made:
        del made.function  # a CUDA graph does not hold it
    Rerun.made.clear()
    step, model = weakref.ref(trainer.step), weakref.ref(trainer.state.model)
    gc.disable()
    try:
        del trainer, made
        assert step() is None
        assert model() is None
    finally:
        gc.enable()


# --- compilation ------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize(
    "variant",
    [MOVING, pytest.param({**conv(), "model.likelihood": "gaussian"}, marks=pytest.mark.slow)],
)
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


@compiled
def test_one_run_does_not_take_another_s_compiled_code(tiny_recipe):
    graphs = []
    with torch._dynamo.config.patch(recompile_limit=1):
        first, second = (Trainer(tiny_recipe({"compile": "on", "model.latent_dim": n})) for n in (2, 4))
        for trainer in (first, second, first, second):
            trainer.run(1)
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert first.said == second.said == []
    assert graphs[2:] == [graphs[1]] * 2


@compiled
def test_a_step_that_has_to_be_compiled_again_and_again_runs_as_it_is(tiny_recipe):
    recipe = tiny_recipe({"compile": "on"}).model_copy(update={"objective": Counter()})
    plain, fast = Trainer(recipe.model_copy(update={"compile": "off"})), Trainer(recipe)
    with torch._dynamo.config.patch(recompile_limit=1):
        found = fast.run(2)
    assert torch.allclose(plain.run(2), found, rtol=1e-4)
    (said,) = fast.said
    assert "could not be compiled" in said
    assert not fast.step.how["compiled"]


@pytest.fixture
def foreground():
    """As at a terminal: what a shell starts in the background ignores it, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_compiler_does_not_hear_ctrl_c(monkeypatch, foreground):
    """It ends a child process that hears it, and then a step would seem one that cannot be compiled."""
    heard = ["sh", "-c", "kill -INT $$"]
    monkeypatch.setattr(compiling, "why_not", lambda device: None)
    monkeypatch.setattr(torch, "compile", lambda function, **more: lambda: subprocess.run(heard).returncode)
    step = compiling.Compiled(lambda: -1, CPU)
    assert step() == 0
    assert step() < 0, "once compiled, nothing is kept from anybody"


@compiled
def test_compiled_code_is_kept_in_the_cache_folder(tiny_recipe, shared_cache):
    Trainer(tiny_recipe({"compile": "on", "model.latent_dim": 7})).run(
        1
    )  # torch remembers what it has loaded
    assert list(shared_cache.glob("compiled/*/**/*.so"))


@compiled
def test_a_cache_folder_that_cannot_be_written_is_done_without(tiny_recipe, shared_cache):
    shared_cache.write_text("no folder")
    fast = Trainer(tiny_recipe({"compile": "on"}))
    fast.run(1)
    assert fast.said == []
    assert fast.step.how["compiled"]


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
def test_whoever_waits_for_the_compiler_is_told(train, capsys):
    for how, said in (("on", True), ("off", False)):
        train({"compile": how, "epochs": 1}, name=how, tell=console.Training(1))
        assert ("compiling the training step" in capsys.readouterr().err) is said


@compiled
def test_a_loss_that_is_not_finite_in_a_compiled_step_ends_the_run_as_one(train):
    with pytest.raises(TrainingFailed, match="not finite since batch"):
        train({"compile": "on", "optimizer.lr": 1e30, "epochs": 2})


@compiled
def test_a_compiled_run_goes_on_bit_for_bit(train, tiny_recipe):
    """From the middle of an epoch. Also checks what the summary says."""
    whole = train({"compile": "on", **MOVING, "epochs": 4}, name="whole")
    with pytest.raises(Interrupted):
        train({"compile": "on", **MOVING, "epochs": 4}, name="parts", tell=ctrl_c(after=5))
    parts = train({"compile": "on", **MOVING, "epochs": 4}, name="parts")
    (left, _), (right, _) = whole.load("last"), parts.load("last")
    assert [key for key in left if not torch.equal(left[key], right[key])] == []
    assert whole.summary["compiled"] is True
    assert whole.summary["precision"] == "fp32"
    assert whole.summary["seconds"]["compile"] > whole.summary["seconds"]["train"] > 0


def test_auto_counts_steps_and_never_times(monkeypatch):
    plain, convolutions = torch.nn.Linear(1, 1), torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    monkeypatch.setattr(compiling, "why_not", lambda device: None)
    assert engine.compiles("auto", CPU, compiling.PAYS_FROM["cpu"], plain)
    assert not engine.compiles("auto", CPU, compiling.PAYS_FROM["cpu"] - 1, plain)
    assert engine.compiles("auto", CPU, compiling.CONVOLUTIONS_PAY_FROM["cpu"], convolutions)
    assert not engine.compiles("auto", CPU, compiling.CONVOLUTIONS_PAY_FROM["cpu"], plain)
    assert not engine.compiles("auto", torch.device("mps"), 10**9, convolutions)
    assert engine.compiles("on", CPU, 1, plain)
    assert not engine.compiles("off", CPU, 10**9, plain)
    monkeypatch.setattr(compiling, "why_not", lambda device: "no compiler")
    assert not engine.compiles("auto", CPU, 10**9, plain)


def test_without_a_compiler_the_reason_names_it(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX" in str(compiling.why_not(CPU))


def test_settings_of_torch_are_put_back():
    from torch._dynamo import config
    from torch._inductor import config as inductor

    def settings():
        return config.trace_autograd_ops, getattr(inductor, "use_fast_triton_launcher", False)

    before, seen = settings(), []

    def fails():
        with compiling.compiling():
            seen.append(settings())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (seen, settings()) == ([(True, False)], before)


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
            found.append(called(objective, model.draw(torch.rand(6, 1, 8, 8), spec.k), now))
        torch.testing.assert_close(found[0].loss_B, found[1].loss_B)


def test_gradients_that_share_memory_or_have_none_of_their_own_are_copied():
    a, b, w = (torch.zeros(4, requires_grad=True) for _ in range(3))
    unused = torch.zeros(2, requires_grad=True)
    loss = ((a + b) * torch.arange(4.0)).sum() + w.sum()
    parameters = [a, b, w, unused]
    found = contiguous(torch.autograd.grad(loss, parameters, allow_unused=True), parameters)
    assert found[3] is None
    for parameter, gradient in zip(parameters[:3], found[:3], strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, 1e9)
    a.grad.mul_(2.0)
    assert torch.equal(b.grad, torch.arange(4.0))
    assert torch.equal(a.grad, 2 * torch.arange(4.0))
    assert w.grad.stride() == (1,)
    assert torch.equal(w.grad, torch.ones(4))


# --- on a GPU ---------------------------------------------------------------------------------


def on_cuda(tiny_recipe, tmp_path, name, tell=events.quiet, **overrides):
    recipe = tiny_recipe({"batch_size": 5, **MOVING, **overrides})
    return api.train(recipe, runs=tmp_path, name=name, device="cuda", tell=tell)


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
    """With schedules that move, and the short last batch, which is no graph's."""
    armed: list[bool] = []

    def tell(event):
        if isinstance(event, events.EpochDone):  # from the second epoch on; the first warms up and records
            armed.append(True)
        if isinstance(event, events.StepDone) and armed:
            torch.cuda.set_sync_debug_mode("default" if event.batch == event.batches else "error")

    recipe = tiny_recipe({"batch_size": 5, **MOVING, "epochs": 3})
    try:
        api.train(recipe, runs=tmp_path, name="quiet", device="cuda", tell=tell)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(armed) == 3, "every epoch was heard"


@pytest.mark.gpu
def test_a_step_that_waits_for_a_gpu_is_not_recorded_and_runs_as_it_is(tiny_recipe):
    """Waiting ends a recording half-way: streams, random numbers and weights are as if there had been none."""
    before = torch.cuda.current_stream()
    recipe = tiny_recipe({"batch_size": 5, **MOVING})
    cuda = torch.device("cuda")
    alone = Trainer(recipe, device=cuda)
    waiting = Trainer(recipe.model_copy(update={"objective": Waiter(beta=Linear(steps=50))}), device=cuda)
    assert torch.allclose(alone.run(2), waiting.run(2), rtol=1e-4)
    (said,) = waiting.said
    assert "CUDA graph" in said
    assert "previous error" not in said, "it says what went wrong, not that something did"
    assert (alone.step.how["steps_at_once"], waiting.step.how["steps_at_once"]) == (16, 1)
    assert torch.cuda.current_stream() == before


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["off", "on"])
def test_a_run_on_a_gpu_goes_on_bit_for_bit(tiny_recipe, tmp_path, how):
    """It warms up and records again, from the middle of its second epoch."""
    more = {"compile": how, "epochs": 4}
    whole = on_cuda(tiny_recipe, tmp_path, "whole", **more)
    with pytest.raises(Interrupted):
        on_cuda(tiny_recipe, tmp_path, "parts", tell=ctrl_c(after=3), **more)
    parts = on_cuda(tiny_recipe, tmp_path, "parts", **more)
    (left, _), (right, _) = whole.load("last"), parts.load("last")
    assert [key for key in left if not torch.equal(left[key], right[key])] == []


@pytest.mark.gpu
def test_a_loss_that_is_not_finite_in_a_captured_step_ends_the_run_as_one(tiny_recipe, tmp_path):
    with pytest.raises(TrainingFailed, match="not finite since batch"):
        on_cuda(tiny_recipe, tmp_path, "nan", **{"optimizer.lr": 1e30})


@pytest.mark.gpu
def test_graphs_outlive_garbage_collection(tiny_recipe, tmp_path):
    def tell(event):
        if isinstance(event, events.StepDone):
            gc.collect()

    run = api.train(
        tiny_recipe({"batch_size": 5, "compile": "on"}), runs=tmp_path, name="kept", device="cuda", tell=tell
    )
    assert math.isfinite(run.history()[-1]["train"]["total"])
    assert json.dumps(run.summary)
