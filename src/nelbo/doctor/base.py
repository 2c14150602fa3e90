"""What a diagnosis is: findings with evidence and remedy, the checks that make them, and what they look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from nelbo.core.registry import lookup, names, register
from nelbo.doctor.case import Case, Kind, NotLooked, Part
from nelbo.doctor.command import together
from nelbo.doctor.opening import open_case

Severity = Literal["serious", "worth knowing"]
SEVERITIES: tuple[Severity, ...] = ("serious", "worth knowing")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    what      what it is, in plain words, one sentence
    severity  serious: the numbers or the model are not what they seem; worth knowing: they may be
    evidence  the numbers it was concluded from, and on what they were measured
    remedy    what to change, and why that helps
    command   a command line (or, for images passed from Python, a line of Python) that makes the change to this
              very run, configuration or data
    check     the registered name of the check that found it; `docs/doctor.md` has a section of that name
    """

    what: str
    severity: Severity
    evidence: str
    remedy: str
    command: str
    check: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found in a run, a configuration or data, and what was looked at to find it.

    subject        what was asked about, as the user named it
    kind           run, config or data: how that was read
    findings       the serious ones first
    looked_at      names of the checks that could be made
    not_looked_at  name of each other check -> why it could not
    """

    subject: str
    kind: Kind
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    not_looked_at: dict[str, str]

    @property
    def command(self) -> str:
        """One command with the changes of all findings, or nothing where there is one finding, or they disagree."""
        return together([finding.command for finding in self.findings])

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "subject": self.subject,
            "kind": self.kind,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "command": self.command,
            "looked_at": list(self.looked_at),
            "not_looked_at": [{"check": name, "why": why} for name, why in self.not_looked_at.items()],
        }


Check = Callable[[Case], Iterator[Finding]]
_needs: dict[str, tuple[Part, ...]] = {}


def check(*needs: Part) -> Callable[[Check], Check]:
    """Registers a check under its function's name; it is made only where the case has all that it `needs`.

    A check yields what it finds, and raises NotLooked where it cannot tell. Its docstring's first sentence says
    what it looks for.
    """

    def registered(function: Check) -> Check:
        name = function.__name__.replace("_", "-")
        _needs[name] = needs
        return register("check", name, function)

    return registered


def needs_of(name: str) -> tuple[Part, ...]:
    """The parts of a case that a check looks at."""
    return _needs[name]


def examine(case: Case) -> Diagnosis:
    """Makes every registered check that the case allows."""
    findings: list[Finding] = []
    looked_at: list[str] = []
    not_looked_at: dict[str, str] = {}
    for name in names("check"):
        absent = [part for part in needs_of(name) if part in case.missing]
        if absent:
            not_looked_at[name] = case.missing[absent[0]]
            continue
        try:
            found = list(lookup("check", name)(case))
        except NotLooked as reason:
            not_looked_at[name] = str(reason)
            continue
        findings += [dataclasses.replace(finding, check=name) for finding in found]
        looked_at.append(name)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(case.subject, case.kind, tuple(findings), tuple(looked_at), not_looked_at)


def diagnose(
    what: object,
    *,
    kind: Kind | Literal["auto"] = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    data: object | None = None,
    size: int | None = None,
    device: str = "auto",
    imports: tuple[str, ...] = (),
) -> Diagnosis:
    """Says what is wrong with a run, a configuration or data, from evidence. Changes nothing, downloads nothing.

    what     a Run, a Recipe, images (an array, a tensor, a data set), or a text: a run folder, its name under
             `runs` or `latest`; a .toml file or a recipe's name; a folder, .npy, .npz or a data set's name
    kind     how a text is read that could be several; auto takes them in the order above
    data     the images of a run that was trained on an object in memory, or that a configuration is meant for
    size     height and width to which data alone is resized
    imports  files that registered components, to repeat in the commands

    Deterministic: the same subject gives the same diagnosis. Raises ConfigError, DataError and RunError where there
    is nothing to look at; what is missing otherwise is said in `not_looked_at`.
    """
    folder = Path(data_dir) if data_dir else None
    return examine(
        open_case(
            what,
            kind=kind,
            runs=Path(runs),
            data_dir=folder,
            data=data,
            size=size,
            device=device,
            imports=imports,
        )
    )
