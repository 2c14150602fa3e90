"""Runs in, a comparison out: groups, differences, means over seeds, intervals, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nelbo.core.layout import Entry
from nelbo.evaluation import labels
from nelbo.evaluation.card import position
from nelbo.evaluation.comparison import comparability, intervals, members, words
from nelbo.evaluation.comparison.intervals import Floats, Interval
from nelbo.evaluation.comparison.members import Ask, Member
from nelbo.evaluation.comparison.values import Cell, Comparison, Difference, Group, MetricRow, RunRow
from nelbo.training.events import Tell, quiet
from nelbo.training.store import Run


def compare(
    what: Sequence[str | Path | Run],
    *,
    split: str = "test",
    checkpoint: str = "best",
    samples: int | None = None,
    metrics: Sequence[str] | None = None,
    device: str = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    tell: Tell = quiet,
) -> Comparison:
    """Several runs side by side: what differs in their configuration, and by how much their metrics differ.

    what      run folders, names under `runs`, `latest`, or Runs; the group of the first is the baseline
    samples   K of the importance-weighted estimate; None takes each run's fullest card as it is
    metrics   names of registered metrics (`nelbo list metric`); None takes what the cards hold
    tell      hears `RunMeasured` before a run is measured, and what `evaluate` tells

    Runs whose configuration differs only in the seed are one group. Cards are read from the run folders; one
    that is missing, or lacks what was asked for, is measured and kept. The intervals are those of
    `nelbo.evaluation.comparison.intervals`.

    Raises RunError where a name is no run or fewer than two runs are left, ConfigError for wrong arguments.
    """
    ask = Ask.checked(metrics, samples, split=split, checkpoint=checkpoint, device=device, data_dir=data_dir)
    found, left_out = members.find(what, Path(runs))
    members.check_enough(found, left_out)
    everyone, unmeasured = members.measured(found, ask, tell)
    left_out |= unmeasured
    members.check_enough([member.run for member in everyone], left_out)
    gathered = members.grouped(everyone)
    groups = dict(zip(words.letters(len(gathered)), gathered, strict=True))
    return _compared(groups, left_out, split, checkpoint)


def _compared(
    groups: dict[str, list[Member]], left_out: dict[str, str], split: str, checkpoint: str
) -> Comparison:
    differences = words.differences({name: own[0].settings for name, own in groups.items()})
    sections = _sections(groups)
    bases = {
        metric: {
            name: [comparability.basis(member, metric) for member in own] for name, own in groups.items()
        }
        for metric in sections
    }
    rows = [
        _row(groups, metric, section, comparability.classes(bases[metric]))
        for metric, section in sections.items()
    ]
    baseline, *others = groups
    paired = [
        _difference(groups, row, group, baseline)
        for group in others
        for row in rows
        if _together(row, group, baseline)
    ]
    cards = [member.card for own in groups.values() for member in own]
    titles = words.labels(differences, {name: [m.name for m in own] for name, own in groups.items()})
    return Comparison(
        split=split,
        checkpoint=checkpoint,
        n=_common({card["n"] for card in cards}),
        samples=_common({card["samples"] for card in cards if "importance" in card["sections"]}),
        baseline=baseline,
        groups=tuple(
            Group(name, label, _log_px(own), tuple(_run_row(member) for member in own))
            for (name, own), label in zip(groups.items(), titles, strict=True)
        ),
        differences=differences,
        metrics=tuple(rows),
        paired=tuple(paired),
        warnings=tuple(comparability.cautions(groups, bases, differences)),
        left_out=left_out,
    )


def _common(values: set[int]) -> int | None:
    return next(iter(values)) if len(values) == 1 else None


def _log_px(members: Sequence[Member]) -> str:
    return " | ".join(dict.fromkeys(str(member.card["log_px"]) for member in members))


def _sections(groups: Mapping[str, Sequence[Member]]) -> dict[str, str]:
    """{metric: section} of every number that some card has, in the order of a card; lists are no numbers."""
    found: dict[str, str] = {}
    for own in groups.values():
        for member in own:
            for section, metrics in member.card["sections"].items():
                found |= {
                    name: section
                    for name in metrics
                    if not isinstance(member.card["metrics"][name]["value"], list)
                }
    return dict(sorted(found.items(), key=lambda item: position(item[1])))


def _run_row(member: Member) -> RunRow:
    summary = member.summary
    return RunRow(
        name=member.name,
        path=str(member.run.path),
        seed=member.seed,
        epochs=summary["epochs"],
        best_epoch=summary.get("best_epoch"),
        epoch=member.card["epoch"],
        weights=member.weights,
        train_seconds=summary["seconds"]["train"],
        images_per_second=summary["images_per_second"],
        hardware=member.hardware,
        code=member.code,
    )


# --- one metric -------------------------------------------------------------------------------


def _row(
    groups: Mapping[str, Sequence[Member]], metric: str, section: str, classes: tuple[tuple[str, ...], ...]
) -> MetricRow:
    baseline = next(iter(groups))
    with_baseline = next(names for names in classes if baseline in names)
    cells = {}
    for name, own in groups.items():
        entries = [entry for member in own if (entry := member.card["metrics"].get(metric)) is not None]
        if entries:
            values = [member.value(metric) for member in own]
            cells[name] = _cell(values, entries, name in with_baseline)
    units = [
        m.card["metrics"][metric]["unit"]
        for own in groups.values()
        for m in own
        if metric in m.card["metrics"]
    ]
    better = labels.number(metric).better
    best, best_of = _best(groups, metric, with_baseline, cells, better)
    return MetricRow(metric, section, units[0], better, cells, classes, best, best_of)


def _cell(values: Sequence[float | None], entries: Sequence[Entry], comparable: bool) -> Cell:
    """A group's number; where one of its runs has none the group has none, and the note says why."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        unmeasured = {"missing": "not measured", "note": "in some runs"}
        reason = next((entry for entry in entries if entry["value"] is None), unmeasured)
        return Cell(None, None, tuple(values), reason["note"], False, reason["missing"])
    mean, error = intervals.mean_and_error(numbers)
    return Cell(mean, error, tuple(values), entries[0]["note"], comparable)


