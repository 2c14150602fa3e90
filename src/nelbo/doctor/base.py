"""The parts of a diagnosis: findings with evidence and remedy, and the checks that make them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol, cast

from nelbo.core.registry import lookup, names, register
from nelbo.doctor.case import Case, Kind, NotLooked, Part
from nelbo.doctor.command import Change, merged
from nelbo.doctor.opening import open_case

Severity = Literal["serious", "worth knowing"]
SEVERITIES: tuple[Severity, ...] = ("serious", "worth knowing")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A thing that is wrong.

    what      the fault in plain words, one sentence
    severity  serious: the numbers or the model are not what they seem; worth knowing: they may be
    evidence  the numbers it was concluded from, and on what they were measured
    remedy    what to change, and why that helps
    change    the training of this very run, configuration or data with some fields changed; or a line that changes
              something else, as the data
    check     the registered name of the check that made it; `docs/doctor.md` has a section of that name
    """

    what: str
    severity: Severity
    evidence: str
    remedy: str
    change: Change | str
    check: str = ""

    @property
    def changes(self) -> dict[str, object]:
        """The dotted recipe fields that the remedy changes -> their new values."""
        return {} if isinstance(self.change, str) else dict(self.change.fields)

    @property
    def command(self) -> str:
        """The line that makes the change: a command line or, for images passed from Python, a line of Python."""
        return self.change if isinstance(self.change, str) else self.change.command

    def to_dict(self) -> dict[str, object]:
        """Return the finding as plain values."""
        return {
            "what": self.what,
            "severity": self.severity,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "command": self.command,
            "changes": self.changes,
            "check": self.check,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings in a run, a configuration or data, and the checks that were made.

    subject        the run, configuration or data, as the user named it
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
        change = merged([finding.change for finding in self.findings if not isinstance(finding.change, str)])
        return change.command if change is not None else ""

    def to_dict(self) -> dict[str, object]:
        """Return the diagnosis as plain values."""
        return {
            "subject": self.subject,
            "kind": self.kind,
            "findings": [finding.to_dict() for finding in self.findings],
            "command": self.command,
            "looked_at": list(self.looked_at),
            "not_looked_at": [{"check": name, "why": why} for name, why in self.not_looked_at.items()],
        }


Findings = Callable[[Case], Iterator[Finding]]


class Check(Protocol):
    """A registered check: a function that yields findings, and the parts of a case that it needs."""

    needs: tuple[Part, ...]

    def __call__(self, case: Case) -> Iterator[Finding]: ...


def check(*needs: Part) -> Callable[[Findings], Check]:
    """Register a check under its function's name; it is made only where the case has all that it `needs`.

    A check yields its findings, and raises NotLooked where it cannot tell. Its docstring's first sentence names
    the fault.
    """

    def registered(function: Findings) -> Check:
        entry = cast("Check", function)
        entry.needs = needs
        return register("check", function.__name__.replace("_", "-"), entry)

    return registered


def examine(case: Case) -> Diagnosis:
    """Make every registered check that the case allows."""
    findings: list[Finding] = []
    looked_at: list[str] = []
    not_looked_at: dict[str, str] = {}
    for name in names("check"):
        entry: Check = lookup("check", name)
        absent = [part for part in entry.needs if part in case.missing]
        if absent:
            not_looked_at[name] = case.missing[absent[0]]
            continue
        try:
            findings += [dataclasses.replace(finding, check=name) for finding in entry(case)]
        except NotLooked as reason:
            not_looked_at[name] = str(reason)
        else:
            looked_at.append(name)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))  # stable: by name within a severity
    return Diagnosis(case.subject, case.kind, tuple(findings), tuple(looked_at), not_looked_at)


def diagnose(
    what: object,
    *,
    kind: Kind | Literal["auto"] = "auto",
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    data: object | None = None,
    size: int | None = None,
    data_fields: Mapping[str, object] | None = None,
    device: str = "auto",
    imports: tuple[str, ...] = (),
) -> Diagnosis:
    """Find what is wrong with a run, a configuration or data, from evidence. Changes nothing, downloads nothing.

    what     a Run, a Recipe, images (an array, a tensor, a data set), or a text: a run folder, its name under
             `runs` or `latest`; a .toml file or a recipe's name; a folder, a file of images or a data set's name
    kind     how a text is read that could be several; auto takes them in the order above
    data     the images of a run that was trained on an object in memory, or that a configuration is meant for
    size     height and width to which data alone is resized
    data_fields  further fields of `[data]` for data alone, as {"range": (0, 4095)}
    imports  files that registered components, to repeat in the commands

    Deterministic: the same subject gives the same diagnosis. Raises ConfigError, DataError and RunError where there
    is nothing to look at; what is missing otherwise is said in `not_looked_at`.
    """
    root = Path(data_dir) if data_dir else None
    case = open_case(
        what,
        kind=kind,
        runs=Path(runs),
        data_dir=root,
        data=data,
        size=size,
        data_fields=data_fields,
        device=device,
        imports=imports,
    )
    return examine(case)
