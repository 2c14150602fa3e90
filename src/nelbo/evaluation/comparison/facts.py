"""When numbers of two groups can be compared, metric by metric, and what to say where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from nelbo.evaluation.comparison.members import Member
from nelbo.evaluation.comparison.values import Caution
from nelbo.evaluation.comparison.words import by_group, by_value, listed, shown
from nelbo.evaluation.labels import label

Groups = Mapping[str, Sequence[Member]]
Basis = dict[str, Any]


def basis(member: Member, metric: str) -> Basis | None:
    """Return the facts that must be equal for this metric to be compared; None if the run has no such number."""
    card = member.card
    entry = card["metrics"].get(metric)
    if entry is None or entry["value"] is None:
        return None
    return {
        "images": card["images_hash"],
        "split": card["split"],
        "checkpoint": card["checkpoint"],
        "evaluation seed": card["seed"],
        "unit": entry["unit"],
        **entry["conditions"],
    }


def classes(bases: Mapping[str, Sequence[Basis | None]]) -> tuple[tuple[str, ...], ...]:
    """Groups whose runs all stand on one basis together; a group without numbers, or of mixed ones, is alone."""
    found: list[tuple[Basis | None, list[str]]] = []
    for group, own in bases.items():
        first = own[0] if all(one is not None and one == own[0] for one in own) else None
        home = next((names for other, names in found if first is not None and other == first), None)
        if home is None:
            found.append((first, [group]))
        else:
            home.append(group)
    return tuple(tuple(names) for _, names in found)


def cautions(
    groups: Groups,
    bases: Mapping[str, Mapping[str, Sequence[Basis | None]]],
    differences: Mapping[str, Mapping[str, Any]],
) -> list[Caution]:
    """Everything that keeps metrics from being compared, once for each cause, then what only needs care.

    bases  {metric: {group: the basis of each of its runs}}
    """
    found: list[Caution] = []
    others = {
        key: _plainly(f"{key} is")
        for by_group in bases.values()
        for bases_of_group in by_group.values()
        for one in bases_of_group
        for key in one or ()
    }  # a condition that only a metric of a user's own has
    for about, say in (_MESSAGES | {key: say for key, say in others.items() if key not in _MESSAGES}).items():
        metrics: list[str] = []
        values: dict[str, Any] = {}
        for metric, of_groups in bases.items():
            seen = {
                group: sorted({one[about] for one in own if one is not None and about in one}, key=str)
                for group, own in of_groups.items()
            }
            if len({value for own in seen.values() for value in own}) > 1:
                metrics.append(metric)
                values |= {group: own[0] if len(own) == 1 else own for group, own in seen.items() if own}
        implied = about == "training data" and any(set(metrics) <= set(other.metrics) for other in found)
        if metrics and not implied:
            values = {group: values[group] for group in groups if group in values}
            message = f"{say(values, differences)}. Not compared: {_metrics(metrics)}"
            found.append(Caution(about, message, tuple(metrics), values))
    return [*found, *_no_number(groups), *_gaps(groups), *_with_care(groups, found, differences)]


def _metrics(names: Sequence[str]) -> str:
    return listed(map(label, names))


# --- what keeps numbers apart -----------------------------------------------------------------


def _data_fields(differences: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    """The fields of [data] that may be why `values` (hashes) differ: those that agree wherever a hash does."""
    fields = {
        key: {group: value for group, value in table.items() if group in values}
        for key, table in differences.items()
        if key.startswith("data.") and len({shown(table[group]) for group in values}) > 1
    }
    pairs = [(a, b) for a, b in combinations(values, 2) if values[a] == values[b]]
    causes = {key: table for key, table in fields.items() if all(table[a] == table[b] for a, b in pairs)}
    if not fields:
        return "the [data] tables agree, so the files or arrays themselves have changed"
    return "; ".join(
        f"{key.replace('_', '-')} is {by_value(table)}" for key, table in (causes or fields).items()
    )


def _images(values: Mapping[str, Any], differences: Mapping[str, Mapping[str, Any]]) -> str:
    return f"Measured on different images ({_data_fields(differences, values)})"


def _training(values: Mapping[str, Any], differences: Mapping[str, Mapping[str, Any]]) -> str:
    why = _data_fields(differences, values)
    return (
        f"What is learnt from the training images differs with them ({why}); the measured images are the same"
    )


def _likelihood(values: Mapping[str, Any], _: object) -> str:
    return f"log p(x | z) is not the same kind of number: {by_group(values)}"


def _k(values: Mapping[str, Any], _: object) -> str:
    numbers = [
        number for value in values.values() for number in (value if isinstance(value, list) else [value])
    ]
    return f"K is {by_value(values)}; measure all alike with --samples {max(numbers)}"


def _plainly(what: str, way_out: str = "") -> Callable[..., str]:
    def say(values: Mapping[str, Any], _: object) -> str:
        return f"{what} {by_value(values)}{way_out}"

    return say


_MESSAGES: dict[str, Callable[..., str]] = {
    "images": _images,
    "split": _plainly("The split is"),
    "checkpoint": _plainly("The checkpoint is"),
    "likelihood": _likelihood,
    "K": _k,
    "evaluation seed": _plainly("Posterior samples come from seed", "; measure again with nelbo evaluate"),
    "unit": _plainly("The unit is"),
    "training data": _training,
    "classifier": _plainly("Image quality is measured in the features of classifier"),
}


def _no_number(groups: Groups) -> list[Caution]:
    """Metrics whose number does not exist in some group, by reason: not a bound, infinite, not finite."""
    reasons: dict[str, tuple[list[str], dict[str, list[str]]]] = {}
    for group, members in groups.items():
        for member in members:
            for metric, entry in member.card["metrics"].items():
                if entry["value"] is None:
                    metrics, values = reasons.setdefault(entry["note"], ([], {}))
                    metrics += [metric] if metric not in metrics else []
                    values.setdefault(group, []).append(entry["missing"] or "no number")
    return [
        Caution(
            "no number",
            f"{_metrics(metrics)}: {_words(values)} in {listed(values)}{why and f' ({why})'}",
            tuple(metrics),
            {group: sorted(set(words)) for group, words in values.items()},
        )
        for why, (metrics, values) in reasons.items()
    ]


def _words(values: Mapping[str, Sequence[str]]) -> str:
    return listed(dict.fromkeys(word for words in values.values() for word in words))


def _gaps(groups: Groups) -> list[Caution]:
    """Return the sections that hold numbers in some run's card and are not in another's."""
    cards = [member.card for members in groups.values() for member in members]
    every = dict.fromkeys(name for card in cards for name, metrics in card["sections"].items() if metrics)
    missing = [section for section in every if any(section not in card["sections"] for card in cards)]
    if not missing:
        return []
    lacking: dict[str, list[str]] = {}
    for group, members in groups.items():
        without = {m.name: [s for s in missing if s not in m.card["sections"]] for m in members}
        if all(without.values()):
            lacking[group] = [s for s in missing if any(s in own for own in without.values())]
        else:
            lacking |= {f"{name} ({group})": own for name, own in without.items()}
    values = {group: own for group, own in lacking.items() if own}
    samples = max(m.card["samples"] for members in groups.values() for m in members)
    k = f" --samples {samples}" if "importance" in missing and samples else ""
    message = (
        f"Not measured everywhere. Missing in {by_group({group: listed(own) for group, own in values.items()})}. "
        f"Measure it with --metrics {','.join(missing)}{k}"
    )
    return [Caution("not measured", message, (), dict(values))]


# --- what only needs care ---------------------------------------------------------------------


def _with_care(
    groups: Groups, found: Sequence[Caution], differences: Mapping[str, Mapping[str, Any]]
) -> list[Caution]:
    notes = []
    cards = {group: [member.card for member in members] for group, members in groups.items()}
    trained = {group: sorted({card["data_hash"] for card in own}) for group, own in cards.items()}
    measured = {group: {card["images_hash"] for card in own} for group, own in cards.items()}
    on_others = [
        group
        for a, b in combinations(groups, 2)
        if measured[a] & measured[b] and trained[a] != trained[b]
        for group in (a, b)
    ]
    if on_others and "training data" not in {caution.about for caution in found}:
        values = {group: hashes for group, hashes in trained.items() if group in on_others}
        why = _data_fields(differences, values)
        words = f"Trained on different images ({why}), measured on the same"
        notes.append(Caution("training data", words, (), dict(values)))
    for a, b in combinations(groups, 2):
        if groups[a][0].settings == groups[b][0].settings:
            words = (
                f"{b} has the configuration of {a} with seeds that {a} has already: a repetition of a seed is no "
                "replication, so they are kept apart"
            )
            notes.append(Caution("repeated seed", words))
    checks: dict[str, tuple[str, Callable[[Member], Any]]] = {
        "selection": ("The best checkpoint was chosen differently:", lambda m: m.summary.get("selection")),
        "code": ("Trained by different code:", lambda m: m.code),
        "hardware": ("Speeds come from different hardware:", lambda m: m.hardware),
    }
    for about, (words, read) in checks.items():
        if about == "selection" and any(
            m.card["checkpoint"] != "best" for own in groups.values() for m in own
        ):
            continue
        seen = {group: list(dict.fromkeys(read(m) for m in members)) for group, members in groups.items()}
        if len({value for own in seen.values() for value in own}) > 1:
            values = {group: own[0] if len(own) == 1 else own for group, own in seen.items()}
            ways = {group: " | ".join(map(shown, own)) for group, own in seen.items()}
            notes.append(Caution(about, f"{words} {by_group(ways)}", (), values))
    return notes
