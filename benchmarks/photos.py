"""Colour photographs, ten minutes on two cores: `nelbo train FOLDER` beside a tutorial's convolutional VAE and Pythae.

    python benchmarks/photos.py make photos                     2,000 + 200 + 400 patches of 64 x 64
    python benchmarks/photos.py train tutorial photos out       each contender is trained for the same processor seconds
    python benchmarks/photos.py train nelbo photos out
    python benchmarks/photos.py train pythae photos out         in a Python that has pythae 0.1.2
    python benchmarks/photos.py measure photos out              the table, the pictures, records/photos.json

The patches are of photographs that scikit-learn, scikit-image and Matplotlib ship: training ones from the left 66 % of
each, validation from the next 17 %, test from the last 17 %, so that no two splits share a pixel.

The clock counts processor seconds of the whole process (`time.process_time`), 1,200 for ten minutes on two cores, so
that the load of the machine decides nothing. The peers' number of bits is granted to them: they have no likelihood of
pixels, so a discretised logistic with the one scale that is best on the validation images is put around their mean.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, STRIDE = 64, 20
COUNTS = {"train": 2000, "validation": 200, "test": 400}
SECONDS = 1200.0  # of the processor
DRAWN = 400  # images, as many as the test split has


# --- the images -------------------------------------------------------------------------------


def make(folder: Path) -> None:
    """Cut the photographs that packages ship into patches, a folder a split."""
    import matplotlib
    import skimage
    import sklearn.datasets
    from PIL import Image

    shipped = Path(sklearn.datasets.__file__).parent / "images"
    more, one = (
        Path(skimage.__file__).parent / "data",
        Path(matplotlib.__file__).parent / "mpl-data/sample_data",
    )
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
    files = [
        shipped / "china.jpg",
        shipped / "flower.jpg",
        *(more / name for name in names),
        one / "grace_hopper.jpg",
    ]
    patches: dict[str, list[tuple[str, Any]]] = {split: [] for split in COUNTS}
    for file in files:
        photo = np.asarray(Image.open(file).convert("RGB"))
        height, width = photo.shape[:2]
        edges = [0, int(0.66 * width), int(0.83 * width), width]
        for split, left, right in zip(COUNTS, edges, edges[1:], strict=False):
            for y in range(0, height - SIDE + 1, STRIDE):
                for x in range(left, right - SIDE + 1, STRIDE):
                    patches[split].append((f"{file.stem}-{y:04d}-{x:04d}", photo[y : y + SIDE, x : x + SIDE]))
    for split, n in COUNTS.items():
        (folder / split).mkdir(parents=True)
        for i in np.linspace(0, len(patches[split]) - 1, n).round().astype(int):
            name, patch = patches[split][i]
            Image.fromarray(patch).save(folder / split / f"{name}.png")


def read(folder: Path, split: str) -> Tensor:
    """Return the images of a split, (N, 3, 64, 64), in [0, 1]."""
    from PIL import Image

    images = [np.asarray(Image.open(file)) for file in sorted((folder / split).iterdir())]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


# --- the contenders ---------------------------------------------------------------------------


class Tutorial(nn.Module):
    """The convolutional VAE of many tutorials: four strided convolutions, latent 128, a sigmoid, MSE plus KL."""

    def __init__(self, latent: int = 128) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        down: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            down += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.mean, self.log_variance = nn.Linear(256 * 16, latent), nn.Linear(256 * 16, latent)
        up: list[nn.Module] = [nn.Linear(latent, 256 * 16), nn.Unflatten(1, (256, 4, 4))]
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.ReLU()]
        self.decoder = nn.Sequential(*up[:-1], nn.Sigmoid())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance."""
        h = self.encoder(x)
        return self.mean(h), self.log_variance(h)

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean image."""
        return torch.as_tensor(self.decoder(z))


def train_tutorial(photos: Path, seconds: float) -> Tutorial:
    torch.manual_seed(0)
    x, model = read(photos, "train"), Tutorial()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        for batch in torch.split(torch.randperm(len(x)), 64):
            mean, log_variance = model.encode(x[batch])
            decoded = model.decode(mean + torch.randn_like(mean) * (log_variance / 2).exp())
            kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
            loss = F.mse_loss(decoded, x[batch], reduction="sum") + kl
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return model


def train_pythae(photos: Path, seconds: float) -> tuple[Any, Any]:
    """Return encode and decode of Pythae's VAE with its own convolutional networks for 64 x 64 colour images."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.celeba import Decoder_Conv_AE_CELEBA, Encoder_Conv_VAE_CELEBA
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Clock(TrainingCallback):  # type: ignore[misc]
        def on_epoch_end(self, training_config: Any, **more: Any) -> None:
            if time.process_time() - begun > seconds:
                raise TimeoutError

    config = VAEConfig(input_dim=(3, SIDE, SIDE), latent_dim=64, reconstruction_loss="mse")
    model = VAE(config, encoder=Encoder_Conv_VAE_CELEBA(config), decoder=Decoder_Conv_AE_CELEBA(config))
    settings = BaseTrainerConfig(
        output_dir=str(photos.parent / "pythae"), num_epochs=10_000, learning_rate=1e-3,
        per_device_train_batch_size=64, per_device_eval_batch_size=64, no_cuda=True, seed=0,
        optimizer_cls="Adam",
    )  # fmt: skip
    from pythae.data.datasets import BaseDataset

    x, held_out = read(photos, "train"), read(photos, "validation")
    sets = [BaseDataset(images, torch.zeros(len(images))) for images in (x, held_out)]
    trainer = BaseTrainer(model, sets[0], sets[1], training_config=settings, callbacks=[Clock()])
    begun = time.process_time()
    with contextlib.suppress(TimeoutError):
        trainer.train()
    model.eval()

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        out = model.encoder(x)
        return out.embedding, out.log_covariance

    return encode, lambda z: model.decoder(z)["reconstruction"]


