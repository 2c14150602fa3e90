"""The verb `nelbo plot`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from nelbo.cli.flags import plain
from nelbo.cli.on_run import OnView, draw
from nelbo.cli.verb import Answer
from nelbo.errors import ConfigError

FORMATS = ("png", "pdf", "svg")


@dataclass
class Plot(OnView):
    """Draw pictures of a run: all that apply, or those named. `nelbo list picture` says what there is."""

    usage = "plot RUN [WHAT ...]"
    summary = "reconstructions, samples, latents, curves, animations"
    order = 70

    what: Positional[
        Annotated[tuple[str, ...], plain("names of pictures; none for all", metavar="[WHAT ...]")]
    ] = ()
    format: Annotated[str, arg(help="png, pdf or svg, or several: png,pdf", metavar="NAME")] = "png"

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.core.registry import lookup

        formats = _formats(self.format)
        for name in self.what:
            lookup("picture", name)  # a misspelled name is refused before the run is opened
        view = self.view()
        files, left_out = draw(view, list(self.what), self.out, formats)
        for name, why in left_out.items():
            console.say(f"left out {name}: {why}")
        return self.files_answer(view, files, left_out=left_out)


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    wrong = [word for word in chosen if word not in FORMATS]
    if wrong or not chosen:
        raise ConfigError(f"--format {text}: expected {', '.join(FORMATS)}, or several of them: png,pdf")
    return chosen
