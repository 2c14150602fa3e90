"""The runs of a comparison: found, measured where a card is missing, and grouped by their configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nelbo.core import config
from nelbo.core.layout import Card, Environment, Summary, number
from nelbo.core.registry import lookup, names
from nelbo.errors import ConfigError, DataError, RunError, did_you_mean
from nelbo.evaluation import card
from nelbo.training import api, store
from nelbo.training.events import RunMeasured, Tell
from nelbo.training.store import Run

DEFAULT_SAMPLES = 500  # of `nelbo evaluate`
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """The metrics and conditions that every run's card must have.

    samples  K of the importance-weighted estimate; None takes the fullest card that is there
    metrics  names; None takes what the card holds
    """

    split: str
    checkpoint: str
    samples: int | None
    metrics: tuple[str, ...] | None
    device: str
    data_dir: str | Path | None

    @classmethod
    def checked(cls, metrics: Sequence[str] | None, samples: int | None, **more: Any) -> Ask:
        """Raise ConfigError for what no run can be asked for."""
        if samples is not None and samples < 0:
            raise ConfigError(f"samples must be 0 or more (got {samples})")
        for what, known in (("checkpoint", store.CHECKPOINTS), ("split", SPLITS)):
            if more[what] not in known:
                raise ConfigError(f"no {what} is called {more[what]!r}; {did_you_mean(more[what], known)}")
        for name in metrics or ():
            lookup("metric", name)
        wanted = None if metrics is None else tuple(metrics)
        if samples is None and "importance" in (wanted or ()):
            samples = DEFAULT_SAMPLES
        if wanted is None and samples is not None:
            wanted = (*card.quick(), *(["importance"] if samples else []))
        return cls(samples=samples, metrics=wanted, **more)


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A run with its card. `settings` is its configuration as plain tables, without the seed."""

    run: Run
    name: str
    seed: int
    settings: dict[str, object]
    card: Card
    per_image: Mapping[str, Tensor]
    weights: int
    environment: Environment
    summary: Summary

    def value(self, metric: str) -> float | None:
        """Return its number of this metric, or None where there is none."""
        return number(self.card["metrics"].get(metric))

    @property
    def hardware(self) -> str:
        """The hardware of its speed: the device, and the threads of a CPU."""
        device = str(self.summary.get("device", self.environment.get("device", "cpu")))
        if device.startswith("cuda") and self.environment.get("gpus"):
            index = int(device.partition(":")[2] or 0)
            return str(self.environment["gpus"][min(index, len(self.environment["gpus"]) - 1)])
        threads = self.summary.get("threads", self.environment.get("threads"))
        words = (
            f"{self.environment.get('processor', 'unknown')}, {threads} thread{'' if threads == 1 else 's'}"
        )
        return words if device == "cpu" else f"{device}, {words}"

    @property
    def code(self) -> str:
        """The versions that trained it."""
        packages = self.environment.get("packages", {})
        commit = self.environment.get("git")
        at = f" at {commit}" if commit else ""
        return f"nelbo {packages.get('nelbo', '?')}{at}, torch {packages.get('torch', '?')}"


def find(what: Sequence[str | Path | Run], runs: Path) -> tuple[list[Run], dict[str, str]]:
    """The finished runs among what was given, each once, and what was left out with the reason.

    A folder or file that is no run is left out, for a shell's `runs/digits-*` may match one; a name that is
    nothing at all raises RunError with the nearest.
    """
    found: dict[Path, Run] = {}
    left_out: dict[str, str] = {}
    for one in what:
        shown = one.name if isinstance(one, Run) else str(one)
        try:
            run = store.find(one, runs)
            why = "was given twice" if run.path.resolve() in found else _unfinished(run)
        except RunError as error:
            places = [one.path] if isinstance(one, Run) else [Path(one), runs / one]
            if not any(place.exists() for place in places):
                raise
            damaged = any((place / "config.toml").is_file() for place in places)
            left_out[shown] = f"cannot be used: {error}" if damaged else "is not a run: it has no config.toml"
            continue
        if why:
            left_out[shown] = why
        else:
            found[run.path.resolve()] = run
    return list(found.values()), left_out


