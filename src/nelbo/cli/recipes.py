"""`nelbo recipes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nelbo.cli import flags

if TYPE_CHECKING:
    pass


@dataclass
class Recipes:
    """Every recipe, with its promise."""

    import_: flags.Imports = ()
    json: flags.Json = False

    def run(self) -> None:
        from nelbo.cli import console
        from nelbo.core.catalogue import docline, entries, import_files

        import_files(self.import_)
        rows = {name: docline(entry) for name, entry in entries("recipe").items()}
        if self.json:
            return console.emit(rows)
        console.show(["recipe", "what, how good (nats an image), how long on two cores"], list(rows.items()))
        print("\nnelbo train RECIPE trains one; add --dry-run to see its configuration")
        return None
