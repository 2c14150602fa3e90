"""The verb `nelbo data`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, Verb
from nelbo.errors import ConfigError


@dataclass
class Data(Verb):
    """List the data sets, download one, or check a folder or file of images."""

    usage = "data [list | get | check]"
    summary = "data sets: the list, downloads, checks"
    order = 140

    action: Positional[Annotated[Literal["list", "get", "check"], arg(help="the task")]] = "list"
    name: Positional[Annotated[str, plain("a name (get) or a path (check)", metavar="[NAME|PATH]")]] = ""
    size: flags.Size = None
    data_dir: flags.DataDir = None
    overrides: flags.Overrides = field(default_factory=dict)

    @classmethod
    def settings(cls, unknown: list[str]) -> flags.Settings:
        """Take `--data.range 0,4095` and the other fields of data, as training does."""
        return flags.dotted(unknown)

    def run(self) -> Answer:
        from nelbo import data as sets
        from nelbo.cli import console
        from nelbo.core import config
        from nelbo.training import api

        if self.action == "list":
            rows = [dataclasses.asdict(row) for row in sets.available(self.data_dir)]
            cells = [[console.cell(value) for value in row.values()] for row in rows]
            return Answer({"datasets": rows}, lambda: console.show(list(rows[0]), cells))
        if not self.name:
            verb = f"nelbo data {self.action}"
            raise ConfigError(f"{verb} needs a name or a path, as in {verb} mnist")
        fields = flags.data_fields(self.overrides, self.size)
        source = config.build(sets.Data, {"source": self.name, **fields}, "data")
        source.check_source()
        console.announce_download(source, self.data_dir)
        splits = source.load(self.data_dir)
        table = api.describe_data(splits)
        return Answer(table, lambda: console.show_fields(table))
