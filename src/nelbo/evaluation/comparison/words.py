"""Settings and groups in words, for tables, labels and messages."""

import itertools
import string
from collections.abc import Iterable, Mapping, Sequence

from nelbo.core.spec import kebab

LABELLED = 3  # differing fields that a group's label names; with more it is called by its runs


def shown(value: object) -> str:
    """Return a setting in short: 4, relu, [256, 128], linear(epochs 20); `-` for a field that does not exist."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case Mapping():
            inside = [f"{kebab(str(key))} {shown(inner)}" for key, inner in value.items() if key != "name"]
            return f"{value.get('name', '')}({', '.join(inside)})" if inside else str(value.get("name", ""))
        case list() | tuple():
            return f"[{', '.join(map(shown, value))}]" if value else "none"
    return str(value)


def listed(names: Iterable[object]) -> str:
    """Return `A`, `A and B`, `A, B and C`."""
    *most, last = map(str, names)
    return f"{', '.join(most)} and {last}" if most else last


def by_value(values: Mapping[str, object]) -> str:
    """Return `4 in A and B, 1 in C`: groups of equal value together, in order."""
    return ", ".join(f"{value} in {names}" for value, names in _alike(values))


def by_group(values: Mapping[str, object]) -> str:
    """Return `A and B: a longer phrase; C: another`."""
    return "; ".join(f"{names}: {value}" for value, names in _alike(values))


def _alike(values: Mapping[str, object]) -> list[tuple[str, str]]:
    groups: dict[str, list[str]] = {}
    for group, value in values.items():
        groups.setdefault(shown(value), []).append(group)
    return [(value, listed(names)) for value, names in groups.items()]  # in the order of their first group


def letters(count: int) -> list[str]:
    """Return the first letters of A, B, ..., Z, AA, AB, ..."""
    words = (
        "".join(word)
        for length in itertools.count(1)
        for word in itertools.product(string.ascii_uppercase, repeat=length)
    )
    return list(itertools.islice(words, count))


def differences(tables: Mapping[str, Mapping[str, object]], prefix: str = "") -> dict[str, dict[str, object]]:
    """Return the dotted fields that are not the same in all configurations: {field: {group: value or None}}.

    Where components of different names stand in one field, that field is the difference, with all that is in it.
    """
    differing: dict[str, dict[str, object]] = {}
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        values = {group: table.get(key) for group, table in tables.items()}
        first = next(iter(values.values()))
        if all(value == first for value in values.values()):  # no set: a list cannot be hashed
            continue
        nested = {group: value for group, value in values.items() if isinstance(value, Mapping)}
        if len(nested) == len(values) and len({value.get("name") for value in nested.values()}) == 1:
            differing |= differences(nested, f"{prefix}{key}.")
        else:
            differing[f"{prefix}{key}"] = values
    return differing


def labels(differing: Mapping[str, Mapping[str, object]], runs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a label for each group: its recipe, its changes of the baseline, or the names of its runs.

    differing  as `differences` gives it;  runs  {group: names of its runs}, the baseline first
    """
    recipes = [str(name) for name in differing.get("recipe", {}).values()]
    if len(set(recipes)) == len(runs) and "custom" not in recipes:
        return recipes
    ends = [key.rpartition(".")[2] for key in differing]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(differing, ends, strict=True)}
    baseline = next(iter(runs))
    titles = []
    for group, names in runs.items():
        changed = [
            f"{kebab(short[key])} {_briefly(table[group])}"
            for key, table in differing.items()
            if table[group] != table[baseline]
        ]
        letters = itertools.takewhile(lambda at: len(set(at)) == 1, zip(*names, strict=False))
        common = "".join(letter for letter, *_ in letters)
        stem = common.removesuffix("-s").rstrip("-_. /") if len(names) > 1 else names[0]
        titles.append(", ".join(changed) if 0 < len(changed) <= LABELLED else stem or names[0])
    return titles


def _briefly(value: object) -> str:
    """Return a setting as `shown` does, but only the name of a component."""
    if isinstance(value, Mapping):
        return str(value.get("name", shown(value)))
    return ",".join(map(_briefly, value)) if value and isinstance(value, list) else shown(value)
