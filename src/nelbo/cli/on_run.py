"""The base of the verbs that look at a trained run: pictures, samples, latents, lines, traversals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, Looking

if TYPE_CHECKING:
    from nelbo.pictures.export import Folder
    from nelbo.pictures.view import View


def only_files(*references: str) -> bool:
    """Return True if every reference is an image file: then no split of the data has to be read."""
    names = all(not text.isdecimal() and ":" not in text for text in references)
    return bool(references) and names and all(Path(text).is_file() for text in references)


A_REFERENCE = "12 (position in the split), FILE.png, example:CLASS or class:CLASS"


@dataclass
class OnView(Looking):
    """A verb that opens one checkpoint and one split of a run, and writes files."""

    run_: flags.RunName
    checkpoint: flags.Checkpoint = "best"
    split: flags.AnySplit = None
    seed: Annotated[int, arg(help="seed of every random choice", metavar="INT")] = 0
    out: Annotated[Path | None, plain("file or folder; default: a folder in the run", metavar="PATH")] = None

    def view(self, images: bool = True, several: bool = False) -> View:
        """Open the run; the folder of `--out` is checked first, which is quicker.

        With `images=False` none is read, where the run says enough of its data: for drawing from the prior. With
        `several`, --split all is every split.
        """
        from nelbo.cli import console
        from nelbo.pictures.view import View
        from nelbo.training import store

        if self.out is not None:
            store.check_folder(self.folder_of_output(self.out), "--out")
        view = View.open(
            store.find(self.run_, self.runs), checkpoint=self.checkpoint, split=self.split, device=self.device,
            data_dir=self.data_dir, data=self.data, seed=self.seed, images=images, several=several,
        )  # fmt: skip
        if not view.is_own:
            about = f"{view.splits.name} is not the data that {view.run.name} was trained on"
            n = sum(len(part.images) for part in view.parts.values())
            console.say(f"{about}: {n} new images ({view.split_name})")
        return view

    def folder_of_output(self, out: Path) -> Path:
        """Return the folder that `--out` writes into; `--out` is that folder unless a verb writes one file."""
        return out

    def folder(self, view: View) -> Folder:
        """Return the folder of the written files."""
        from nelbo.pictures.export import Folder
        from nelbo.training import looking

        return Folder(self.out or looking.folder_of(view.run, "generated", view.splits))

    def files_answer(self, view: View, files: list[Path], **more: object) -> Answer:
        """Return the answer of a verb that wrote files; `more` goes into the JSON object."""
        from nelbo.cli import console

        about = {"run": view.run.name, "checkpoint": view.checkpoint, "split": view.split_name}
        about |= {} if view.is_own else {"other_data": view.splits.name}
        table = about | {"files": [str(file) for file in files]} | more
        return Answer(table, lambda: console.show_files(files))
