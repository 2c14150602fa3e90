"""Several runs of one recipe that differ in the seed: `nelbo train RECIPE --seeds 0:3`."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nelbo.cli.verb import Answer
from nelbo.errors import ConfigError

if TYPE_CHECKING:
    from nelbo.cli.train import Train
    from nelbo.core.layout import Entry
    from nelbo.training.store import Run

LARGEST = 2**32 - 1  # of a seed, as in a recipe
MOST = 1000  # runs of one command; a typing error would train for years


def in_range(text: str) -> list[int]:
    """Return [0, 1, 2] of "0:3"; raise ConfigError for a text that is no range of seeds."""
    first, colon, end = text.partition(":")
    if colon and first.strip().isdecimal() and end.strip().isdecimal():
        seeds = range(int(first), int(end))
        if 1 <= len(seeds) <= MOST and seeds[-1] <= LARGEST:
            return list(seeds)
    raise ConfigError(
        f"--seeds {text!r}: expected FIRST:END, as in 0:3 for the seeds 0, 1 and 2, of {MOST:,} seeds at most; "
        "a single run takes --seed 3"
    )


def train_each(verb: Train, seeds: Sequence[int]) -> Answer:
    """Train one run for each seed, each as a command of its own would, and answer with all of them and their mean."""
    from nelbo.cli import console
    from nelbo.training import api, store

    if "seed" in verb.overrides:
        raise ConfigError("--seed and --seeds exclude each other; leave one of them out")
    verbs = [
        dataclasses.replace(
            verb, seeds=None, overrides={**verb.overrides, "seed": seed},
            name=None if verb.name is None else f"{store.check_name(verb.name)}-s{seed}",
        )
        for seed in seeds
    ]  # fmt: skip
    # A mistake in the third is said before the first is trained.
    plans = [
        api.plan(
            each.recipe, each.overrides, runs=each.runs, name=each.name, overwrite=each.overwrite,
            data_dir=each.data_dir,
        )
        for each in verbs
    ]  # fmt: skip
    answers: list[Answer] = []
    for seed, plan, each in zip(seeds, plans, verbs, strict=True):
        if not verb.dry_run:
            console.say(f"seed {seed} of {seeds[0]} to {seeds[-1]}: {plan.folder}")
        answers.append(each.run())
    if verb.dry_run:
        return Answer({"runs": [answer.table for answer in answers]}, lambda: _show_all(answers))
    runs = [store.Run(plan.folder) for plan in plans]
    mean = _mean([run.summary["metrics"]["nelbo"] for run in runs])
    return Answer({"runs": [answer.table for answer in answers], "nelbo": mean}, lambda: _show(runs, mean))


def _show_all(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.show()


def _mean(entries: Sequence[Entry]) -> Entry:
    """Return the mean of a number over seeds, and the standard error of that mean over seeds: SD / sqrt(n)."""
    values = [entry["value"] for entry in entries if isinstance(entry["value"], float | int)]
    whole = len(values) == len(entries)
    return {
        **entries[0],
        "value": statistics.fmean(values) if whole else None,
        "standard_error": statistics.stdev(values) / math.sqrt(len(values)) if whole and len(values) > 1 else None,
        "missing": "" if whole else next(entry["missing"] for entry in entries if entry["value"] is None),
        "details": {"seeds": len(entries)},
        "note": "standard error over seeds",
        "warning": "",
    }  # fmt: skip


def _show(runs: Sequence[Run], mean: Entry) -> None:
    """Print the NELBO of every run with its standard error over images, and their mean with that over seeds."""
    from nelbo.cli import console
    from nelbo.evaluation.labels import shown
    from nelbo.training import api

    rows = [(run.name, *shown(run.summary["metrics"]["nelbo"])[:2], "over images") for run in runs]
    rows.append((f"mean of {len(runs)}", *shown(mean)[:2], "over seeds"))
    console.show(
        ["run", f"{api.measured_split(runs[0])} NELBO", "", "standard error"], rows, "nats an image", fixed=4
    )
    print(f"\nNext:  nelbo compare {' '.join(run.quoted for run in runs)}")
