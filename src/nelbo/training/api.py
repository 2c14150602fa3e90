"""The training of a recipe, from its data to a finished run folder, and the loading of what was trained."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nelbo import engine
from nelbo.core.distributions import PosteriorValue
from nelbo.core.layout import DataFacts
from nelbo.core.vocabulary import Shape
from nelbo.data import Splits
from nelbo.data.survey import survey
from nelbo.errors import ConfigError, DataError, RunError, TrainingFailed
from nelbo.metrics import Split
from nelbo.metrics.base import EVALUATION_BATCH
from nelbo.models import BuiltModel
from nelbo.models.base import must_be
from nelbo.training import events, fitting, store
from nelbo.training.events import Tell
from nelbo.training.loop import fit
from nelbo.training.recipe import Recipe, Resolved, resolve, resolved
from nelbo.training.store import Run
from nelbo.training.telling import OnStderr

FROM_PYTHON = "python"  # the data source of a run whose images came as an object


@dataclass(frozen=True)
class Plan:
    """A resolved recipe and the folder that it trains in, both checked; `train` accepts it in place of a recipe.

    overwrite  a run in the folder is replaced
    finished   the folder holds a finished run of this recipe already, which `train` returns as it is
    reasons    what was chosen for these data and why, one line each
    """

    recipe: Recipe
    folder: Path
    overwrite: bool = False
    finished: bool = False
    reasons: tuple[str, ...] = ()


def plan(
    recipe: str | Path | Recipe,
    overrides: Mapping[str, object] | None = None,
    *,
    data: object | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    overwrite: bool = False,
    data_dir: str | Path | None = None,
) -> Plan:
    """Resolve a recipe and its run folder; raise here for every mistake that can be noticed without data."""
    folder_of_sets = Path(data_dir) if data_dir else None
    start = resolved(recipe, overrides, data=data, data_dir=folder_of_sets)
    final = start.recipe
    if start.base is not None and start.survey is None:
        fitting.check(final, start.base, start.given, data, folder_of_sets)
    if data is not None:
        final = resolve(final, {"data.source": FROM_PYTHON})
    else:
        final.data.check_source()
        if (path := final.data.path()) is not None:  # so that the run can be measured from anywhere
            final = resolve(final, {"data.source": str(path.resolve())})
    reasons = start.reasons
    source = final.data.source
    as_a_set = {"data", "data.source"} & {*(overrides or ())} and final.data.path() is None
    if as_a_set and Path(source).is_dir():
        reasons += (f"{source} is the data set of that name; for the folder write --data ./{source}",)
    folder = Path(runs) / store.check_name(name or _own_name(final, start))
    store.check_free(final, folder, overwrite=overwrite)
    return Plan(final, folder, overwrite, not overwrite and Run(folder).finished, reasons)


def _own_name(recipe: Recipe, start: Resolved) -> str:
    """Return the name of a run that was given none; of a recipe that looked at its data it has the name of the data."""
    if start.base is None or start.survey is None:
        return store.default_name(recipe, start.base)
    same_data = start.base.data.model_copy(update={"source": recipe.data.source})
    base = start.base.model_copy(update={"data": same_data})
    return store.default_name(recipe, base, "-".join(start.survey.name.split()))


def train(
    recipe: str | Path | Recipe | Plan,
    *,
    overrides: Mapping[str, object] | None = None,
    data: object | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    overwrite: bool = False,
    tell: Tell | None = None,
) -> Run:
    """Train a recipe and return its run folder; the same call goes on with an interrupted run.

    recipe     a registered name, a TOML file, a Recipe, or a Plan, which holds overrides, runs, name and overwrite
    overrides  dotted fields, as on the command line: {"model.latent_dim": 16, "objective.beta": 4}
    data       images instead of `recipe.data.source`: an array, a tensor, (images, labels), a torch data set
    tell       hears the events of `nelbo.training.events`, from `DataRead` to `Warned`; without one, a line an epoch
               and warnings are written to stderr, and `nelbo.training.events.quiet` hears and says nothing

    The command line then also evaluates on the test split and draws the pictures (`nelbo.evaluate(run)`, `nelbo plot`).

    Raises ConfigError, DataError, DeviceError and RunError before anything is written, TrainingFailed
    and Interrupted later.
    """
    if isinstance(recipe, Plan):
        if overrides or name or overwrite:
            way_out = "give them to nelbo.training.api.plan"
            raise ConfigError(f"a Plan has overrides, name and overwrite in it; {way_out}")
        planned = recipe
    else:
        planned = plan(
            recipe, overrides, data=data, runs=runs, name=name, overwrite=overwrite, data_dir=data_dir
        )
    place = engine.pick_device(device)
    engine.check_precision(place, planned.recipe.precision)
    if tell is None:
        tell = OnStderr(planned.recipe.epochs, planned.reasons)
    begun = time.perf_counter()  # the first clock of the summary: `data`
    with engine.as_found(place):  # between two trainings a caller draws on as if there were none
        splits = load_data(planned.recipe, data_dir, data)
        if not planned.overwrite:
            _same_data(Run(planned.folder), splits)
            if Run(planned.folder).finished:
                return Run(planned.folder)
        return _train(planned, splits, place, tell, begun)


def _train(planned: Plan, splits: Splits, place: torch.device, tell: Tell, begun: float) -> Run:
    """Train on these images; loading them began at `begun`."""
    recipe, folder = planned.recipe, planned.folder
    if not planned.overwrite and Run(folder).checkpoint_path("last").is_file():
        Run(folder).load("last")  # a damaged one is refused before anything is written
    built = outline(recipe, splits.shape)
    _check_fits(recipe, splits)
    run = store.start(recipe, folder, overwrite=planned.overwrite)
    facts = describe_data(splits)
    environment = engine.describe(place) | {"command": engine.command_line(), "data": facts}
    if earlier := run.read_json("env.json", missing={}):  # the machine of an interrupted first part stays
        environment["earlier"] = [*earlier.pop("earlier", []), earlier]
    run.write_json("env.json", environment)
    loading = time.perf_counter() - begun
    kind, bound = observation_kind(recipe), recipe.objective.bound_name
    tell(
        events.DataRead(
            splits.name, splits.shape, facts["n"], splits.pixels, splits.hash, kind, bound, splits.notes
        )
    )
    tell(built)
    try:
        state = fit(recipe, splits, run, place, tell)
    except TrainingFailed as error:  # logged for the doctor
        run.log({"event": "failed", "epoch": len(run.history()) + 1, "why": str(error)})
        raise
    best = load(run, checkpoint="best", device="cpu")
    store.share(run, best, splits.shape, {"recipe": recipe.recipe, "class_names": facts["class_names"]})
    if state.best_bound is not None:
        grey = observation_kind(recipe) == "binary" and splits.pixels != "binary"
        lowest = "lowest validation cross-entropy plus KL, at beta 1"
        selection = lowest if grey else "highest validation bound at beta 1"
    elif splits.validation is None:
        selection = "last epoch: there is no validation split to select on"
    else:
        selection = "last epoch: the objective reports no bound to select on"
    summary = {
        "finished": True,
        "epochs": state.epoch - 1,
        "best_epoch": state.best_epoch,
        "selection": selection,
        "images_per_second": round(state.images / state.seconds["train"], 1),
        "seconds": {"data": loading, **state.seconds},
        "device": str(place),
        "threads": state.threads,
        "batch_size": recipe.batch_size,
        **state.execution,
    }
    run.write_json("summary.json", summary)
    return run


def outline(recipe: Recipe, shape: Shape) -> events.ModelBuilt:
    """Send random input through a built model: return the shape of everything on the way, and the number of weights.

    Raises ConfigError where a network does not fit images of this shape.
    """
    model = recipe.model.build(shape).eval()  # batch norm cannot train on too few images
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        x_BCHW = torch.rand(2, *shape)
        posterior = model.encode(x_BCHW)
        must_be(posterior, PosteriorValue, "posterior")
        z_BZ = posterior.mean
        decoded = model.decode(z_BZ).mean
    if decoded.shape != x_BCHW.shape:
        size = tuple(decoded.shape[1:])
        raise ConfigError(f"model: decodes to {size}, but the images are {shape} (C, H, W)")
    weights = sum(parameter.numel() for parameter in model.parameters())
    return events.ModelBuilt(shape, tuple(z_BZ.shape[1:]), tuple(decoded.shape[1:]), weights)


def shape_without_loading(recipe: Recipe, data_dir: str | Path | None = None) -> Shape:
    """Return (C, H, W) that the model will see, from the headers of the data; raise DataError where sizes differ."""
    data = recipe.data
    facts = survey(data, Path(data_dir) if data_dir else None)
    size = data.height_and_width() or facts.largest
    if not facts.one_size and data.size is None:
        raise DataError(
            f"{facts.name}: images have different sizes, from {facts.smallest[0]} x {facts.smallest[1]} to "
            f"{facts.largest[0]} x {facts.largest[1]}; choose one with --data.size 64"
        )
    return data.shape_of(facts.channels, *size)


def observation_kind(recipe: Recipe) -> str | None:
    """Return the set that the likelihood is a probability on: binary, levels or density."""
    likelihood = recipe.model.setting("likelihood")
    return None if likelihood is None else str(likelihood.observation_kind)


def _check_fits(recipe: Recipe, splits: Splits) -> None:
    """Refuse, before anything is written, a network that a last batch of one image does not fit."""
    if len(splits.train) % recipe.batch_size != 1 % recipe.batch_size:
        return
    try:  # batch norm cannot normalise a batch of one number a channel
        with torch.no_grad():
            recipe.model.build(splits.shape).train().draw(torch.zeros(1, *splits.shape))
    except ValueError:
        raise ConfigError(
            f"batch-size: with {len(splits.train)} training images and batches of {recipe.batch_size} the last batch "
            "holds one image, which batch norm cannot normalise; use another --batch-size"
        ) from None


def load_data(recipe: Recipe, data_dir: str | Path | None = None, data: object | None = None) -> Splits:
    """Return the recipe's splits, checked against its likelihood."""
    if data is None and recipe.data.source == FROM_PYTHON:
        raise DataError(
            "this run was trained on images passed from Python; pass them again as data=..., or save them "
            "(numpy.save; with labels numpy.savez with images=... and labels=...) and say --data FILE.npy"
        )
    splits = recipe.data.load(Path(data_dir) if data_dir else None, data)
    if recipe.patience is not None and splits.validation is None:
        raise ConfigError("patience needs a validation split; set --data.validation 0.1")
    likelihood = recipe.model.setting("likelihood")
    support = None if likelihood is None else likelihood.support
    low, high = splits.range
    # Transforms that leave the range of the likelihood were refused with the configuration: these are the source's.
    if likelihood is not None and support and (low < support[0] or high > support[1]):
        way = recipe.data.way_into_range(*splits.span_before_transforms())
        raise DataError(
            f"{splits.name}: pixels lie in [{low:g}, {high:g}], but a {likelihood.name} likelihood needs them in "
            f"[{support[0]:g}, {support[1]:g}]; {way} "
            "(or take a density: --model.likelihood gaussian)"
        )
    if likelihood is not None and observation_kind(recipe) == "levels" and not splits.eight_bit:
        raise DataError(
            f"{splits.name}: pixels are floating-point numbers between the 8-bit levels, but a {likelihood.name} "
            "likelihood is a probability of levels; store the images as uint8, or use --model.likelihood gaussian"
        )
    return splits


