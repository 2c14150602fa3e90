"""The loop of a tutorial, for comparison: a picture at a time, a network of torch's own layers, a number a step."""

import time
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nelbo import engine
from nelbo.bench.lap import Lap, Memory, seconds_to_target
from nelbo.core import Progress
from nelbo.data import Splits
from nelbo.errors import ConfigError
from nelbo.models import BuiltModel
from nelbo.objectives import Owner
from nelbo.optim import Adam, AdamW, Optimizer
from nelbo.training.recipe import Recipe

M = TypeVar("M", bound=nn.Module)
STOCK = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Pictures(Dataset[Tensor]):
    """The items of torchvision's data sets: array -> PIL image -> float32 tensor (C, H, W) in [0, 1]."""

    def __init__(self, splits: Splits) -> None:
        self.images = splits.train
        self.eight_bit = self.images.dtype == torch.uint8
        self.pictures = self.eight_bit and splits.shape[0] in (1, 3, 4)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        pixels = self.images.pixels
        pixels_CHW = pixels[index] if isinstance(pixels, Tensor) else pixels.rows(torch.tensor([index]))[0]
        if not self.pictures:
            return pixels_CHW.float() / (255 if self.eight_bit else 1)
        array_HWC = pixels_CHW.permute(1, 2, 0).numpy()
        picture = Image.fromarray(array_HWC[..., 0] if array_HWC.shape[2] == 1 else array_HWC)
        tensor = torch.from_numpy(np.array(picture, copy=True))  # torchvision's ToTensor, step by step
        tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
        return tensor.contiguous().to(torch.float32).div(255)


def stock(model: M) -> M:
    """Turn the layers into torch's, with the same parameters and without this project's faster subclasses."""
    for layer in model.modules():
        for kind in STOCK:
            if isinstance(layer, kind):
                layer.__class__ = kind
    return model


def optimizer_of(spec: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return torch.optim.Adam or AdamW with its defaults; raise ConfigError for another optimiser."""
    if not isinstance(spec, Adam):
        raise ConfigError(f"the plain loop has no optimiser {spec.name!r}; it knows adam and adamw")
    method = torch.optim.AdamW if isinstance(spec, AdamW) else torch.optim.Adam
    rate = float(spec.lr(Progress()))
    return method(model.parameters(), rate, spec.betas, spec.eps, spec.weight_decay)


def run(
    recipe: Recipe, splits: Splits, *, epochs: int, device: torch.device, target: float | None = None
) -> Lap:
    """Train `epochs` epochs in float32, eagerly; one number is read from the device in every step.

    Only the loop is plain: network, likelihood, objective, batch size and order of magnitude of everything else
    are the recipe's. Raises ConfigError for a recipe that it does not know how to train.
    """
    if isinstance(recipe.objective, Owner):
        raise ConfigError(f"the plain loop cannot train {recipe.objective.name}, which owns a module")
    memory = Memory(device)
    with engine.fixed_seed(recipe.seed, device):
        model = stock(recipe.model.build(splits.shape)).to(device).train()
        optimizer = optimizer_of(recipe.optimizer, model)
        loader = DataLoader(Pictures(splits), batch_size=recipe.batch_size, shuffle=True)
        batches, seconds = len(loader), []
        bounds: list[list[float]] = []
        for epoch in range(1, epochs + 1):
            begun, total = time.perf_counter(), 0.0
            bounds.append([])
            for index, x_BCHW in enumerate(loader):
                x_BCHW = x_BCHW.to(device)
                for transform in splits.transforms:
                    x_BCHW = transform.batch(x_BCHW, None)
                done = (epoch - 1) * batches + index
                loss, bound_B = step(
                    recipe, model, optimizer, x_BCHW, epoch, done, batches, len(splits.train)
                )
                total += loss.item()  # as tutorials do; it waits for the device in every step
                if target is not None and bound_B is not None:  # a second number read a step
                    bounds[-1].append(float(bound_B.detach().mean()))
            engine.synchronise(device)
            seconds.append(time.perf_counter() - begun)
    return Lap(
        epochs=tuple(seconds[1:]),
        images=len(splits.train),
        precision="fp32",
        threads=torch.get_num_threads(),
        target_seconds=seconds_to_target(bounds, seconds, target),
        peak_mb=memory.peak_mb(),
    )


def step(
    recipe: Recipe, model: BuiltModel, optimizer: torch.optim.Optimizer, x_BCHW: Tensor, epoch: int, done: int,
    batches: int, images: int,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Take one step, forward, backward and update, and return the loss and the bound of each image."""
    progress = Progress(epoch, recipe.epochs, done, recipe.epochs * batches, images)
    for group in optimizer.param_groups:
        group["lr"] = recipe.optimizer.lr(progress)
    terms = recipe.objective.terms(model.draw(x_BCHW, recipe.objective.k), progress, None)
    loss = terms.loss_B.sum() if recipe.batch_reduction == "sum" else terms.loss_B.mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    return loss, terms.bound_B
