"""The verb `nelbo plot`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from nelbo.cli.flags import names_in, plain
from nelbo.cli.on_run import OnView
from nelbo.cli.verb import Answer
from nelbo.errors import ConfigError

FORMATS = ("png", "pdf", "svg")


@dataclass
class Plot(OnView):
    """Draw pictures of a run: all that apply, or those named. `nelbo list picture` shows the names."""

    usage = "plot RUN [WHAT ...]"
    summary = "reconstructions, samples, latents, curves, animations"
    order = 70

    pictures: Positional[
        Annotated[tuple[str, ...], plain("names of pictures; none for all", metavar="[WHAT ...]")]
    ] = ()
    format: Annotated[str, arg(help="png, pdf or svg, or several: png,pdf", metavar="NAME")] = "png"

    def run(self) -> Answer:
        from nelbo import pictures
        from nelbo.cli import console
        from nelbo.core.registry import lookup
        from nelbo.training import looking

        formats = tuple(dict.fromkeys(names_in(self.format.lower())))
        if not formats or not set(formats) <= set(FORMATS):
            raise ConfigError(
                f"--format {self.format}: expected {', '.join(FORMATS)}, or several of them: png,pdf"
            )
        for name in self.pictures:
            lookup("picture", name)  # a misspelled name is refused before the run is opened
        view = self.view()
        folder = self.out or looking.folder_of(view.run, "figures", view.splits)
        files, left_out = pictures.draw(view, list(self.pictures), folder, formats=formats)
        for name, why in left_out.items():
            console.say(f"left out {name}: {why}")
        return self.files_answer(view, files, left_out=left_out)