@torch.no_grad()
def answers(photos: Path, encode: Any, decode: Any, latent: int) -> dict[str, Any]:
    """Return what is measured: reconstructions, one draw of each image's posterior decoded, its KL, and samples."""
    torch.manual_seed(1)
    found: dict[str, Any] = {}
    for split in ("validation", "test"):
        parts: dict[str, list[Tensor]] = {"mean": [], "draw": [], "kl": []}
        for x in torch.split(read(photos, split), 100):
            mean, log_variance = encode(x)
            z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            parts["mean"].append(decode(mean))
            parts["draw"].append(decode(z))
            parts["kl"].append(-0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1))
        found |= {f"{split}_{name}": torch.cat(values).numpy() for name, values in parts.items()}
    z = torch.randn(DRAWN, latent)
    found["samples"] = torch.cat([decode(part) for part in torch.split(z, 100)]).numpy()
    return found


def train_nelbo(photos: Path, out: Path) -> None:
    """Train by the command that a user would type, and keep the run beside the answers of the others."""
    import resource

    command = [
        sys.executable,
        "-m",
        "nelbo",
        "train",
        str(photos),
        "--runs",
        str(out),
        "--name",
        "nelbo",
        "--overwrite",
    ]
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    (out / "nelbo-seconds.json").write_text(json.dumps(used.ru_utime + used.ru_stime))


# --- the measurement --------------------------------------------------------------------------


def psnr(x: Tensor, y: Tensor) -> float:
    """Return the mean over the images of -10 log10 MSE, in dB."""
    return float((-10 * (x - y).square().flatten(1).mean(1).log10()).mean())


def granted_bits(photos: Path, found: dict[str, np.ndarray]) -> float:
    """Return bits/dim of a discretised logistic around the peer's mean, its scale the best on validation images."""
    from nelbo.likelihoods.logistic import log_level

    def nats(split: str, scale: float) -> float:
        x, mean = read(photos, split), torch.from_numpy(found[f"{split}_draw"])
        return float(-log_level(x, mean, torch.tensor(scale).log()).flatten(1).sum(1).mean())

    best = min(np.geomspace(0.005, 0.2, 40), key=lambda scale: nats("validation", float(scale)))
    total = nats("test", float(best)) + float(found["test_kl"].mean())
    return total / (3 * SIDE * SIDE * float(np.log(2)))


