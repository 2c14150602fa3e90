"""`nelbo data`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.errors import ConfigError

if TYPE_CHECKING:
    pass


@dataclass
class Data:
    """Data sets: list what there is, get one, or check a folder or file of images."""

    action: Positional[Annotated[Literal["list", "get", "check"], arg(help="what to do")]] = "list"
    what: Positional[Annotated[str, plain("a name (get) or a path (check)", metavar="[NAME|PATH]")]] = ""
    size: Annotated[
        int | None, plain("height and width to resize to, as --data.size of train", metavar="INT")
    ] = None
    data_dir: flags.DataDir = None
    json: flags.Json = False

    def run(self) -> None:
        from nelbo import data as sets
        from nelbo.cli import console
        from nelbo.core import config
        from nelbo.training import api

        if self.action == "list":
            rows = [dataclasses.asdict(row) for row in sets.available(self.data_dir)]
            if self.json:
                return console.emit({"datasets": rows})
            return console.show(
                list(rows[0]), [[console.cell(value) for value in row.values()] for row in rows]
            )
        if not self.what:
            raise ConfigError(
                f"nelbo data {self.action} needs a name or a path, as in nelbo data {self.action} mnist"
            )
        source = config.build(sets.Data, {"source": self.what, "size": self.size}, "data")
        source.check_source()
        console.announce_download(source, self.data_dir)
        splits = source.load(self.data_dir)
        table = api.describe_data(splits) | ({"note": splits.note} if splits.note else {})
        if self.json:
            return console.emit(table)
        return console.show(["field", "value"], [(key, console.cell(value)) for key, value in table.items()])
