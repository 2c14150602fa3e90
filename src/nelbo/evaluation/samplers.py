"""Samplers fitted to a trained run, and the choice of one: by validation images, reported on test images.

evaluation/samplers.json                        the measurements of `compare`, and the sampler that it chose
evaluation/unfinished/samplers-*.json           the finished part of an interrupted one
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from nelbo import engine
from nelbo.core import config
from nelbo.core.layout import Entry, SamplerChoice, SamplerRow, number
from nelbo.core.registry import lookup, names
from nelbo.core.spec import kebab
from nelbo.data import Images
from nelbo.errors import ConfigError, DataError, NelboError
from nelbo.evaluation.card import PRECISION, fingerprint
from nelbo.metrics import Split, Value, exactly
from nelbo.metrics import fid as inception
from nelbo.metrics.base import choice
from nelbo.metrics.classifier import presented
from nelbo.metrics.quality import DrawLatents, Judge, Refusal
from nelbo.models import BuiltModel
from nelbo.samplers import Fitted, Latents, Sampler
from nelbo.samplers.base import of_posterior
from nelbo.training import api, store
from nelbo.training.events import MetricBegun, MetricGoesOn, Tell, quiet
from nelbo.training.store import Run

FILE = "evaluation/samplers.json"
CHOSEN = "chosen"
MOST_LATENTS = 100_000  # training images that a sampler is fitted to
QUICK = ("prior", "gaussian-mixture")  # what is compared after every training, in seconds
QUICK_LATENTS, QUICK_IMAGES = 5_000, 1_000
DECODE_AT_ONCE = 1000  # latents: the images of all of them may not fit the memory of a device


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The latents of a model's training and validation images, to which samplers are fitted.

    split   any split of the data; its device and its transforms count
    seed    of fits
    most    training images at most
    """

    model: BuiltModel
    split: Split
    seed: int = 0
    most: int = MOST_LATENTS

    @cached_property
    def train(self) -> Latents:
        images = self.split.data.train
        if len(images) > self.most:
            images = images.select(choice(len(images), self.most))
        return self._of(images, self.split.seed)

    @cached_property
    def validation(self) -> Latents | None:
        images = self.split.data.validation
        # Another seed, so that validation images do not get the noise of training images.
        return None if images is None else self._of(images, self.split.seed + 1)

    def _of(self, images: Images, seed: int) -> Latents:
        split = dataclasses.replace(self.split, images=images, seed=seed)
        encoded = [of_posterior(self.model.encode(x_BCHW)) for x_BCHW in split.batches()]
        z_NZ, mean_NZ, std_NZ = (torch.cat(parts).float() for parts in zip(*encoded, strict=True))
        present = presented(images, split.transforms)

        def again(at_M: Tensor) -> Tensor:
            return of_posterior(self.model.encode(present(at_M).to(split.device)))[0].float()

        return Latents(z_NZ, mean_NZ, std_NZ, again)

    def fit(self, spec: Sampler) -> Fitted:
        """Fit a sampler, repeatably: in float32, with a random stream of its own."""
        spec.check(self.model.latent_space.space)
        empty = torch.zeros(0, self.model.latent_dim, device=self.split.device)
        train, validation = Latents(empty, empty, empty, lambda at_M: empty), None
        if spec.fewest(self.model.latent_dim) > 0:  # the prior needs none, so no image is encoded for it
            train, validation = self.train, self.validation
        with exactly(self.split.device), engine.fixed_seed(self.seed, self.split.device):
            return spec.fit(self.model, train, validation)


