"""The verb that puts runs side by side, and how a comparison looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from nelbo import flags
from nelbo.errors import ConfigError
from nelbo.flags import plain
from nelbo.wording import decimals, label, rounded

if TYPE_CHECKING:
    from nelbo.comparison import Comparison, Difference, Interval, MetricRow

FORMATS = (".png", ".pdf", ".svg")
OVER_IMAGES = (
    "over images: with other test images, for these very weights; it says nothing about another seed"
)
OVER_SEEDS = "over seeds: with other seeds, on these very images (Welch's t)"
NONE = "-: no mean over images, or fewer than two seeds that differ on either side"


@dataclass
class Compare:
    """Several runs and seeds side by side: settings that differ, metrics, paired differences with intervals.

    Runs that differ only in the seed are one group; the group of the first run is the baseline. Without --samples and
    --metrics the numbers are those that the runs' cards hold; what is asked for and missing is measured.
    """

    names: Positional[
        Annotated[
            tuple[str, ...],
            plain("run folders, names under --runs, or latest", name="run", metavar="RUN RUN ..."),
        ]
    ] = ()
    checkpoint: flags.Checkpoint = "best"
    split: flags.SplitName = "test"
    samples: Annotated[
        int | None,
        plain("K of the importance-weighted NLL; default: that of each run's fullest card", metavar="INT"),
    ] = None
    metrics: Annotated[
        str | None, plain("all, or some: bound,importance; default: what the cards hold", metavar="NAMES")
    ] = None
    out: Annotated[
        Path | None, plain("the rate-distortion plot (.png, .pdf, .svg); default: in comparisons/ beside the runs",
                           metavar="FILE")
    ] = None  # fmt: skip
    runs: flags.Runs = Path("runs")
    device: flags.Device = "auto"
    data_dir: flags.DataDir = None
    import_: flags.Imports = ()
    json: flags.Json = False

    def run(self) -> None:
        from nelbo import comparison, console, store
        from nelbo.core import names
        from nelbo.registering import import_files

        if self.out is not None:
            if self.out.suffix.lower() not in FORMATS:
                raise ConfigError(f"--out {self.out}: expected a file that ends in {', '.join(FORMATS)}")
            store.check_folder(self.out.parent, "--out")
        import_files(self.import_)
        chosen = None
        if self.metrics is not None:
            every = self.metrics == "all"
            chosen = names("metric") if every else [word.strip() for word in self.metrics.split(",")]
        with console.Measuring() as listener:

            def tell(event: str, row: dict[str, Any]) -> None:
                if event == "measuring":
                    k = f", K = {row['samples']}" if "importance" in row["metrics"] else ""
                    console.say(f"measuring {', '.join(row['metrics'])} of {row['run']}{k}")
                listener(event, row)

            found = comparison.compare(
                self.names, split=self.split, checkpoint=self.checkpoint, samples=self.samples, metrics=chosen,
                device=self.device, runs=self.runs, data_dir=self.data_dir, tell=tell,
            )  # fmt: skip
        for name, why in found.left_out.items():
            console.say(f"left out {name}: {why}")
        file, why_not = self._figure(found)
        if self.json:
            return console.emit(found.to_dict() | {"figure": file and str(file), "figure_note": why_not})
        show(found)
        return console.show_files([file]) if file else console.say(why_not)

    def _figure(self, found: Comparison) -> tuple[Path | None, str]:
        from nelbo import comparison, store

        figure, why_not = comparison.draw(found)
        if figure is None:
            return None, why_not
        file = self.out or comparison.default_file(found)
        with store.atomic(file) as temporary:
            figure.savefig(temporary, format=file.suffix[1:].lower())
        return file, ""


# --- on a terminal ----------------------------------------------------------------------------


def show(found: Comparison) -> None:
    """Tables of the groups, of what differs, of the metrics and of the differences, then what they mean."""
    from nelbo import console
    from nelbo.comparison.words import shown

    _groups(found)
    columns = {group.name: [_cell(row, group.name) for row in found.metrics] for group in found.groups}
    portions = list(_portions(found, columns))
    for names in portions if found.differences else []:
        rows = [
            [field.replace("_", "-"), *(shown(table[name]) for name in names)]
            for field, table in found.differences.items()
        ]
        console.show(["field", *names], rows, "\nconfiguration")
    for names in portions:
        _metrics(found, {name: columns[name] for name in names})
    for group in found.groups[1:]:
        rows = [_paired(one, found) for one in found.paired if one.group == group.name]
        if rows:
            sides = f"{group.name} - {found.baseline}"
            heads = ["metric", sides, "95 % over images", "95 % over seeds", ""]
            console.show(heads, rows, f"\n{sides}: {group.label}", fixed=4)
    if notes := _notes(found):
        console.show([""], [[note] for note in notes], fixed=0)


def _portions(found: Comparison, columns: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Names of groups for one table each: the baseline, and as many others as the screen has room for."""
    from nelbo import console

    width = {name: 2 + max(map(len, [name, *cells])) for name, cells in columns.items()}
    baseline, *others = columns
    always = 2 + max(len(_name(row, found)) for row in found.metrics)
    always += width[baseline] + max(len(row.unit) for row in found.metrics)
    names, room = [baseline], console.to_stdout().width - always
    for name in others:
        if len(names) > 1 and width[name] > room:
            yield names
            names, room = [baseline], console.to_stdout().width - always
        names.append(name)
        room -= width[name]
    yield names


