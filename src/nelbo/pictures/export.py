"""The export of images and arrays from a trained model: the files of `nelbo sample`, `encode`, `traverse` and others.

Images are referred to by

    12           the image at that position of the split
    digit.png    an image file
    class:7      the mean latent of a class          (a latent, not an image)
    example:7    the first image of a class
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nelbo.core import columns
from nelbo.core.files import atomic
from nelbo.data import materialise
from nelbo.data.onefile import read_like
from nelbo.errors import ConfigError
from nelbo.evaluation.scoring import Scores, names_of, which
from nelbo.metrics.latent import encode as encoded
from nelbo.metrics.latent import posteriors
from nelbo.pictures.view import Pictures, View, pictures_of
from nelbo.samplers import Sampler

IN_A_GRID, IN_A_ROW = 1000, 100  # pictures at most: a larger grid is too small to see


@dataclasses.dataclass(frozen=True)
class Reference:
    """A starting point: its name for files, its latent, and the image if it is one."""

    name: str
    z_Z: Tensor
    x_CHW: Tensor | None


def refer(view: View, text: str) -> Reference:
    """Return the latent (posterior mean) that a reference stands for; see the module's docstring."""
    kind, _, class_name = text.partition(":")
    if kind == "class" and class_name:
        label = view.find_class(class_name)
        return Reference(f"class-{_slug(view.class_name(label))}", view.class_mean(label), None)
    if kind == "example" and class_name:
        label = view.find_class(class_name)
        name, x_CHW = _slug(view.class_name(label)), view.images_at(view.example(label))
    elif text.isdecimal():
        if (index := int(text)) >= len(view):
            last = len(view) - 1
            raise ConfigError(f"no image {index} in the {view.split_name} split; it has 0 to {last}")
        name, x_CHW = f"image{index}", view.images_at(index)
    elif Path(text).is_file():
        name, x_CHW = Path(text).stem, from_file(view, Path(text))
    else:
        raise ConfigError(
            f"{text!r} is no image: give a position in the split (12), an image file, example:CLASS or class:CLASS"
        )
    return Reference(name, view.mean(x_CHW[None])[0], x_CHW)


def _images(view: View, texts: list[str]) -> tuple[list[str], Tensor]:
    """Return unique names (two files called 1.png become `1` and `1-2`) and the images of references to images."""
    names: list[str] = []
    images: list[Tensor] = []
    for text in texts:
        reference = refer(view, text)
        if reference.x_CHW is None:
            raise ConfigError(f"{text} is a latent, not an image; use example:CLASS")
        name, count = reference.name, 1
        while name in names:
            count += 1
            name = f"{reference.name}-{count}"
        names.append(name)
        images.append(reference.x_CHW)
    return names, torch.stack(images)


def from_file(view: View, file: Path) -> Tensor:
    """Read an image file as the model sees it, (C, H, W): with the run's preprocessing, without silent resizing."""
    recipe = view.run.recipe
    return materialise(read_like(file, recipe.data, view.splits, view.run.name), recipe.data.transforms)[0]


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text).strip("-").lower()