@dataclasses.dataclass(frozen=True)
class RunSampler:
    """A sampler fitted to a run. `latents(n)` and `sample(n)` give the same n with the same seed."""

    spec: Sampler
    model: BuiltModel
    fitted: Fitted
    device: torch.device

    def latents(self, n: int, seed: int = 0) -> Tensor:
        """Draw n latents: (n, Z), float32 on the CPU."""
        with engine.fixed_seed(seed, self.device), exactly(self.device):
            return self.fitted.sample(n).float().cpu()

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Return means of p(x | z) for n latents: (n, C, H, W), float32 on the CPU."""
        z_NZ = self.latents(n, seed)
        with exactly(self.device):
            return engine.in_pieces(lambda z: self.model.decode(z).mean, z_NZ, self.device, DECODE_AT_ONCE)


def sampler(
    run: str | Path | Run,
    name: str | Sampler = CHOSEN,
    settings: Mapping[str, object] | None = None,
    *,
    checkpoint: str = "best",
    seed: int = 0,
    device: str = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    data: object | None = None,
) -> RunSampler:
    """Fit a sampler to the latents of a run's training images; `.sample(n)` then gives images.

    name      a registered sampler (`nelbo list sampler`), a Sampler, or `chosen`: the best of `nelbo samplers RUN`
    settings  its fields, as {"components": 20}

    Raises UnknownName, ConfigError where it cannot work with these latents, DataError for too few images.
    """
    opened = store.find(run, Path(runs))
    check_name(name)  # before the model is loaded, which takes longer
    model = api.load(opened, checkpoint=checkpoint, device=device)
    place = engine.pick_device(device)
    spec = specified(name, settings, opened, model)
    split = api.open_split(opened, "train", place, data_dir=data_dir, data=data)
    return RunSampler(spec, model, Encoded(model, split, seed).fit(spec), place)


def check_name(name: str | Sampler) -> None:
    """Raise UnknownName with the nearest spelling."""
    if isinstance(name, str) and name != CHOSEN:
        lookup("sampler", name)


def specified(
    name: str | Sampler, settings: Mapping[str, object] | None, run: Run, model: BuiltModel
) -> Sampler:
    """Return the sampler of that name with these settings; `chosen` is the run's choice for these very weights."""
    if isinstance(name, Sampler):
        spec = name
    elif name == CHOSEN:
        table = run.read_json(FILE, missing={})
        way_out = (
            f"nelbo samplers {run.quoted} measures them and chooses one; or name one (nelbo list sampler)"
        )
        if not table:
            raise ConfigError(f"no sampler has been chosen for {run.name} yet: {way_out}")
        if table["weights"] != fingerprint(model):
            raise ConfigError(
                f"the sampler of {run.name} was chosen for other weights (checkpoint {table['checkpoint']}, epoch "
                f"{table['epoch']}) than are asked for now: {way_out}"
            )
        spec = config.build(Sampler, table["samplers"][table["chosen"]]["config"], str(run.path / FILE))
    else:
        spec = config.build(Sampler, name, "sampler")
    return config.override(spec, settings, "these settings of the sampler") if settings else spec


# --- which is best ----------------------------------------------------------------------------


