"""The speed of this machine's matrix products, and the number of multiplications that a training step needs."""

import time
from typing import TypedDict

import torch
from torch.utils.flop_counter import FlopCounterMode

from nelbo import engine
from nelbo.bench.plain import step, stock
from nelbo.data import Batches, Splits
from nelbo.engine import Precision
from nelbo.training.recipe import Recipe

LARGE = {"cpu": 2048, "mps": 2048, "cuda": 8192}  # rows of the matrices, which keep all of a device busy
TRIES = 7
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Rate(TypedDict):
    """The speed of square matrix products, and how it was measured."""

    flops_per_second: float
    size: int
    tries: int
    threads: int | None


def product_rate(device: torch.device, precision: Precision, size: int | None = None) -> Rate:
    """Measure floating-point operations a second in a square matrix product, by the library that a training uses."""
    n = size or LARGE[device.type]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator).to(device, DTYPES[precision]) for _ in range(2))
    seconds = []
    with engine.products():
        for _ in range(TRIES + 2):
            begun = time.perf_counter()
            a @ b
            engine.synchronise(device)  # a GPU only notes down what it is told to do
            seconds.append(time.perf_counter() - begun)
    # The first two warm up. Of the others the shortest: a training is compared with it as with a limit.
    return {
        "flops_per_second": 2 * n**3 / min(seconds[2:]),
        "size": n,
        "tries": TRIES,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
    }


def flops_an_image(recipe: Recipe, splits: Splits) -> float:
    """Count operations an image in the products and convolutions of a step, both passes; a multiply-add is two."""
    cpu = torch.device("cpu")
    batches = Batches(splits.train, splits.transforms, recipe.batch_size, device=cpu, training=True)
    with engine.fixed_seed(recipe.seed, cpu):
        # The plain network: what a faster kernel leaves out or recomputes does not change the work.
        model = stock(recipe.model.build(splits.shape)).train()
        optimizer = torch.optim.SGD(model.parameters())  # whichever: an update multiplies no matrices
        x_BCHW = next(batches.epoch())
        with FlopCounterMode(display=False) as counter:
            step(recipe, model, optimizer, x_BCHW, 1, 0, len(batches), batches.n)
    return float(counter.get_total_flops()) / len(x_BCHW)