def _groups(found: Comparison) -> None:
    from nelbo import console

    every = {run.hardware for group in found.groups for run in group.runs}
    columns = ["group", "what", "runs", "seeds", "epochs", "best at", "train, s", "images/s", "weights"]
    rows = []
    for group in found.groups:
        runs = group.runs
        rows.append(
            [
                group.name,
                group.label if group.name != found.baseline else f"{group.label} (baseline)",
                ", ".join(run.name for run in runs),
                ", ".join(str(run.seed) for run in runs),
                _span([run.epochs for run in runs]),
                _span([run.epoch for run in runs]),
                _mean([run.train_seconds for run in runs]),
                f"{sum(run.images_per_second for run in runs) / len(runs):,.0f}",
                f"{runs[0].weights:,}",
                " | ".join(dict.fromkeys(run.hardware for run in runs)),
            ]
        )
    n = "" if found.n is None else f", n = {found.n:,}"
    where = "" if len(every) > 1 else f" · trained on {next(iter(every))}"
    title = f"{found.split}{n} · {found.checkpoint} checkpoint{where}"
    if len(every) == 1:
        rows = [row[:-1] for row in rows]
    console.show([*columns, "hardware"][: len(rows[0])], rows, title)


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def _mean(values: Sequence[float]) -> str:
    from nelbo.comparison.intervals import mean_and_error

    mean, error = mean_and_error(values)
    return f"{mean:.3g}" if error is None else f"{mean:.{_seconds(error)}f} ± {error:.{_seconds(error)}f}"


def _seconds(error: float) -> int:
    return min(2, decimals(error)) if error > 0 else 2


def _metrics(found: Comparison, columns: Mapping[str, Sequence[str]]) -> None:
    from nelbo import console

    rows: list[list[str]] = []
    section = None
    shown = set(columns) - {found.baseline} or {found.baseline}
    for i, row in enumerate(found.metrics):
        if not shown & row.cells.keys():
            continue
        if section not in (None, row.section):
            rows.append([""] * (len(columns) + 2))
        section = row.section
        rows.append([_name(row, found), *(cells[i] for cells in columns.values()), row.unit])
    sizes = {len(group.runs) for group in found.groups}
    n = f", n = {sizes.pop()}" if len(sizes) == 1 else ""
    title = "metrics" if n == ", n = 1" else f"metrics: mean ± standard error over seeds{n}"
    console.show(["metric", *columns, "unit"], rows, f"\n{title}", fixed=len(columns) + 2)


def _name(row: MetricRow, found: Comparison) -> str:
    """A metric in words; an importance-weighted one with its K."""
    name = label(row.name)
    if row.section != "importance":
        return name
    return f"{name} (K = {found.samples or 'differs'})"


def _cell(row: MetricRow, group: str) -> str:
    cell = row.cells.get(group)
    if cell is None:
        return "-"
    if cell.mean is None:
        return cell.note.partition(": ")[0] or "-"
    errors = [other.standard_error for other in row.cells.values() if other.standard_error]
    number = rounded(cell.mean)
    if errors:  # two digits of the largest, one of the smallest
        digits = max(decimals(max(errors)), decimals(min(errors)) - 1)
        error = "" if cell.standard_error is None else f" ± {cell.standard_error:.{digits}f}"
        number = f"{cell.mean:.{digits}f}{error}"
    star = {"seeds": " *", "images": " (*)", "": ""}[row.best_of if row.best == group else ""]
    return f"{number}{'' if cell.comparable else ' †'}{star}"


def _paired(one: Difference, found: Comparison) -> list[str]:
    widths = [found_.high - found_.low for found_ in (one.over_images, one.over_seeds) if found_]
    digits = decimals(min(widths) / 2) if widths else None
    sign = "+" if one.value > 0 else ""
    row = next(row for row in found.metrics if row.name == one.metric)
    note = "" if one.note == "no mean over images" else one.note
    better = f"{row.better} is better" if row.better else ""
    return [
        _name(row, found),
        sign + (rounded(one.value) if digits is None else f"{one.value:.{digits}f}"),
        _interval(one.over_images, digits),
        _interval(one.over_seeds, digits),
        "; ".join(filter(None, [better, note])),
    ]


def _interval(interval: Interval | None, digits: int | None) -> str:
    if interval is None:
        return "-"
    return f"[{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def _kinds(found: Comparison) -> list[str]:
    return list(dict.fromkeys(group.log_px for group in found.groups if group.log_px))


def _notes(found: Comparison) -> list[str]:
    """What the marks and the intervals mean, as far as there are any, then the warnings."""
    from nelbo.comparison.words import listed

    marks = {row.best_of for row in found.metrics}
    notes = []
    kinds = {kind: [group.name for group in found.groups if group.log_px == kind] for kind in _kinds(found)}
    notes += [f"log p(x | z) in {listed(names)}: {kind}" for kind, names in kinds.items()]
    if any(one.over_images for one in found.paired):
        notes += [OVER_IMAGES, NONE]
    if any(one.over_seeds for one in found.paired):
        notes.append(OVER_SEEDS)
    single = [group.name for group in found.groups if len(group.runs) == 1]
    if single:
        notes.append(f"one run in {listed(single)}: no spread over seeds, nothing is known of another seed")
    if "seeds" in marks:
        notes.append(
            "*: better than every other comparable group: neither interval between them contains zero"
        )
    if "images" in marks:
        notes.append("(*): these weights are better on such images; another seed may not be")
    if any(
        not cell.comparable and cell.mean is not None for row in found.metrics for cell in row.cells.values()
    ):
        notes.append(f"†: not comparable with {found.baseline}; the warnings say why")
    return [*notes, *(f"warning: {caution.message}" for caution in found.warnings)]
