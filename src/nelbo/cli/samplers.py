"""The verb `nelbo samplers`."""

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import arg

from nelbo.cli import flags
from nelbo.cli.verb import Answer, Looking
from nelbo.core.layout import Entry, SamplerChoice, number

TIMED = ("fit", "draw")
COLUMNS = ("precision", "recall", "density", "coverage")


@dataclass
class Samplers(Looking):
    """Fit every sampler to a run, measure each on validation images, and the best on test images.

    Afterwards `nelbo sample RUN --sampler chosen` draws with the best. Fields of samplers are flags:
    --gaussian-mixture.components 20 (see nelbo list sampler).
    """

    usage = "samplers RUN"
    summary = "fits every sampler to a run, and chooses by validation images"
    order = 90

    run_: flags.RunName
    samplers: Annotated[str, arg(help="all, or some: prior,gaussian-mixture", metavar="NAMES")] = "all"
    checkpoint: flags.Checkpoint = "best"
    seed: Annotated[int, arg(help="seed of every fit", metavar="INT")] = 0
    overrides: flags.Overrides = field(default_factory=dict)

    @classmethod
    def settings(cls, unknown: list[str]) -> flags.Settings:
        """Take flags with a dot as fields of samplers."""
        return flags.dotted(unknown)

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.evaluation import samplers

        names = None if self.samplers == "all" else [word.strip() for word in self.samplers.split(",")]
        with console.Measuring(resumes="the samplers that are left") as listener:
            table = samplers.compare(
                self.run_, names, self.overrides, checkpoint=self.checkpoint, seed=self.seed, runs=self.runs,
                device=self.device, data_dir=self.data_dir, data=self.data, tell=listener,
            )  # fmt: skip
        return Answer(table, lambda: self._show(table))

    def _show(self, table: SamplerChoice) -> None:
        from nelbo.cli import console
        from nelbo.evaluation.labels import label
        from nelbo.training import store

        criterion = table["by"]
        measured: list[tuple[float, tuple[str, ...]]] = []
        for name, entry in table["samplers"].items():
            if "metrics" not in entry:
                continue
            metrics, seconds = entry["metrics"], entry["seconds"]
            distance = number(metrics[criterion])
            shares = [_number(metrics[column])[0] if column in metrics else "-" for column in COLUMNS]
            title = f"{name} (copies)" if entry["copies"] else name
            times = [f"{seconds[clock]:.1f} s" for clock in TIMED]
            cells = (title, *_number(metrics[criterion]), *shares, *times)
            measured.append((float("inf") if distance is None else distance, cells))
        rows = [cells for _, cells in sorted(measured, key=lambda row: row[0])]  # nearest first
        for name, metric in table["validation"]["references"].items():
            rows.append((f"({name.rpartition('_')[2]})", *_number(metric), *[""] * 6))
        title = (
            f"{table['run']} · {table['checkpoint']} (epoch {table['epoch']}) · validation, "
            f"n = {table['validation']['n']}, by {label(criterion)}"
        )
        console.show(["sampler", "distance", "", *COLUMNS, *TIMED], rows, title)
        for name, entry in table["samplers"].items():
            if "refused" in entry:
                console.say(f"left out {name}: {entry['refused']}")
        value, error = _number(table["test"]["metrics"][criterion])
        console.write(
            f"\nchosen: {table['chosen']}; on {table['test']['n']} test images {value} {error}".rstrip()
        )
        console.write(
            f"nelbo sample {store.find(self.run_, self.runs).quoted} --sampler chosen   draws with it"
        )


def _number(metric: Entry) -> tuple[str, str]:
    from nelbo.evaluation.labels import shown

    return shown(metric)[:2]
