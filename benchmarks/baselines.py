"""What a model reaches without learning, and what none can beat: the scale on which a card is read.

    python benchmarks/baselines.py

For the data of four recipes, on the test split: the cross-entropy of a decoder that says 1/2 everywhere, of one that
always draws the mean training image (KL 0: a complete collapse), and of one that draws the image itself (the entropy
of grey pixels, 0 for binary ones); the squared error, PSNR and SSIM of the mean image; and what the probes read from
the pixels themselves and from the recipe's encoder before training (seed 0). Some minutes. Writes
benchmarks/records/baselines.json; `python benchmarks/tables.py` shows it in docs/metrics/.
Needs MNIST and Fashion-MNIST (NELBO_DATA, or they are downloaded).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from planted import Planted
from torch import Tensor

from nelbo import engine
from nelbo.core.files import atomic
from nelbo.core.registry import lookup
from nelbo.data import Splits, materialise
from nelbo.metrics import Split
from nelbo.models import BuiltModel
from nelbo.objectives.similarity import ssim
from nelbo.training import api
from nelbo.training.recipe import resolve

RECORD = Path(__file__).parent / "records" / "baselines.json"
RECIPES = {
    "digits": "digits, binarised",
    "mlp-tanh-binary": "MNIST, binarised",
    "mlp-sigma": "MNIST, grey",
    "fashion-mlp": "Fashion-MNIST, grey",
}


def cross_entropy(x_NCHW: Tensor, p_NCHW: Tensor) -> float:
    """Mean over images of -sum x log p + (1 - x) log(1 - p), nats."""
    terms = torch.xlogy(x_NCHW, p_NCHW) + torch.xlogy(1 - x_NCHW, 1 - p_NCHW)
    return max(0.0, -float(terms.flatten(1).sum(1).mean()))


def baselines(splits: Splits) -> dict[str, Any]:
    train, test = (
        materialise(images, splits.transforms).double() for images in (splits.train, splits.split("test"))
    )
    # A pixel that is black in all training images may be white in a test image.
    mean = train.mean(0).clamp(1 / len(train), 1 - 1 / len(train)).expand_as(test)
    mse_N = (test - mean).square().flatten(1).mean(1)
    return {
        "data_hash": splits.hash,
        "n": len(test),
        "half": math.prod(splits.shape) * math.log(2.0),
        "mean_image": cross_entropy(test, mean),
        "itself": cross_entropy(test, test),
        "mse": float(mse_N.mean()),
        "psnr": float((-10 * mse_N.log10()).mean()),
        "ssim": float(ssim(test, mean).mean()),
    }


def probed(model: BuiltModel, splits: Splits) -> dict[str, float | None]:
    split = Split(splits.split("test"), splits, torch.device("cpu"))
    return {name: value.value for name, value in lookup("metric", "probes")(model, split)}


def main() -> None:
    found = {}
    for recipe_name, words in RECIPES.items():
        recipe = resolve(recipe_name, None)
        splits = api.load_data(recipe)
        torch.manual_seed(0)
        untrained = recipe.model.build(splits.shape).eval()
        probes = {"pixels": probed(Planted(), splits), "untrained": probed(untrained, splits)}
        found[words] = baselines(splits) | {"probes": probes}
        print(words, found[words], flush=True)
    about = {
        "command": "python benchmarks/baselines.py",
        "commit": engine.describe(torch.device("cpu")).get("git"),
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(about | {"data": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
