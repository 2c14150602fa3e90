"""Scores of single images: how strange each is for a trained model, beside held-out images that the model knows.

    bound                 the ELBO, nats: lower is stranger. It fails on images that are simpler than the training ones
    iw_log_likelihood     the importance-weighted log-likelihood, nats (Burda et al. 2016): the same
    reconstruction_error  mean squared error of a pixel, from the posterior mean: higher is stranger
    typicality            |bound - its mean over held-out images|, nats (Nalisnick et al. 2019): higher is stranger
    regret                the gain of a posterior for this image alone, nats (Xiao et al. 2020): higher is stranger
    complexity            -bound - code length, nats (Serra et al. 2020): higher is stranger. Only where the bound is
                          itself one of a code: of binary pixels or 8-bit levels (bits/dim), not of grey ones

Held-out images are those of the validation split, or of test where there is none, or where validation is scored. Images
are never compared with themselves: where test alone is there, each is compared with the others.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nelbo import engine
from nelbo.data import Images, Splits
from nelbo.dists.base import exact
from nelbo.errors import ConfigError, DataError
from nelbo.evaluation.codelength import code_length
from nelbo.evaluation.conformal import Place, place, place_by_distance
from nelbo.evaluation.regret import FRESH, regret, why_none
from nelbo.metrics import Split
from nelbo.metrics.base import choice
from nelbo.metrics.bound import bits, in_words, likelihood_kind, of_two_images
from nelbo.metrics.importance import DECODED_AT_ONCE
from nelbo.models import BuiltModel
from nelbo.objectives import halves
from nelbo.training import api, looking, store
from nelbo.training.events import MetricBegun, MetricGoesOn, Tell, pixels_in_words, quiet
from nelbo.training.store import Run

SCORES = ("bound", "iw_log_likelihood", "reconstruction_error", "typicality", "regret", "complexity")
LOWER_IS_STRANGER = ("bound", "iw_log_likelihood")
BEST_FIRST = ("complexity", "regret", "reconstruction_error")  # by docs/outliers.md


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of N images. `values` are as measured; `places` say where each stands among held-out images.

    split      the images that were scored
    reference  the held-out images, in words, and their number
    missing    name of each score that there is not -> the reason
    """

    run: str
    checkpoint: str
    epoch: int
    data: str
    split_name: str
    split: Split
    reference: str
    n_reference: int
    samples: int
    steps: int
    values: Mapping[str, Tensor]
    places: Mapping[str, Place]
    missing: Mapping[str, str]

    def best(self) -> str:
        """Return the score that fails least, of those that there are."""
        return next(name for name in BEST_FIRST if name in self.values)

    def strangest(self, by: str, n: int) -> list[int]:
        """Return the positions of the n strangest images by a score, the strangest first; raise ConfigError."""
        if by not in self.values:
            why = self.missing.get(by, f"expected one of {', '.join(self.values)}")
            raise ConfigError(f"there is no score {by!r} of these images: {why}")
        strange_N = self.values[by].nan_to_num(nan=float("inf" if by not in LOWER_IS_STRANGER else "-inf"))
        return strange_N.argsort(descending=by not in LOWER_IS_STRANGER, stable=True)[:n].tolist()

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return a table with a row an image: which it is, and of every score its value, quantile and p-value."""
        table: dict[str, NDArray[np.generic]] = {**which({self.split_name: self.split})}
        for name, values_N in self.values.items():
            quantile_N, p_N = self.places[name]
            for column, each_N in ((name, values_N), (f"quantile_{name}", quantile_N), (f"p_{name}", p_N)):
                table[column] = each_N.numpy()
        return table

    def about(self) -> dict[str, object]:
        """Return what belongs to all images, as plain values."""
        return {
            "run": self.run, "checkpoint": self.checkpoint, "epoch": self.epoch, "data": self.data,
            "split": self.split_name, "n": len(self.split.images), "reference": self.reference,
            "n_reference": self.n_reference, "samples": self.samples, "steps": self.steps,
            "missing": dict(self.missing),
        }  # fmt: skip


def score(
    run: str | Path | Run,
    data: object | None = None,
    *,
    split: str | None = None,
    checkpoint: str = "best",
    samples: int = 100,
    steps: int = 50,
    held_out: int = 1000,
    reference: object | None = None,
    device: str = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    tell: Tell = quiet,
) -> Scores:
    """Score images by a trained model: new ones, or a split of the run's own data.

    data       new images (`nelbo.training.looking.new_images`), or the place of the run's own data
    samples    K of the importance-weighted log-likelihood; 0 leaves it out
    steps      in which the posterior of each image is optimised for the regret; 0 leaves it out
    held_out   most held-out images to compare with, evenly chosen
    reference  the place of the run's own data, where it has moved and `data` are others

    Deterministic. Raises ConfigError and DataError where there is nothing to score, or to compare with.
    """
    for name, number, least in (("samples", samples, 0), ("steps", steps, 0), ("held-out", held_out, 1)):
        if number < least:
            raise ConfigError(f"--{name} must be {least} or more (got {number})")
    opened = store.find(run, Path(runs))
    place_of_run = engine.pick_device(device)
    splits = looking.open_splits(opened, data_dir, data)
    split = split or looking.default_split(splits)
    scored = Split(splits.split(split), splits, place_of_run)
    known = splits
    if not looking.is_own(opened, splits):
        known = _own_data(opened, data_dir, reference)
    elif reference is not None:
        raise ConfigError(
            "--reference is for other images; --data alone says where the data of the run has moved"
        )
    model = api.load(opened, checkpoint=checkpoint, device=device)
    held, words = _reference(opened, known, scored, split, held_out)
    if held is not None:
        _check_alike(model, scored, held, opened)
    values, missing = _measured(model, scored, samples, steps, tell, f"{splits.name} ({split})")
    against = None if held is None else _measured(model, held, samples, steps, tell, words)[0]
    places: dict[str, Place] = {}
    if "bound" in values:
        values["typicality"] = (values["bound"] - (against or values)["bound"].mean()).abs()
        places["typicality"] = place_by_distance(
            values["bound"], None if against is None else against["bound"]
        )
    for name in values.keys() - {"typicality"}:
        sign = -1.0 if name in LOWER_IS_STRANGER else 1.0
        places[name] = place(sign * values[name], None if against is None else sign * against[name])
    return Scores(
        opened.name, checkpoint, opened.epoch(checkpoint), splits.name, split, scored, words,
        len(held.images) if held is not None else len(scored.images) - 1, samples, steps,
        {name: values[name] for name in SCORES if name in values}, places, missing,
    )  # fmt: skip


def _own_data(run: Run, data_dir: str | Path | None, reference: object | None) -> Splits:
    """Return the run's own data; raise DataError with the flag that says where they are."""
    try:
        return api.load_same_data(run, data_dir, reference)
    except DataError as error:
        way_out = "" if reference is not None else " (here --reference PATH: --data are other images)"
        raise DataError(f"{error}{way_out}; its held-out images are what others are compared with") from None


