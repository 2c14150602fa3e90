"""The verb `nelbo interpolate`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from nelbo.cli.on_run import A_REFERENCE, OnView, only_files
from nelbo.cli.verb import Answer


@dataclass
class Interpolate(OnView):
    """Draw a straight line in the latent between two images or class means: a row, an animation, arrays."""

    usage = "interpolate RUN A B"
    summary = "a line between two images or class means"
    order = 120

    a: Positional[Annotated[str, arg(help=A_REFERENCE, metavar="[A]")]] = "0"
    b: Positional[Annotated[str, arg(help="the other end", metavar="[B]")]] = "1"
    steps: Annotated[int, arg(help="points on the line, both ends included", metavar="INT")] = 10

    def run(self) -> Answer:
        view = self.view(images=self.data is not None or not only_files(self.a, self.b))
        from nelbo.pictures import export

        out = self.folder(view)
        export.interpolate(view, out, self.a, self.b, self.steps)
        return self.files_answer(view, out.files)
