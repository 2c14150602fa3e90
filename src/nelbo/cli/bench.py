"""The verb that times training on this machine, and its table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from nelbo.cli.flags import names_in, plain
from nelbo.cli.verb import Answer, Measuring

if TYPE_CHECKING:
    from nelbo.training.events import Event


@dataclass
class Bench(Measuring):
    """Time training on this machine, side by side: a tutorial's loop, and nelbo in several ways.

    All sides run in turn in this process, each --repeat times. The clock stops for compilation, validation and
    saving, and the first epoch is left out. Needs a quiet machine; `docs/speed.md` says how to read the table.
    """

    usage = "bench [RECIPE ...]"
    summary = "training speed here, beside a tutorial's loop"
    order = 170

    recipes: Positional[
        Annotated[tuple[str, ...], plain("names of recipes; none for digits", metavar="[RECIPE ...]")]
    ] = ()
    repeat: Annotated[int, arg(help="turns; medians and spread are over them", metavar="INT")] = 3
    epochs: Annotated[int, arg(help="epochs of each training, the first left out", metavar="INT")] = 2
    sides: Annotated[
        str | None, plain("some only: plain,nelbo and others; a wrong name lists them", metavar="NAMES")
    ] = None
    target: Annotated[
        float | None,
        plain("also the seconds until the negative bound is this low, nats an image", metavar="FLOAT"),
    ] = None

    def run(self) -> Answer:
        from nelbo import bench
        from nelbo.cli import console
        from nelbo.training.recipe import resolve

        sides = tuple(bench.SIDES if self.sides is None else names_in(self.sides))
        recipes = self.recipes or ("digits",)
        for name in recipes:
            console.announce_download(resolve(name).data, self.data_dir)  # also refuses a wrong name at once
        table = bench.bench(
            recipes, repeat=self.repeat, epochs=self.epochs, device=self.device,
            data_dir=self.data_dir, sides=sides, target=self.target, tell=tell,
        )  # fmt: skip
        return Answer(table, lambda: show(table))


def tell(event: Event) -> None:
    """Write a line to stderr for each thing that was timed or left out."""
    from nelbo.cli import console
    from nelbo.training import events

    match event:
        case events.BenchBegun():
            console.say(f"{event.recipe}: {len(event.sides)} sides, {event.repeat} times each")
        case events.LapDone():
            seconds = ", ".join(f"{value:.3g}" for value in event.epochs)
            console.say(f"  {event.side}, turn {event.turn}: {seconds} s an epoch")
        case events.SideLeftOut():
            console.say(f"  left out {event.side}: {event.why}")


def show(table: Mapping[str, Any]) -> None:
    """Write a table for each recipe with the sides left out, then the machine."""
    from nelbo.cli import console

    for name, recipe in table["recipes"].items():
        cells = [_cells(row) for row in recipe["rows"].values()]
        rows = [[side, *row.values()] for side, row in zip(recipe["rows"], cells, strict=True)]
        title = f"{name}: {recipe['images']:,} images, batches of {recipe['batch_size']}"
        heads = ["side", *cells[0]] if cells else ["side"]
        console.show(heads, rows, title, fixed=len(heads))
        target = table["settings"]["target"]
        times = {side: row["seconds_to_target"] for side, row in recipe["rows"].items()}
        if target is not None and any(times.values()):
            reached = [(side, f"{time['median']:.3g}" if time else "-") for side, time in times.items()]
            console.show(["side", f"s to {target} nats"], reached)
        for side, row in recipe["rows"].items():
            for note in row["notes"]:
                console.write(f"{side}: {note}")
        for side, why in recipe["left_out"].items():
            console.write(f"left out {side}: {why}")
        console.write("")
    environment, products = table["environment"], table["machine"]["products"]
    settings = table["settings"]
    hardware = ", ".join(environment.get("gpus", [])) if settings["device"] != "cpu" else ""
    rates = ", ".join(f"{name} {row['flops_per_second'] / 1e9:,.0f}" for name, row in products.items())
    console.write(
        f"medians of {settings['repeat']}; ratios to plain, turn by turn; "
        f"{hardware or environment['processor']}, {environment['threads']} threads, "
        f"torch {environment['packages']['torch']}, commit {environment.get('git', 'unknown')}"
    )
    console.write(f"% rate: of the matrix products this machine does in that arithmetic, GFLOP/s: {rates}")


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of one side by the heads of their columns."""
    seconds, ratio = row["seconds_an_epoch"], row["ratio_to_plain"]
    return {
        "s epoch": f"{seconds['median']:.3g}",
        "lowest-highest": f"{seconds['low']:.3g}-{seconds['high']:.3g}",
        "images/s": f"{row['images_per_second']['median']:,.0f}",
        "ratio": f"{ratio['median']:.2f}" if ratio else "-",
        "arithmetic": f"{row['precision']} {row['how'].partition(',')[0].partition(' ')[0]}",
        "% rate": f"{row['percent_of_product_rate']:.1f}",
        "compile s": f"{row['compile_seconds']['median']:.1f}",
        "MB": "-" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}",
    }