def describe_data(splits: Splits) -> DataFacts:
    """Return the facts about its data that a run records."""
    images = splits.train
    factors = None
    if images.factors_NF is not None and images.factor_names is not None:
        columns = zip(images.factor_names, images.factors_NF.T, strict=True)
        factors = {name: len(values.unique()) for name, values in columns}
    left_out: DataFacts = {"unreadable": list(splits.unreadable)} if splits.unreadable else {}
    return {
        "name": splits.name,
        "hash": splits.hash,
        "shape": list(splits.shape),
        "pixels": splits.pixels,
        "range": list(splits.range),
        "dtype": str(images.dtype).removeprefix("torch."),
        "n": {
            "train": len(images),
            "validation": len(splits.validation) if splits.validation is not None else 0,
            "test": len(splits.test) if splits.test is not None else 0,
        },
        "class_names": list(images.class_names) if images.class_names else None,
        "factors": factors,
        "notes": list(splits.notes),
        **left_out,
    }


def measured_split(run: Run) -> str:
    """Return the split that a run is measured on where none is named: test, else validation, else train."""
    n = run.read_json("env.json", missing={}).get("data", {}).get("n", {})
    return next((split for split in ("test", "validation") if n.get(split, 1)), "train")


def _same_data(run: Run, splits: Splits) -> None:
    """Refuse to go on with, or to measure, a run on other data than it was trained on."""
    before = run.read_json("env.json", missing={}).get("data", {}).get("hash")
    if before not in (None, splits.hash):
        raise DataError(
            f"{run.name} was trained on data with hash {before}, but {splits.name} now has {splits.hash}: the images, "
            "their order, the split or the preprocessing changed. Bring the same data back, or train a new run"
        )