def _unfinished(run: Run) -> str:
    if run.finished:
        return ""
    done = max((row.get("epoch", 0) for row in run.history()), default=0)
    return f"has not finished (epoch {done} of {run.recipe.epochs}); the command that started it goes on"


def unique_names(found: Sequence[Run]) -> list[str]:
    """Each run's name, with as many folders before it as it takes to tell it from the others."""
    parts = [run.path.resolve().parts for run in found]
    shown = []
    for own in parts:
        depth = 1
        while depth < len(own) and sum(other[-depth:] == own[-depth:] for other in parts) > 1:
            depth += 1
        shown.append("/".join(own[-depth:]))
    return shown


def measured(found: Iterable[Run], ask: Ask, tell: Tell) -> tuple[list[Member], dict[str, str]]:
    """The runs with cards that answer `ask`, and those left out with the reason.

    A run may be damaged, lack the checkpoint or the split, or have no card while its data are not here.
    """
    found = list(found)
    members: list[Member] = []
    left_out: dict[str, str] = {}
    for run, name in zip(found, unique_names(found), strict=True):
        try:
            members.append(_member(run, name, ask, tell))
        except (RunError, DataError, ConfigError) as error:
            left_out[name] = f"cannot be measured: {error}"
    return members, left_out


def _member(run: Run, name: str, ask: Ask, tell: Tell) -> Member:
    recipe = run.recipe
    model = api.load(run, checkpoint=ask.checkpoint, device="cpu")
    table = config.to_dict(recipe)
    table.pop("seed")
    kept = _card(run, name, ask, card.fingerprint(model), tell)
    return Member(
        run=run,
        name=name,
        seed=recipe.seed,
        settings=table,
        card=kept,
        per_image=card.read_per_image(run, kept),
        weights=sum(parameter.numel() for parameter in model.parameters()),
        environment=run.read_json("env.json", missing={}),
        summary=run.summary,
    )


def _card(run: Run, name: str, ask: Ask, weights: str, tell: Tell) -> Card:
    """The run's card, measured as far as it is missing or belongs to other weights or arithmetic."""
    kept = card.read(run, ask.split, ask.checkpoint, ask.samples)
    fresh = card.is_of(kept, weights) and kept.keys() >= {"images_hash", "log_px"} and card.is_whole(kept)
    there = tuple(section for section in kept.get("sections", {}) if section in names("metric"))
    if fresh:
        missing = tuple(section for section in ask.metrics or () if section not in there)
    else:
        missing = ask.metrics or there or card.quick()
    if not missing:
        return kept
    samples = ask.samples if ask.samples is not None else kept.get("samples", 0)
    tell(RunMeasured(name, tuple(missing), samples))
    try:
        return card.evaluate(
            run, checkpoint=ask.checkpoint, split=ask.split, samples=samples, metrics=missing,
            device=ask.device, data_dir=ask.data_dir, tell=tell,
        )  # fmt: skip
    except DataError:
        if not fresh:
            raise
        return kept  # what it lacks is said with the other gaps


def grouped(members: Iterable[Member]) -> list[list[Member]]:
    """Return the members of one configuration together, in the order in which their first one came.

    A seed that comes a second time is no replication: it begins another group of the same configuration.
    """
    groups: list[list[Member]] = []
    for member in members:
        same = (group for group in groups if group[0].settings == member.settings)
        home = next((group for group in same if member.seed not in [one.seed for one in group]), None)
        if home is None:
            groups.append([member])
        else:
            home.append(member)
    return groups


def check_enough(found: Sequence[Run], left_out: Mapping[str, str]) -> None:
    """Raise RunError unless there are two runs to compare."""
    if len(found) >= 2:
        return
    if not found and not left_out:
        raise RunError("a comparison needs two finished runs: name them, as in nelbo compare RUN RUN ...")
    have, way = "there is none", ""
    if found:
        have = f"there is only {found[0].name}"
        way = f"; its own checkpoints are compared with: nelbo evaluate {found[0].path} --compare-first"
    lines = "".join(f"\n  {name} {why}" for name, why in left_out.items())
    raise RunError(f"a comparison needs two finished runs, and {have}{way}{lines}")
