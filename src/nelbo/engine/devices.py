"""Devices, memory format and threads."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from nelbo.errors import DeviceError

M = TypeVar("M", bound=nn.Module)
SMALL_STEP = 10_000_000  # batch x weights


def pick_device(name: str = "auto") -> torch.device:
    """Return the device; `auto` is CUDA, then Apple MPS, then the CPU. Raises DeviceError for one that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"--device {name!r} is not a device; use auto, cpu, cuda, cuda:N or mps") from None
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    present = {"cpu": True, "cuda": (device.index or 0) < gpus, "mps": mps}
    if not present.get(device.type, False):
        have = ["cpu", *(f"cuda:{index}" for index in range(gpus)), *(["mps"] if mps and not gpus else [])]
        raise DeviceError(
            f"--device {name}: this machine has no such device; it has {', '.join(have)}, or use auto"
        )
    return device


def place(model: M, device: torch.device) -> M:
    """Move a model to its device; convolutions in channels-last, which is 10 % faster on a CPU."""
    model = model.to(device)
    if device.type == "cuda":  # fp32 means fp32: convolutions would otherwise round to ten bits
        torch.backends.cudnn.allow_tf32 = False
    if convolves(model):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def convolves(model: nn.Module) -> bool:
    """Return True if there are convolutions in it."""
    return any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules())


@contextlib.contextmanager
def threads_for(model: nn.Module, images: int, device: torch.device) -> Iterator[int]:
    """Use one CPU thread for steps so small that a second one only waits; give the number of threads."""
    # Without convolutions a step costs about images x weights multiplications. Under some ten million it is
    # faster on one thread, and far faster when another program has the other core: threads meet several hundred
    # times a step, and each meeting then waits for the scheduler.
    before = torch.get_num_threads()
    work = images * sum(p.numel() for p in model.parameters())
    if device.type == "cpu" and not convolves(model) and work < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def in_pieces(
    function: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device, at_once: int
) -> Tensor:
    """Return function(rows) as float32 on the CPU: `at_once` rows at a time, so that the device's memory is bounded."""
    pieces = torch.split(rows, at_once)
    return torch.cat([function(piece.to(device)).float().cpu() for piece in pieces])


def synchronise(device: torch.device) -> None:
    """Wait for the device, so that a clock read next is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
