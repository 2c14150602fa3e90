"""Times the README's commands on a fresh clone of the committed tree: install, `make demo`, `make test`, help.

python benchmarks/commands.py
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from nelbo import engine
from nelbo.core.files import atomic

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "records" / "commands.json"


def seconds(command: list[str], folder: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - begun, 2)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "nelbo"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        found = {name: seconds(["make", name], clone) for name in ("install", "demo", "test")}
        helps = [seconds([".venv/bin/nelbo", "--help"], clone) for _ in range(5)]
        verbs = [seconds([".venv/bin/nelbo", "train", "--help"], clone) for _ in range(5)]
    table = {
        "command": "python benchmarks/commands.py",
        "environment": engine.describe(),
        "seconds": {
            **found,
            "nelbo --help, best of 5": min(helps),
            "nelbo train --help, best of 5": min(verbs),
        },
    }
    with atomic(RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")
    print(table["seconds"])


if __name__ == "__main__":
    main()
