"""The verbs that look at a trained run: pictures, samples, reconstructions, latents, lines, traversals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, Suppress, UseAppendAction, arg

from nelbo import flags
from nelbo.errors import ConfigError, did_you_mean
from nelbo.flags import plain

if TYPE_CHECKING:
    from nelbo.generate import Folder
    from nelbo.store import Run
    from nelbo.view import View

FORMATS = ("png", "pdf", "svg")
A_REFERENCE = "12 (position in the split), FILE.png, example:CLASS or class:CLASS"


@dataclass
class OnView:
    """Opens one checkpoint and one split of a run."""

    run_: flags.RunName
    checkpoint: flags.Checkpoint = "best"
    split: flags.SplitName = "test"
    seed: Annotated[int, arg(help="of every random choice", metavar="INT")] = 0
    out: Annotated[Path | None, plain("where to write; default: a folder inside the run", metavar="PATH")] = (
        None
    )
    runs: flags.Runs = Path("runs")
    device: flags.Device = "auto"
    data_dir: flags.DataDir = None
    import_: flags.Imports = ()
    json: flags.Json = False

    def view(self) -> View:
        from nelbo import store
        from nelbo.registering import import_files

        import_files(self.import_)
        if self.out is not None:
            store.check_folder(self.out.parent if isinstance(self, Encode) else self.out, "--out")
        run = store.find(self.run_, self.runs)
        return open_view(run, self.device, self.data_dir, self.checkpoint, self.split, self.seed)

    def folder(self, view: View) -> Folder:
        from nelbo.generate import Folder

        return Folder(self.out or view.run.path / "generated")

    def report(self, view: View, files: list[Path], **more: Any) -> None:
        from nelbo import console

        table = {"run": view.run.name, "checkpoint": view.checkpoint, "split": view.split_name}
        if self.json:
            return console.emit(table | {"files": [str(file) for file in files]} | more)
        return console.show_files(files)


@dataclass
class Plot(OnView):
    """Draw pictures of a run: all that apply, or those named. `nelbo list picture` says what there is."""

    what: Positional[
        Annotated[tuple[str, ...], plain("names of pictures; none for all", metavar="[WHAT ...]")]
    ] = ()
    format: Annotated[str, arg(help="png, pdf or svg, or several: png,pdf", metavar="NAME")] = "png"

    def run(self) -> None:
        from nelbo import console
        from nelbo.core import lookup
        from nelbo.registering import import_files

        import_files(self.import_)  # first, for such a file may hold a picture that is named
        formats = _formats(self.format)
        for name in self.what:
            lookup("picture", name)  # a misspelled name is refused before the run is opened
        view = self.view()
        files, left_out = draw(view, list(self.what), self.out, formats)
        for name, why in left_out.items():
            console.say(f"left out {name}: {why}")
        self.report(view, files, left_out=left_out)


@dataclass
class Sample(OnView):
    """Images from the prior or a sampler fitted to the training images; with --like, draws around given images.

    Fields of the sampler are flags: --sampler gaussian-mixture --sampler.components 20 (see nelbo list sampler).
    """

    n: Annotated[int, arg(aliases=("-n",), help="how many (of each image, with --like)", metavar="INT")] = 16
    like: Annotated[
        tuple[str, ...],
        UseAppendAction,
        plain(
            "an image to stay close to: 12 (position in the split), FILE.png, example:CLASS (the first of that "
            "class), or all (an example of every class); repeat for more",
            metavar="A",
        ),
    ] = ()
    temperature: Annotated[float, arg(help="scales draws from the prior", metavar="FLOAT")] = 1.0
    sampler: Annotated[
        str, arg(help="where latents come from; chosen: what nelbo samplers RUN found best", metavar="NAME")
    ] = "prior"
    overrides: Suppress[dict[str, Any]] = field(default_factory=dict)

    def run(self) -> None:
        from nelbo import config, generate, sampling

        settings = self._settings()
        sampling.check_name(self.sampler)
        view = self.view()
        out = self.folder(view)
        if self.like:
            generate.sample_like(view, out, self.n, list(self.like))
            return self.report(view, out.files)
        spec = sampling.asked(self.sampler, settings, view.run, view.model)
        generate.sample(view, out, self.n, sampler=spec)
        return self.report(view, out.files, sampler=config.to_dict(spec))

    def _settings(self) -> dict[str, Any]:
        """The sampler's fields among the flags; raises ConfigError for what does not go together."""
        found = {}
        for key, value in self.overrides.items():
            head, _, field_of_sampler = key.partition(".")
            if head != "sampler":
                hint = did_you_mean(head, ["sampler"])
                raise ConfigError(f"no flag is called --{key.replace('_', '-')}; {hint}")
            found[field_of_sampler] = value
        if self.like and (found or self.sampler != "prior"):
            raise ConfigError(
                "--sampler and --like do not go together: draws around an image are its posterior's"
            )
        if self.temperature != 1.0 and self.sampler != "prior":
            raise ConfigError(
                f"--temperature scales draws from the prior, and --sampler is {self.sampler}; leave one of them out"
            )
        return found if self.temperature == 1.0 else {"temperature": self.temperature} | found


