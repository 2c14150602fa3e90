"""The energy of a training: joules of each epoch, as far as this machine can tell.

    python benchmarks/energy.py [RECIPE ...] [--epochs 3] [--device cpu] [--data DIR]

Prints one JSON line a recipe, the first epoch left out. The counters are those of the whole processor or GPU, so that
nothing else may run. `nelbo bench` has no energy column: few machines let a program read these counters.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from nelbo import engine
from nelbo.training import api
from nelbo.training.events import Event, StepDone
from nelbo.training.recipe import resolve

POWERCAP = Path("/sys/class/powercap")


class Energy:
    """The joules of each epoch, by counters of the processor (RAPL) or the GPU (NVML); none where unreadable.

    The counter is read after the first and after the last reported step of an epoch, and scaled to all of its steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.read, self.source = _nvml(device) if device.type == "cuda" else _rapl()
        self.epochs: list[float] = []
        self._begun: tuple[int, float] | None = None

    def step(self, batch: int, batches: int) -> None:
        """Count one step: `batch` of `batches` is done."""
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
        """The joules of every epoch but the first, which warms up."""
        return tuple(self.epochs[1:])


def _rapl() -> tuple[Any, str]:
    """Return a function that gives joules since some moment, and its name; (None, why) where no counter is readable."""
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
        return None, f"the RAPL counters cannot be read ({error})"
    return read, "RAPL, all processor packages"


def _nvml(device: torch.device) -> tuple[Any, str]:
    """Return the same of the whole GPU."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:  # NVML's errors are no common type, and any of them only means no number
        return None, f"NVML does not tell ({type(error).__name__}: {error})"
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, "NVML, the whole GPU"


def of_recipe(recipe: str, epochs: int, device: str, data: Path) -> dict[str, Any]:
    """Train a recipe for some epochs and return the joules of each but the first."""
    energy = Energy(engine.pick_device(device))

    def tell(event: Event) -> None:
        if isinstance(event, StepDone):
            energy.step(event.batch, event.batches)

    with tempfile.TemporaryDirectory() as runs:
        plan = resolve(recipe, {"epochs": epochs, "patience": None})
        api.train(plan, runs=runs, name="energy", device=device, data_dir=data, tell=tell)
    return {"recipe": recipe, "source": energy.source, "joules_an_epoch": energy.timed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=["digits"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NELBO_DATA", "data")))
    options = parser.parse_args()
    for recipe in options.recipes:
        print(json.dumps(of_recipe(recipe, options.epochs, options.device, options.data)), flush=True)


if __name__ == "__main__":
    main()
