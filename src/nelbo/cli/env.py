"""`nelbo env`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nelbo.cli import flags

if TYPE_CHECKING:
    pass


@dataclass
class Env:
    """Versions and hardware, as every run records them, and how steps are run here."""

    json: flags.Json = False

    def run(self) -> None:
        from nelbo import engine
        from nelbo.cli import console

        device = engine.pick_device()
        table = engine.describe(device) | {
            "auto_precision": engine.pick_precision("auto", device),
            "compiles": engine.why_not(device) or "yes",
        }
        if self.json:
            return console.emit(table)
        return console.show(["field", "value"], [(key, console.cell(value)) for key, value in table.items()])
