"""The turns of all sides, several times in one process: A B C A B C ..., then medians and their spread."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nelbo import engine
from nelbo.bench import machine, nelbo, plain
from nelbo.bench.lap import Lap
from nelbo.data import Splits
from nelbo.errors import ConfigError, TrainingFailed, did_you_mean
from nelbo.training import api, events
from nelbo.training.events import Tell, quiet
from nelbo.training.recipe import Recipe, resolve


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """A way to train: the program, and fields of the recipe that it changes."""

    description: str
    program: str = "nelbo"
    overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)


SIDES = {  # in the order in which they run and are shown
    "plain": Side(
        "a tutorial's loop: PIL pictures one by one, torch's own layers, a loss read a step", "plain"
    ),
    "nelbo": Side("as the recipe says"),
    "nelbo-compiled": Side("as the recipe says, compiled", overrides={"compile": "on"}),
    "nelbo-fp32": Side("float32, eager", overrides={"precision": "fp32", "compile": "off"}),
    "nelbo-bf16": Side("bfloat16, eager", overrides={"precision": "bf16", "compile": "off"}),
    "nelbo-fp32-compiled": Side("float32, compiled", overrides={"precision": "fp32", "compile": "on"}),
    "nelbo-bf16-compiled": Side("bfloat16, compiled", overrides={"precision": "bf16", "compile": "on"}),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The settings that all sides share."""

    repeat: int
    epochs: int
    target: float | None
    device: torch.device
    data_dir: Path | None
    sides: Mapping[str, Side]
    rates: Mapping[str, machine.Rate]
    tell: Tell


def bench(
    recipes: Sequence[str | Path | Recipe] = ("digits",),
    *,
    repeat: int = 3,
    epochs: int = 2,
    device: str = "auto",
    data_dir: str | Path | None = None,
    sides: Sequence[str] = tuple(SIDES),
    target: float | None = None,
    tell: Tell = quiet,
) -> dict[str, Any]:
    """Time recipes side by side on this machine, each side `repeat` times, and return one table.

    epochs   of each training; the first is left out, so at least 2
    sides    of `SIDES`; ratios are to `plain`
    target   nats an image: also the training time until the negative bound is that low
    tell     hears `recipe`, `lap` (a side was timed once) and `left out`

    {environment, machine, settings, recipes: {name: {images, batch_size, flops_an_image, rows, left_out}}}, a row
    a side. What a side cannot do is in `left_out` with the reason. Raises ConfigError, DataError and DeviceError
    before anything is trained.
    """
    for name, value, least in (("repeat", repeat, 1), ("epochs", epochs, 2)):
        if value < least:
            why = "; the first epoch warms up and is left out" if name == "epochs" else ""
            raise ConfigError(f"--{name} {value}: expected at least {least}{why}")
    for name in sides:
        if name not in SIDES:
            raise ConfigError(f"--sides {name}: no side is called so; {did_you_mean(name, SIDES)}")
    if not sides:
        raise ConfigError(f"--sides: name at least one; known: {', '.join(SIDES)}")
    chosen = {name: side for name, side in SIDES.items() if name in sides}
    recipe_names = [one.recipe if isinstance(one, Recipe) else str(one) for one in recipes]
    plans = dict(zip(recipe_names, map(resolve, recipes), strict=True))
    if len(plans) < len(recipes):
        raise ConfigError(f"recipes: one is named twice among {', '.join(recipe_names)}")
    place = engine.pick_device(device)  # mistakes are told before anything is trained
    root = Path(data_dir) if data_dir is not None else None
    splits = {name: api.load_data(recipe, root) for name, recipe in plans.items()}
    rates = {str(name): machine.product_rate(place, name) for name in machine.DTYPES}
    shared = Settings(repeat, epochs, target, place, root, chosen, rates, tell)
    return {
        "environment": engine.describe(place) | {"command": engine.command_line()},
        "machine": {"products": rates},
        "settings": {"repeat": repeat, "epochs": epochs, "target": target, "device": str(place)},
        "recipes": {name: _side_by_side(name, plan, splits[name], shared) for name, plan in plans.items()},
    }


