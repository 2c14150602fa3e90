"""`nelbo interpolate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    pass

from nelbo.cli.on_run import A_REFERENCE, OnView


@dataclass
class Interpolate(OnView):
    """A straight line in the latent between two images or class means: a row, an animation, arrays."""

    a: Positional[Annotated[str, arg(help=A_REFERENCE, metavar="[A]")]] = "0"
    b: Positional[Annotated[str, arg(help="the other end", metavar="[B]")]] = "1"
    steps: Annotated[int, arg(help="points on the line, both ends included", metavar="INT")] = 10

    def run(self) -> None:
        view = self.view()
        from nelbo.pictures import export

        out = self.folder(view)
        export.interpolate(view, out, self.a, self.b, self.steps)
        self.report(view, out.files)
