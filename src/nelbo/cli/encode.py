"""The verb `nelbo encode`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nelbo.cli.flags import plain
from nelbo.cli.on_run import OnView
from nelbo.cli.verb import Answer

KINDS = (".csv", ".npy", ".npz", ".parquet")


@dataclass
class Encode(OnView):
    """Write a row an image: its file or position, split and label, posterior mean and spread, and bound (ELBO, nats).

    --out z.csv, z.parquet or z.npz; z.npy holds the means alone. --split all takes every split.
    """

    usage = "encode RUN"
    summary = "latents and bound of each image, to .csv, .parquet, .npz or .npy"
    order = 110

    overwrite: Annotated[bool, plain("replace the file of --out")] = False

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.core import columns
        from nelbo.pictures import export
        from nelbo.training import looking

        if self.out is not None:
            columns.check_file(self.out, KINDS, overwrite=self.overwrite)
        view = self.view(several=True)
        folder = looking.folder_of(view.run, "generated", view.splits)
        file = self.out or folder / f"latents-{view.split_name}.npz"
        if file.exists():
            console.say(f"replacing {file}")
        shapes = export.encode(view, file)
        absent = [name for name in ("std", "bound") if name not in shapes and file.suffix != ".npy"]
        for name in absent:
            console.say(f"no {name}: the model of {view.run.name} has none")
        return self.files_answer(view, [file], arrays=shapes)

    def folder_of_output(self, out: Path) -> Path:
        """Return the folder of the one file that is written."""
        return out.parent
