"""The verb `nelbo traverse`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from nelbo.cli.on_run import A_REFERENCE, OnView
from nelbo.cli.verb import Answer
from nelbo.errors import ConfigError


@dataclass
class Traverse(OnView):
    """Move latent dimensions one at a time from an image or a class mean: rows, animations, arrays."""

    usage = "traverse RUN A"
    summary = "latent dimensions moved one at a time"
    order = 130

    a: Positional[Annotated[str, arg(help=A_REFERENCE, metavar="[A]")]] = "0"
    dimensions: Annotated[str, arg(help="which, as in 0,3,4", metavar="LIST")] = "all"
    span: Annotated[float, arg(help="from -span to span", metavar="FLOAT")] = 3.0
    steps: Annotated[int, arg(help="images a dimension", metavar="INT")] = 11

    def run(self) -> Answer:
        dimensions = _dimensions(self.dimensions)
        view = self.view()
        from nelbo.pictures import export

        out = self.folder(view)
        export.traverse(view, out, self.a, dimensions, self.span, self.steps)
        return self.files_answer(view, out.files)


def _dimensions(text: str) -> list[int]:
    """Return the dimensions; an empty list, from `all`, stands for every one."""
    if text == "all":
        return []
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words):
        raise ConfigError(f"--dimensions {text}: expected numbers from 0, as in 0,3,4, or all")
    return [int(word) for word in words]
