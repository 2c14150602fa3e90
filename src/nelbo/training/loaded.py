"""A trained model for a person's own images: it checks what it is given, and leaves random streams alone.

Training, evaluation and pictures use `api.load`, whose inputs come from the run's own data and need no checks.
"""

import functools
import operator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nelbo import engine
from nelbo.core import Draw, config
from nelbo.core.distributions import LikelihoodValue, PosteriorValue
from nelbo.errors import ConfigError, DataError
from nelbo.models import BuiltModel, Model
from nelbo.training import api, store
from nelbo.training.store import Run


def load(
    run: str | Path | Run, *, checkpoint: str = "best", device: str = "auto", runs: str | Path = "runs"
) -> BuiltModel:
    """Return the trained model of a run, in evaluation mode: encode, decode, sample, reconstruct, log_prob.

    `run` may also be the `model/` folder of a run, or a copy of it: what is shared. `model(x)` reconstructs.

    Images are (N, C, H, W), a tensor or a NumPy array, as the model saw them in training: after the run's transforms.
    Grey images may lack the channel axis. Other floating-point numbers are rounded to float32. 8-bit images (uint8)
    become level / 255 where the run did the same and no more. Anything else is refused with a DataError.

    Raises RunError when the run or the checkpoint is missing or damaged.
    """
    with engine.as_found(torch.device("cpu")):  # nothing here draws on another device
        model = api.load(run, checkpoint=checkpoint, device=device, runs=runs)
        if isinstance(run, str | Path) and (Path(run) / "model.safetensors").is_file():
            table = Run(Path(run)).read_json("config.json")["model"]
            spec: Model = config.build(Model, table, str(Path(run) / "config.json"))
            eight_bit = "a model/ folder does not say how 8-bit levels became its pixels"
        else:
            recipe = store.find(run, Path(runs)).recipe
            spec, steps = recipe.model, [transform.name for transform in recipe.data.transforms]
            eight_bit = f"the run's images went through {', '.join(steps)} after that" if steps else ""
            if recipe.data.range is not None:
                eight_bit = "the run's pixels have a data.range of their own"
    likelihood = spec.setting("likelihood")
    model.__class__ = checked(type(model))
    assert isinstance(model, Checked)
    model.support, model.eight_bit = None if likelihood is None else likelihood.support, eight_bit
    return model