def _reference(run: Run, known: Splits, scored: Split, split: str, most: int) -> tuple[Split | None, str]:
    """Return the held-out images and their name; None where they are the other ones of the scored split itself."""
    held_out = {"validation": known.validation, "test": known.test}
    scored_itself = scored.data is known
    for name, images in held_out.items():
        if images is None or len(images) == 0 or (scored_itself and name == split):
            continue
        some = images if len(images) <= most else images.select(choice(len(images), most))
        count = f"{len(some):,} of {len(images):,}" if len(some) < len(images) else f"{len(images):,}"
        return Split(some, known, scored.device), f"{count} {name} images of {run.name}"
    if not scored_itself or split not in held_out or len(scored.images) < 2:
        raise ConfigError(
            f"{run.name} has no held-out images to compare with; train with --data.validation 0.1"
        )
    return None, f"the other {len(scored.images) - 1:,} {split} images of {run.name}"


def _check_alike(model: BuiltModel, scored: Split, held: Split, run: Run) -> None:
    """Raise DataError where log p(x | z) of the two is not the same kind of number."""
    kinds = [likelihood_kind(model, split) for split in (scored, held)]
    if kinds[0] != kinds[1]:
        words = [pixels_in_words(split.pixels, split.images.shape[0]) for split in (scored, held)]
        raise DataError(
            f"{scored.data.name} has {words[0]} pixels and {run.name} was trained on {words[1]} ones: their "
            f"bounds are not the same kind of number ({'; '.join(map(in_words, kinds))}); give images as it was "
            "trained on"
        )