def _together(row: MetricRow, *groups: str) -> bool:
    return any(set(groups) <= set(names) for names in row.classes)


def _best(
    groups: Mapping[str, Sequence[Member]],
    metric: str,
    candidates: Sequence[str],
    cells: Mapping[str, Cell],
    better: str,
) -> tuple[str | None, Literal["seeds", "images", ""]]:
    """The group that beats every other comparable one: all intervals between them exclude zero.

    The winner is picked after looking, and its interval against the runner-up still errs in at most 5 %: among
    more groups a wrong winner has to beat more of them (Gutmann & Maymin 1987). Where there are several seeds in
    both groups, seeds have to agree with images.
    """
    means = {name: cells[name].mean for name in candidates if name in cells}
    ranked = sorted(means, key=lambda name: (means[name] or 0.0) * (-1.0 if better == "higher" else 1.0))
    if not better or len(ranked) < 2:
        return None, ""
    winner, *others = ranked
    over: list[Literal["seeds", "images"]] = []
    for other in others:
        images, _ = _over_images(groups[winner], groups[other], metric)
        seeds = _over_seeds(groups[winner], groups[other], metric)
        replicated = min(len(groups[winner]), len(groups[other])) > 1
        found = [one for one in ((seeds, images) if replicated else (images,)) if one is not None]
        if not found or (replicated and seeds is None) or not all(one.excludes_zero for one in found):
            return None, ""
        over.append("seeds" if replicated else "images")
    return winner, "images" if "images" in over else "seeds"


def _difference(
    groups: Mapping[str, Sequence[Member]], row: MetricRow, group: str, baseline: str
) -> Difference:
    a, b = groups[group], groups[baseline]
    images, note = _over_images(a, b, row.name)
    value = (row.cells[group].mean or 0.0) - (row.cells[baseline].mean or 0.0)
    return Difference(row.name, group, baseline, value, images, _over_seeds(a, b, row.name), note)


def _over_seeds(a: Sequence[Member], b: Sequence[Member], metric: str) -> Interval | None:
    first, second = ([value for one in own if (value := one.value(metric)) is not None] for own in (a, b))
    return intervals.over_seeds(first, second)


def _over_images(a: Sequence[Member], b: Sequence[Member], metric: str) -> tuple[Interval | None, str]:
    """The paired interval of two groups, each image first averaged over the seeds; or None and why."""
    means: list[Floats] = []
    for own in (a, b):
        columns = [member.per_image.get(metric) for member in own]
        if any(column is None for column in columns):
            return None, "no mean over images"
        each = [np.asarray(column, dtype=np.float64) for column in columns]
        stated = [member.value(metric) or 0.0 for member in own]
        if not all(np.isclose(one.mean(), value, rtol=1e-6) for one, value in zip(each, stated, strict=True)):
            return None, "the numbers of single images are not those of the card; measure again"
        if len({len(one) for one in each}) > 1:
            return None, "different numbers of images"
        means.append(np.mean(each, axis=0))
    if len(means[0]) != len(means[1]):
        return None, "different numbers of images"
    found = intervals.over_images(means[0] - means[1])
    nothing = "the same on every image" if len(means[0]) > 1 else "a single image"
    return found, "" if found else nothing
