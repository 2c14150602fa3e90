"""The runs of a comparison: found, measured where a card is missing, and grouped by their configuration."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from nelbo.core import config
from nelbo.core.layout import Card, Environment, Summary, number
from nelbo.core.registry import lookup, names
from nelbo.errors import ConfigError, DataError, RunError, did_you_mean
from nelbo.evaluation import card
from nelbo.evaluation.comparison.values import RunRow
from nelbo.training import api, store
from nelbo.training.events import RunMeasured, Tell
from nelbo.training.store import Run

DEFAULT_SAMPLES = 500  # of `nelbo evaluate`
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(slots=True)
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

    def __post_init__(self) -> None:
        """Raise ConfigError for conditions that no run can meet, and complete the two that depend on each other."""
        if self.samples is not None and self.samples < 0:
            raise ConfigError(f"samples must be 0 or more (got {self.samples})")
        choices = {"checkpoint": store.CHECKPOINTS, "split": SPLITS}
        for kind, name in (("checkpoint", self.checkpoint), ("split", self.split)):
            if name not in choices[kind]:
                raise ConfigError(f"no {kind} is called {name!r}; {did_you_mean(name, choices[kind])}")
        for name in self.metrics or ():
            lookup("metric", name)
        if self.samples is None and "importance" in (self.metrics or ()):
            self.samples = DEFAULT_SAMPLES
        if self.metrics is None and self.samples is not None:
            self.metrics = (*card.quick(), *(("importance",) if self.samples else ()))


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A run with its row and its card. `settings` is its configuration as plain tables, without the seed."""

    run: Run
    row: RunRow
    settings: dict[str, object]
    card: Card
    per_image: Mapping[str, Tensor]
    summary: Summary

    def value(self, metric: str) -> float | None:
        """Return its number of this metric, or None without one."""
        return number(self.card["metrics"].get(metric))


def _hardware(summary: Summary, environment: Environment) -> str:
    """Return the hardware that a run was trained on: the device, and the threads of a CPU."""
    device = str(summary.get("device", environment.get("device", "cpu")))
    if device.startswith("cuda") and environment.get("gpus"):
        index = int(device.partition(":")[2] or 0)
        return str(environment["gpus"][min(index, len(environment["gpus"]) - 1)])
    threads = summary.get("threads", environment.get("threads"))
    processor = environment.get("processor", "unknown")
    words = f"{processor}, {threads} thread{'' if threads == 1 else 's'}"
    return words if device == "cpu" else f"{device}, {words}"


def _code(environment: Environment) -> str:
    """Return the versions that trained a run."""
    packages, commit = environment.get("packages", {}), environment.get("git")
    at = f" at {commit}" if commit else ""
    return f"nelbo {packages.get('nelbo', '?')}{at}, torch {packages.get('torch', '?')}"


def find(names_of: Sequence[str | Path | Run], runs: Path) -> tuple[list[Run], dict[str, str]]:
    """Return the finished runs of these names, each once, and the names that are left out with the reason.

    A folder or file that is no run is left out, for a shell's `runs/digits-*` may match one; a name that is
    nothing at all raises RunError with the nearest.
    """
    finished: dict[Path, Run] = {}
    left_out: dict[str, str] = {}
    for one in names_of:
        name = one.name if isinstance(one, Run) else str(one)
        try:
            run = store.find(one, runs)
            place = run.path.resolve()  # a link and its target are one run
            if place in finished:
                left_out[name] = "was given twice"
            elif run.finished:
                finished[place] = run
            else:
                epoch = max((row.get("epoch", 0) for row in run.history()), default=0)
                reached = f"epoch {epoch} of {run.recipe.epochs}"
                left_out[name] = f"has not finished ({reached}); the command that started it goes on"
        except RunError as error:
            places = [one.path] if isinstance(one, Run) else [Path(one), runs / one]
            if not any(place.exists() for place in places):
                raise
            damaged = any((place / "config.toml").is_file() for place in places)
            left_out[name] = f"cannot be used: {error}" if damaged else "is not a run: it has no config.toml"
    return list(finished.values()), left_out


