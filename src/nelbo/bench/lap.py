"""The record of one timed training of one side, and the counter of memory that is read around it."""

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
WINDOW = 10  # batches whose mean bound is held against a target: one lucky batch is no target reached


@dataclasses.dataclass(frozen=True, slots=True)
class Lap:
    """The numbers of one training.

    epochs           seconds of each timed epoch; the first is left out
    images           images an epoch
    precision        fp32 or bf16
    how              eager, compiled, captured: how the steps were run
    threads          CPU threads; None where the side does not say
    compile_seconds  spent on compilation, in none of the epochs
    target_seconds   training time until the target bound was passed; None when it was not, or none was given
    peak_mb          largest memory while it ran: of the process (CPU) or of torch's tensors (CUDA); None if unreadable
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
    notes: tuple[str, ...] = ()


def seconds_to_target(
    bounds: Sequence[Sequence[float]], seconds: Sequence[float], target: float | None
) -> float | None:
    """Return training seconds until the mean over `WINDOW` batches of the negative bound is at most `target` nats.

    bounds   of each epoch: the bound of each batch at beta 1, before that batch's step
    seconds  of each epoch; its steps count as equally long
    Until there are `WINDOW` batches the mean is over those there are. None when the target is not reached.
    """
    if target is None:
        return None
    recent: deque[float] = deque(maxlen=WINDOW)
    done = 0.0
    for row, epoch_seconds in zip(bounds, seconds, strict=True):
        for index, bound in enumerate(row, 1):
            recent.append(-bound)
            if math.fsum(recent) / len(recent) <= target:
                return done + epoch_seconds * index / len(row)
        done += epoch_seconds
    return None


class Memory:
    """The counter of the largest memory since it was made."""

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
        """Return the largest memory in MB, or None where the system cannot reset or tell it."""
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device) / 2**20)
        if self.device.type != "cpu" or not self.known:
            return None
        status = (PROCESS / "status").read_text(encoding="utf-8")  # VmHWM: the high-water mark
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
        return int(kilobytes) / 1024
