"""The evaluation card: the numbers of every metric for one checkpoint on one split, kept in the run folder.

evaluation/{split}-{checkpoint}-k{samples}.json          the card
evaluation/{split}-{checkpoint}-k{samples}.safetensors   the numbers of single images, for paired comparisons
evaluation/unfinished/{split}-k{samples}-{weights}/      the finished part of an interrupted measurement
evaluation/of-{data}-{hash}/                             the same of other data than the run's own
"""

import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nelbo import engine
from nelbo.core import files
from nelbo.core.catalogue import entries
from nelbo.core.layout import Card, Entry
from nelbo.core.registry import lookup, names
from nelbo.data import Batches, Splits
from nelbo.errors import ConfigError, RunError
from nelbo.metrics import Metric, Split, Value
from nelbo.metrics.base import under
from nelbo.metrics.bound import GREY, likelihood_kind, note_for
from nelbo.models import BuiltModel
from nelbo.training import api, looking, store
from nelbo.training.events import MetricBegun, MetricGoesOn, Tell, Warned, quiet
from nelbo.training.store import Run

PRECISION = "fp32"  # of every measurement (`metrics.base.exactly`)
LAST = 1000  # the place of a section whose metric is gone: behind every registered one
MOST_SAMPLES = 10_000_000  # an image; a typing error would run for years


def quick() -> tuple[str, ...]:
    """Return the names of the metrics that are measured at the end of training; `nelbo evaluate` measures all."""
    return tuple(sorted((name for name, metric in entries("metric").items() if metric.quick), key=position))


def evaluate(
    run: str | Path | Run,
    *,
    checkpoint: str = "best",
    split: str | None = None,
    samples: int = 500,
    metrics: Sequence[str] | None = None,
    without: Sequence[str] = (),
    device: str = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    data: object | None = None,
    tell: Tell = quiet,
) -> Card:
    """Measure a checkpoint on a split: {run, checkpoint, split, n, data_hash, metrics: {name: {value, ...}}}.

    split     test by default; of images without splits there is one, all
    samples   K of the importance-weighted estimate; 0 leaves it out
    metrics   names of registered metrics (`nelbo list metric`); all by default
    data      the place of the run's data, where it has moved; or new images (`nelbo.training.looking.new_images`).
              Their card has `other_data`, its own folder, and no metric that learns from training images
    without   names of metrics that are left out of all
    tell      hears `MetricBegun` when one begins and `MetricGoesOn` while it runs

    The card is written to `evaluation/` of the run. Some metrics alone are added to what is there of the same weights;
    `earlier` says which were measured elsewhere. The same call gives the same numbers; an interrupted one goes on; with
    another K only what depends on it is measured again.
    """
    _check_samples(samples)
    chosen = _named(metrics, without)
    opened = store.find(run, Path(runs))
    place = engine.pick_device(device)
    model = api.load(opened, checkpoint=checkpoint, device=device)
    weights = fingerprint(model)
    splits = looking.open_splits(opened, data_dir, data)
    split = split or looking.default_split(splits)
    images = splits.split(split)  # raises for an unknown or absent one, before a word is said
    if other := not looking.is_own(opened, splits):
        chosen = _without_learning(chosen, opened, splits, tell, named=bool(metrics))
    # Named by the weights, so that an interrupted measurement of other weights is not gone on with.
    scratch = looking.folder_of(opened, "evaluation", splits) / "unfinished" / f"{split}-k{samples}-{weights}"
    view = Split(images, splits, place, samples=samples, scratch=scratch, named=bool(metrics))
    begun = time.perf_counter()  # of measuring alone: loading depends on the disk
    card: Card = {
        "run": opened.name,
        "checkpoint": checkpoint,
        "epoch": opened.epoch(checkpoint),
        "split": split,
        "n": len(images),
        "samples": view.samples,
        "seed": view.seed,
        "data_hash": view.data.hash,
        "images_hash": images_hash(view),
        "log_px": note_for(likelihood_kind(model, view)),
        "weights": weights,
        "precision": PRECISION,
        "environment": engine.describe(place),
    }
    card |= {"other_data": splits.name} if other else {}
    carried = _carried_over(opened, card, chosen)
    missing = {name: metric for name, metric in chosen.items() if name not in carried}
    measured = {name: _measured(metric, name, model, view, tell) for name, metric in missing.items()}
    values = {key: value for section in measured.values() for key, value in section.items()}
    card |= {
        "seconds": round(time.perf_counter() - begun, 3),
        "metrics": {key: value.to_dict() for key, value in values.items()},
        "sections": {name: list(section) for name, section in measured.items()},
    }
    card = _keep(opened, card, {key: value.per_image_N for key, value in values.items()})
    if "importance" in chosen:  # the one metric that leaves unfinished work behind
        _remove(scratch)
    return card


