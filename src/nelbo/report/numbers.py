"""The measured numbers of one run: the headline, and the whole card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nelbo import wording
from nelbo.registering import docline, entries
from nelbo.report.facts import Facts
from nelbo.report.markup import Markup, prose, scrolling, section_rows, tag
from nelbo.wording import label

NOT_A_LIKELIHOOD = "grey pixels: a cross-entropy, not a likelihood"


def rounded(value: float, error: float | None = None) -> str:
    """As everywhere, with the minus sign of print."""
    return _minus(wording.rounded(value, error))


def shown(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    """Value, spread and note of one metric, as everywhere, with the minus sign of print."""
    value, error, note = wording.shown(entry)
    return value if entry["value"] is None else _minus(value), error, note


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


# --- the headline -----------------------------------------------------------------------------


def headline(facts: Facts) -> Markup:
    """The few numbers that a reader asks for first, each called what it is."""
    samples = facts.card["samples"]
    names = {
        "nelbo": "Grey cross-entropy + KL" if facts.grey else "NELBO",
        "iw_nll": f"Grey importance-weighted estimate, K = {samples}"
        if facts.grey
        else f"IW-NLL, K = {samples}",
        "bits_per_dim": "Bits a dimension",
        "active_units": "Active units",
    }
    tiles = [_tile(words, facts, name) for name, words in names.items() if name in facts.metrics]
    speed = facts.summary.get("images_per_second")
    if speed:
        threads = facts.summary.get("threads")
        where = f"{facts.summary.get('device', '')}, {threads} thread{'s' if threads != 1 else ''}"
        tiles.append(_numeral("Training speed", f"{speed:,.0f}", "", "images/s", where if threads else ""))
    return tag("ul", tiles, class_="tiles")


def _tile(words: str, facts: Facts, name: str) -> Markup:
    entry = facts.metrics[name]
    value, error, note = shown(entry)
    missing = entry["value"] is None
    if name == "active_units" and not missing:
        return _numeral(words, value, "", f"{note.partition(';')[0]} dimensions", "")
    if facts.grey and not missing:
        note = NOT_A_LIKELIHOOD
    elif name == "iw_nll" and not missing:
        note = note.partition("; ")[2].partition("; ")[0]
    return _numeral(words, value, error, entry["unit"], note, missing=missing)


def _numeral(words: str, value: str, error: str, unit: str, note: str, missing: bool = False) -> Markup:
    number = tag("span", value, class_="numeral words" if missing else "numeral")
    beside = tag("span", f"{error} {unit}".strip(), class_="unit")
    return tag(
        "li",
        tag("span", words, class_="name"),
        " ",
        number,
        " ",
        None if missing else beside,
        tag("span", note, class_="note") if note else None,
    )


# --- the card ---------------------------------------------------------------------------------


def whole_card(facts: Facts) -> Markup:
    """Every measured value, section by section, with what each section is."""
    card = facts.card
    said = (
        f"Checkpoint {card['checkpoint']} (epoch {card['epoch']}), {card['split']} split, n = {card['n']:,}. "
        "± is the standard error over images. Nats an image are summed over pixels and latent dimensions."
    )
    head = tag("tr", [tag("th", words, scope="col") for words in ("Metric", "Value ± s.e.", "Unit")])
    bodies = [_section(name, values, facts.metrics) for name, values in card["sections"].items() if values]
    caption = f"Evaluation card of {facts.name}"
    return tag(
        "div",
        tag("p", said),
        tag("p", "Not completed: ", facts.not_measured, class_="warning") if facts.not_measured else None,
        scrolling(tag("table", tag("caption", caption), tag("thead", head), bodies, class_="card"), caption),
        _nothing_of(card["sections"]),
    )


def _section(name: str, values: list[str], metrics: Mapping[str, Mapping[str, Any]]) -> Markup:
    what = entries("metric").get(name)
    rows = []
    for key in values:
        value, error, note = shown(metrics[key])
        said = tag("span", note, class_="note") if note else None
        number = [tag("span", value, class_="value"), " ", tag("span", error, class_="error")]
        unit = metrics[key]["unit"]
        rows.append(
            tag("tr", tag("th", wording.on_card(key), said, scope="row"), tag("td", number), tag("td", unit))
        )
    return section_rows(label(name), prose(docline(what)) if what else None, rows, columns=3)


def _nothing_of(sections: Mapping[str, list[str]]) -> Markup | None:
    """The metrics that have nothing to say of this data, by name: nothing is left out in silence."""
    silent = [label(name).lower() for name, values in sections.items() if not values]
    if not silent:
        return None
    return tag("p", f"Measured and not applicable to this data: {', '.join(silent)}.", class_="soft")