def _measured(
    model: BuiltModel, split: Split, samples: int, steps: int, tell: Tell, name: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the scores of each image that need no other image, float64 (N), and the reason for each missing one."""
    draw = of_two_images(model.draw, split)
    no_bound = "a posterior that is one point gives no bound" if draw.posterior.is_point else draw.not_a_bound
    no_regret = no_bound or why_none(draw.posterior) or ("" if steps else "left out by --steps 0")
    no_estimate = no_bound or ("" if samples else "left out by --samples 0")
    missing = {"iw_log_likelihood": no_estimate, "regret": no_regret}
    missing |= dict.fromkeys(("bound", "typicality"), no_bound or "")
    missing["complexity"] = no_bound or _why_no_code(model, split)
    values = _of_batches(split, 500, tell, f"bound of {name}", lambda x_BCHW: _quick(model, split, x_BCHW))
    if not no_estimate:
        size = max(1, min(500, DECODED_AT_ONCE // min(samples, 128)))
        values |= _of_batches(
            split, size, tell, f"log-likelihood of {name}",
            lambda x_BCHW: {"iw_log_likelihood": model.log_prob(x_BCHW, samples)},
        )  # fmt: skip
    if not no_regret:
        size = DECODED_AT_ONCE // FRESH
        values |= _of_batches(
            split, size, tell, f"regret of {name}", lambda x_BCHW: {"regret": regret(model, x_BCHW, steps)}
        )
    return values, {name: why for name, why in missing.items() if why}


def _of_batches(
    split: Split, size: int, tell: Tell, name: str, measure: Callable[[Tensor], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Measure every image in batches, and tell how far it is."""
    tell(MetricBegun(name))
    rows: list[dict[str, Tensor]] = []
    for x_BCHW in split.batches(size):
        rows.append({key: value_B.cpu().double() for key, value_B in measure(x_BCHW).items()})
        tell(MetricGoesOn(name, min(len(rows) * size, len(split.images)), len(split.images)))
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}


def _quick(model: BuiltModel, split: Split, x_BCHW: Tensor) -> dict[str, Tensor]:
    """Return what one pass of the networks gives; the bound is that of the metric."""
    _, bound_B = halves(model.draw(x_BCHW))
    off_BCHW = exact(model.reconstruct(x_BCHW)) - exact(x_BCHW)
    values = {"reconstruction_error": off_BCHW.square().flatten(1).mean(1)}
    if bound_B is None:
        return values
    values["bound"] = bound_B = bound_B.cpu().double()
    in_bits = bits(-bound_B, split, model)
    if in_bits is not None and in_bits[0] == "bits_per_dim":
        nats_B = in_bits[2] * math.prod(split.images.shape) * math.log(2.0)
        values["complexity"] = nats_B - code_length(x_BCHW, split)
    return values


def _why_no_code(model: BuiltModel, split: Split) -> str:
    """Return the reason why the bound of these pixels is no length of a code; empty where it is."""
    in_bits = bits(torch.zeros(1), split, model)
    if in_bits is not None and in_bits[0] == "bits_per_dim":
        return ""
    return f"a {likelihood_kind(model, split)} is no code length; train with a likelihood of levels or with dequantise"


def which(parts: Mapping[str, Split], *, as_numbers: bool = False) -> dict[str, NDArray[np.generic]]:
    """Return columns that say which image a row is: position, name, split and label, as far as the images have them.

    With `as_numbers` labels are numbers under the key `labels`, otherwise names of classes under `label`.
    """
    images = [part.images for part in parts.values()]
    positions = [torch.arange(len(one)) if one.positions_N is None else one.positions_N for one in images]
    table: dict[str, NDArray[np.generic]] = {"position": torch.cat(positions).numpy()}
    if all(one.names is not None for one in images):
        table["name"] = np.array([name for one in images for name in one.names or ()], dtype=str)
    table["split"] = np.repeat(np.array(list(parts)), [len(one) for one in images])
    labels = [one.labels_N for one in images if one.labels_N is not None]
    if len(labels) < len(images):
        return table
    labels_N, classes = torch.cat(labels).numpy(), images[0].class_names
    if as_numbers or classes is None:
        return table | {"labels" if as_numbers else "label": labels_N}
    inside = [classes[label] if 0 <= label < len(classes) else "" for label in labels_N.tolist()]
    return table | {"label": np.array(inside, dtype=str)}


def names_of(images: Images) -> list[str]:
    """Return the name of each image, or its position in its source where it has none."""
    if images.names is not None:
        return list(images.names)
    positions_N = torch.arange(len(images)) if images.positions_N is None else images.positions_N
    return [f"image {position}" for position in positions_N.tolist()]
