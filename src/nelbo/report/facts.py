"""What a page says of one run, gathered before a word of it is written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nelbo import api, card, config
from nelbo.comparison.words import differences, shown
from nelbo.config import Spec, kebab
from nelbo.core import names
from nelbo.doctor import Diagnosis, diagnose
from nelbo.errors import DataError, NelboError, UnknownName
from nelbo.loop import Tell
from nelbo.metrics.bound import GREY_NOTE
from nelbo.metrics.importance import curve_points
from nelbo.recipe import Recipe, named
from nelbo.registering import docline, entries
from nelbo.report import figures
from nelbo.report.figures import Drawing
from nelbo.store import Run
from nelbo.view import View

SAMPLES = 500
NUMBERS = re.compile(r"\[\n((?: +[-+.\w]+,\n)+)\]")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What of a run is asked for; the fields are those of `nelbo.evaluate`.

    samples   K of the importance-weighted estimate; None takes the card that is there
    pictures  names of registered pictures; None for all
    budget    bytes that all pictures of a page may take; a third more when written into it: a mail can carry it
    imports   files that registered components, to repeat in the commands
    """

    checkpoint: str = "best"
    split: str = "test"
    samples: int | None = None
    pictures: Sequence[str] | None = None
    device: str = "auto"
    data_dir: str | Path | None = None
    budget: int = 3_000_000
    imports: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Facts:
    """One run as plain values.

    started_from  the registered recipe it began with, if there is one of that name
    changes       (field, the recipe's value, this run's value) where they differ; "-" where there is no such field
    diagnosis     what the doctor says, or why it could not be asked
    left_out      picture -> why it is not on the page
    not_measured  why the card could not be completed, or ""
    """

    run: Run
    asked: Asked
    recipe: Recipe
    started_from: Recipe | None
    promise: str
    changes: list[tuple[str, str, str]]
    card: Mapping[str, Any]
    summary: Mapping[str, Any]
    environment: Mapping[str, Any]
    history: list[dict[str, Any]]
    diagnosis: Diagnosis | str
    drawings: list[Drawing]
    left_out: Mapping[str, str]
    not_measured: str

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.card["metrics"]
        return found

    @property
    def grey(self) -> bool:
        """Whether log p(x | z) is a cross-entropy of grey pixels, which is no likelihood."""
        return GREY_NOTE in self.metrics.get("reconstruction", {}).get("note", "")

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(K, estimate) of the importance-weighted NLL, as far as it was measured."""
        values = self.metrics.get("iw_nll_curve", {}).get("value") or []
        at = curve_points(self.card["samples"]) if values else []
        return [(float(k), value) for k, value in zip(at, values, strict=False)]

    @property
    def toml(self) -> str:
        """The resolved configuration; lists of numbers on a line each, which TOML's writer spreads over many."""
        return NUMBERS.sub(
            lambda found: "[" + " ".join(found[1].split()).rstrip(",") + "]", config.dumps(self.recipe)
        )


def gather(run: Run, asked: Asked, tell: Tell) -> Facts:
    """Reads a run, measures what its card lacks, and draws its pictures. Raises RunError for a damaged run."""
    recipe = run.recipe
    base = _named(recipe.recipe)
    found, not_measured = _measured(run, asked, tell)
    drawings, left_out = _drawn(run, asked, tell)
    return Facts(
        run=run,
        asked=asked,
        recipe=recipe,
        started_from=base,
        promise=docline(entries("recipe")[recipe.recipe]) if base else "",
        changes=[] if base is None else _changes(base, recipe),
        card=found,
        summary=run.summary,
        environment=run.read_json("env.json", missing={}),
        history=run.history(),
        diagnosis=_diagnosed(run, asked),
        drawings=drawings,
        left_out=left_out,
        not_measured=not_measured,
    )


def _measured(run: Run, asked: Asked, tell: Tell) -> tuple[dict[str, Any], str]:
    """The run's card of these weights, completed; without the data what is kept of it, and why no more."""
    model = api.load(run, checkpoint=asked.checkpoint, device="cpu")
    weights = card.fingerprint(model)
    kept = card.read(run, asked.split, asked.checkpoint, asked.samples)
    quick = "importance" not in kept.get("sections", {})  # made at the end of training, without an estimate
    samples = asked.samples if asked.samples is not None else SAMPLES if quick else kept["samples"]
    there = card.read(run, asked.split, asked.checkpoint, samples)
    of_these = card.is_of(there, weights)
    lacks = [name for name in names("metric") if not of_these or name not in there["sections"]]
    if not lacks:
        return there, ""
    try:
        made = _evaluated(run, asked, samples, lacks, tell)
        if set(names("metric")) - set(made["sections"]):  # what was kept could not be joined to it
            made = _evaluated(run, asked, samples, names("metric"), tell)
    except DataError as error:
        best = max((there, kept), key=lambda one: len(one.get("metrics", {})))
        if not card.is_of(best, weights):
            raise
        return best, str(error)
    return made, ""


def _evaluated(run: Run, asked: Asked, samples: int, metrics: Sequence[str], tell: Tell) -> dict[str, Any]:
    return card.evaluate(
        run, checkpoint=asked.checkpoint, split=asked.split, samples=samples, metrics=metrics, device=asked.device,
        data_dir=asked.data_dir, tell=tell,
    )  # fmt: skip


def _drawn(run: Run, asked: Asked, tell: Tell) -> tuple[list[Drawing], dict[str, str]]:
    chosen = figures.all_names() if asked.pictures is None else asked.pictures
    if not chosen:
        return [], {}
    try:
        view = View.open(
            run, checkpoint=asked.checkpoint, split=asked.split, device=asked.device, data_dir=asked.data_dir
        )
    except NelboError as error:
        return [], dict.fromkeys(chosen, str(error))
    return figures.draw(view, chosen, asked.budget, tell)


def _diagnosed(run: Run, asked: Asked) -> Diagnosis | str:
    try:
        return diagnose(run, data_dir=asked.data_dir, device=asked.device, imports=asked.imports)
    except NelboError as error:
        return str(error)


# --- configuration ----------------------------------------------------------------------------


def _named(name: str) -> Recipe | None:
    try:
        return named(name)
    except UnknownName:
        return None


def _changes(base: Recipe, recipe: Recipe) -> list[tuple[str, str, str]]:
    found = differences({"recipe": config.to_dict(base), "run": config.to_dict(recipe)})
    return [(kebab(field), shown(table["recipe"]), shown(table["run"])) for field, table in found.items()]


def parts(spec: Spec, field: str = "") -> list[tuple[str, Spec]]:
    """The named components that a configuration is made of, each with its dotted field."""
    found = [(field, spec)] if spec.axis else []
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        dotted = f"{field}.{kebab(name)}".lstrip(".")
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Spec):
                found += parts(item, dotted)
    return found
