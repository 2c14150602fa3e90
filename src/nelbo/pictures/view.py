"""A run opened to be looked at: the model of one checkpoint beside one split of its data.

Latents here are posterior means unless a sample is asked for; every random choice has a seed.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nelbo import engine
from nelbo.core.distributions import PosteriorValue
from nelbo.data import OnDisk, Splits, materialise
from nelbo.errors import ConfigError, DataError, NelboError, did_you_mean
from nelbo.evaluation.samplers import Encoded, RunSampler
from nelbo.metrics import LatentStatistics, Split, exactly, latent_statistics
from nelbo.metrics.latent import encode
from nelbo.models import BuiltModel
from nelbo.samplers import Prior as FromPrior
from nelbo.samplers import Sampler
from nelbo.training import api
from nelbo.training.store import Run

Pictures = NDArray[np.float32]  # (..., H, W, C) in [0, 1]
Index = int | slice | list[int]  # what indexes a tensor
SHOWN = 10  # columns of a row of examples: as many as there are digits
DECODE_AT_ONCE = 1000  # images: a bound on the device's memory, whatever is drawn
TSNE_POINTS = 2000  # at most: its time grows faster than their number


class NotApplicable(NelboError):
    """A picture that this run cannot have (class means without labels, a plane of one dimension)."""

    exit_code = 2


@dataclasses.dataclass
class View:
    """A checkpoint and a split of a run. See `View.open`."""

    run: Run
    checkpoint: str
    split_name: str
    splits: Splits
    model: BuiltModel
    device: torch.device
    seed: int = 0

    @classmethod
    def open(
        cls,
        run: Run,
        *,
        checkpoint: str = "best",
        split: str = "test",
        device: str = "auto",
        data_dir: str | Path | None = None,
        data: object | None = None,
        seed: int = 0,
    ) -> View:
        """Load a checkpoint and a split of the data that it was trained on.

        Raises ConfigError for an unknown checkpoint or split, DataError where the data is gone or has changed.
        """
        if not 0 <= seed < 2**63:
            raise ConfigError(f"--seed {seed}: expected a number from 0 to 2^63 - 1")
        model = api.load(run, checkpoint=checkpoint, device=device)
        splits = api.load_same_data(run, data_dir, data)
        splits.split(split)  # raises for an unknown or absent one
        return cls(run, checkpoint, split, splits, model, engine.pick_device(device), seed)

    def at(self, checkpoint: str) -> View:
        """Return a view of the same split by another checkpoint."""
        if checkpoint == self.checkpoint:
            return self
        model = api.load(self.run, checkpoint=checkpoint, device=str(self.device))
        return dataclasses.replace(self, checkpoint=checkpoint, model=model)

    # --- the split ---

    @property
    def title(self) -> str:
        """The run, the checkpoint with its epoch and the split: the title of a picture."""
        return f"{self.run.name} · {self.checkpoint} (epoch {self.epoch}) · {self.split_name}"

    @cached_property
    def epoch(self) -> int:
        """The epoch of the checkpoint."""
        return self.run.epoch(self.checkpoint)

    @cached_property
    def split(self) -> Split:
        """The split as metrics take it."""
        images = self.splits.split(self.split_name)
        return Split(images, self.splits, self.device)

    @cached_property
    def x_NCHW(self) -> Tensor:
        """Every image of the split as the model sees it."""
        return materialise(self.split.images, self.splits.transforms)

    def images_at(self, index: Index) -> Tensor:
        """Return the images at these positions as the model sees them."""
        images = self.split.images
        if not isinstance(images.pixels, OnDisk):
            return self.x_NCHW[index]
        at = torch.arange(len(self))[index]
        x_NCHW = materialise(images, self.splits.transforms, indices=at.flatten())
        return x_NCHW.view(*at.shape, *images.shape)

    def __len__(self) -> int:
        return len(self.split.images)

    # --- labels ---

    @property
    def labels_N(self) -> NDArray[np.int64] | None:
        """The class of each image, below 0 where it has none; None where no image has one."""
        labels = self.split.images.labels_N
        return None if labels is None or not len(self.split.images.labelled()) else labels.numpy()

    def need_labels(self) -> NDArray[np.int64]:
        """Return the labels; raises DataError where there are none."""
        if self.labels_N is None:
            raise DataError(
                f"{self.splits.name} has no labels, which a picture by class needs; put the images of each class in "
                "a folder of its own, or add an array 'labels' to the .npz"
            )
        return self.labels_N

    @cached_property
    def classes(self) -> list[int]:
        """The labels that occur in this split."""
        return [int(label) for label in np.unique(self.need_labels()) if label >= 0]

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its label where it has no name."""
        names = self.split.images.class_names
        if label < 0:
            return "no label"
        return names[label] if names and label < len(names) else str(label)

    def find_class(self, name: str | int) -> int:
        """Return the label of a class from its label or name; raises ConfigError with the nearest."""
        names = {self.class_name(label).lower(): label for label in self.classes}
        labels = {str(label): label for label in self.classes} | names  # a class may be called like a label
        text = str(name).lower()
        if text in labels:
            return labels[text]
        raise ConfigError(
            f"no class of {self.splits.name} is called {str(name)!r}; {did_you_mean(text, names)}"
        )

    def example(self, label: int) -> int:
        """Return the position of the first image of a class: the same one in every picture."""
        return int(np.flatnonzero(self.need_labels() == label)[0])

    def examples(self) -> list[int]:
        """Return the position of one image of each class, or of the first images where there are no classes."""
        if self.labels_N is not None and 1 < len(self.classes) <= 2 * SHOWN:
            return [self.example(label) for label in self.classes][:SHOWN]
        return list(range(min(len(self), SHOWN)))

    # --- between images, latents and pictures ---

    def pictures(self, x: Tensor) -> Pictures:
        """Convert images (..., C, H, W) on the model's scale to pictures (..., H, W, C) in [0, 1]."""
        low, high = self.splits.range
        scaled = (x.detach().float().cpu() - low).div_(high - low).clamp_(0.0, 1.0)
        array: Pictures = scaled.movedim(-3, -1).numpy()
        # A fourth channel is transparency. What is neither grey nor colour is shown by its first channel.
        return array[..., :3] if array.shape[-1] in (1, 3, 4) else array[..., :1]

    def inputs(self, index: Index) -> Pictures:
        """Return the images at these positions as pictures."""
        return self.pictures(self.images_at(index))

    @cached_property
    def z_NZ(self) -> Tensor:
        """Posterior means of the whole split, on the CPU."""
        return encode(self.model, self.split)

    @cached_property
    def statistics(self) -> LatentStatistics:
        """KL and variance of each latent dimension over the split."""
        return latent_statistics(self.model, self.split)

    @cached_property
    def tsne(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """t-SNE of the posterior means of at most 2,000 images, (M, 2), and their positions: one for all pictures."""
        from nelbo.plots import project  # here, for matplotlib takes long to import and encoding needs none

        return project(self.z_NZ.numpy(), "tsne", max_points=TSNE_POINTS)

    def class_mean(self, label: int) -> Tensor:
        """Return the mean of the posterior means of every image of a class: z_Z."""
        return self.model.latent_space.middle(self.z_NZ[torch.from_numpy(self.need_labels() == label)])

    def posterior(self, x_BCHW: Tensor) -> PosteriorValue:
        """Return q(z | x) of images on the model's scale."""
        with exactly(self.device):
            return self.model.encode(x_BCHW.to(self.device))

    def mean(self, x_BCHW: Tensor) -> Tensor:
        """Return posterior means, z_BZ, float32 on the CPU."""
        with exactly(self.device):
            return self.model.encode(x_BCHW.to(self.device)).mean.float().cpu()

    def decode(self, z_MZ: Tensor) -> Tensor:
        """Return means of p(x | z) on the CPU, in pieces of bounded size: (M, C, H, W)."""
        z_MZ = z_MZ.float()
        with exactly(self.device):
            return engine.in_pieces(lambda z: self.model.decode(z).mean, z_MZ, self.device, DECODE_AT_ONCE)

    def reconstruct(self, x_NCHW: Tensor) -> Tensor:
        """Return means of p(x | z) at the posterior means, on the CPU, in pieces of bounded size: (N, C, H, W)."""
        pieces = torch.split(x_NCHW, DECODE_AT_ONCE)
        return torch.cat([self.decode(self.mean(piece)) for piece in pieces])

    def decoded(self, z_MZ: Tensor) -> Pictures:
        """Return the means of p(x | z) as pictures."""
        return self.pictures(self.decode(z_MZ))

    def samples(
        self, n: int, temperature: float = 1.0, sampler: Sampler | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n latents from the prior, or from a sampler fitted to training images, and decode their mean images."""
        spec = sampler or FromPrior(temperature=temperature)
        fitted = Encoded(self.model, self.split, self.seed).fit(spec)
        # One seed: of a fixed prior the draws are the same for every checkpoint.
        z_NZ = RunSampler(spec, self.model, fitted, self.device).latents(n, self.seed)
        return z_NZ, self.decode(z_NZ)

    def around(self, x_BCHW: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Draw n latents from the posterior of each image, z_NBZ, and decode their mean images (n, B, C, H, W)."""
        posterior = self.posterior(x_BCHW)
        if posterior.is_point or posterior.deterministic:
            raise NotApplicable(
                f"{self.run.name}: a posterior that is a single point has no other draws; see reconstructions"
            )
        with engine.fixed_seed(self.seed, self.device), exactly(self.device):
            z_NBZ = posterior.rsample(n).float().cpu()
        return z_NBZ, self.decode(z_NBZ.flatten(0, 1)).reshape(*z_NBZ.shape[:2], *x_BCHW.shape[1:])

    # --- lines ---

    @property
    def directions(self) -> list[str]:
        """The names of the directions in the latent: its dimensions, then categorical variables."""
        return self.model.latent_space.directions(self.model.latent_dim)

    def by_information(self) -> list[int]:
        """Return the directions by falling KL, or by the variance of their means where not each has a KL."""
        space, weight = self.model.latent_space, self.statistics.kl_Z
        if weight is None or len(weight) != len(self.directions):
            sizes = [1] * space.reals(self.model.latent_dim)
            pieces = torch.split(self.statistics.mean_variance_Z, [*sizes, *space.blocks])
            weight = torch.stack([piece.sum() for piece in pieces])
        return [int(direction) for direction in torch.argsort(weight, descending=True)]

    def start_of_traversal(self) -> Tensor:
        """Return the posterior mean of the first example."""
        return self.mean(self.images_at([self.examples()[0]]))[0]

    def line(self, start_Z: Tensor, end_Z: Tensor, steps: int) -> Tensor:
        """Return `steps` latents from one to another, both ends included, straight in their space: (steps, Z)."""
        if steps < 2:
            raise ConfigError(f"an interpolation needs 2 steps or more (got {steps})")
        return self.model.latent_space.path(start_Z, end_Z, torch.linspace(0.0, 1.0, steps))

    def traversal(self, z_Z: Tensor, direction: int, span: float, steps: int) -> Tensor:
        """Return copies of one latent moved along one direction, -span to span in R^Z (`Where.moved`): (steps, Z)."""
        return self.model.latent_space.moved(z_Z, direction, span, steps)