def measure(photos: Path, out: Path) -> None:
    """Print the table, draw the pictures and write the record."""
    import nelbo
    from nelbo import engine, plots
    from nelbo.core.layout import number
    from nelbo.data import Data
    from nelbo.evaluation import samplers
    from nelbo.metrics import classifier, frechet

    run = nelbo.train(photos, runs=out, name="nelbo", device="cpu")
    splits = run.recipe.data.load()
    network = classifier.untrained(splits)
    x = read(photos, "test")
    real_NF = network.look(x)[0]

    def distance(images: Tensor) -> float:
        return float(frechet.measure(network.look(images.clamp(0, 1))[0], real_NF).value)

    card = nelbo.evaluate(run, samples=0, device="cpu")["metrics"]
    model = nelbo.load(run, device="cpu")
    with torch.no_grad():
        again = torch.cat([model.reconstruct(part) for part in torch.split(x, 100)])
    drawn = {
        name: samplers.sampler(run, name, device="cpu").sample(DRAWN)
        for name in ("prior", json.loads((run.path / samplers.FILE).read_text())["chosen"])
    }
    seconds = json.loads((out / "nelbo-seconds.json").read_text())
    rows: dict[str, dict[str, float | None]] = {
        f"nelbo, {name}": {
            "psnr": psnr(x, again), "bits_per_dim": number(card["bits_per_dim"]),
            "distance": distance(images), "processor_seconds": seconds,
        }
        for name, images in drawn.items()
    }  # fmt: skip
    pictures = {"test images": x, "nelbo": again}
    samples = {f"nelbo, {name}": images for name, images in drawn.items()}
    for peer in ("tutorial", "pythae"):
        file = out / f"{peer}.npz"
        if not file.is_file():
            continue
        found = dict(np.load(file))
        mean = torch.from_numpy(found["test_mean"])
        rows[peer] = {
            "psnr": psnr(x, mean), "bits_per_dim": granted_bits(photos, found),
            "distance": distance(torch.from_numpy(found["samples"])), "processor_seconds": float(found["seconds"]),
        }  # fmt: skip
        pictures[peer], samples[peer] = mean, torch.from_numpy(found["samples"])
    floor = distance(splits.train.rows(torch.arange(0, 2000, 5)).float() / 255)
    shown = torch.linspace(5, len(x) - 5, 10).long()
    grids = [images[shown].clamp(0, 1).permute(0, 2, 3, 1).numpy() for images in pictures.values()]
    plots.rows(grids, title="", row_labels=list(pictures)).savefig(out / "photos-reconstructions.png")
    grids = [images[:10].clamp(0, 1).permute(0, 2, 3, 1).numpy() for images in samples.values()]
    plots.rows(grids, title="", row_labels=list(samples)).savefig(out / "photos-samples.png")
    for name, row in rows.items():
        print(
            f"{name:28} "
            + "  ".join(f"{key} {value:8.3f}" for key, value in row.items() if value is not None)
        )
    print(f"{'400 training images':28} distance {floor:8.3f}")
    record = {
        "command": "python benchmarks/photos.py", "machine": engine.describe(torch.device("cpu")), "counts": COUNTS,
        "data": Data(source=str(photos)).load().hash, "rows": rows, "training_images": floor,
    }  # fmt: skip
    (Path(__file__).parent / "records/photos.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "train", "measure"))
    parser.add_argument("words", nargs="+", help="PHOTOS; or CONTENDER PHOTOS OUT; or PHOTOS OUT")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    if options.what == "make":
        make(Path(options.words[0]))
    elif options.what == "measure":
        measure(*map(Path, options.words))
    else:
        contender, photos, out = options.words[0], *map(Path, options.words[1:])
        out.mkdir(parents=True, exist_ok=True)
        if contender == "nelbo":
            train_nelbo(photos, out)
            return
        if contender == "tutorial":
            model = train_tutorial(photos, options.seconds).eval()
            found = answers(photos, model.encode, model.decode, 128)
        else:
            found = answers(photos, *train_pythae(photos, options.seconds), 64)
        np.savez(out / f"{contender}.npz", **found, seconds=np.array(time.process_time()))


if __name__ == "__main__":
    main()
