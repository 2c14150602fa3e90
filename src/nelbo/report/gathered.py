"""The facts of one run that a page is written from, gathered before a word of it is written."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nelbo.core import config, layout
from nelbo.core.catalogue import docline, entries
from nelbo.core.layout import Card, Entry, Environment, EpochRow, Summary
from nelbo.core.registry import names
from nelbo.core.spec import Spec, kebab
from nelbo.doctor import Diagnosis, diagnose
from nelbo.errors import DataError, NelboError
from nelbo.evaluation import card
from nelbo.evaluation.comparison.words import differences, shown
from nelbo.metrics.importance import curve_points
from nelbo.pictures.view import View
from nelbo.report import figures
from nelbo.report.figures import Drawing
from nelbo.training import api
from nelbo.training.events import Tell
from nelbo.training.recipe import Recipe, registered
from nelbo.training.store import Run

SAMPLES = 500
NUMBERS = re.compile(r"\[\n((?: +[-+.\w]+,\n)+)\]")


@dataclasses.dataclass(frozen=True)
class Request:
    """The numbers and pictures that a page shall have; the other fields are those of `nelbo.evaluate`.

    samples   K of the importance-weighted estimate; None takes the card that is there
    pictures  names of registered pictures; None for all
    budget    bytes of all pictures of a page, a third more when written into it: a mail can carry it
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
    diagnosis     the doctor's findings, or the reason why there are none
    left_out      picture -> why it is not on the page
    not_measured  why the card could not be completed, or ""
    """

    run: Run
    request: Request
    recipe: Recipe
    started_from: Recipe | None
    promise: str
    changes: list[tuple[str, str, str]]
    card: Card
    summary: Summary
    environment: Environment
    history: list[EpochRow]
    diagnosis: Diagnosis | str
    drawings: list[Drawing]
    left_out: Mapping[str, str]
    not_measured: str

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def metrics(self) -> Mapping[str, Entry]:
        return self.card["metrics"]

    @property
    def grey(self) -> bool:
        """True where log p(x | z) is a cross-entropy of grey pixels, which is no likelihood."""
        return card.is_grey(self.metrics.get("reconstruction"))

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(K, estimate) of the importance-weighted NLL, as far as it was measured."""
        values = layout.numbers(self.metrics.get("iw_nll_curve"))
        at = curve_points(self.card["samples"]) if values else []
        return [(float(k), value) for k, value in zip(at, values, strict=False)]

    @property
    def toml(self) -> str:
        """The resolved configuration; lists of numbers on a line each, which TOML's writer spreads over many."""
        return NUMBERS.sub(
            lambda numbers: "[" + " ".join(numbers[1].split()).rstrip(",") + "]", config.dumps(self.recipe)
        )


def gather(run: Run, request: Request, tell: Tell) -> Facts:
    """Read a run, measure what its card lacks, and draw its pictures. Raises RunError for a damaged run."""
    recipe = run.recipe
    base = registered(recipe.recipe)
    measured, not_measured = _measured(run, request, tell)
    chosen = figures.all_names() if request.pictures is None else request.pictures
    drawings: list[Drawing] = []
    left_out: dict[str, str] = {}
    if chosen:
        try:
            view = View.open(
                run, checkpoint=request.checkpoint, split=request.split, device=request.device,
                data_dir=request.data_dir,
            )  # fmt: skip
        except NelboError as error:  # as a rule, the data are not here
            left_out = dict.fromkeys(chosen, str(error))
        else:
            drawings, left_out = figures.draw(view, chosen, request.budget, tell)
    diagnosis: Diagnosis | str
    try:
        diagnosis = diagnose(run, data_dir=request.data_dir, device=request.device, imports=request.imports)
    except NelboError as error:
        diagnosis = str(error)
    return Facts(
        run=run,
        request=request,
        recipe=recipe,
        started_from=base,
        promise=docline(entries("recipe")[recipe.recipe]) if base else "",
        changes=[] if base is None else _changes(base, recipe),
        card=measured,
        summary=run.summary,
        environment=run.read_json("env.json", missing={}),
        history=run.history(),
        diagnosis=diagnosis,
        drawings=drawings,
        left_out=left_out,
        not_measured=not_measured,
    )


def _measured(run: Run, request: Request, tell: Tell) -> tuple[Card, str]:
    """Return the run's card of these weights, completed; without the data the saved part, and the reason."""
    model = api.load(run, checkpoint=request.checkpoint, device="cpu")
    weights = card.fingerprint(model)
    fullest = card.read(run, request.split, request.checkpoint, request.samples)
    samples = request.samples
    if samples is None:  # a card made at the end of training has no estimate, and K = 0
        estimated = "importance" in fullest.get("sections", {})
        samples = fullest["samples"] if estimated else SAMPLES
    before = card.read(run, request.split, request.checkpoint, samples)
    valid = card.is_of(before, weights) and card.is_whole(before)
    missing = [name for name in names("metric") if not valid or name not in before["sections"]]
    if not missing:
        return before, ""
    evaluate = functools.partial(
        card.evaluate, run, checkpoint=request.checkpoint, split=request.split, samples=samples,
        device=request.device, data_dir=request.data_dir, tell=tell,
    )  # fmt: skip
    try:
        completed = evaluate(metrics=missing)
        if set(names("metric")) - set(completed["sections"]):  # the earlier card could not be joined to it
            completed = evaluate(metrics=names("metric"))
    except DataError as error:
        best = max((before, fullest), key=lambda one: len(one.get("metrics", {})))
        if not card.is_of(best, weights):
            raise
        return best, str(error)
    return completed, ""


def _changes(base: Recipe, recipe: Recipe) -> list[tuple[str, str, str]]:
    fields = differences({"recipe": config.to_dict(base), "run": config.to_dict(recipe)})
    return [(kebab(field), shown(table["recipe"]), shown(table["run"])) for field, table in fields.items()]


def components(spec: Spec, field: str = "") -> list[tuple[str, Spec]]:
    """Return the named components that a configuration is made of, each with its dotted field."""
    named_specs = [(field, spec)] if spec.axis else []
    for name in type(spec).model_fields:
        value = spec.setting(name)
        dotted = f"{field}.{kebab(name)}".lstrip(".")
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Spec):
                named_specs += components(item, dotted)
    return named_specs
