"""The verb `nelbo samplers`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import Suppress, arg

from nelbo.cli import flags
from nelbo.cli.verb import Answer, OnRuns
from nelbo.core.layout import Entry, SamplerChoice, SamplerRow, number
from nelbo.errors import Interrupted

TIMED = ("fit", "draw")
COLUMNS = ("precision", "recall", "density", "coverage")


@dataclass
class Samplers(OnRuns):
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
    seed: Annotated[int, arg(help="of every fit", metavar="INT")] = 0
    overrides: Suppress[dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def settings(cls, unknown: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Take flags with a dot as fields of samplers."""
        return flags.dotted(unknown)

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.evaluation import samplers

        names = None if self.samplers == "all" else [word.strip() for word in self.samplers.split(",")]
        try:
            with console.Measuring() as listener:
                table = samplers.compare(
                    self.run_, names, self.overrides, checkpoint=self.checkpoint, seed=self.seed, runs=self.runs,
                    device=self.device, data_dir=self.data_dir, tell=listener,
                )  # fmt: skip
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; the same command goes on with the samplers that are left"
            ) from None
        return Answer(table, lambda: self._show(table))

    def _show(self, table: SamplerChoice) -> None:
        from nelbo.cli import console
        from nelbo.evaluation.labels import label

        by = table["by"]
        rows = [_row(name, entry, by) for name, entry in _ranked(table)]
        for name, metric in table["validation"]["references"].items():
            rows.append((f"({name.rpartition('_')[2]})", *_number(metric), *[""] * 6))
        title = (
            f"{table['run']} · {table['checkpoint']} (epoch {table['epoch']}) · validation, "
            f"n = {table['validation']['n']}, by {label(by)}"
        )
        console.show(["sampler", "distance", "", *COLUMNS, *TIMED], rows, title)
        for name, entry in table["samplers"].items():
            if "refused" in entry:
                console.say(f"left out {name}: {entry['refused']}")
        value, error, *_ = _number(table["test"]["metrics"][by])
        console.write(
            f"\nchosen: {table['chosen']}; on {table['test']['n']} test images {value} {error}".rstrip()
        )
        console.write(f"nelbo sample {table['run']} --sampler chosen   draws with it")


def _ranked(table: SamplerChoice) -> list[tuple[str, SamplerRow]]:
    """Return the measured samplers, nearest first."""
    measured = [(name, entry) for name, entry in table["samplers"].items() if "metrics" in entry]

    def distance(item: tuple[str, SamplerRow]) -> float:
        value = number(item[1]["metrics"][table["by"]])
        return float("inf") if value is None else value

    return sorted(measured, key=distance)


def _row(name: str, entry: SamplerRow, by: str) -> tuple[str, ...]:
    metrics = entry["metrics"]
    shares = [_number(metrics[column])[0] if column in metrics else "-" for column in COLUMNS]
    name += " (copies)" if entry["copies"] else ""
    return (name, *_number(metrics[by]), *shares, *(f"{entry['seconds'][what]:.1f} s" for what in TIMED))


def _number(metric: Entry) -> tuple[str, str]:
    from nelbo.evaluation.labels import shown

    return shown(metric)[:2]