def _remove(scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    with contextlib.suppress(OSError):  # another measurement is unfinished in the same folder
        scratch.parent.rmdir()


def _measured(metric: Metric, name: str, model: BuiltModel, view: Split, tell: Tell) -> dict[str, Value]:
    """Measure one section of a card."""
    tell(MetricBegun(name))
    telling = dataclasses.replace(view, tell=lambda count, total: tell(MetricGoesOn(name, count, total)))
    return dict(under(metric(model, telling), {"training data": view.data.hash} if metric.learns else {}))


def _check_samples(samples: int) -> None:
    if not 0 <= samples <= MOST_SAMPLES:
        raise ConfigError(f"samples must be 0 or more, and {MOST_SAMPLES:,} at most (got {samples})")


def _named(metrics: Sequence[str] | None, without: Sequence[str] = ()) -> dict[str, Metric]:
    """Return the metrics of these names, or all but some, in a card's order; raise UnknownName for another."""
    sections = sorted(metrics or {*names("metric")} - {*without}, key=position)
    return {name: lookup("metric", name) for name in sections}


def _without_learning(
    chosen: Mapping[str, Metric], run: Run, splits: Splits, tell: Tell, *, named: bool
) -> dict[str, Metric]:
    """Return the metrics that other data can have: those that learn need the run's own training images."""
    learning = [name for name, metric in chosen.items() if metric.learns]
    why = f"{splits.name} is not the data of {run.name}, and {', '.join(learning)} learn from its training images"
    if named and learning:
        raise ConfigError(f"{why}; leave them out of the metrics")
    tell(Warned(f"{splits.name} is not the data that {run.name} was trained on: measured as new images"))
    if learning:
        tell(Warned(f"left out: {why}"))
    return {name: metric for name, metric in chosen.items() if not metric.learns}


def position(section: str) -> tuple[int, str]:
    """Return the place of a section on a card, for sorting; that of a metric which is gone comes last."""
    metric: Metric | None = entries("metric").get(section)
    return (metric.order if metric else LAST, section)


# --- in the run folder ------------------------------------------------------------------------


def fingerprint(model: nn.Module) -> str:
    """Return 12 hex digits over the weights: two cards of equal fingerprints measured the same model."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):  # the order of modules in a class does not count
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:12]


def images_hash(view: Split) -> str:
    """Return 16 hex digits over the pixels and labels that a model sees, in order: equal for cards of equal images."""
    # The shape comes first: the bytes of 2 x 8 pixels are also those of 4 x 4.
    digest = hashlib.sha256(str(list(view.images.shape)).encode())
    for x_BCHW in Batches(view.images, view.transforms, view.batch_size, device=torch.device("cpu")).epoch():
        digest.update(x_BCHW.contiguous().numpy().data)
    if view.images.labels_N is not None:
        digest.update(view.images.labels_N.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def stem(split: str, checkpoint: str, samples: int) -> str:
    """Return the path of a card in its run folder, without the suffix."""
    return f"evaluation/{split}-{checkpoint}-k{samples}"


def _stem_of(card: Card) -> str:
    """Return the path of this card; that of other data stands in a folder of its own."""
    path = stem(card["split"], card["checkpoint"], card["samples"])
    if "other_data" not in card:
        return path
    return path.replace("/", f"/{looking.place_of(card['other_data'], card['data_hash'])}/", 1)


def read(
    run: Run,
    split: str = "test",
    checkpoint: str = "best",
    samples: int | None = None,
    having: str | None = None,
) -> Card:
    """Return a card of the run folder, or an empty one: of `samples`, or else the fullest that has a number `having`.

    Of equally full ones that of the largest K.
    """
    if samples is not None:
        card: Card = run.read_json(stem(split, checkpoint, samples) + ".json", missing={})
        return card
    paths = (run.path / "evaluation").glob(f"{split}-{checkpoint}-k*.json")
    cards: list[Card] = [run.read_json(f"evaluation/{file.name}", missing={}) for file in paths]
    fitting = [card for card in cards if having is None or having in card.get("metrics", {})]
    return max(
        fitting, key=lambda card: (len(card.get("metrics", {})), card.get("samples", 0)), default=Card()
    )


def is_of(card: Card, weights: str) -> bool:
    """Return True if a stored card belongs to these weights; one that an older nelbo measured in bf16 is not used."""
    return card.get("weights") == weights and card.get("precision") == PRECISION


def is_whole(card: Card) -> bool:
    """Return True if a card says under which conditions each number holds; those of an older nelbo do not."""
    return bool(card) and all("conditions" in entry for entry in card["metrics"].values())


def is_grey(entry: Entry | None) -> bool:
    """Return True if a number contains a cross-entropy of grey pixels, which is no likelihood."""
    return entry is not None and entry.get("conditions", {}).get("likelihood") == GREY


def read_per_image(run: Run, card: Card) -> dict[str, Tensor]:
    """Return the numbers of single images that belong to a card, float64 of shape N, in the split's order."""
    file = run.path / (_stem_of(card) + ".safetensors")
    if not file.is_file():
        return {}
    tensors, about = files.read_tensors(file)
    # A crash between the two files of a card leaves numbers of other weights: they are not used.
    return tensors if about.get("weights") == card.get("weights") else {}


def _keep(run: Run, card: Card, columns: Mapping[str, Tensor | None]) -> Card:
    """Write a card, together with the numbers of an earlier one for the same weights by other metrics."""
    per_image = {name: each_N for name, each_N in columns.items() if each_N is not None}
    path = _stem_of(card)
    try:
        before = run.read_json(path + ".json", missing={})
        before_each = read_per_image(run, card)
    except RunError:  # a damaged card is replaced
        before, before_each = {}, {}
    if before and _alike(before, card):
        metrics, sections = before["metrics"] | card["metrics"], before["sections"] | card["sections"]
        order = sorted(sections, key=position)
        listed = [name for section in order for name in sections[section] if name in metrics]
        added = {name for name in listed if name not in card["metrics"]}
        # Machine and code of a section, where they are not those of this card; its time would mislead otherwise.
        measured_on = dict.fromkeys(before["sections"], before["environment"]) | before.get("earlier", {})
        elsewhere = {
            section: environment
            for section, environment in measured_on.items()
            if section not in card["sections"] and environment != card["environment"]
        }
        card = card | {
            "metrics": {name: metrics[name] for name in listed},
            "sections": {section: sections[section] for section in order},
        }
        card |= {"earlier": elsewhere} if elsewhere else {}
        per_image = {name: value for name, value in before_each.items() if name in added} | per_image
    files.write_tensors(run.path / (path + ".safetensors"), per_image, {"weights": card["weights"]})
    run.write_json(path + ".json", card)
    return card


def _alike(before: Card, card: Card) -> bool:
    """Return True if an earlier card belongs to the same weights, images and noise."""
    same = {"weights", "data_hash", "images_hash", "seed", "precision"}
    return is_whole(before) and same <= {key for key, value in before.items() if card.get(key) == value}


def _carried_over(run: Run, card: Card, chosen: Mapping[str, Metric]) -> tuple[str, ...]:
    """Write the card of this K with the chosen sections that do not depend on it, from cards of other K.

    Only sections count that the same code measured on the same machine, and whose every number exists: what was
    missing may be there now.
    """
    if card["environment"].get("uncommitted"):  # the commit is not all of the code
        return ()
    if "other_data" in card:  # measured seldom: always anew
        return ()
    start = f"{card['split']}-{card['checkpoint']}-k"
    numbers = [file.stem.removeprefix(start) for file in (run.path / "evaluation").glob(f"{start}*.json")]
    others = {int(number) for number in numbers if number.isdecimal()} - {card["samples"]}
    for samples in sorted(others, reverse=True):
        with contextlib.suppress(RunError, KeyError):  # a damaged card is nobody's source
            other = read(run, card["split"], card["checkpoint"], samples)
            if not _alike(other, card) or other["environment"] != card["environment"]:
                continue
            sections = {
                name: list(listed)
                for name, listed in other["sections"].items()
                if name in chosen and not chosen[name].depends_on_k and name not in other.get("earlier", {})
                if listed and all(other["metrics"][one]["value"] is not None for one in listed)
            }
            metrics = {one: other["metrics"][one] for listed in sections.values() for one in listed}
            if sections:
                per_image = read_per_image(run, other)
                columns = {one: each_N for one, each_N in per_image.items() if one in metrics}
                joined: Card = {**card, "seconds": other["seconds"], "metrics": metrics, "sections": sections}
                _keep(run, joined, columns)
                return tuple(sections)
    return ()
