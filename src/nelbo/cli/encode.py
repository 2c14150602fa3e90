"""The verb `nelbo encode`."""

from dataclasses import dataclass
from pathlib import Path

from nelbo.cli.on_run import OnView
from nelbo.cli.verb import Answer


@dataclass
class Encode(OnView):
    """Write the posterior means of a split to .npy, or means, standard deviations and labels to .npz."""

    usage = "encode RUN"
    summary = "latents of a split, to .npy or .npz"
    order = 110

    def run(self) -> Answer:
        from nelbo.pictures import export

        if self.out is not None:
            export.check_latents_file(self.out)
        view = self.view()
        file = self.out or view.run.path / "generated" / f"latents-{view.split_name}.npz"
        shapes = export.encode(view, file)
        return self.files_answer(view, [file], arrays=shapes)

    def folder_of_output(self, out: Path) -> Path:
        """Return the folder of the one file that is written."""
        return out.parent
