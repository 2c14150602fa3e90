"""`nelbo plot`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nelbo.cli.flags import plain
from nelbo.errors import ConfigError

if TYPE_CHECKING:
    pass

from nelbo.cli.on_run import OnView, draw

FORMATS = ("png", "pdf", "svg")


@dataclass
class Plot(OnView):
    """Draw pictures of a run: all that apply, or those named. `nelbo list picture` says what there is."""

    what: Positional[
        Annotated[tuple[str, ...], plain("names of pictures; none for all", metavar="[WHAT ...]")]
    ] = ()
    format: Annotated[str, arg(help="png, pdf or svg, or several: png,pdf", metavar="NAME")] = "png"

    def run(self) -> None:
        from nelbo.cli import console
        from nelbo.core.catalogue import import_files
        from nelbo.core.registry import lookup

        import_files(self.import_)  # first, for such a file may hold a picture that is named
        formats = _formats(self.format)
        for name in self.what:
            lookup("picture", name)  # a misspelled name is refused before the run is opened
        view = self.view()
        files, left_out = draw(view, list(self.what), self.out, formats)
        for name, why in left_out.items():
            console.say(f"left out {name}: {why}")
        self.report(view, files, left_out=left_out)


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    wrong = [word for word in chosen if word not in FORMATS]
    if wrong or not chosen:
        raise ConfigError(f"--format {text}: expected {', '.join(FORMATS)}, or several of them: png,pdf")
    return chosen
