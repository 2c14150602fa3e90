"""What codes of known make score in disentanglement: the scale on which a card's factors are read.

    python benchmarks/planted.py

Of the 4,096 test images of `shapes`: codes that are the factors themselves, one a dimension; the same with noise, with
dimensions of noise beside them, twice, and mixed; the first ten principal components of the pixels; and noise alone.
Half a minute. Writes benchmarks/records/planted.json; `python benchmarks/tables.py` shows it in docs/metrics/.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nelbo import engine
from nelbo.core.distributions import LikelihoodValue
from nelbo.core.files import atomic
from nelbo.core.registry import lookup
from nelbo.data import Data, Images, Splits
from nelbo.dists.normal import DiagonalNormal
from nelbo.metrics import Split
from nelbo.models import BuiltModel

RECORD = Path(__file__).parent / "records" / "planted.json"
NOISE = 0.3  # standard deviations of a factor


class Planted(BuiltModel):
    """An encoder that changes nothing: its latents are the pixels."""

    def encode(self, x_BCHW: Tensor) -> DiagonalNormal:
        mean_BZ = x_BCHW.flatten(1)
        return DiagonalNormal(mean_BZ, torch.ones_like(mean_BZ), torch.zeros_like(mean_BZ))

    def decode(self, z: Tensor) -> LikelihoodValue:
        raise TypeError("these benchmarks measure codes: nothing is decoded")


def codes(images: Images) -> dict[str, NDArray[np.float64]]:
    """Each (N, Z), every dimension of about unit variance."""
    stream = np.random.RandomState(0)
    assert images.factors_NF is not None
    factors_NF = images.factors_NF.numpy()
    exact = (factors_NF - factors_NF.mean(0)) / factors_NF.std(0)
    noisy = exact + NOISE * stream.standard_normal(exact.shape)
    two = np.array([[1.0, 1.0], [1.0, -1.0]])
    mixed = (
        np.kron(two, np.kron(two, two))[:6] / 8**0.5
    )  # each factor in all of eight dimensions, in equal parts
    pixels = images.pixels_NCHW.flatten(1).double().numpy() / 255
    left, spread, _ = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    return {
        "each factor in a dimension of its own": exact,
        f"the same with noise of {NOISE} standard deviations": noisy,
        "the same with noise, and four dimensions of noise": np.c_[
            noisy, stream.standard_normal((len(noisy), 4))
        ],
        "each factor in two dimensions, with noise": np.c_[
            noisy, exact + NOISE * stream.standard_normal(exact.shape)
        ],
        "every factor in each of eight dimensions": exact @ mixed
        + 0.05 * stream.standard_normal((len(exact), 8)),
        "ten principal components of the pixels": left[:, :10] * spread[:10] / spread[0] * len(left) ** 0.5,
        "noise in ten dimensions": stream.standard_normal((len(exact), 10)),
    }


def scores(codes_NZ: NDArray[np.float64], images: Images) -> dict[str, Any]:
    pixels = torch.from_numpy(codes_NZ).float()[:, :, None, None]
    planted = Images(pixels, None, None, images.factors_NF, images.factor_names)
    splits = Splits("planted", planted, None, planted, "", "real", (-9.0, 9.0))
    measured = lookup("metric", "factors")(Planted(), Split(planted, splits, torch.device("cpu")))
    return {name: value.value for name, value in measured}


def main() -> None:
    splits = Data(source="shapes").load()
    found = {}
    for words, codes_NZ in codes(splits.split("test")).items():
        found[words] = scores(codes_NZ, splits.split("test"))
        print(words, found[words], flush=True)
    about = {
        "command": "python benchmarks/planted.py",
        "commit": engine.describe(torch.device("cpu")).get("git"),
        "data_hash": splits.hash,
        "n": len(splits.split("test")),
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(about | {"codes": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
