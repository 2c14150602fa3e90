"""What one timed training of one side gives, and the counters read around it: memory and energy."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nelbo import engine

POWERCAP = Path("/sys/class/powercap")
PROCESS = Path("/proc/self")
WINDOW = 10  # batches whose mean bound is held against a target


@dataclasses.dataclass(frozen=True, slots=True)
class Lap:
    """One training.

    epochs           seconds of each timed epoch; the first is left out
    images           images an epoch
    precision        fp32 or bf16
    how              eager, compiled, captured: how the steps were run
    threads          CPU threads; None where the side does not say
    compile_seconds  spent on compilation, in none of the epochs
    target_seconds   training time until the target bound was passed; None when it was not, or none was given
    peak_mb          largest memory while it ran: of the process (CPU) or of torch's tensors (CUDA); None if unreadable
    joules           energy of each timed epoch; empty if unreadable
    notes            what it warned of: a step that could not be compiled, say
    """

    epochs: tuple[float, ...]
    images: int
    precision: str
    how: str = "eager"
    threads: int | None = None
    compile_seconds: float = 0.0
    target_seconds: float | None = None
    peak_mb: float | None = None
    joules: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def seconds_to_target(
    bounds: Sequence[Sequence[float]], seconds: Sequence[float], target: float | None
) -> float | None:
    """Training seconds until the mean over `WINDOW` batches of the negative bound is at most `target` nats an image.

    bounds   of each epoch: the bound of each batch at beta 1, before that batch's step
    seconds  of each epoch; its steps count as equally long
    Until there are `WINDOW` batches the mean is over those there are. None when the target is not reached.
    """
    if target is None:
        return None
    recent: list[float] = []
    done = 0.0
    for row, spent in zip(bounds, seconds, strict=True):
        for index, bound in enumerate(row, 1):
            recent = [*recent[1 - WINDOW :], -bound]
            if math.fsum(recent) / len(recent) <= target:
                return done + spent * index / len(row)
        done += spent
    return None


class Memory:
    """The largest memory since `__init__`, in MB."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:  # Linux: resets the process's high-water mark, which otherwise only grows from side to side
            (PROCESS / "clear_refs").write_text("5")
        except OSError:
            self.known = False

    def peak_mb(self) -> float | None:
        """None where the system cannot reset or tell it."""
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device) / 2**20)
        if self.device.type != "cpu" or not self.known:
            return None
        status = (PROCESS / "status").read_text(encoding="utf-8")
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
        return int(kilobytes) / 1024


class Energy:
    """Joules of each epoch, by counters that the processor (RAPL) or the GPU (NVML) keeps; none where unreadable.

    Read after the first and after the last step of an epoch that are heard of, and scaled to all of its steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.read, self.source = _nvml(device) if device.type == "cuda" else _rapl()
        self.epochs: list[float] = []
        self._begun: tuple[int, float] | None = None

    def step(self, batch: int, batches: int) -> None:
        """Hears that `batch` of `batches` is done."""
        if self.read is None or (self._begun is not None and batch < batches):
            return
        if self._begun is None:
            self._begun = batch, self.read()
            return
        engine.synchronise(self.device)
        first, before = self._begun
        self.epochs.append((self.read() - before) * batches / max(1, batch - first))
        self._begun = None

    @property
    def timed(self) -> tuple[float, ...]:
        """Every epoch but the first."""
        return tuple(self.epochs[1:])


def _rapl() -> tuple[Any, str]:
    """A function that gives joules since some moment, and its name; (None, why) where no counter can be read."""
    packages = [file for file in sorted(POWERCAP.glob("intel-rapl:*")) if file.name.count(":") == 1]
    if not packages:
        return None, "no RAPL counters here"
    last = dict.fromkeys(packages, 0)
    total = dict.fromkeys(packages, 0)

    def read() -> float:
        for package in packages:
            now = int((package / "energy_uj").read_text())
            step = now - last[package]
            if step < 0:  # the counter went round
                step += int((package / "max_energy_range_uj").read_text())
            last[package] = now
            total[package] += step
        return sum(total.values()) / 1e6

    try:
        read()
    except (OSError, ValueError) as error:
        return None, f"the RAPL counters cannot be read ({getattr(error, 'strerror', None) or error})"
    return read, "RAPL, all processor packages"


def _nvml(device: torch.device) -> tuple[Any, str]:
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:  # NVML's errors are no common type, and any of them only means no number
        return None, f"NVML does not tell ({type(error).__name__}: {error})"
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, "NVML, the whole GPU"
