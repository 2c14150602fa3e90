"""The verb `nelbo list`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, Importing
from nelbo.errors import ConfigError, did_you_mean


@dataclass
class List(Importing):
    """List every name of an axis (objective, prior, likelihood, net, dataset, picture, ...) with its fields."""

    usage = "list [AXIS]"
    summary = "every objective, prior, likelihood, net, ... with its fields"
    order = 150

    axis: Positional[Annotated[str, plain("an axis; none lists them all", metavar="[AXIS]")]] = ""

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.core.catalogue import describe
        from nelbo.core.registry import HOMES

        axis = self.axis if self.axis in HOMES else self.axis.removesuffix("s")  # `nelbo list priors` too
        if axis and axis not in HOMES:
            raise ConfigError(f"no axis is called {self.axis!r}; {did_you_mean(self.axis, HOMES)}")
        rows = {name: describe(name) for name in ([axis] if axis else HOMES)}

        def show() -> None:
            for name, entries in rows.items():
                cells = [(key, entry["fields"], entry["what"]) for key, entry in entries.items()]
                console.show([name, "fields", "what"], cells)
                print()

        return Answer(rows, show)
