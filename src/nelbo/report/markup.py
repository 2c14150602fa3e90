"""HTML written by functions: text is escaped unless a function of this module made it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

VOID = {"br", "img", "meta"}
UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # what HTML cannot hold


class Markup(str):
    """HTML that is safe to write as it stands. Only this module makes it from text."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element with its children, in order; text among them is escaped, None and False are left out.

    `class_` is written class, `view_box` view-box. An attribute that is None or False is left out.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Any], between: str = "") -> Markup:
    """Several pieces as one: Markup as it is, lists piece by piece, everything else as escaped text."""
    return Markup(escape(between).join(_piece(child) for child in children))


def escape(text: Any) -> Markup:
    """Plain text as HTML, fit for an element and for an attribute in double quotes."""
    return Markup(html.escape(UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(text))))


def trusted(text: str) -> Markup:
    """For text that is part of nelbo itself (its style sheet), never for what a user wrote."""
    return Markup(text)


def _piece(child: Any) -> str:
    if child is None or child is False:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return escape(child)


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


# --- what several sections are made of --------------------------------------------------------


def table(
    heads: Iterable[Any], rows: Iterable[Iterable[Any]], *, caption: str, class_: str | None = None
) -> Markup:
    """A table whose first column names its rows; it scrolls inside its own box where it is too wide."""
    head = tag("tr", [tag("th", head, scope="col") for head in heads])
    body = [_row(list(row)) for row in rows]
    return scrolling(
        tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_), caption
    )


def _row(cells: list[Any]) -> Markup:
    return tag("tr", tag("th", cells[0], scope="row"), [tag("td", cell) for cell in cells[1:]])


def scrolling(inside: Markup, label: str, class_: str = "scroll") -> Markup:
    """A box that scrolls sideways instead of the page, and that a keyboard can reach."""
    return tag("div", inside, class_=class_, tabindex="0", role="region", aria_label=label)


def section_rows(title: str, what: list[Any] | None, rows: list[Markup], columns: int) -> Markup:
    """A part of a table under a heading of its own, with a line that says what it is."""
    heading = tag("span", title, class_="section-name"), what and tag("span", what, class_="note")
    return tag("tbody", tag("tr", tag("th", *heading, colspan=columns, scope="rowgroup")), rows)


def code(text: str) -> Markup:
    """Lines to copy."""
    return scrolling(tag("pre", tag("code", text)), "to copy", "scroll code")


def prose(text: str) -> list[Any]:
    """A docstring's sentence: what it has between backticks becomes code."""
    return [tag("code", piece) if place % 2 else piece for place, piece in enumerate(text.split("`"))]


def pairs(rows: Iterable[tuple[Any, Any]], class_: str = "facts") -> Markup:
    """Names and values as a description list; a value of None is left out."""
    found = [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows if value is not None]
    return tag("dl", found, class_=class_)
