"""`nelbo encode`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

from nelbo.cli.on_run import OnView


@dataclass
class Encode(OnView):
    """Posterior means of a split to .npy, or means, standard deviations and labels to .npz."""

    def run(self) -> None:
        from nelbo.pictures import export

        if self.out is not None:
            export.check_latents_file(self.out)
        view = self.view()
        file = self.out or view.run.path / "generated" / f"latents-{view.split_name}.npz"
        shapes = export.encode(view, file)
        self.report(view, [file], arrays=shapes)

    def folder_of_output(self, out: Path) -> Path:
        """Return the folder of the one file that is written."""
        return out.parent
