"""Runs in, a comparison out: groups, differences, means over seeds, intervals, and what cannot be compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nelbo.evaluation import labels
from nelbo.evaluation.card import position
from nelbo.evaluation.comparison import comparability, intervals, members, words
from nelbo.evaluation.comparison.comparability import Groups
from nelbo.evaluation.comparison.intervals import Floats, Interval
from nelbo.evaluation.comparison.members import Ask, Member
from nelbo.evaluation.comparison.values import Cell, Comparison, Difference, Group, MetricRow
from nelbo.training.events import Tell, quiet
from nelbo.training.store import Run


def compare(
    names: Sequence[str | Path | Run],
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
    """Compare several runs: the differences of their configurations, and those of their metrics.

    names     run folders, names under `runs`, `latest`, or Runs; the group of the first is the baseline
    samples   K of the importance-weighted estimate; None takes each run's fullest card as it is
    metrics   names of registered metrics (`nelbo list metric`); None takes those of the cards
    tell      hears `RunMeasured` before a run is measured, and the events of `evaluate`

    Runs whose configuration differs only in the seed are one group. Cards are read from the run folders; one
    that is missing, or lacks a metric, is measured and kept. The intervals are those of
    `nelbo.evaluation.comparison.intervals`.

    Raises RunError for a name that is no run and for fewer than two runs, ConfigError for wrong arguments.
    """
    named = None if metrics is None else tuple(metrics)
    ask = Ask(split, checkpoint, samples, named, device, data_dir)
    finished, left_out = members.find(names, Path(runs))
    members.check_enough(finished, left_out)
    everyone, unmeasured = members.measured(finished, ask, tell)
    left_out |= unmeasured
    members.check_enough([member.run for member in everyone], left_out)
    gathered = members.grouped(everyone)
    groups = dict(zip(words.letters(len(gathered)), gathered, strict=True))
    differences = words.differences({name: group[0].settings for name, group in groups.items()})
    sections = _sections(everyone)
    bases: dict[str, dict[str, list[comparability.Basis | None]]] = {}
    rows: list[MetricRow] = []
    for metric, section in sections.items():
        bases[metric] = {
            name: [comparability.basis(one, metric) for one in group] for name, group in groups.items()
        }
        rows.append(_row(groups, metric, section, comparability.classes(bases[metric])))
    baseline, *others = groups
    paired = [
        _difference(groups, row, group, baseline)
        for group in others
        for row in rows
        if any({group, baseline} <= set(comparable) for comparable in row.classes)
    ]
    cards = [member.card for group in gathered for member in group]
    titles = words.labels(differences, {name: [m.row.name for m in group] for name, group in groups.items()})
    return Comparison(
        split=split,
        checkpoint=checkpoint,
        n=_common({card["n"] for card in cards}),
        samples=_common({card["samples"] for card in cards if "importance" in card["sections"]}),
        baseline=baseline,
        groups=tuple(map(_group, groups, titles, gathered)),
        differences=differences,
        metrics=tuple(rows),
        paired=tuple(paired),
        warnings=tuple(comparability.cautions(groups, bases, differences)),
        left_out=left_out,
    )


def _common(values: set[int]) -> int | None:
    return next(iter(values)) if len(values) == 1 else None


def _sections(everyone: Sequence[Member]) -> dict[str, str]:
    """Return {metric: section} of every number that some card has, in the order of a card; lists are no numbers."""
    section_of: dict[str, str] = {}
    for member in everyone:
        for section, metrics in member.card["sections"].items():
            for name in metrics:
                if not isinstance(member.card["metrics"][name]["value"], list):
                    section_of[name] = section
    return dict(sorted(section_of.items(), key=lambda item: position(item[1])))


def _group(name: str, label: str, group: Sequence[Member]) -> Group:
    log_px = " | ".join(dict.fromkeys(str(member.card["log_px"]) for member in group))
    return Group(name, label, log_px, tuple(member.row for member in group))


def _row(groups: Groups, metric: str, section: str, classes: tuple[tuple[str, ...], ...]) -> MetricRow:
    baseline = next(iter(groups))
    with_baseline = next(names for names in classes if baseline in names)
    cells: dict[str, Cell] = {}
    units: list[str] = []
    for name, group in groups.items():
        entries = [entry for member in group if (entry := member.card["metrics"].get(metric)) is not None]
        if not entries:
            continue
        units.append(entries[0]["unit"])
        values = tuple(member.value(metric) for member in group)
        numbers = [value for value in values if value is not None]
        if len(numbers) < len(values):  # a mean over some of the runs would be a number of another group
            unmeasured = {"missing": "not measured", "note": "in some runs"}
            reason = next((entry for entry in entries if entry["value"] is None), unmeasured)
            cells[name] = Cell(None, None, values, reason["note"], False, reason["missing"])
        else:
            mean, error = intervals.mean_and_error(numbers)
            cells[name] = Cell(mean, error, values, entries[0]["note"], name in with_baseline)
    better = labels.number(metric).better
    best, best_of = _best(groups, metric, with_baseline, cells, better)
    return MetricRow(metric, section, units[0], better, cells, classes, best, best_of)


def _best(
    groups: Groups, metric: str, candidates: Sequence[str], cells: Mapping[str, Cell], better: str
) -> tuple[str | None, Literal["seeds", "images", ""]]:
    """Return the group that beats every other comparable one: all intervals between them exclude zero.

    The winner is picked after looking, and its interval against the runner-up still errs in at most 5 %: among
    more groups a wrong winner has to beat more of them (Gutmann & Maymin 1987). Where there are several seeds in
    both groups, seeds have to agree with images.
    """
    means = {name: cells[name].mean for name in candidates if name in cells}
    ranked = sorted(means, key=lambda name: (means[name] or 0.0) * (-1.0 if better == "higher" else 1.0))
    if not better or len(ranked) < 2:
        return None, ""
    # Intervals are computed between the winner and every other group only: the order of the others does not count.
    winner, *others = ranked
    over: list[Literal["seeds", "images"]] = []
    for other in others:
        images, _ = _over_images(groups[winner], groups[other], metric)
        seeds = _over_seeds(groups[winner], groups[other], metric)
        replicated = min(len(groups[winner]), len(groups[other])) > 1
        between = [one for one in ((seeds, images) if replicated else (images,)) if one is not None]
        if not between or (replicated and seeds is None) or not all(one.excludes_zero for one in between):
            return None, ""
        over.append("seeds" if replicated else "images")
    return winner, "images" if "images" in over else "seeds"


def _difference(groups: Groups, row: MetricRow, group: str, baseline: str) -> Difference:
    a, b = groups[group], groups[baseline]
    images, note = _over_images(a, b, row.name)
    value = (row.cells[group].mean or 0.0) - (row.cells[baseline].mean or 0.0)
    return Difference(row.name, group, baseline, value, images, _over_seeds(a, b, row.name), note)


def _over_seeds(a: Sequence[Member], b: Sequence[Member], metric: str) -> Interval | None:
    first, second = ([value for run in runs if (value := run.value(metric)) is not None] for runs in (a, b))
    return intervals.over_seeds(first, second)


def _over_images(a: Sequence[Member], b: Sequence[Member], metric: str) -> tuple[Interval | None, str]:
    """Return the paired interval of two groups, each image first averaged over the seeds; or None and the reason."""
    means: list[Floats] = []
    for group in (a, b):
        stored = [member.per_image.get(metric) for member in group]
        if any(column is None for column in stored):
            return None, "no mean over images"
        columns = [np.asarray(column, dtype=np.float64) for column in stored]
        stated = [member.value(metric) or 0.0 for member in group]
        if not np.allclose([column.mean() for column in columns], stated, rtol=1e-6):
            return None, "the numbers of single images are not those of the card; measure again"
        if len({len(column) for column in columns}) > 1:
            return None, "different numbers of images"
        means.append(np.mean(columns, axis=0))
    if len(means[0]) != len(means[1]):
        return None, "different numbers of images"
    interval = intervals.over_images(means[0] - means[1])
    nothing = "the same on every image" if len(means[0]) > 1 else "a single image"
    return interval, "" if interval else nothing
