"""Optimisers as values, and the running average of the weights."""

import copy
import inspect
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from nelbo.core import Progress
from nelbo.core.spec import Spec
from nelbo.schedules import Constant, Schedule

M = TypeVar("M", bound=nn.Module)
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class Optimizer(Spec):
    """A gradient method with a learning-rate schedule."""

    axis: ClassVar[str] = "optimizer"
    lr: Schedule = Constant(value=1e-3)

    @field_validator("lr")
    @classmethod
    def _descends(cls, lr: Schedule) -> Schedule:
        if min(lr(Progress()), lr(Progress(10**6, 10**6, 10**9, 10**9))) < 0:
            raise ValueError("a learning rate must be 0 or more")
        return lr

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        raise TypeError(f"{type(self).__name__} is abstract: use adam or adamw")

    def set_rate(self, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Set the learning rate of the first group, the model's, for this step; free when it does not change."""
        # A tensor is a dial, which whoever captured the step turns.
        if isinstance(self.lr, Constant) or isinstance(optimizer.param_groups[0]["lr"], Tensor):
            return
        optimizer.param_groups[0]["lr"] = self.lr(progress)


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)`: the same kernel and the same state, without 0.1 ms of bookkeeping a step.

    Nothing in a step waits for the device, and the learning rate may be a tensor on it: a step can be captured.
    The fused kernel takes 0.4 to 0.6 ms of a step where torch's loop over parameters takes 1.2 (docs/log.md,
    fashion-mlp and mlp-tanh-binary). This class can go when torch's own bookkeeping around the kernel costs nothing.
    """

    _kernel: ClassVar[Any] = staticmethod(torch._fused_adam_)

    # A hack around torch: their wrappers import torch's compiler at the first call, which takes a second and more of
    # every start. It can go when torch imports lazily.
    add_param_group: Any = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict: Any = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict: Any = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            slots = [self._slots(weight) for weight in weights]
            steps = [slot["step"] for slot in slots]
            torch._foreach_add_(steps, 1)
            self._kernel(
                weights,
                [weight.grad for weight in weights],
                [slot["exp_avg"] for slot in slots],
                [slot["exp_avg_sq"] for slot in slots],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def _slots(self, weight: Tensor) -> dict[str, Tensor]:
        slots: dict[str, Tensor] = self.state[weight]
        if not slots:
            slots["step"] = torch.zeros((), device=weight.device)
            slots["exp_avg"] = torch.zeros_like(weight)
            slots["exp_avg_sq"] = torch.zeros_like(weight)
        return slots


class FusedAdamW(FusedAdam):
    """The fused Adam with decoupled weight decay."""

    _kernel: ClassVar[Any] = staticmethod(torch._fused_adamw_)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), with L2 regularisation when `weight_decay` is set."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)

    _method: ClassVar[type[FusedAdam]] = FusedAdam

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        # Fused: one kernel for all parameters. On two cores it takes a tenth of a small VAE's step,
        # the loop over parameters a quarter.
        settings = self.model_dump(include={"betas", "eps", "weight_decay"})
        return self._method(list(parameters), lr=self.lr(Progress()), **settings, fused=True)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: ClassVar[str] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0.0)

    _method: ClassVar[type[FusedAdam]] = FusedAdamW


class WeightAverage(Generic[M]):
    """Exponential moving average of a module's weights: average <- d * average + (1 - d) * weights.

    d is min(decay, (1 + n) / (10 + n)) at update n = 0, 1, ...: the average forgets the initial weights early and
    reaches the full decay later, so that it is usable from the first epoch on. Buffers
    (batch-norm statistics) are copied: they are running averages already.
    """

    def __init__(self, module: M, decay: float) -> None:
        self.module: M = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay

    def share(self, progress: Progress) -> float:
        """Return 1 - d at this step: the share of the new weights in the average."""
        return 1.0 - min(self.decay, (1 + progress.step) / (10 + progress.step))

    @torch.no_grad()
    def update(self, module: nn.Module, share: float | Tensor) -> None:
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(module.parameters())
        if isinstance(share, Tensor):  # a captured step's: it changes where no Python runs
            moves = torch._foreach_sub(weights, averages)
            torch._foreach_mul_(moves, share)
            torch._foreach_add_(averages, moves)
        else:
            torch._foreach_lerp_(averages, weights, share)
        for average, new in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(new)
