"""The page: its frame, its navigation, and the order of what is said of each run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from nelbo import __version__
from nelbo.comparison.members import unique_names
from nelbo.config import to_dict
from nelbo.recipe import flatten
from nelbo.report import figures, findings, numbers, origin, training
from nelbo.report.compared import side_by_side
from nelbo.report.facts import Facts
from nelbo.report.markup import Markup, pairs, prose, tag, trusted

# Nothing may be loaded and nothing may run, whatever a run's name or a class's name contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
GENERATOR = "nelbo report"


class Section(NamedTuple):
    """One part of the page: where it is, what it is called, what is in it, and its own parts."""

    slug: str
    title: str
    inside: Markup
    parts: Sequence[Section] = ()


def page(runs: Sequence[Facts]) -> str:
    """The whole file. One run is the page itself; of several, each is a chapter behind the comparison."""
    if len(runs) == 1:
        (facts,) = runs
        title, top, sections = facts.name, opening(facts), sections_of(facts, "")
    else:
        titles = unique_names([facts.run for facts in runs])
        title = f"{len(runs)} runs compared"
        top = tag(
            "p", ", ".join(titles), ": what differs, what was measured, then each by itself.", class_="lede"
        )
        chapters = [
            Section(f"run-{place}", name, opening(facts), sections_of(facts, f"run-{place}-"))
            for place, (name, facts) in enumerate(zip(titles, runs, strict=True), start=1)
        ]
        opened, compared = side_by_side(runs, titles)
        sections = [
            Section("comparison", "Comparison", opened, [Section(*one) for one in compared]),
            *chapters,
        ]
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag("header", tag("p", "nelbo report", class_="kicker"), tag("h1", title), top, id="top"),
        tag("nav", _links(sections), aria_label="On this page"),
        tag("main", [_written(section, 2) for section in sections], id="content"),
        tag("footer", tag("p", f"Written by nelbo {__version__}. No number here was typed by hand.")),
    )
    return f"<!DOCTYPE html>\n{tag('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Markup:
    style = resources.files("nelbo.report").joinpath("style.css").read_text(encoding="utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="generator", content=GENERATOR),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · nelbo report"),
        tag("style", trusted(style)),
    )


def _links(sections: Sequence[Section]) -> Markup:
    items = [
        tag(
            "li",
            tag("a", section.title, href=f"#{section.slug}"),
            _links(section.parts) if section.parts else None,
        )
        for section in sections
    ]
    return tag("ul", items)


def _written(section: Section, level: int) -> Markup:
    return tag(
        "section",
        tag(f"h{level}", section.title, id=f"{section.slug}-title"),
        section.inside,
        [_written(part, level + 1) for part in section.parts],
        id=section.slug,
        class_="chapter" if section.parts else None,
        aria_labelledby=f"{section.slug}-title",
    )


# --- one run ----------------------------------------------------------------------------------


def opening(facts: Facts) -> Markup:
    """What this run is, in a sentence and a few facts."""
    recipe, data = facts.recipe, facts.environment.get("data", {})
    flat = flatten(to_dict(recipe))
    model = (
        f"{flat['model']}, {flat['model.latent_dim']} latent dimensions" if "model.latent_dim" in flat else ""
    )
    epochs = facts.summary.get("epochs", len(facts.history))
    precision = facts.summary.get("precision", recipe.precision)  # what `auto` was
    unfinished = None if facts.run.finished else tag("strong", " Training has not finished.")
    return tag(
        "div",
        tag("p", _sentence(facts), unfinished, class_="lede"),
        pairs(
            [
                ("Data", data.get("name")),
                ("Model", model or flat["model"]),
                ("Likelihood", flat.get("model.likelihood")),
                ("Objective", flat["objective"]),
                ("Trained", f"{epochs} epochs, seed {recipe.seed}, {precision}"),
                ("Shown", f"{facts.card['checkpoint']} checkpoint (epoch {facts.card['epoch']}), {facts.card['split']} "
                          f"split, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{facts.card['n']:,}"),
            ],
            class_="facts brief",
        ),
    )  # fmt: skip


def _sentence(facts: Facts) -> Markup:
    recipe, promise = tag("code", facts.recipe.recipe), facts.promise.replace("+-", "±")
    if facts.started_from is None:
        return tag("span", "A configuration of its own (", recipe, ").")
    if not facts.changes:
        return tag("span", "Recipe ", recipe, ", which promises: ", promise)
    n = len(facts.changes)
    fields = f"{n} field{'s' if n > 1 else ''} changed"
    return tag("span", "Recipe ", recipe, f" with {fields}. What the recipe itself promises: ", promise)


def sections_of(facts: Facts, prefix: str) -> list[Section]:
    """The sections of one run; `prefix` keeps their places apart when there are several runs."""
    below = "h4" if prefix else "h3"
    found = [
        ("numbers", "Numbers", numbers.headline(facts)),
        ("doctor", "Diagnosis", findings.diagnosis(facts)),
        ("card", "Evaluation card", numbers.whole_card(facts)),
        ("training", "Training", training.curves(facts)),
        ("estimates", "Bound and latent", training.estimates(facts)),
        ("pictures", "Pictures", pictures(facts, below)),
        ("configuration", "Configuration", origin.configuration(facts)),
        ("surroundings", "Data and environment", origin.surroundings(facts, below)),
        ("reproduce", "How to reproduce", origin.reproduction(facts)),
    ]
    return [Section(prefix + slug, title, inside) for slug, title, inside in found if inside is not None]


def pictures(facts: Facts, heading: str) -> Markup:
    """The drawn pictures by group, and by name those that could not be drawn."""
    groups = []
    for group, drawings in figures.grouped(facts.drawings).items():
        first = {one.picture: one for one in reversed(drawings)}  # whose caption says what it shows
        shown = [_picture(facts, one, one is first[one.picture]) for one in drawings]
        groups.append(tag("div", tag(heading, group), tag("div", shown, class_="pictures")))
    missing = [tag("li", tag("code", name), ": ", why) for name, why in facts.left_out.items()]
    return tag(
        "div",
        groups,
        [tag("p", "Not drawn:"), tag("ul", missing, class_="left-out")] if missing else None,
        None if groups or missing else tag("p", "No further picture was asked for.", class_="soft"),
    )


def _picture(facts: Facts, drawing: figures.Drawing, explained: bool) -> Markup:
    title = drawing.stem.replace("-", " ")
    about = f"{title} of {facts.name}: {drawing.words}"
    image = tag("img", src=drawing.uri, alt=about, width=drawing.width, height=drawing.height)
    words = prose(f". {drawing.words}") if explained else None
    return tag("figure", image, tag("figcaption", tag("strong", title), words))
