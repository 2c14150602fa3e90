"""The state of training: all that it needs to go on exactly where it stopped."""

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
    """The weights, the optimiser, the random streams and the counters of a training.

    critic      the module of an objective that owns one
    batch       batches done within `epoch`
    execution   the way that steps are run, for the summary
    """

    model: BuiltModel
    optimizer: torch.optim.Optimizer
    average: WeightAverage[BuiltModel] | None
    device: torch.device
    critic: nn.Module | None = None
    epoch: int = 1
    batch: int = 0
    step: int = 0
    best_bound: float | None = None
    best_epoch: int = 0
    images: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    means: Means = dataclasses.field(default_factory=Means)
    threads: int = 1
    execution: Execution = dataclasses.field(default_factory=lambda: Execution())
    _inner: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def fresh(cls, recipe: Recipe, shape: tuple[int, int, int], device: torch.device) -> Self:
        """Return the state that the recipe's seed initialises."""
        engine.seed_streams(recipe.seed, device)
        model, critic = engine.place(recipe.model.build(shape), device), None
        optimizer = recipe.optimizer.build(model.parameters())
        if isinstance(recipe.objective, Owner):
            with engine.fixed_seed(recipe.seed, device):  # the model's noise is what it is without
                critic = recipe.objective.build(model.latent_dim, shape).to(device)
            if weights := list(critic.parameters()):
                optimizer.add_param_group({"params": weights, **recipe.objective.critic_settings()})
        return cls(model, optimizer, WeightAverage(model, recipe.ema) if recipe.ema else None, device, critic)

    def train(self, mode: bool) -> None:
        """Switch the model, and what the objective owns, between training and evaluation."""
        for module in filter(None, (self.model, self.critic)):
            module.train(mode)

    def prepare_for_evaluation(self) -> Self:
        """Switch to evaluation mode, and bring a prior made of training images up to date."""
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
    def clock(self, name: str) -> Iterator[None]:
        """Add a block's wall time to one of the clocks; a clock inside a clock stops the outer one."""
        begun = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    @property
    def healthy(self) -> bool:
        """True if losses and weights are finite; checked before anything is saved. Waits for the device."""
        parameters = [*self.model.parameters(), *(self.critic.parameters() if self.critic else ())]
        # Stacked, so that the device is waited for once and not once for each weight.
        weights = torch.stack([parameter.detach().isfinite().all() for parameter in parameters])
        return bool(weights.all()) and all(map(math.isfinite, self.means.per_batch("total")))

    def what_diverged(self) -> str:
        """Return a sentence on the first batch of this epoch whose loss is not finite, and the ways out."""
        losses = self.means.per_batch("total")
        # Where all losses are finite, the last step has spoilt a weight.
        bad = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
        last = self.epoch - 1
        saved = f"the checkpoint of epoch {last} is kept" if last else "no epoch was finished"
        return (
            f"the loss or a weight is not finite since batch {bad + 1} of {len(losses)} in epoch {self.epoch}; "
            f"{saved}. Try a lower learning rate (--optimizer.lr), --clip-norm 1, "
            "or --model.posterior.parametrisation log-variance"
        )

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything as named tensors and plain values, ready for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            # as_tensor: the step counters of some optimisers are plain numbers.
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

    def _modules(self) -> dict[str, nn.Module]:
        """Return the modules of a checkpoint by the first word of their tensors' names."""
        modules = {"model": self.model, "average": self.average and self.average.module, "own": self.critic}
        return {name: module for name, module in modules.items() if module}

    def unpack(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Take the state back from the result of `pack`."""
        groups: dict[str, dict[str, Tensor]] = {"own": {}}  # a critic may have no weights
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            groups.setdefault(kind, {})[name] = value
        for name, module in self._modules().items():
            module.load_state_dict(groups[name])
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in groups.get("optimizer", {}).items():
            index, _, slot = key.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        fresh = self.optimizer.state_dict()[
            "param_groups"
        ]  # the recipe's settings, which are not in the file
        self.optimizer.load_state_dict({"state": slots, "param_groups": fresh})
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