def _side_by_side(name: str, recipe: Recipe, splits: Splits, shared: Settings) -> dict[str, object]:
    """Time one recipe: every side once, then every side again, so that a machine that slows down slows all."""
    sides, tell = shared.sides, shared.tell
    tell(events.BenchBegun(name, list(sides), shared.repeat))
    laps: dict[str, list[Lap]] = {key: [] for key in sides}
    left_out: dict[str, str] = {}
    for turn in range(1, shared.repeat + 1):
        for key in list(laps):
            try:
                lap = lap_of(sides[key], recipe, splits, shared)
            except (ConfigError, TrainingFailed) as error:  # this side cannot do this recipe; the others can
                left_out[key] = str(error)
                laps.pop(key)  # also its laps before: a row of fewer turns would not compare
                tell(events.SideLeftOut(key, str(error)))
            else:
                laps[key].append(lap)
                tell(events.LapDone(key, turn, lap.epochs))
    work = machine.flops_an_image(recipe, splits)
    baseline = laps.get("plain", [])
    return {
        "images": len(splits.train),
        "data_hash": splits.hash,
        "batch_size": recipe.batch_size,
        "flops_an_image": work,
        "rows": {key: row(sides[key], some, work, shared.rates, baseline) for key, some in laps.items()},
        "left_out": left_out,
    }


def lap_of(side: Side, recipe: Recipe, splits: Splits, shared: Settings) -> Lap:
    """Train and time one side once; raise ConfigError where that side cannot train this recipe."""
    epochs, device, target = shared.epochs, shared.device, shared.target
    if side.program == "plain":
        return plain.run(recipe, splits, epochs=epochs, device=device, target=target)
    return nelbo.run(
        recipe, side.overrides, epochs=epochs, device=device, data_dir=shared.data_dir, target=target
    )


def row(
    side: Side,
    laps: Sequence[Lap],
    flops_an_image: float,
    rates: Mapping[str, machine.Rate],
    plain_laps: Sequence[Lap],
) -> dict[str, object]:
    """Return the row of a side; a value is the median over the timed epochs of one repetition."""
    first = laps[0]
    seconds = [statistics.median(lap.epochs) for lap in laps]
    speeds = [lap.images / time for lap, time in zip(laps, seconds, strict=True)]
    flops = flops_an_image * statistics.median(speeds)
    baseline = [lap.images / statistics.median(lap.epochs) for lap in plain_laps]
    # Turn by turn: both sides of a ratio ran within minutes, under the same load of the machine.
    ratios = [speed / plain for speed, plain in zip(speeds, baseline, strict=False)]
    memory = [lap.peak_mb for lap in laps if lap.peak_mb is not None]
    reached = [lap.target_seconds for lap in laps if lap.target_seconds is not None]
    return {
        "what": side.description,
        "precision": first.precision,
        "how": first.how,
        "threads": first.threads,
        "images": first.images,
        "seconds_an_epoch": spread(seconds),
        "images_per_second": spread(speeds),
        "ratio_to_plain": spread(ratios) if ratios else None,
        "flops_per_second": flops,
        "percent_of_product_rate": 100 * flops / rates[first.precision]["flops_per_second"],
        "compile_seconds": spread([lap.compile_seconds for lap in laps]),
        "seconds_to_target": spread(reached) if len(reached) == len(laps) else None,
        "peak_mb": max(memory) if memory else None,
        "notes": list(dict.fromkeys(note for lap in laps for note in lap.notes)),
    }


def spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Return median, lowest, highest and all values, in the order measured."""
    median = statistics.median(values)
    return {"median": median, "low": min(values), "high": max(values), "all": list(values)}