@dataclass
class Reconstruct(OnView):
    """Images through the model and back, from the posterior mean; the first of the split when none is given."""

    images: Positional[
        Annotated[tuple[str, ...], plain("12, FILE.png or example:CLASS", metavar="[IMAGE ...]")]
    ] = ()
    n: Annotated[int, arg(aliases=("-n",), help="how many, when no image is given", metavar="INT")] = 16

    def run(self) -> None:
        view = self.view()
        from nelbo import generate

        out = self.folder(view)
        error = generate.reconstruct(view, out, list(self.images), self.n)
        self.report(view, out.files, mse=error)


@dataclass
class Encode(OnView):
    """Posterior means of a split to .npy, or means, standard deviations and labels to .npz."""

    def run(self) -> None:
        from nelbo import generate

        if self.out is not None:
            generate.check_latents_file(self.out)
        view = self.view()
        file = self.out or view.run.path / "generated" / f"latents-{view.split_name}.npz"
        shapes = generate.encode(view, file)
        self.report(view, [file], arrays=shapes)


@dataclass
class Interpolate(OnView):
    """A straight line in the latent between two images or class means: a row, an animation, arrays."""

    a: Positional[Annotated[str, arg(help=A_REFERENCE, metavar="[A]")]] = "0"
    b: Positional[Annotated[str, arg(help="the other end", metavar="[B]")]] = "1"
    steps: Annotated[int, arg(help="points on the line, both ends included", metavar="INT")] = 10

    def run(self) -> None:
        view = self.view()
        from nelbo import generate

        out = self.folder(view)
        generate.interpolate(view, out, self.a, self.b, self.steps)
        self.report(view, out.files)


@dataclass
class Traverse(OnView):
    """Latent dimensions moved one at a time from an image or a class mean: rows, animations, arrays."""

    a: Positional[Annotated[str, arg(help=A_REFERENCE, metavar="[A]")]] = "0"
    dimensions: Annotated[str, arg(help="which, as in 0,3,4", metavar="LIST")] = "all"
    span: Annotated[float, arg(help="from -span to span", metavar="FLOAT")] = 3.0
    steps: Annotated[int, arg(help="images a dimension", metavar="INT")] = 11

    def run(self) -> None:
        dimensions = _dimensions(self.dimensions)
        view = self.view()
        from nelbo import generate

        out = self.folder(view)
        generate.traverse(view, out, self.a, dimensions, self.span, self.steps)
        self.report(view, out.files)


def open_view(
    run: Run, device: str, data_dir: Path | None, checkpoint: str = "best", split: str = "test", seed: int = 0
) -> View:
    from nelbo.view import View

    return View.open(run, checkpoint=checkpoint, split=split, device=device, data_dir=data_dir, seed=seed)


def draw(
    view: View, what: list[str], out: Path | None = None, formats: tuple[str, ...] = ("png",)
) -> tuple[list[Path], dict[str, str]]:
    from nelbo import pictures

    return pictures.draw(view, what, out or view.run.path / "figures", formats=formats)


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    wrong = [word for word in chosen if word not in FORMATS]
    if wrong or not chosen:
        raise ConfigError(f"--format {text}: expected {', '.join(FORMATS)}, or several of them: png,pdf")
    return chosen


def _dimensions(text: str) -> list[int]:
    """`all` as an empty list, which stands for every dimension."""
    if text == "all":
        return []
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words):
        raise ConfigError(f"--dimensions {text}: expected numbers from 0, as in 0,3,4, or all")
    return [int(word) for word in words]