def unique_names(runs: Sequence[Run]) -> list[str]:
    """Return each run's name, with as many folders before it as it takes to tell it from the others."""
    paths = [run.path.resolve().parts for run in runs]
    unique = []
    for path in paths:
        depth = 1
        while depth < len(path) and sum(other[-depth:] == path[-depth:] for other in paths) > 1:
            depth += 1
        unique.append("/".join(path[-depth:]))
    return unique


def measured(runs: Sequence[Run], ask: Ask, tell: Tell) -> tuple[list[Member], dict[str, str]]:
    """Return the runs with cards that answer `ask`, and those left out with the reason.

    A run may be damaged, lack the checkpoint or the split, or have no card while its data are not here.
    """
    members: list[Member] = []
    left_out: dict[str, str] = {}
    for run, name in zip(runs, unique_names(runs), strict=True):
        try:
            recipe = run.recipe
            model = api.load(run, checkpoint=ask.checkpoint, device="cpu")
            settings = config.to_dict(recipe)
            settings.pop("seed")  # runs that differ in nothing else are one group
            card_of_run = _card(run, name, ask, card.fingerprint(model), tell)
            per_image = card.read_per_image(run, card_of_run)
            environment: Environment = run.read_json("env.json", missing={})
            summary = run.summary
        except (RunError, DataError, ConfigError) as error:
            left_out[name] = f"cannot be measured: {error}"
            continue
        row = RunRow(
            name=name,
            path=str(run.path),
            seed=recipe.seed,
            epochs=summary["epochs"],
            best_epoch=summary.get("best_epoch"),
            epoch=card_of_run["epoch"],
            weights=sum(parameter.numel() for parameter in model.parameters()),
            train_seconds=summary["seconds"]["train"],
            images_per_second=summary["images_per_second"],
            hardware=_hardware(summary, environment),
            code=_code(environment),
        )
        members.append(Member(run, row, settings, card_of_run, per_image, summary))
    return members, left_out


def _card(run: Run, name: str, ask: Ask, weights: str, tell: Tell) -> Card:
    """Return the run's card, measured as far as it is missing or belongs to other weights or arithmetic."""
    before = card.read(run, ask.split, ask.checkpoint, ask.samples)
    complete = before.keys() >= {"images_hash", "log_px"} and card.is_whole(before)  # older cards are not
    fresh = complete and card.is_of(before, weights)
    sections = tuple(section for section in before.get("sections", {}) if section in names("metric"))
    if fresh:
        missing = tuple(section for section in ask.metrics or () if section not in sections)
    else:
        missing = ask.metrics or sections or card.quick()
    if not missing:
        return before
    samples = ask.samples if ask.samples is not None else before.get("samples", 0)
    tell(RunMeasured(name, tuple(missing), samples))
    try:
        return card.evaluate(
            run, checkpoint=ask.checkpoint, split=ask.split, samples=samples, metrics=missing,
            device=ask.device, data_dir=ask.data_dir, tell=tell,
        )  # fmt: skip
    except DataError:
        if not fresh:
            raise
        return before  # a caution of the comparison names the gaps


def grouped(members: Iterable[Member]) -> list[list[Member]]:
    """Return the members of one configuration together, in the order in which their first one came.

    A seed that comes a second time is no replication: it begins another group of the same configuration.
    """
    groups: list[list[Member]] = []
    for member in members:
        same = (group for group in groups if group[0].settings == member.settings)
        home = next((group for group in same if member.row.seed not in [one.row.seed for one in group]), None)
        if home is None:
            groups.append([member])
        else:
            home.append(member)
    return groups


def check_enough(runs: Sequence[Run], left_out: Mapping[str, str]) -> None:
    """Raise RunError unless there are two runs to compare."""
    if len(runs) >= 2:
        return
    if not runs and not left_out:
        raise RunError("a comparison needs two finished runs: name them, as in nelbo compare RUN RUN ...")
    count, way_out = "there is none", ""
    if runs:
        count = f"there is only {runs[0].name}"
        way_out = f"; its own checkpoints are compared with: nelbo evaluate {runs[0].quoted} --compare-first"
    lines = "".join(f"\n  {name} {why}" for name, why in left_out.items())
    raise RunError(f"a comparison needs two finished runs, and {count}{way_out}{lines}")