def compare(
    run: str | Path | Run,
    samplers: Sequence[str] | None = None,
    settings: Mapping[str, object] | None = None,
    *,
    checkpoint: str = "best",
    seed: int = 0,
    device: str = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    data: object | None = None,
    quick: bool = False,
    tell: Tell = quiet,
) -> SamplerChoice:
    """Fit samplers to a run, measure each on validation images, and the one with the lowest distance on test images.

    A sampler that only draws training images again (`Sampler.copies`) is chosen only where there is no other.

    samplers  names; every registered one by default
    settings  fields by sampler, as {"gaussian-mixture.components": 20}
    quick     seconds: fits to 5,000 training images, judges by 1,000 images in the features of an untrained network,
              and keeps the prior unless another is nearer by more than the standard error of the difference
    tell      hears `MetricBegun` when the next sampler begins and `MetricGoesOn` while it runs

    The table is also written to `evaluation/samplers.json`: {samplers: {name: {config, copies, seconds, metrics} or
    {config, copies, refused}}, chosen, validation, test, ...}. The classifier of the data judges images (metric
    `quality`); where there is none FID; without its weights the features of an untrained network. Raises ConfigError
    without validation images, or with too few.
    """
    specs = _specs(samplers, settings or {})
    opened = store.find(run, Path(runs))
    model = api.load(opened, checkpoint=checkpoint, device=device)
    place = engine.pick_device(device)
    split = api.open_split(opened, "test", place, data_dir=data_dir, data=data)
    validation = _validation(split, opened)
    about: SamplerChoice = {
        "run": opened.name,
        "checkpoint": checkpoint,
        "epoch": opened.epoch(checkpoint),
        "weights": fingerprint(model),
        "data_hash": split.data.hash,
        "seed": seed,
        "precision": PRECISION,
        "environment": engine.describe(place),
    }
    encoded = Encoded(model, split, seed, QUICK_LATENTS if quick else MOST_LATENTS)
    judge = _judge_of(validation, quick)
    unfinished = f"evaluation/unfinished/samplers-{judge.main}-{about['weights']}.json"
    rows = _rows(opened, unfinished, about, specs, encoded, judge, tell)
    chosen = _clearly_better(rows, judge.main) if quick else _best(rows, judge.main)
    tell(MetricBegun(f"{chosen} on test images"))
    final = _judge_of(split, quick)
    table: SamplerChoice = {
        **about,
        "by": judge.main,
        "samplers": rows,
        "chosen": chosen,
        # Distances of reconstructions and of training images are the best that a sampler can reach.
        "validation": {"n": len(judge.split.images), "references": _plain(judge.references(model))},
        "test": {
            "n": len(final.split.images),
            "metrics": _metrics(final, model, encoded.fit(specs[chosen]).sample, chosen, tell),
            "references": _plain(final.references(model)),
        },
    }
    opened.write_json(FILE, table)
    (opened.path / unfinished).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other measurements are unfinished there
        (opened.path / unfinished).parent.rmdir()
    return table


def _validation(split: Split, run: Run) -> Split:
    """Return the validation split beside another; raise ConfigError where there is none."""
    if split.data.validation is None:
        raise ConfigError(
            f"{run.name} has no validation split, and a sampler chosen on test images makes their numbers too good; "
            "train with --data.validation 0.1, or draw with a sampler by name: "
            f"nelbo sample {run.quoted} --sampler gaussian-mixture"
        )
    return split.of(split.data.validation)


def _specs(samplers: Sequence[str] | None, settings: Mapping[str, object]) -> dict[str, Sampler]:
    """Return every sampler with its settings; a misspelled name is refused."""
    by_name: dict[str, dict[str, object]] = {}
    for key, value in settings.items():
        name, _, field = key.partition(".")
        by_name.setdefault(kebab(name), {})[field] = value
    chosen = [lookup("sampler", name).name for name in samplers or names("sampler")]
    for name in by_name:
        if lookup("sampler", name).name not in chosen:
            raise ConfigError(f"--{name}: this sampler is not among those measured: {', '.join(chosen)}")
    specs = {}
    for name in dict.fromkeys(chosen):
        try:
            spec = lookup("sampler", name)()
        except ValidationError:  # settings without a default
            if samplers is None and name not in by_name:
                continue
            spec = config.build(Sampler, {"name": name, **by_name.pop(name, {})}, name)
        specs[name] = config.override(spec, by_name[name], name) if name in by_name else spec
    return specs


def _rows(
    run: Run, file: str, about: SamplerChoice, specs: Mapping[str, Sampler], encoded: Encoded,
    judge: Judge | inception.Judge, tell: Tell,
) -> dict[str, SamplerRow]:  # fmt: skip
    """Measure every sampler; `file` has those that an interrupted comparison measured under the same conditions."""
    before: dict[str, SamplerRow] = {}
    with contextlib.suppress(NelboError):  # a damaged file is replaced
        table = run.read_json(file, missing={})
        before = table.get("samplers", {}) if table.get("about") == about else {}
    rows: dict[str, SamplerRow] = {}
    for name, spec in specs.items():
        tell(MetricBegun(name))
        row: SamplerRow = {"config": config.to_dict(spec), "copies": spec.copies}
        earlier = before.get(name, {})
        same = earlier.get("config") == row["config"]
        rows[name] = earlier if same else row | _measured(judge, encoded, spec, name, tell)
        run.write_json(file, {"about": about, "samplers": rows})
    return rows


