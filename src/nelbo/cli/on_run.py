"""The base of the verbs that look at a trained run: pictures, samples, latents, lines, traversals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, OnRuns

if TYPE_CHECKING:
    from nelbo.pictures.export import Folder
    from nelbo.pictures.view import View
    from nelbo.training.store import Run

A_REFERENCE = "12 (position in the split), FILE.png, example:CLASS or class:CLASS"


@dataclass
class OnView(OnRuns):
    """A verb that opens one checkpoint and one split of a run, and writes files."""

    run_: flags.RunName
    checkpoint: flags.Checkpoint = "best"
    split: flags.SplitName = "test"
    seed: Annotated[int, arg(help="seed of every random choice", metavar="INT")] = 0
    out: Annotated[Path | None, plain("file or folder; default: a folder in the run", metavar="PATH")] = None

    def view(self) -> View:
        """Open the run; the folder of `--out` is checked first, which is quicker."""
        from nelbo.training import store

        if self.out is not None:
            store.check_folder(self.folder_of_output(self.out), "--out")
        run = store.find(self.run_, self.runs)
        return open_view(run, self.device, self.data_dir, self.checkpoint, self.split, self.seed)

    def folder_of_output(self, out: Path) -> Path:
        """Return the folder that `--out` writes into; `--out` is that folder unless a verb writes one file."""
        return out

    def folder(self, view: View) -> Folder:
        """Return the folder of the written files."""
        from nelbo.pictures.export import Folder

        return Folder(self.out or view.run.path / "generated")

    def files_answer(self, view: View, files: list[Path], **more: object) -> Answer:
        """Return the answer of a verb that wrote files; `more` goes into the JSON object."""
        from nelbo.cli import console

        about = {"run": view.run.name, "checkpoint": view.checkpoint, "split": view.split_name}
        table = about | {"files": [str(file) for file in files]} | more
        return Answer(table, lambda: console.show_files(files))


def open_view(
    run: Run, device: str, data_dir: Path | None, checkpoint: str = "best", split: str = "test", seed: int = 0
) -> View:
    """Open a run for drawing."""
    from nelbo.pictures.view import View

    return View.open(run, checkpoint=checkpoint, split=split, device=device, data_dir=data_dir, seed=seed)


def draw(
    view: View, names: list[str], out: Path | None = None, formats: tuple[str, ...] = ("png",)
) -> tuple[list[Path], dict[str, str]]:
    """Draw pictures, all that apply where none is named; return the files, and a reason for each one left out."""
    from nelbo import pictures

    return pictures.draw(view, names, out or view.run.path / "figures", formats=formats)
