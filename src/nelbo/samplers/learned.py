"""The base of samplers that are trained by gradients."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.engine import fixed_seed
from nelbo.optim import Adam
from nelbo.samplers.base import Latents, Sampler
from nelbo.schedules import Constant

CHECK_EVERY = 50  # steps
PATIENCE = 10  # checks without a better one
HELD_OUT = 10  # one in so many training latents, where there are no validation latents
NOISE_SEED = 20_190_507  # of a loss that draws: the same noise at every check
AT_ONCE = 10_000  # held-out latents


class Learned(Sampler):
    """A sampler with weights, by Adam (Kingma & Ba 2015) with a cosine schedule; the best weights of all checks stay.

    A check is the mean loss of held-out latents: of validation images, or of a tenth of the training ones where there
    are none. Training ends early after ten checks, 500 steps, without a better one.

    steps       at most
    batch_size  latents a step
    lr          at the beginning
    """

    axis: ClassVar[str] = "sampler"  # abstract: it registers nothing
    steps: int = Field(default=2000, ge=1)
    batch_size: int = Field(default=250, ge=1)
    lr: float = Field(default=5e-3, gt=0.0)

    def split(self, train: Latents, validation: Latents | None) -> tuple[Tensor, Tensor]:
        """Return the latents to learn from and those to stop by."""
        if validation is not None and len(validation):
            return train.z_NZ, validation.z_NZ
        order_N = torch.randperm(len(train)).to(train.z_NZ.device)
        held_out = max(1, len(train) // HELD_OUT)
        return train.z_NZ[order_N[held_out:]], train.z_NZ[order_N[:held_out]]

    def learn(
        self, module: nn.Module, loss: Callable[[Tensor], Tensor], z_NZ: Tensor, held_out_MZ: Tensor
    ) -> None:
        """Minimise the mean of `loss(z_BZ)` -> B by the module's weights, and leave it in evaluation mode."""
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        if not weights:  # a prior without any: there is nothing to learn
            module.eval()
            return
        optimizer = Adam(lr=Constant(value=self.lr)).build(weights)
        best, best_state, waited = math.inf, copy.deepcopy(module.state_dict()), 0
        batches = _batches(z_NZ, min(self.batch_size, len(z_NZ)))
        for step in range(self.steps):
            module.train()
            optimizer.param_groups[0]["lr"] = self.lr * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
            optimizer.zero_grad()
            with torch.enable_grad():
                torch.autograd.backward(loss(next(batches)).mean())
            optimizer.step()
            if (step + 1) % CHECK_EVERY and step + 1 < self.steps:
                continue
            module.eval()
            with torch.no_grad(), fixed_seed(NOISE_SEED, z_NZ.device):
                now = float(torch.cat([loss(some) for some in torch.split(held_out_MZ, AT_ONCE)]).mean())
            waited += 1
            if now < best:
                best, best_state, waited = now, copy.deepcopy(module.state_dict()), 0
            elif waited == PATIENCE:
                break
        module.load_state_dict(best_state)
        module.eval().requires_grad_(False)


def _batches(z_NZ: Tensor, size: int) -> Iterator[Tensor]:
    """Return batches, epoch after epoch in a new order; what does not fill a batch is left out."""
    while True:
        order_N = torch.randperm(len(z_NZ)).to(z_NZ.device)
        for start in range(0, len(z_NZ) - size + 1, size):
            yield z_NZ[order_N[start : start + size]]
