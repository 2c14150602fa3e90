"""Random streams: fixed for a block, saved and put back."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def fixed_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with its own random stream and put the caller's back afterwards."""
    before = random_state(device)
    try:
        seed_streams(seed, device)
        yield
    finally:
        set_random_state(before, device)


def seed_streams(seed: int, device: torch.device) -> None:
    """Seed the CPU's stream and that of the device, and no other: `torch.manual_seed` would reset every GPU's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the generators' states, as tensors that a checkpoint can hold."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put back what `random_state` returned, as far as this device has it."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextlib.contextmanager
def as_found(device: torch.device) -> Iterator[None]:
    """Run a block in float32, and put the caller's random streams and default dtype back afterwards.

    The streams are torch's of the CPU and of the device, NumPy's and Python's. The block starts with them as they are.
    """
    dtype, streams = torch.get_default_dtype(), random_state(device)
    numpy_stream, python_stream = np.random.get_state(), random.getstate()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        set_random_state(streams, device)
        np.random.set_state(numpy_stream)
        random.setstate(python_stream)
