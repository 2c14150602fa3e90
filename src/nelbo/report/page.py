"""The page: its frame, its navigation, and the order of its sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from nelbo import __version__
from nelbo.core.catalogue import docline, entries
from nelbo.evaluation import labels, tables
from nelbo.evaluation.comparison.members import unique_names
from nelbo.report import figures, numbers, origin, training
from nelbo.report.compared import side_by_side
from nelbo.report.gathered import Facts
from nelbo.report.rendering import environment, macros

GENERATOR = "nelbo report"


class Section(NamedTuple):
    """A part of the page: its id, its title, its HTML, and its own parts."""

    slug: str
    title: str
    inside: Markup
    parts: Sequence[Section] = ()


def page(runs: Sequence[Facts]) -> str:
    """Return the whole file. One run is the page itself; of several, each is a chapter behind the comparison."""
    if len(runs) == 1:
        (facts,) = runs
        title, top, sections = facts.name, opening(facts), sections_of(facts, "")
    else:
        titles = unique_names([facts.run for facts in runs])
        title = f"{len(runs)} runs compared"
        top = macros("compared").lede(titles)
        first, compared = side_by_side(runs, titles)
        sections = [Section("comparison", "Comparison", first, [Section(*one) for one in compared])]
        sections += [
            Section(f"run-{place}", name, opening(facts), sections_of(facts, f"run-{place}-"))
            for place, (name, facts) in enumerate(zip(titles, runs, strict=True), start=1)
        ]
    template = environment().get_template("page.html.j2")
    return template.render(title=title, top=top, sections=sections, version=__version__, generator=GENERATOR)


def opening(facts: Facts) -> Markup:
    """Write a sentence and a few facts about a run."""
    written: Markup = macros("run").opening(facts, origin.brief(facts))
    return written


def sections_of(facts: Facts, prefix: str) -> list[Section]:
    """Write the sections of one run; `prefix` keeps their ids apart when there are several runs."""
    level = 4 if prefix else 3  # of the headings within a section
    write, card = macros("run"), facts.card
    silent = [labels.section(name) for name, values in card["sections"].items() if not values]
    checks = {name: docline(check) for name, check in entries("check").items()}
    estimates = training.estimates(facts, prefix)
    sections = [
        ("numbers", "Numbers", write.headline(numbers.headline(facts))),
        ("doctor", "Diagnosis", write.diagnosis(facts.diagnosis, checks)),
        ("card", "Evaluation card", write.card(facts, tables.of_card(card), tables.warnings(card), silent)),
        ("training", "Training", write.curves(facts, training.legend(facts), training.curves(facts, prefix))),
        ("estimates", "Bound and latent", write.estimates(estimates) if estimates else None),
        ("pictures", "Pictures", write.pictures(facts, figures.grouped(facts.drawings), level)),
        ("configuration", "Configuration", write.configuration(facts, origin.changes(facts), origin.made_of(facts))),
        ("surroundings", "Data and environment", write.surroundings(facts, *origin.surroundings(facts), level)),
        ("reproduce", "How to reproduce", write.reproduction(facts, origin.commands(facts))),
    ]  # fmt: skip
    return [Section(prefix + slug, title, inside) for slug, title, inside in sections if inside is not None]
