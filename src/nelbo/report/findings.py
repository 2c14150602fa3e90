"""What the doctor says of a run."""

from __future__ import annotations

from nelbo.doctor import Finding
from nelbo.registering import docline, entries
from nelbo.report.facts import Facts
from nelbo.report.markup import Markup, code, prose, tag


def diagnosis(facts: Facts) -> Markup:
    """Every finding with its evidence and remedy; what was looked at, and what could not be."""
    found = facts.diagnosis
    if isinstance(found, str):
        return tag("p", "The doctor could not be asked: ", found, class_="warning")
    what = entries("check")
    looked = [tag("li", tag("strong", name), ": ", prose(docline(what[name]))) for name in found.looked_at]
    missed = [tag("li", tag("strong", name), ": ", why) for name, why in found.not_looked_at.items()]
    n = len(found.findings)
    said = f"{n} finding{'s' if n > 1 else ''}" if n else "Nothing found"
    return tag(
        "div",
        tag("p", f"{said}; {len(looked)} checks were made.", class_="verdict" if n else "verdict good"),
        [_finding(one) for one in found.findings],
        _list("What was looked at", looked),
        _list("What could not be looked at", missed),
    )


def _finding(found: Finding) -> Markup:
    return tag(
        "div",
        tag("p", tag("span", found.severity, class_="severity"), " ", tag("strong", found.what)),
        tag("p", found.evidence),
        tag("p", found.remedy),
        code(found.command) if found.command else None,
        class_="finding serious" if found.severity == "serious" else "finding",
    )


def _list(title: str, items: list[Markup]) -> Markup | None:
    if not items:
        return None
    return tag("details", tag("summary", f"{title} ({len(items)})"), tag("ul", items))
