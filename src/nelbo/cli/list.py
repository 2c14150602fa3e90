"""`nelbo list`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    pass


@dataclass
class List:
    """Every registered name of an axis (objective, prior, likelihood, net, dataset, picture, ...) with its fields."""

    axis: Positional[Annotated[str, plain("an axis; none lists them all", metavar="[AXIS]")]] = ""
    import_: flags.Imports = ()
    json: flags.Json = False

    def run(self) -> None:
        from nelbo.cli import console
        from nelbo.core.catalogue import describe, import_files
        from nelbo.core.registry import HOMES

        import_files(self.import_)
        axis = self.axis if self.axis in HOMES else self.axis.removesuffix("s")
        if axis and axis not in HOMES:
            raise ConfigError(f"no axis is called {self.axis!r}; {did_you_mean(self.axis, HOMES)}")
        rows = {name: describe(name) for name in ([axis] if axis else HOMES)}
        if self.json:
            return console.emit(rows)
        for name, found in rows.items():
            console.show(
                [name, "fields", "what"], [(key, e["fields"], e["what"]) for key, e in found.items()]
            )
            print()
        return None