def load(
    run: str | Path | Run, *, checkpoint: str = "best", device: str = "auto", runs: str | Path = "runs"
) -> BuiltModel:
    """Return the trained model of a run, in evaluation mode: encode, decode, sample, reconstruct, log_prob.

    `run` may also be the `model/` folder of a run, or a copy of it: what is shared.

    Raises RunError when the run or the checkpoint is missing or damaged.
    """
    if isinstance(run, str | Path) and (Path(run) / "model.safetensors").is_file():
        return engine.place(store.shared(Path(run)), engine.pick_device(device))
    opened = store.find(run, Path(runs))
    tensors, _ = opened.load(checkpoint)
    if checkpoint == "last":  # it holds all of the state, of which the averaged weights are the model to use
        prefix = "average." if any(key.startswith("average.") for key in tensors) else "model."
        names = [key for key in tensors if key.startswith(prefix)]
        tensors = {key.removeprefix(prefix): tensors[key] for key in names}
    shape = opened.read_json("env.json").get("data", {}).get("shape")  # the recipe does not know it
    if not shape:
        file = opened.path / "env.json"
        raise RunError(f"{file} does not say the shape of the images; {store.DAMAGED}")
    module = store.rebuild(opened.recipe.model, tuple(shape), tensors, opened.checkpoint_path(checkpoint))
    return engine.place(module, engine.pick_device(device))