class Checked(BuiltModel):
    """A loaded model, whose public calls check their inputs.

    support    the interval that the likelihood needs its pixels in, or None
    eight_bit  the reason why 8-bit images cannot be taken as they are; "" where they can
    """

    support: tuple[float, float] | None
    eight_bit: str

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return `reconstruct(x)`."""
        return self.reconstruct(x_BCHW)

    def encode(self, x_BCHW: Tensor) -> PosteriorValue:
        return super().encode(self.images(x_BCHW))  # type: ignore[safe-super]

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw:
        return super().draw(self.images(x_BCHW), count("k", k, 1))

    def decode(self, z: Tensor) -> LikelihoodValue:
        return super().decode(self.latents(z))  # type: ignore[safe-super]

    def reconstruct(self, x_BCHW: Tensor) -> Tensor:
        return super().reconstruct(self.images(x_BCHW))

    def log_prob(self, x_BCHW: Tensor, k: int = 100) -> Tensor:
        return super().log_prob(self.images(x_BCHW), count("k", k, 1))

    def log_weights(self, x_BCHW: Tensor, k: int) -> Tensor:
        return super().log_weights(self.images(x_BCHW), count("k", k, 1))

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        if not 0 <= temperature < float("inf"):
            raise DataError(f"temperature must be a number from 0 on (got {temperature})")
        return super().sample(count("n", n, 0), temperature)

    def images(self, x: object) -> Tensor:
        """Return images as the model takes them, (N, C, H, W); raise DataError where it cannot."""
        pixels = tensor_of(x, "images")
        if pixels.ndim == 3 and self.shape[0] == 1 and pixels.shape[1:] == self.shape[1:]:
            pixels = pixels[:, None]  # grey images without their channel axis
        if pixels.shape[1:] != self.shape:
            raise DataError(self._other_shape(tuple(pixels.shape)))
        if pixels.dtype == torch.uint8:
            if self.eight_bit or (self.support is not None and self.support != (0.0, 1.0)):
                why = self.eight_bit or "its pixels are not in [0, 1]"
                way_out = "give floating-point pixels as the model saw them in training"
                raise DataError(f"8-bit images (uint8) are not taken by this model: {why}; {way_out}")
            pixels = pixels.to(torch.float32) / 255
        x_BCHW = self._placed(pixels, "images", "x.float()")
        low, high = self.support or (-float("inf"), float("inf"))
        inside = x_BCHW.isfinite() & (x_BCHW >= low) & (x_BCHW <= high)
        if not bool(inside.all()):
            wrong = int((~inside).sum())
            interval = (
                f"in [{low:g}, {high:g}], where its likelihood is defined" if self.support else "finite"
            )
            raise DataError(
                f"{wrong:,} of {x_BCHW.numel():,} pixels are not what this model takes: it needs them {interval}, and "
                f"these go from {float(x_BCHW.min()):g} to {float(x_BCHW.max()):g}; scale them as in training"
                + (" (x / 255 for levels from 0 to 255)" if self.support == (0.0, 1.0) else "")
            )
        return x_BCHW

    def latents(self, z: object) -> Tensor:
        """Return latents as the model takes them, (..., Z); raise DataError where it cannot."""
        numbers = tensor_of(z, "latents")
        if numbers.ndim == 0 or numbers.shape[-1] != self.latent_dim:
            raise DataError(
                f"latents of shape {tuple(numbers.shape)}, but this model's are (..., {self.latent_dim})"
            )
        latents = self._placed(numbers, "latents", "z.float()")
        if not bool(latents.isfinite().all()):
            raise DataError("latents must be finite: some are NaN or infinite")
        return latents

    def _placed(self, numbers: Tensor, what: str, way_out: str) -> Tensor:
        if not numbers.dtype.is_floating_point:
            raise DataError(f"{what} of {numbers.dtype}, but this model takes floating point; give {way_out}")
        weight = next(self.parameters())
        return numbers.to(device=weight.device, dtype=weight.dtype)

    def _other_shape(self, shape: tuple[int, ...]) -> str:
        channels, height, width = self.shape
        hint = ""
        if shape[1:] == (height, width, channels):
            hint = "; channels are last here, put them first: x.permute(0, 3, 1, 2), of NumPy x.transpose(0, 3, 1, 2)"
        elif shape in (self.shape, (height, width)):
            hint = "; for one image give x[None]"
        images = f"(N, {channels}, {height}, {width}), N images of model.shape {self.shape} (C, H, W)"
        return f"images of shape {shape}, but this model takes {images}{hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # A class that is made here cannot be found by its name: a copy is made of the class below it.
        return _empty, (type(self).__bases__[1],), self.__dict__


def _empty(model: type[BuiltModel]) -> Checked:
    return Checked.__new__(checked(model))


@functools.cache
def checked(model: type[BuiltModel]) -> type[Checked]:
    """Return a model's class with the checks of `Checked` before its own methods."""
    return type(model.__name__, (Checked, model), {"__module__": model.__module__, "__doc__": model.__doc__})


def tensor_of(values: object, what: str) -> Tensor:
    """Return a tensor or a NumPy array as a tensor; raise DataError for anything else."""
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        kind = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"{what} must be a tensor or a NumPy array of numbers, not {kind}")
    return torch.from_numpy(np.array(values, order="C"))  # a copy: views may run backwards, or be read-only


def count(name: str, value: int, least: int) -> int:
    """Return a whole number; raise ConfigError for one below `least`, or for another value."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ConfigError(f"{name} must be a whole number from {least} on (got {value!r})")
    return number
