"""How a step runs: the one place that knows devices, precision and memory format."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from nelbo.errors import ConfigError, DeviceError

M = TypeVar("M", bound=nn.Module)
SMALL_STEP = 10_000_000  # batch x weights
Precision = Literal["fp32", "bf16"]


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA, then Apple MPS, then the CPU; raises DeviceError for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"--device {name!r} is not a device; use auto, cpu, cuda, cuda:N or mps") from None
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        have = [kind for kind in ("cpu", "cuda", "mps") if kind == "cpu" or there[kind]]
        if torch.cuda.is_available():
            have = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise DeviceError(
            f"--device {name}: this machine has no such device; it has {', '.join(have)}, or use auto"
        )
    return device


def place(model: M, device: torch.device) -> M:
    """Moves a model to its device; convolutions in channels-last, which is 10 % faster on a CPU."""
    model = model.to(device)
    if device.type == "cuda":  # fp32 means fp32: convolutions would otherwise round to ten bits
        torch.backends.cudnn.allow_tf32 = False
    if any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules()):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


@contextlib.contextmanager
def threads_for(model: nn.Module, images: int, device: torch.device) -> Iterator[int]:
    """One CPU thread for steps so small that a second one only waits; gives the number of threads.

    Without convolutions a step costs about images x weights multiplications. Under some ten million it is
    faster on one thread, and far faster when another program has the other core: threads meet several hundred
    times a step, and each meeting then waits for the scheduler.
    """
    before = torch.get_num_threads()
    convolutions = any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules())
    work = images * sum(p.numel() for p in model.parameters())
    if device.type == "cpu" and not convolutions and work < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def check_precision(device: torch.device, precision: Precision) -> None:
    """Raises ConfigError for a precision that the device does not have."""
    if precision == "bf16" and device.type == "mps":
        raise ConfigError("precision bf16 is supported on cpu and cuda; use --precision fp32 on mps")


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """bf16 arithmetic in the networks; distributions and losses stay in float32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def fixed_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Runs a block with its own random stream and puts the caller's back afterwards."""
    before = random_state(device)
    try:
        seed_streams(seed, device)
        yield
    finally:
        set_random_state(before, device)


def seed_streams(seed: int, device: torch.device) -> None:
    """Seeds the CPU's stream and that of the device, and no other: `torch.manual_seed` would reset every GPU's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or SIGTERM) sets instead of raising; a second Ctrl-C raises at once.

    Only the main thread may handle signals; elsewhere the event is simply never set.
    """
    event = threading.Event()

    def request(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The generators' states, as tensors that a checkpoint can hold."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Puts back what `random_state` returned, as far as this device has it."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def synchronise(device: torch.device) -> None:
    """Waits for the device, so that a clock read next is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device | None = None) -> dict[str, Any]:
    """Versions and hardware, for `env.json` and `nelbo env`."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {},
    }
    for package in ("nelbo", "torch", "numpy", "pydantic", "scikit-learn", "matplotlib"):
        with contextlib.suppress(PackageNotFoundError):
            found["packages"][package] = version(package)
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if device is not None:
        found["device"] = str(device)
    commit = _git_commit()
    return found | ({"git": commit} if commit else {})


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of the package's own checkout, with `+changes` when its files differ from it."""
    folder = Path(__file__).resolve().parent
    run = ["git", "-C", str(folder)]
    try:
        tracked = subprocess.run(
            [*run, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=5
        )
        if tracked.returncode:  # an installed copy inside somebody else's repository
            return None
        head = subprocess.run(
            [*run, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5
        )
        dirty = subprocess.run(
            [*run, "status", "--porcelain", "--", "."], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def command_line() -> str:
    """The command that started this process, as a person would type it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
