"""Where a run comes from: its configuration, its surroundings, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from nelbo.api import FROM_PYTHON
from nelbo.registering import docline
from nelbo.report.facts import Facts, parts
from nelbo.report.markup import Markup, code, pairs, prose, table, tag


def configuration(facts: Facts) -> Markup:
    """What differs from the recipe, what the run is made of, and the whole resolved configuration."""
    made_of = [
        (field, tag("code", spec.name), prose(docline(type(spec)))) for field, spec in parts(facts.recipe)
    ]
    return tag(
        "div",
        _changes(facts),
        table(["Part", "Choice", "What it is"], made_of, caption="What the run is made of"),
        tag("p", "The whole configuration, config.toml of the run folder:"),
        tag("div", code(facts.toml), class_="toml"),
    )


def _changes(facts: Facts) -> Markup:
    if facts.started_from is None:
        name = tag("code", facts.recipe.recipe)
        return tag(
            "p", "No recipe called ", name, " is registered here, so there is nothing to compare it with."
        )
    if not facts.changes:
        return tag("p", "Exactly the recipe ", tag("code", facts.recipe.recipe), ": no field was changed.")
    rows = [(tag("code", field), before, tag("mark", after)) for field, before, after in facts.changes]
    return table(
        ["Field", f"Recipe {facts.recipe.recipe}", "This run"], rows, caption="Changed from the recipe"
    )


# --- surroundings -----------------------------------------------------------------------------


def surroundings(facts: Facts, heading: str) -> Markup:
    """Data, versions and hardware: of training, and of the evaluation where that was another machine.

    heading  the element of its three headings, as in "h3"
    """
    trained = _machine(facts.environment)
    measured = [row for row in _machine(facts.card.get("environment", {})) if row[1] and row not in trained]
    found = [
        tag(heading, "Data"),
        _data(facts.environment.get("data", {})),
        tag(heading, "Trained on"),
        pairs(trained),
    ]
    if measured:
        found += [tag(heading, "Measured on the same, except"), pairs(measured)]
    elsewhere = ", ".join(facts.card.get("earlier", {}))
    if elsewhere:
        found.append(tag("p", f"Measured earlier, on another device or by another version: {elsewhere}."))
    times = len(facts.environment.get("earlier", []))
    if times:
        found.append(tag("p", f"Training was interrupted and went on {times} time{'s' * (times > 1)}."))
    return tag("div", found)


def _data(data: Mapping[str, Any]) -> Markup:
    n, shape = data.get("n", {}), data.get("shape")
    counts = ", ".join(f"{count:,} {split}" for split, count in n.items())
    classes = data.get("class_names")
    return pairs(
        [
            ("Name", data.get("name")),
            ("Images", counts or None),
            ("Size", f"{shape[1]} × {shape[2]}, {shape[0]} channel{'s' * (shape[0] > 1)}" if shape else None),
            ("Pixels", data.get("pixels")),
            ("Hash", tag("code", data["hash"]) if data.get("hash") else None),
            ("Classes", ", ".join(classes) if classes else None),
        ]
    )


def _machine(environment: Mapping[str, Any]) -> list[tuple[str, Any]]:
    packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
    threads = f"{environment.get('cores')}, {environment.get('threads')}" if environment else None
    return [
        ("Device", environment.get("device")),
        ("Processor", environment.get("processor")),
        ("Cores, threads", threads),
        ("GPUs", ", ".join(environment.get("gpus", [])) or None),
        ("System", environment.get("platform")),
        ("Python", environment.get("python")),
        ("Packages", packages or None),
        ("Commit", environment.get("git")),
    ]


# --- once more --------------------------------------------------------------------------------


def reproduction(facts: Facts) -> Markup:
    """The commands, in order, from an empty environment to this page."""
    environment, card = facts.environment, facts.card
    packages = environment.get("packages", {})
    pins = " ".join(
        f"{name}=={version.partition('+')[0]}" for name, version in packages.items() if name != "nelbo"
    )
    data = environment.get("data", {})
    name = shlex.quote(facts.name)
    imports = "".join(f" --import {shlex.quote(file)}" for file in facts.asked.imports)
    flags = f"--checkpoint {card['checkpoint']} --split {card['split']} --samples {card['samples']}{imports}"
    train = f"nelbo train config.toml --name {name}{imports}"
    if facts.recipe.data.source == FROM_PYTHON:
        train = (
            f'nelbo.train("config.toml", data=..., name={facts.name!r})  # in Python, with the same images'
        )
    from_python = not str(environment.get("command", "")).startswith("nelbo ")
    steps = [
        tag("li", "nelbo ", packages.get("nelbo", ""), _commit(environment), ", beside the same versions:",
            code(f"pip install {pins}")) if pins else None,
        tag("li", "Train, with the configuration above saved as ", tag("code", "config.toml"), ":",
            code(train)),
        tag("li", "Measure and write this page:",
            code(f"nelbo evaluate {name} {flags}\nnelbo report {name} {flags}")),
    ]  # fmt: skip
    return tag(
        "div",
        tag("p", "It was trained by ", "a Python program: " if from_python else "",
            tag("code", environment["command"]), ".") if environment.get("command") else None,
        tag("ol", steps, class_="steps"),
        tag("p", "The numbers belong to data with hash ", tag("code", data["hash"]), ", which nelbo checks before it "
            "measures; precision ", card["precision"], "; evaluation seed ", card["seed"], "; weights ",
            tag("code", card["weights"]), ".") if data.get("hash") else None,
    )  # fmt: skip


def _commit(environment: Mapping[str, Any]) -> Any:
    return [" at commit ", tag("code", environment["git"])] if environment.get("git") else ""
