"""Guards of speed that count instead of timing: operations a step, waits for the device, tensors that stay.

A count is the same on every machine and under every load. When one of these fails, a step has come to do more than it
did: find out why, and raise a budget only for something that is worth its time in every step of every run.
"""

from __future__ import annotations

import collections
import gc
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from methods import every, recipe_of
from torch.utils._python_dispatch import TorchDispatchMode

from nelbo.engine.compiling import why_not
from nelbo.objectives import ELBO
from nelbo.training import api, events
from nelbo.training.recipe import resolve
from tests.conftest import recipes

# Operations that torch dispatches in one eager float32 step, the next batch included: the count, and two more. Recipes
# without an entry have no budget; their steps are all required to do the same number.
OPERATIONS = {
    "conv-bn-128": 129,
    "digits": 80,
    "factor-vae": 147,
    "hierarchical-vae": 158,
    "iaf": 214,
    "iwae": 106,
    "vamp-prior": 181,
    "vq-vae": 149,
}
BATCH = 8
# What the CPU can show of waiting for a device: these read a tensor's numbers, or need them for a shape.
WAITING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
READING = ("item", "tolist", "numpy", "cpu", "__array__")


class Enough(Exception):
    """As many steps as were asked for."""


class Operations(TorchDispatchMode):
    """Counts what torch dispatches, by name; views cost next to nothing and are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.namespace == "aten" and "record_function" not in func.name():
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def train(
    name: str, tmp_path: Any, tell: Callable[[str, dict[str, Any]], None], steps: int = 6, **more: Any
) -> None:
    """Trains a recipe on noise of its images' shape, in batches of 8; `tell` may end it with Enough."""
    recipe = recipe_of(name)
    shape = api.shape_without_loading(recipe)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (steps * BATCH, *shape), dtype=torch.uint8, generator=generator)
    overrides = {"data.validation": None, "batch_size": BATCH, "precision": "fp32", "compile": "off", **more}
    device = overrides.pop("device", "cpu")
    try:
        api.train(
            resolve(recipe, overrides), data=images, runs=tmp_path, name="counted", device=device,
            overwrite=True, tell=tell,
        )  # fmt: skip
    except Enough:
        return


def operations(name: str, tmp_path: Any) -> list[collections.Counter[str]]:
    """What each step of an epoch dispatched, the first one (which also builds) left out."""
    found: list[collections.Counter[str]] = []
    mode = Operations()

    def tell(event: events.Event) -> None:
        if isinstance(event, events.StepDone):
            found.append(mode.counts)
            mode.counts = collections.Counter()
            if event.batch == event.batches:
                raise Enough

    with mode:
        train(name, tmp_path, tell)
    return found[1:]


@contextmanager
def planted(monkeypatch: pytest.MonkeyPatch, act: Callable[[Any], None]) -> Iterator[None]:
    """An objective that also does `act` with what it returns, in every step."""
    honest = ELBO.__call__

    def call(self: ELBO, draw: Any, progress: Any) -> Any:
        terms = honest(self, draw, progress)
        act(terms)
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(ELBO, "__call__", call)
        yield


# --- operations a step ------------------------------------------------------------------------


def check_operations(name: str, tmp_path: Any) -> None:
    counts = operations(name, tmp_path)
    totals = [sum(count.values()) for count in counts]
    assert len(set(totals)) == 1, f"{name}: steps differ in their number of operations, {totals}"
    budget = OPERATIONS.get(name, math.inf)
    assert totals[0] <= budget, (
        f"{name}: a step dispatches {totals[0]} operations, and {budget} are budgeted. Find what came to it "
        f"in this list, and change OPERATIONS only if it is worth its time in every step: {dict(counts[-1])}"
    )


@pytest.mark.parametrize("name", recipes())
def test_operations_of_a_step_stay_within_their_budget(name, tmp_path):
    check_operations(name, tmp_path)


def test_one_operation_more_is_noticed(tmp_path, monkeypatch):
    def more(terms):
        for _ in range(3):
            _ = terms.loss_B.detach() + 1

    with planted(monkeypatch, more), pytest.raises(AssertionError, match="operations, and"):
        check_operations("digits", tmp_path)