def _judge_of(split: Split, quick: bool = False) -> Judge | inception.Judge:
    """Return the judge of generated images: the classifier of the data, FID, or features that nobody trained.

    quick   the last, on at most 1,000 images
    """
    if quick and len(split.images) > QUICK_IMAGES:
        split = split.of(split.images.select(choice(len(split.images), QUICK_IMAGES)))
    judge = Judge.untrained(split) if quick else Judge.of(split)
    if isinstance(judge, Refusal) and not quick:
        by_inception = inception.Judge.of(split, sets=3)
        if not isinstance(by_inception, Refusal):
            return by_inception
        judge = Judge.untrained(split)
    if isinstance(judge, Refusal):
        raise ConfigError(f"nothing can judge the samplers' images: {judge.reason}")
    return judge


def chosen_for(run: Run, model: BuiltModel) -> Sampler | None:
    """Return the sampler that was chosen for these weights, or None where none was, or the prior itself."""
    table = run.read_json(FILE, missing={})
    if not table or table["weights"] != fingerprint(model) or table["chosen"] == "prior":
        return None
    return config.build(Sampler, table["samplers"][table["chosen"]]["config"], str(run.path / FILE))


def _metrics(
    judge: Judge | inception.Judge, model: BuiltModel, draw: DrawLatents, name: str, tell: Tell
) -> dict[str, Entry]:
    """Measure as many images of a sampler as the split has."""
    z = f"z ~ {name}"
    if isinstance(judge, inception.Judge):
        return _plain(judge.distances(model, draw, z))
    split = dataclasses.replace(judge.split, tell=lambda count, total: tell(MetricGoesOn(name, count, total)))
    judge = dataclasses.replace(judge, split=split).ticking(2 * judge.n)
    sets = judge.generated(model, draw)
    return _plain([*judge.distances(sets, z), *judge.neighbours(sets)])


def _plain(values: Iterable[tuple[str, Value]]) -> dict[str, Entry]:
    return {key: value.to_dict() for key, value in values}


def _measured(
    judge: Judge | inception.Judge, encoded: Encoded, spec: Sampler, name: str, tell: Tell
) -> SamplerRow:
    """Return the measurements of a sampler, or the reason for its refusal."""
    begun = time.perf_counter()
    try:
        fitted = encoded.fit(spec)
    except (ConfigError, DataError) as error:
        return {"refused": str(error)}
    seconds = {"fit": time.perf_counter() - begun, "draw": 0.0}

    def draw(n: int) -> Tensor:
        begun = time.perf_counter()
        z_NZ = fitted.sample(n)
        engine.synchronise(judge.split.device)  # a GPU returns before it has drawn
        seconds["draw"] += time.perf_counter() - begun
        return z_NZ

    metrics = _metrics(judge, encoded.model, draw, name, tell)
    return {"seconds": {key: round(value, 3) for key, value in seconds.items()}, "metrics": metrics}


def _best(samplers: Mapping[str, SamplerRow], criterion: str) -> str:
    """Return the nearest sampler; one that only copies training images where there is no other."""
    # False is below True: any copy stands behind all that draw new latents.
    values = {
        name: (table["copies"], value)
        for name, table in samplers.items()
        if "metrics" in table and (value := number(table["metrics"].get(criterion))) is not None
    }
    if not values:
        why = "; ".join(f"{name}: {table.get('refused', 'not finite')}" for name, table in samplers.items())
        raise NelboError(f"no sampler could be measured: {why}")
    return min(values, key=values.__getitem__)


def _clearly_better(samplers: Mapping[str, SamplerRow], criterion: str) -> str:
    """Return the nearest sampler, or the prior where it is as near within the errors of both distances."""
    best = _best(samplers, criterion)
    entries = [samplers[name].get("metrics", {}).get(criterion) for name in (best, "prior")]
    values = [number(entry) for entry in entries]
    if values[0] is None or values[1] is None:
        return best
    errors = [entry["standard_error"] or 0.0 for entry in entries if entry is not None]
    return best if values[1] - values[0] > math.hypot(*errors) else "prior"
