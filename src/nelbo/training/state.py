"""The state of training: all that it needs to go on exactly where it stopped."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from nelbo import engine
from nelbo.core.layout import Execution
from nelbo.data import Batches
from nelbo.metrics import Means
from nelbo.models import BuiltModel
from nelbo.objectives import Owner
from nelbo.optim import WeightAverage
from nelbo.training.recipe import Recipe


@dataclasses.dataclass
class State:
    """Weights, optimiser, random streams and counters. `own` is the module of an objective that owns one; `batch`
    counts batches done within `epoch`; `how` says how a step was run, for the summary."""

    model: BuiltModel
    optimizer: torch.optim.Optimizer
    average: WeightAverage[BuiltModel] | None
    device: torch.device
    own: nn.Module | None = None
    epoch: int = 1
    batch: int = 0
    step: int = 0
    best_bound: float | None = None
    best_epoch: int = 0
    images: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    means: Means = dataclasses.field(default_factory=Means)
    threads: int = 1
    how: Execution = dataclasses.field(default_factory=lambda: Execution())
    _inner: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def fresh(cls, recipe: Recipe, shape: tuple[int, int, int], device: torch.device) -> Self:
        """Everything as the recipe's seed initialises it."""
        torch.manual_seed(recipe.seed)
        model, own = engine.place(recipe.model.build(shape), device), None
        optimizer = recipe.optimizer.build(model.parameters())
        if isinstance(recipe.objective, Owner):
            with engine.fixed_seed(recipe.seed, device):  # the model's noise is what it is without
                own = recipe.objective.build(model.latent_dim, shape).to(device)
            if weights := list(own.parameters()):
                optimizer.add_param_group({"params": weights, **recipe.objective.critic_settings()})
        return cls(model, optimizer, WeightAverage(model, recipe.ema) if recipe.ema else None, device, own)

    def train(self, mode: bool) -> None:
        """Switch the model, and what the objective owns, between training and evaluation."""
        for module in (self.model, self.own):
            if module is not None:
                module.train(mode)

    def prepare_for_evaluation(self) -> Self:
        """Before measuring and saving: evaluation mode, and a prior made of training images brought up to date."""
        self.train(False)
        self.evaluated.refresh()
        return self

    def observe_training_images(self, images: Batches) -> None:
        """Show the training images to the models."""
        for model in [self.model, *([self.average.module] if self.average else [])]:
            model.observe_training_images(images)

    @property
    def evaluated(self) -> BuiltModel:
        """The module that is measured and kept: the averaged weights where there are any."""
        return self.average.module if self.average else self.model

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Add a block's wall time to one of the clocks; a clock inside a clock stops the outer one."""
        begun = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self.seconds[what] = self.seconds.get(what, 0.0) + spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    @property
    def healthy(self) -> bool:
        """True if losses and weights are finite; checked before anything is saved. Waits for the device."""
        parameters = [*self.model.parameters(), *(self.own.parameters() if self.own else ())]
        weights = torch.stack([parameter.detach().isfinite().all() for parameter in parameters])
        return bool(weights.all()) and all(map(math.isfinite, self.means.per_batch("total")))

    def what_diverged(self) -> str:
        """A sentence on the first batch of this epoch whose loss is not finite, and the ways out."""
        losses = self.means.per_batch("total")
        bad = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
        kept = (
            f"the checkpoint of epoch {self.epoch - 1} is kept" if self.epoch > 1 else "no epoch was finished"
        )
        return (
            f"the loss or a weight is not finite since batch {bad + 1} of {len(losses)} in epoch {self.epoch}; {kept}. "
            "Try a lower learning rate (--optimizer.lr), --clip-norm 1, "
            "or --model.posterior.parametrisation log-variance"
        )

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything as named tensors and plain values, ready for a checkpoint."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        if self.average:
            tensors |= {f"average.{key}": value for key, value in self.average.module.state_dict().items()}
        if self.own:
            tensors |= {f"own.{key}": value for key, value in self.own.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        tensors |= {f"random.{key}": value for key, value in engine.random_state(self.device).items()}
        if self.means.pieces:
            tensors["means.sums"] = self.means.table()
        about = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "best_bound": self.best_bound,
            "best_epoch": self.best_epoch,
            "images": self.images,
            "seconds": self.seconds,
            "means": {"names": self.means.names, "counts": self.means.counts},
        }
        return tensors, about

    def unpack(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Put back what `pack` returned."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, rest = key.partition(".")
            groups.setdefault(kind, {})[rest] = value
        self.model.load_state_dict(groups["model"])
        if self.average:
            self.average.module.load_state_dict(groups["average"])
        if self.own:
            self.own.load_state_dict(groups.get("own", {}))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in groups.get("optimizer", {}).items():
            index, _, slot = key.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        fresh = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": slots, "param_groups": fresh["param_groups"]})
        # Fused kernels walk weights and slots side by side in memory, so a slot takes its weight's layout
        # (channels-last); a checkpoint holds it row by row.
        for weight, slots_of_weight in self.optimizer.state.items():
            for slot, value in slots_of_weight.items():
                if value.shape == weight.shape:
                    slots_of_weight[slot] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
        for counter in ("epoch", "batch", "step", "best_bound", "best_epoch", "images", "seconds"):
            setattr(self, counter, about[counter])
        self.means = Means()
        self.means.names, self.means.counts = about["means"]["names"], about["means"]["counts"]
        if "means" in groups:
            self.means.pieces = [groups["means"]["sums"].float().to(self.device)]
        engine.set_random_state(groups["random"], self.device)
