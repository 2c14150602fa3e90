"""The origin of a run: its configuration, its surroundings, and the commands that make it again."""

import shlex

from nelbo.core.catalogue import docline
from nelbo.core.config import to_dict
from nelbo.core.layout import DataFacts, Environment
from nelbo.evaluation.tables import Cell, Table, plain
from nelbo.report.gathered import Facts, components
from nelbo.training.api import FROM_PYTHON
from nelbo.training.recipe import flatten

Pairs = list[tuple[str, object]]


def brief(facts: Facts) -> Pairs:
    """Return the few facts that open the page of a run."""
    recipe, card = facts.recipe, facts.card
    flat = flatten(to_dict(recipe))
    size = f", {flat['model.latent_dim']} latent dimensions" if "model.latent_dim" in flat else ""
    epochs = facts.summary.get("epochs", len(facts.history))
    precision = facts.summary.get("precision", recipe.precision)  # the summary knows what `auto` became
    return [
        ("Data", facts.environment.get("data", {}).get("name")),
        ("Model", f"{flat['model']}{size}"),
        ("Likelihood", flat.get("model.likelihood")),
        ("Objective", flat["objective"]),
        ("Trained", f"{epochs} epochs, seed {recipe.seed}, {precision}"),
        ("Shown", f"{card['checkpoint']} checkpoint (epoch {card['epoch']}), {card['split']} split, "
                  f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{card['n']:,}"),
    ]  # fmt: skip


def made_of(facts: Facts) -> Table:
    """Return the table of the components that the configuration names."""
    rows: list[list[Cell | str]] = [
        [field, Cell(spec.name, kind="code"), Cell(docline(type(spec)), kind="prose")]
        for field, spec in components(facts.recipe)
    ]
    return plain("what the run is made of", ["part", "choice", "what it is"], rows)


def changes(facts: Facts) -> Table:
    """Return the table of the fields that differ from the recipe."""
    rows: list[list[Cell | str]] = [
        [Cell(field, kind="code"), before, Cell(after, kind="mark")] for field, before, after in facts.changes
    ]
    return plain("changed from the recipe", ["field", f"recipe {facts.recipe.recipe}", "this run"], rows)


def surroundings(facts: Facts) -> tuple[Pairs, Pairs, Pairs]:
    """Return the data, the machine of the training, and the differences of that of the evaluation."""
    trained = _machine(facts.environment)
    measured = [row for row in _machine(facts.card.get("environment", {})) if row[1] and row not in trained]
    data = facts.environment.get("data", DataFacts())
    shape = data.get("shape")
    rows: Pairs = [
        ("Name", data.get("name")),
        ("Images", ", ".join(f"{count:,} {split}" for split, count in data.get("n", {}).items()) or None),
        ("Size", f"{shape[1]} × {shape[2]}, {shape[0]} channel{'s' * (shape[0] > 1)}" if shape else None),
        ("Pixels", data.get("pixels")),
        ("Hash", data.get("hash")),
        ("Classes", ", ".join(data.get("class_names") or ()) or None),
        ("Said of them", "; ".join(data.get("notes") or ()) or None),
    ]
    return rows, trained, measured


def _machine(environment: Environment) -> Pairs:
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


def commands(facts: Facts) -> dict[str, str]:
    """Return the commands that make the run and the page again: {pins, train, measure}."""
    packages = facts.environment.get("packages", {}).items()
    name = shlex.quote(facts.name)
    imports = "".join(f" --import {shlex.quote(file)}" for file in facts.request.imports)
    train = f"nelbo train config.toml --name {name}{imports}"
    if facts.recipe.data.source == FROM_PYTHON:  # no command can read an object of another process
        call = f'nelbo.train("config.toml", data=..., name={facts.name!r})'
        train = f"{call}  # in Python, with the same images"
    card = facts.card
    flags = f"--checkpoint {card['checkpoint']} --split {card['split']} --samples {card['samples']}{imports}"
    # A local version (+cpu) is in no index.
    pins = [f"{package}=={version.partition('+')[0]}" for package, version in packages if package != "nelbo"]
    measure = f"nelbo evaluate {name} {flags}\nnelbo report {name} {flags}"
    return {"pins": " ".join(pins), "train": train, "measure": measure}
