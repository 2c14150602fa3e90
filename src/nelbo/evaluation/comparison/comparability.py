"""When numbers of two groups can be compared, metric by metric, and what to say where they cannot."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

from nelbo.evaluation.comparison.members import Member
from nelbo.evaluation.comparison.values import Caution
from nelbo.evaluation.comparison.words import by_group, by_value, listed, shown
from nelbo.evaluation.labels import label
from nelbo.metrics.bound import in_words

Groups = Mapping[str, Sequence[Member]]
Differences = Mapping[str, Mapping[str, object]]
Basis = dict[str, str | int]


def basis(member: Member, metric: str) -> Basis | None:
    """Return the facts that must be equal for this metric to be compared; None if the run has no such number."""
    card = member.card
    entry = card["metrics"].get(metric)
    if entry is None or entry["value"] is None:  # `_no_number` and `_not_measured` speak of these
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
    """Return the groups whose runs all stand on one basis; a group without numbers, or of mixed ones, is alone."""
    together: list[tuple[Basis | None, list[str]]] = []
    for group, of_runs in bases.items():
        first = of_runs[0] if all(one is not None and one == of_runs[0] for one in of_runs) else None
        names = next((names for other, names in together if first is not None and other == first), None)
        if names is None:
            together.append((first, [group]))
        else:
            names.append(group)
    return tuple(tuple(names) for _, names in together)


def cautions(
    groups: Groups, bases: Mapping[str, Mapping[str, Sequence[Basis | None]]], differences: Differences
) -> list[Caution]:
    """Return everything that keeps metrics from being compared, once for each cause, then what only needs care.

    bases  {metric: {group: the basis of each of its runs}}
    """
    every = [one for by_group in bases.values() for of_runs in by_group.values() for one in of_runs if one]
    apart: list[Caution] = []
    # Behind the causes that have a message here come the conditions of a user's own metrics.
    for about in dict.fromkeys([*MESSAGES, *(key for one in every for key in one)]):
        metrics: list[str] = []
        values: dict[str, list[str | int]] = {}
        for metric, groups_of in bases.items():
            differing = {
                group: sorted({one[about] for one in of_runs if one and about in one}, key=str)
                for group, of_runs in groups_of.items()
            }
            if len({value for of_runs in differing.values() for value in of_runs}) > 1:
                metrics.append(metric)
                values |= {group: of_runs for group, of_runs in differing.items() if of_runs}
        # Other images of the split are, as a rule, other training images too: that is said once.
        implied = about == "training data" and any(set(metrics) <= set(other.metrics) for other in apart)
        if metrics and not implied:
            single = {group: _single(values[group]) for group in groups if group in values}
            say = MESSAGES.get(about, _plainly(f"{about} is"))
            message = f"{say(single, differences)}. Not compared: {listed(map(label, metrics))}"
            apart.append(Caution(about, message, tuple(metrics), single))
    explained = any(caution.about == "training data" for caution in apart)
    return [
        *apart,
        *_no_number(groups),
        *_not_measured(groups),
        *_to_read_with_care(groups, differences, explained),
    ]


def _single(values: Sequence[object]) -> object:
    """Return the value that all runs of a group have, or the list of them."""
    return values[0] if len(values) == 1 else list(values)


# --- what keeps numbers apart -----------------------------------------------------------------


def _data_fields(values: Mapping[str, object], differences: Differences) -> str:
    """Return the fields of [data] that may be why `values` (hashes) differ: those that agree wherever a hash does."""
    # Fields that are the same in these groups explain nothing, whatever they are in the others.
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


def _samples(values: Mapping[str, object]) -> str:
    most = max(max(value) if isinstance(value, list) else int(str(value)) for value in values.values())
    return f"K is {by_value(values)}; measure all alike with --samples {most}"


def _plainly(subject: str, way_out: str = "") -> Callable[[Mapping[str, object], Differences], str]:
    return lambda values, _: f"{subject} {by_value(values)}{way_out}"


def _kinds(values: Mapping[str, object]) -> dict[str, object]:
    """Return the kinds of number of each group as people read them."""
    return {
        group: [in_words(str(kind)) for kind in kinds] if isinstance(kinds, list) else in_words(str(kinds))
        for group, kinds in values.items()
    }


MESSAGES: dict[str, Callable[[Mapping[str, object], Differences], str]] = {
    "images": lambda values, fields: f"Measured on different images ({_data_fields(values, fields)})",
    "split": _plainly("The split is"),
    "checkpoint": _plainly("The checkpoint is"),
    "likelihood": lambda values, _: (
        f"log p(x | z) is not the same kind of number: {by_group(_kinds(values))}"
    ),
    "K": lambda values, _: _samples(values),
    "evaluation seed": _plainly("Posterior samples come from seed", "; measure again with nelbo evaluate"),
    "unit": _plainly("The unit is"),
    "training data": lambda values, fields: (
        f"What is learnt from the training images differs with them ({_data_fields(values, fields)}); "
        "the measured images are the same"
    ),
    "classifier": _plainly("Image quality is measured in the features of classifier"),
}
"""Cause -> the sentence about it, of {group: value} and the fields that differ."""


def _no_number(groups: Groups) -> Iterator[Caution]:
    """Yield the metrics whose number does not exist in some group, by reason: not a bound, infinite, not finite."""
    reasons: dict[str, tuple[list[str], dict[str, list[str]]]] = {}
    for group, members in groups.items():
        for member in members:
            for metric, entry in member.card["metrics"].items():
                if entry["value"] is None:
                    metrics, words = reasons.setdefault(entry["note"], ([], {}))
                    metrics += [metric] if metric not in metrics else []
                    words.setdefault(group, []).append(entry["missing"] or "no number")
    for why, (metrics, words) in reasons.items():
        every = dict.fromkeys(word for of_group in words.values() for word in of_group)
        message = f"{listed(map(label, metrics))}: {listed(every)} in {listed(words)}{why and f' ({why})'}"
        values = {group: sorted(set(of_group)) for group, of_group in words.items()}
        yield Caution("no number", message, tuple(metrics), values)


def _not_measured(groups: Groups) -> Iterator[Caution]:
    """Yield the sections that hold numbers in some run's card and are not in another's."""
    cards = [member.card for members in groups.values() for member in members]
    every = dict.fromkeys(name for card in cards for name, metrics in card["sections"].items() if metrics)
    lacking: dict[str, list[str]] = {}
    for group, members in groups.items():
        without = {
            one.row.name: [name for name in every if name not in one.card["sections"]] for one in members
        }
        if all(without.values()):
            lacking[group] = [name for name in every if any(name in names for names in without.values())]
        else:
            lacking |= {f"{run} ({group})": names for run, names in without.items() if names}
    if not lacking:
        return
    missing = [name for name in every if any(name in names for names in lacking.values())]
    samples = max(card["samples"] for card in cards)
    k = f" --samples {samples}" if "importance" in missing and samples else ""
    places = by_group({place: listed(names) for place, names in lacking.items()})
    way_out = f"Measure it with --metrics {','.join(missing)}{k}"
    message = f"Not measured everywhere. Missing in {places}. {way_out}"
    yield Caution("not measured", message, (), dict(lacking))


def _to_read_with_care(groups: Groups, differences: Differences, explained: bool) -> Iterator[Caution]:
    """Yield what keeps no number apart: other training images, repeated seeds, other code, hardware or selection.

    explained   another caution tells already that the training images differ
    """
    trained = {name: sorted({one.card["data_hash"] for one in members}) for name, members in groups.items()}
    measured = {name: {one.card["images_hash"] for one in members} for name, members in groups.items()}
    concerned: set[str] = set()
    for a, b in combinations(groups, 2):
        if measured[a] & measured[b] and trained[a] != trained[b]:
            concerned |= {a, b}
    if concerned and not explained:
        trained = {group: hashes for group, hashes in trained.items() if group in concerned}
        message = f"Trained on different images ({_data_fields(trained, differences)}), measured on the same"
        yield Caution("training data", message, (), dict(trained))
    for a, b in combinations(groups, 2):
        if groups[a][0].settings == groups[b][0].settings:
            yield Caution(
                "repeated seed",
                f"{b} has the configuration of {a} with seeds that {a} has already: a repetition of a seed is no "
                "replication, so they are kept apart",
            )
    members = [member for of_group in groups.values() for member in of_group]
    checks: dict[str, tuple[str, Callable[[Member], object]]] = {
        "selection": (
            "The best checkpoint was chosen differently:",
            lambda one: one.summary.get("selection"),
        ),
        "code": ("Trained by different code:", lambda one: one.row.code),
        "hardware": ("Speeds come from different hardware:", lambda one: one.row.hardware),
    }
    if any(member.card["checkpoint"] != "best" for member in members):
        del checks["selection"]  # the measured weights were not selected
    for about, (words, read) in checks.items():
        if len({read(member) for member in members}) > 1:
            ways = {group: list(dict.fromkeys(map(read, of_group))) for group, of_group in groups.items()}
            text = by_group({group: " | ".join(map(shown, of_group)) for group, of_group in ways.items()})
            values = {group: _single(of_group) for group, of_group in ways.items()}
            yield Caution(about, f"{words} {text}", (), values)
