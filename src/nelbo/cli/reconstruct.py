"""The verb `nelbo reconstruct`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from nelbo.cli.flags import plain
from nelbo.cli.on_run import OnView, only_files
from nelbo.cli.verb import Answer


@dataclass
class Reconstruct(OnView):
    """Send images through the model and back, from the posterior mean; the first of the split when none is named."""

    usage = "reconstruct RUN [IMAGE ...]"
    summary = "images through the model and back"
    order = 100

    images: Positional[
        Annotated[tuple[str, ...], plain("12, FILE.png or example:CLASS", metavar="[IMAGE ...]")]
    ] = ()
    n: Annotated[int, arg(aliases=("-n",), help="images, when none is named", metavar="INT")] = 16

    def run(self) -> Answer:
        view = self.view(images=self.data is not None or not only_files(*self.images))
        from nelbo.pictures import export

        out = self.folder(view)
        error = export.reconstruct(view, out, list(self.images), self.n)
        return self.files_answer(view, out.files, mse=error)