# --- waiting ----------------------------------------------------------------------------------


def waits(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """How often an epoch, from its first step to its last, reads a number from a tensor."""
    mode, read = Operations(), collections.Counter[str]()
    found: collections.Counter[str] = collections.Counter()

    def counting(method: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, method)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            read[method] += 1
            return original(self, *args, **kwargs)

        return call

    def tell(event: events.Event) -> None:
        if isinstance(event, events.StepDone) and event.batch == 1:
            mode.counts.clear()
            read.clear()
        if isinstance(event, events.StepDone) and event.batch == event.batches:
            found.update({key: n for key, n in mode.counts.items() if key in WAITING})
            found.update(read)
            raise Enough

    with monkeypatch.context() as patch, mode:
        for method in READING:
            patch.setattr(torch.Tensor, method, counting(method))
        train(name, tmp_path, tell, steps=12)
    return found


@pytest.mark.parametrize("name", recipes())
def test_an_epoch_reads_no_number_from_the_device(name, tmp_path, monkeypatch):
    assert waits(name, tmp_path, monkeypatch) == {}, (
        "a step waits: keep the number on the device until the epoch ends"
    )


READERS = {
    "item": lambda terms: terms.loss_B.sum().item(),
    "float": lambda terms: float(terms.loss_B.detach().sum()),
    "bool": lambda terms: bool(terms.loss_B.sum() > 0),
    "tolist": lambda terms: terms.loss_B.tolist(),
    "numpy": lambda terms: terms.loss_B.detach().numpy(),
    "mask": lambda terms: terms.loss_B.detach().masked_select(terms.loss_B > 0),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_number_that_is_read_is_noticed(reader, tmp_path, monkeypatch):
    with planted(monkeypatch, READERS[reader]):
        found = waits("digits", tmp_path, monkeypatch)
    assert found.total() >= 9, f"once in each step: {found}"


# --- what stays -------------------------------------------------------------------------------

KEPT_A_STEP = 1  # the sums of what a step measured, read when the epoch ends


def live() -> int:
    """Blocks of memory that some tensor holds which was made since `gc.freeze`."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.device.type == "cpu"})


def check_nothing_stays(name: str, tmp_path: Any) -> None:
    """Tensors and Python memory of epochs 3 and 5 at the same step, and of steps 10 and 60 of one epoch."""
    tensors: dict[tuple[int, int], int] = {}
    traced: dict[int, int] = {}
    epoch = 1

    def tell(event: events.Event) -> None:
        nonlocal epoch
        if isinstance(event, events.EpochDone):
            epoch = event.row["epoch"] + 1
        if isinstance(event, events.StepDone) and epoch in (3, 5) and event.batch in (10, 60):
            tensors[epoch, event.batch] = live()
            if event.batch == 60:
                traced[epoch] = tracemalloc.get_traced_memory()[0]
                if epoch == 5:
                    raise Enough

    gc.collect()
    gc.freeze()  # what other tests left, a compiler's tensors without memory among it, is not ours to count
    tracemalloc.start(1)
    try:
        train(name, tmp_path, tell, steps=80)
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    growth = tensors[3, 60] - tensors[3, 10]
    assert growth <= 50 * KEPT_A_STEP, (
        f"{name}: {growth} tensors more after 50 steps; {50 * KEPT_A_STEP} are measurements"
    )
    assert tensors[5, 60] == tensors[3, 60], f"{name}: tensors stay from epoch to epoch, {tensors}"
    # Python's and torch's own caches still fill: 4 to 25 kB here; half a kilobyte a step would be 70.
    assert traced[5] - traced[3] < 60_000, (
        f"{name}: {traced[5] - traced[3]} bytes of Python stay over two epochs"
    )


# Of shapes slow: the loop that keeps tensors is the same at the digits, which run by default.
@pytest.mark.parametrize("name", ["digits", pytest.param("shapes", marks=pytest.mark.slow)])
def test_nothing_stays_after_a_step_but_what_it_measured(name, tmp_path):
    check_nothing_stays(name, tmp_path)


def test_a_tensor_that_stays_is_noticed(tmp_path, monkeypatch):
    kept: list[Any] = []
    with (
        planted(monkeypatch, lambda terms: kept.append(terms.bound_B.detach())),
        pytest.raises(AssertionError, match="tensors more"),
    ):
        check_nothing_stays("digits", tmp_path)


def test_memory_that_stays_is_noticed(tmp_path, monkeypatch):
    kept: list[bytes] = []
    with (
        planted(monkeypatch, lambda terms: kept.append(bytes(500))),
        pytest.raises(AssertionError, match="bytes of Python"),
    ):
        check_nothing_stays("digits", tmp_path)


# --- starting ---------------------------------------------------------------------------------

START = """
import sys
from nelbo.training import api
api.train("digits", overrides={"epochs": 1, "compile": sys.argv[1]}, runs="runs", device="cpu")
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize(
    ("how", "imported"),
    # tests/test_stepping.py compiles by default; here it shows that the test can fail
    [("off", "False"), pytest.param("on", "True", marks=pytest.mark.slow)],
)
def test_a_run_that_compiles_nothing_does_not_wait_for_the_compiler(how, imported, tmp_path):
    """torch's compiler takes longer to import than torch itself; a checkpoint must not import it either."""
    if how == "on" and (reason := why_not(torch.device("cpu"))):
        pytest.skip(f"nothing can be compiled here: {reason}")
    done = subprocess.run(
        [sys.executable, "-c", START, how], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == imported


# --- on a GPU ---------------------------------------------------------------------------------

LAUNCHES = 4  # kernels and graphs a step that the host launches, at most


@pytest.mark.gpu
@pytest.mark.parametrize("name", every())
def test_a_gpu_is_never_waited_for(name, tmp_path):
    """torch raises at whatever waits for the device between the first and the last step of the second epoch."""
    epoch = 1

    def tell(event: events.Event) -> None:
        nonlocal epoch
        if isinstance(event, events.EpochDone):
            epoch += 1
        if isinstance(event, events.StepDone) and epoch == 2:
            torch.cuda.set_sync_debug_mode("default" if event.batch == event.batches else "error")

    try:
        train(name, tmp_path, tell, steps=64, device="cuda", epochs=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_a_number_read_from_a_gpu_is_noticed(tmp_path, monkeypatch):
    """An objective that reads one cannot be captured; launched kernel by kernel, it waits in every step."""
    with planted(monkeypatch, READERS["item"]), pytest.raises(Exception, match="synchroniz"):
        test_a_gpu_is_never_waited_for("digits", tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", every())
def test_a_gpu_allocates_nothing_after_warming_up(name, tmp_path):
    """No new segment of device memory after the second epoch."""
    segments = []

    def tell(event: events.Event) -> None:
        if isinstance(event, events.EpochDone):
            segments.append(torch.cuda.memory_stats()["segment.all.allocated"])

    train(name, tmp_path, tell, steps=64, device="cuda", epochs=4, latent_every=0)
    assert segments[3] == segments[1]


@pytest.mark.gpu
@pytest.mark.parametrize("name", every())
def test_a_gpu_gets_few_launches_a_step(name, tmp_path):
    from torch.profiler import ProfilerActivity, profile

    profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    done = {"epoch": 1, "steps": 0}

    def tell(event: events.Event) -> None:
        if isinstance(event, events.EpochDone):
            done["epoch"] += 1
        elif isinstance(event, events.StepDone) and done["epoch"] == 3:
            if not done["steps"]:
                done["steps"] = event.batch
                profiler.start()
            elif event.batch == event.batches:
                profiler.stop()
                done["steps"] = event.batch - done["steps"]
                raise Enough

    train(name, tmp_path, tell, steps=320, device="cuda", epochs=3)
    launched = sum(event.count for event in profiler.key_averages() if "Launch" in event.key)
    assert 0 < launched <= LAUNCHES * done["steps"], f"{launched} launches in {done['steps']} steps"
