"""The tests of what differs from the last commit: `make quick`. A module has the tests that carry its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nelbo.core.registry import lookup, names
from nelbo.testing.dispatch import CHECKS

ROOT = Path(__file__).parent.parent
CONTRACTS = ["tests/test_contracts.py", "tests/test_layout.py"]


def changed() -> list[str]:
    """Return the files that differ from the last commit, those that git does not know yet included."""
    commands = (["diff", "--name-only", "HEAD"], ["ls-files", "--others", "--exclude-standard"])
    lines = [
        subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for command in commands
    ]
    return "".join(lines).splitlines()


def chosen_by(files: list[str]) -> tuple[list[str], list[str]]:
    """Return the test files of these files, and the laws of the components that they define."""
    tests, laws = set(CONTRACTS), set()
    there = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    for file in files:
        parts = Path(file).with_suffix("").parts
        if file in there:
            tests.add(file)
        if not file.startswith(("src/nelbo/", "benchmarks/")):
            continue
        words = [part.strip("_") for part in parts[1:] if part not in ("nelbo", "__init__")]
        tests |= {test for test in there if any(Path(test).stem == f"test_{word}" for word in words)}
        module = ".".join(parts[1:])
        laws |= {
            f"test_everything_registered_keeps_its_laws[every-setting-{axis}-{name}]"
            for axis in CHECKS
            for name in names(axis)
            if lookup(axis, name).__module__ == module
        }
    return sorted(tests - {"tests/test_laws.py"}), sorted(laws)


def main() -> int:
    """Run them, the laws of changed components first; return the exit status of pytest."""
    tests, laws = chosen_by(changed())
    pytest = [sys.executable, "-m", "pytest", "-q", "-x"]
    status = 0
    if laws:
        chosen = [f"tests/test_laws.py::{law}" for law in laws]
        status = subprocess.run([*pytest, "-n", "2", "-m", "", *chosen], cwd=ROOT).returncode  # slow ones too
    if status == 0:
        status = subprocess.run([*pytest, "-n", "2", *tests], cwd=ROOT).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
