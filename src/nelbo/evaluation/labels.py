"""A metric's name and number as people read them: the same on a terminal, in a comparison and in a report."""

import math
from collections.abc import Mapping

from nelbo.core.catalogue import entries
from nelbo.core.layout import Entry
from nelbo.metrics import Metric, Number

DECIMALS = 8  # at most: float32 has no more
UNKNOWN = Number()  # a number without facts, or of a metric that is not imported here


def number(name: str) -> Number:
    """Return the facts about one number of a card, from the metric that yields it."""
    metrics: Mapping[str, Metric] = entries("metric")
    return next((metric.numbers[name] for metric in metrics.values() if name in metric.numbers), UNKNOWN)


def label(name: str) -> str:
    """Return the name of a number for people: `iw_nll` is IW NLL, `active_units` is Active units."""
    return number(name).label or in_words(name)


def title(name: str) -> str:
    """Return the name of a number on the card of one run, where the halves of the bound have both of their names."""
    return number(name).title or label(name)


def section(name: str) -> str:
    """Return the name of a metric's section for people."""
    metric: Metric | None = entries("metric").get(name)
    return (metric.label if metric else "") or in_words(name)


def in_words(name: str) -> str:
    """Return a key as words: `active_units` is Active units."""
    return name.replace("_", " ").capitalize()


def decimals(error: float) -> int:
    """Return the number of decimals that show two digits of a standard error."""
    return min(DECIMALS, max(0, 1 - math.floor(math.log10(error))))


def rounded(value: float, error: float | None = None) -> str:
    """Write a number to the second digit of its standard error, and to four digits where there is none."""
    if error:
        return f"{value:.{decimals(error)}f}"
    if float(value).is_integer() and abs(value) < 1e6:  # a count
        return f"{value:.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def shown(entry: Entry) -> tuple[str, str, str]:
    """Return value, spread and note of one number; where there is no value, the word for why."""
    value, error, note = entry["value"], entry["standard_error"], entry["note"]
    if value is None:
        return entry.get("missing") or "none", "", note
    if isinstance(value, list):
        if not value:
            return "none", "", note
        return f"{rounded(min(value))} to {rounded(max(value))}", "", note
    spread = "" if error is None else f"± {error:.{decimals(error)}f}" if error else "± 0"
    return rounded(value, error), spread, note