def open_split(
    run: Run,
    split: str,
    device: torch.device,
    *,
    data_dir: str | Path | None = None,
    data: object | None = None,
    samples: int = 500,
    batch_size: int = EVALUATION_BATCH,
    scratch: Path | None = None,
    named: bool = False,
) -> Split:
    """Return a split of the run's own data, as its model is measured on it; see `Split` for the last four."""
    splits = load_same_data(run, data_dir, data)
    return Split(
        splits.split(split), splits, device,
        samples=samples, batch_size=batch_size, scratch=scratch, named=named,
    )  # fmt: skip


def _check_present(run: Run, path: Path | None) -> None:
    """Raise DataError where the folder or file that a run was trained on is gone."""
    if path is not None and path != Path(FROM_PYTHON) and not path.exists():
        raise DataError(
            f"{run.name} was trained on {path}, and nothing is there now; where the data has moved, say so with "
            '--data PATH (in Python data="PATH")'
        )


def load_same_data(run: Run, data_dir: str | Path | None = None, data: object | None = None) -> Splits:
    """Return the data a run was trained on; `data` is its place where it has moved, or the images themselves.

    Raises DataError where it is not there, or other data is there now.
    """
    recipe = run.recipe
    if isinstance(data, str | Path):
        moved = recipe.data.model_copy(update={"source": str(data)})
        recipe, data = recipe.model_copy(update={"data": moved}), None
    elif data is None:
        _check_present(run, recipe.data.path())
    splits = load_data(recipe, data_dir, data)
    _same_data(run, splits)
    return splits
