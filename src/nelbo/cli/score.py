"""The verb `nelbo score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, Looking

if TYPE_CHECKING:
    from nelbo.evaluation.scoring import Scores

KINDS = (".csv", ".json", ".parquet")
STRANGE = 0.05  # a p-value below which images are counted


@dataclass
class Score(Looking):
    """Score single images by how strange they are for a run, beside held-out images: the strangest with their names.

    Bound, importance-weighted log-likelihood, reconstruction error, typicality, likelihood regret and the bound without
    the code length of a compressor; of each the quantile and a p-value among held-out images (see docs/outliers.md).
    """

    usage = "score RUN"
    summary = "how strange each image is, beside held-out ones; the strangest"
    order = 115

    run_: flags.RunName
    checkpoint: flags.Checkpoint = "best"
    split: flags.AnySplit = None
    by: Annotated[
        str | None,
        plain("the score that orders the images; default: complexity, where there is one", metavar="NAME"),
    ] = None
    n: Annotated[int, arg(aliases=("-n",), help="strangest images to show", metavar="INT")] = 20
    samples: Annotated[int, arg(help="K of the log-likelihood, or 0 for none", metavar="INT")] = 100
    steps: Annotated[int, arg(help="of the regret, or 0 for none", metavar="INT")] = 50
    held_out: Annotated[int, arg(help="most held-out images to compare with", metavar="INT")] = 1000
    reference: Annotated[
        str | None,
        plain("the place of the run's own data, where it has moved and --data are others", metavar="PATH"),
    ] = None
    out: Annotated[
        Path | None,
        plain("table of all images: .csv, .json or .parquet; default: in the run", metavar="FILE"),
    ] = None
    overwrite: Annotated[bool, plain("replace the file of --out")] = False

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.core import columns
        from nelbo.core.files import finite
        from nelbo.errors import ConfigError
        from nelbo.evaluation import scoring
        from nelbo.pictures import export
        from nelbo.training import looking, store

        if self.out is not None:
            columns.check_file(self.out, KINDS, overwrite=self.overwrite)
        if self.n < 1:
            raise ConfigError(f"--n must be 1 or more (got {self.n})")
        if self.by is not None and self.by not in scoring.SCORES:
            raise ConfigError(f"--by {self.by}: expected one of {', '.join(scoring.SCORES)}")
        run = store.find(self.run_, self.runs)
        with console.Measuring() as listener:
            scores = scoring.score(
                run, self.data, split=self.split, checkpoint=self.checkpoint, samples=self.samples, steps=self.steps,
                held_out=self.held_out, reference=self.reference, device=self.device, data_dir=self.data_dir,
                tell=listener,
            )  # fmt: skip
        by = self.by or scores.best()
        places = {kind: looking.folder_of(run, kind, scores.split.data) for kind in ("generated", "figures")}
        file = self.out or places["generated"] / f"scores-{scores.split_name}.csv"
        for made in () if self.out else (file,):
            if made.exists():
                console.say(f"replacing {made}")
        picture = places["figures"] / f"strangest-{scores.split_name}.png"
        index = scores.strangest(by, self.n)  # refuses a score that there is not, before anything is written
        columns.write(file, scores.columns(), scores.about())
        export.strangest(scores, by, self.n, picture)
        rows = strange_rows(scores, index)
        table = scores.about() | {"by": by, "strangest": finite(rows), "files": [str(file), str(picture)]}
        return Answer(table, lambda: self._show(scores, by, rows, [file, picture]))

    def _show(self, scores: Scores, by: str, rows: list[dict[str, object]], files: list[Path]) -> None:
        from nelbo.cli import console

        columns = [*scores.values, f"quantile_{by}", f"p_{by}"]
        cells = [[str(row["image"]), *(_short(row[name]) for name in columns)] for row in rows]
        n, about = len(scores.split.images), f"{scores.run} · {scores.checkpoint} (epoch {scores.epoch})"
        title = f"{about} · the strangest of {n:,} images ({scores.data}, {scores.split_name}) by {by}"
        console.show(["image", *scores.values, "quantile", "p"], cells, title)
        few = int((scores.places[by].p_N < STRANGE).sum())
        console.write(
            f"\np < {STRANGE:g}: {few:,} of {n:,} images; {STRANGE * n:.3g} are expected of images like the "
            f"held-out ones ({scores.reference})"
        )
        if scores.n_reference + 1 <= 1 / STRANGE:
            console.say(
                f"of {scores.n_reference} held-out images no p-value can be below {1 / (scores.n_reference + 1):.2g}"
            )
        for name, why in scores.missing.items():
            console.say(f"no {name}: {why}")
        console.show_files(files)


def _short(value: object) -> str:
    """Return a number in a few characters, and without an exponent: columns of a table are narrow."""
    return f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 1000 else f"{value:.4g}"


def strange_rows(scores: Scores, index: list[int]) -> list[dict[str, object]]:
    """Return the rows of some images, with the name of each."""
    from nelbo.evaluation.scoring import names_of

    columns, images = scores.columns(), names_of(scores.split.images)
    return [
        {"image": images[at], **{name: column[at].item() for name, column in columns.items()}} for at in index
    ]
