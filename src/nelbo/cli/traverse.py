"""The verb `nelbo traverse`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from nelbo.cli.flags import names_in
from nelbo.cli.on_run import A_REFERENCE, OnView, only_files
from nelbo.cli.verb import Answer
from nelbo.errors import ConfigError


@dataclass
class Traverse(OnView):
    """Move latent dimensions one at a time from an image or a class mean: rows, animations, arrays."""

    usage = "traverse RUN A"
    summary = "latent dimensions moved one at a time"
    order = 130

    a: Positional[Annotated[str, arg(help=A_REFERENCE, metavar="[A]")]] = "0"
    dimensions: Annotated[str, arg(help="all, or some: 0,3,4", metavar="LIST")] = "all"
    span: Annotated[float, arg(help="farthest latent: from -span to span", metavar="FLOAT")] = 3.0
    steps: Annotated[int, arg(help="images a dimension", metavar="INT")] = 11

    def run(self) -> Answer:
        words = [] if self.dimensions == "all" else names_in(self.dimensions)  # none stands for every one
        if self.dimensions != "all" and not (words and all(word.isdecimal() for word in words)):
            raise ConfigError(f"--dimensions {self.dimensions}: expected numbers from 0, as in 0,3,4, or all")
        view = self.view(images=self.data is not None or not only_files(self.a))
        from nelbo.pictures import export

        out = self.folder(view)
        export.traverse(view, out, self.a, [int(word) for word in words], self.span, self.steps)
        return self.files_answer(view, out.files)