class Folder:
    """A folder for generated files, with a list of the files that were written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[Path] = []

    def write(self, name: str, content: bytes) -> None:
        """Write one file."""
        with atomic(self.path / name) as temporary:
            temporary.write_bytes(content)
        self.files.append(self.path / name)

    # `plots` is imported where it is needed: matplotlib takes long to import, and encoding needs none.

    def image(self, name: str, picture: Pictures) -> None:
        """Write one picture as PNG."""
        from nelbo.plots import png_bytes

        self.write(f"{name}.png", png_bytes(picture))

    def grid(self, name: str, pictures: Pictures, columns: int | None = None) -> None:
        """Write pictures as one PNG, in reading order."""
        from nelbo.plots import montage, png_bytes

        self.write(f"{name}.png", png_bytes(montage(pictures, columns=columns), scale=2))

    def animation(self, name: str, frames: Pictures) -> None:
        """Write pictures as a GIF."""
        from nelbo.plots import gif_bytes

        self.write(f"{name}.gif", gif_bytes(frames))

    def array(self, name: str, values: np.ndarray) -> None:
        """Write an array as .npy."""
        with atomic(self.path / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
        self.files.append(self.path / f"{name}.npy")


def sample(view: View, out: Folder, n: int, temperature: float = 1.0, sampler: Sampler | None = None) -> None:
    """Write n images from the prior, or a sampler: PNGs, a grid of the first 1,000, arrays (n, H, W, C) and (n, Z)."""
    _positive("n", n)
    z_NZ, x_NCHW = view.samples(n, temperature, sampler)
    pictures = view.pictures(x_NCHW)
    out.grid("samples", pictures[:IN_A_GRID])
    out.array("samples", pictures)
    out.array("samples-latents", z_NZ.numpy())
    digits = len(str(n - 1))  # names then sort in the order of the draws
    for index, image in enumerate(pictures):
        out.image(f"sample-{index:0{digits}}", image)


def sample_like(view: View, out: Folder, n: int, references: list[str], noise: float | None = None) -> None:
    """Write n decoded draws around each image (`View.around`): PNGs, a grid of the first 100 of each, and arrays."""
    _positive("n", n)
    if any(text.startswith("class:") for text in references):
        raise ConfigError(
            "samples around a class start from an image of it: use example:CLASS, not class:CLASS"
        )
    texts: list[str] = []
    for text in references:
        texts += [f"example:{label}" for label in view.classes] if text == "all" else [text]
    names, x_BCHW = _images(view, texts)
    z_NBZ, x_NBCHW = view.around(x_BCHW, n, noise)
    pictures = view.pictures(x_NBCHW.transpose(0, 1))
    some = pictures[:, :IN_A_ROW]
    out.grid("samples", some.reshape(-1, *some.shape[2:]), columns=some.shape[1])
    out.array("samples", pictures)
    out.array("samples-latents", z_NBZ.transpose(0, 1).numpy())
    digits = len(str(n - 1))
    for name, drawn in zip(names, pictures, strict=True):
        for index, image in enumerate(drawn):
            out.image(f"sample-{name}-{index:0{digits}}", image)


def reconstruct(view: View, out: Folder, references: list[str], n: int) -> float:
    """Write images decoded from posterior means: PNGs, an array, a grid of 100 below their inputs. Return the MSE."""
    if references:
        names, x_BCHW = _images(view, references)
    else:
        _positive("n", n)
        names, x_BCHW = [f"image{index}" for index in range(min(n, len(view)))], view.images_at(slice(n))
    decoded = view.reconstruct(x_BCHW)
    pictures = view.pictures(decoded)
    rows = np.concatenate([view.pictures(x_BCHW[:IN_A_ROW]), pictures[:IN_A_ROW]])
    out.grid("reconstructions", rows, columns=len(rows) // 2)
    out.array("reconstructions", pictures)
    for name, image in zip(names, pictures, strict=True):
        out.image(f"reconstruction-{name}", image)
    return float((decoded - x_BCHW).square().mean())  # a pixel


def encode(view: View, file: Path) -> dict[str, list[int]]:
    """Write the posterior of every image: means alone to .npy, a row an image to .npz, .csv or .parquet.

    A row: `which` (position, name, split, label), mean and std of each dimension, and `bound`, the ELBO in nats; std
    and bound where there are any. Returns the shapes.
    """
    if file.suffix == ".npy":
        means_NZ = torch.cat([encoded(view.model, part) for part in view.parts.values()]).numpy()
        with atomic(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, means_NZ, allow_pickle=False)
        return {"mean": list(means_NZ.shape)}
    rows = [posteriors(view.model, part, bounds=True) for part in view.parts.values()]
    arrays = which(view.parts, as_numbers=file.suffix == ".npz")
    arrays |= {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}
    columns.write(file, arrays)
    return {name: list(array.shape) for name, array in arrays.items()}


def strangest(scores: Scores, by: str, n: int, file: Path) -> None:
    """Write a picture of the n strangest images by a score, each above its p-value and its name."""
    from nelbo.plots import image_grid

    index = scores.strangest(by, n)
    images = scores.split.images.select(torch.tensor(index))
    x_NCHW = materialise(images, scores.split.transforms)
    p_values = scores.places[by].p_N[index].tolist()
    # The end of a name tells images of one folder apart; there is room for some twenty letters.
    labels = [
        f"p {p:.2g}  {Path(name).stem[-14:]}" for name, p in zip(names_of(images), p_values, strict=True)
    ]
    title = f"{scores.run} · the strangest of {scores.data} ({scores.split_name}) by {by.replace('_', ' ')}"
    figure = image_grid(pictures_of(x_NCHW, scores.split.data.range), title=title, labels=labels)
    with atomic(file) as temporary:
        figure.savefig(temporary, format="png")


def interpolate(view: View, out: Folder, start: str, end: str, steps: int) -> None:
    """Write a straight line in the latent's space between two references: a row, an animation, arrays."""
    a, b = refer(view, start), refer(view, end)
    z_SZ = view.line(a.z_Z, b.z_Z, steps)
    pictures = view.decoded(z_SZ)
    name = f"interpolation-{a.name}-{b.name}"
    out.grid(name, pictures, columns=min(steps, 10) if steps > 12 else steps)
    out.animation(name, pictures)
    out.array(name, pictures)
    out.array(f"{name}-latents", z_SZ.numpy())


def traverse(view: View, out: Folder, start: str, dimensions: list[int], span: float, steps: int) -> None:
    """Write latent dimensions moved one at a time over +-span from a reference: a row and an animation each, arrays."""
    reference = refer(view, start)
    if not dimensions:  # all; categorical variables come after them, and go through their categories
        dimensions = list(range(len(view.directions)))
    rows = [view.decoded(view.traversal(reference.z_Z, dimension, span, steps)) for dimension in dimensions]
    name = f"traversal-{reference.name}"
    out.grid(name, np.concatenate(rows), columns=len(rows[0]))
    for dimension, frames in zip(dimensions, rows, strict=True):
        out.animation(f"{name}-z{dimension}", frames)
    out.array(name, np.stack(rows))


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"--{name} must be 1 or more (got {value})")
