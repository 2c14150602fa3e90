"""The verbs of the command line, one dataclass each: its fields are its flags."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from nelbo.errors import ConfigError

if TYPE_CHECKING:
    from nelbo.generate import Folder
    from nelbo.store import Run
    from nelbo.view import View

Json = Annotated[bool, arg(help="one JSON object on stdout and nothing else; progress stays on stderr")]
Runs = Annotated[Path, arg(help="folder that holds the runs", metavar="DIR")]
DataDir = Annotated[
    Path | None, arg(help="where data sets are kept; default: NELBO_DATA, or a cache folder", metavar="DIR")
]
Device = Annotated[str, arg(help="auto, cpu, cuda, cuda:N or mps", metavar="NAME")]
Reference = Annotated[
    str, arg(help="12 (position in the split), FILE.png, example:CLASS or class:CLASS", metavar="A")
]


@dataclass
class Train:
    """Train a recipe or a configuration file; the same command resumes an interrupted run.

    Every field of the recipe is a flag: --epochs 5, --data PATH, --model.latent-dim 16,
    --objective elbo --objective.beta 4, --optimizer.lr 3e-4, --seed 1, --precision bf16.
    `nelbo train RECIPE --dry-run` lists them all.
    """

    recipe: Positional[Annotated[str, arg(help="a recipe's name (see nelbo recipes) or FILE.toml")]]
    runs: Runs = Path("runs")
    name: Annotated[str | None, arg(help="of the run folder; default: recipe and seed", metavar="NAME")] = (
        None
    )
    device: Device = "auto"
    data_dir: DataDir = None
    overwrite: Annotated[bool, arg(help="replace a run of that name")] = False
    dry_run: Annotated[
        bool, arg(help="check everything, print the configuration and the number of weights, train nothing")
    ] = False
    no_figures: Annotated[bool, arg(help="do not draw the pictures at the end")] = False
    import_: Annotated[
        tuple[Path, ...], arg(name="import", help="Python files that register components", metavar="FILE")
    ] = ()
    json: Json = False
    overrides: tyro.conf.Suppress[dict[str, Any]] = field(default_factory=dict)

    def run(self) -> None:
        from nelbo import api, console
        from nelbo.registering import import_files
        from nelbo.store import Run

        import_files(self.import_)
        recipe, folder = api.plan(
            self.recipe, self.overrides, runs=self.runs, name=self.name, overwrite=self.overwrite
        )
        if self.dry_run:
            return self._describe(recipe, folder)
        finished = Run(folder).finished and not self.overwrite
        with console.Training(recipe.epochs) as listener:
            run = api.train(
                recipe, runs=self.runs, name=folder.name, device=self.device, data_dir=self.data_dir,
                overwrite=self.overwrite, tell=listener,
            )  # fmt: skip
        if finished:
            console.say(
                f"{folder} is finished already; train it anew with --overwrite, or choose another --name"
            )
        return self._conclude(run)

    def _describe(self, recipe: Any, folder: Path) -> None:
        from nelbo import config, console, engine

        engine.pick_device(self.device)
        table = {"run": str(folder), "config": config.to_dict(recipe)}
        if self.json:
            return console.emit(table)
        print(f"# would train in {folder}\n{config.dumps(recipe)}", end="")
        return None

    def _conclude(self, run: Run) -> None:
        """Measures the best checkpoint on the test split, draws the pictures, and prints where to look."""
        from nelbo import api, console

        summary = run.summary
        if "evaluate" not in summary["seconds"]:
            begun = time.perf_counter()
            card = api.evaluate(run, samples=0, device=self.device, data_dir=self.data_dir)
            summary["metrics"] = card["metrics"]
            summary["seconds"]["evaluate"] = time.perf_counter() - begun
            if not self.no_figures:
                begun = time.perf_counter()
                files, _ = _draw(_view(run, self.device, self.data_dir), [])
                summary["seconds"]["figures"] = time.perf_counter() - begun
                console.say(f"{len(files)} pictures in {run.path / 'figures'}")
            run.write_json("summary.json", summary)
        if self.json:
            return console.emit({"run": run.name, "path": str(run.path), **summary})
        card = run.read_json("evaluation/test-best.json")
        console.show_card(card)
        print(f"{summary['images_per_second']:,.0f} images/s in training. Next:  nelbo evaluate {run.path}")
        return None


@dataclass
class Evaluate:
    """Measure a checkpoint on a split: NELBO, reconstruction, KL, importance-weighted NLL, active units, MSE."""

    run_: Positional[
        Annotated[str, arg(help="a run folder, its name under --runs, or latest", metavar="RUN")]
    ]
    checkpoint: Annotated[Literal["best", "last", "first"], arg(help="which weights")] = "best"
    split: Annotated[str, arg(help="test, validation or train")] = "test"
    samples: Annotated[int, arg(help="K of the importance-weighted NLL; 0 leaves it out")] = 500
    compare_first: Annotated[bool, arg(help="the first checkpoint beside this one")] = False
    runs: Runs = Path("runs")
    device: Device = "auto"
    data_dir: DataDir = None
    import_: Annotated[
        tuple[Path, ...], arg(name="import", help="Python files that register components", metavar="FILE")
    ] = ()
    json: Json = False

    def run(self) -> None:
        from nelbo import api, console, store
        from nelbo.registering import import_files

        import_files(self.import_)
        run = store.find(self.run_, self.runs)
        names = ["first", self.checkpoint] if self.compare_first else [self.checkpoint]
        cards = {
            name: api.evaluate(
                run, checkpoint=name, split=self.split, samples=self.samples, device=self.device,
                data_dir=self.data_dir, tell=console.Measuring(),
            )
            for name in names
        }  # fmt: skip
        card = cards[self.checkpoint]
        if self.json:
            return console.emit(card | ({"first": cards["first"]} if self.compare_first else {}))
        if self.compare_first:
            return console.show_two_cards(cards["first"], card)
        return console.show_card(card)


@dataclass
class OnView:
    """Opens one checkpoint and one split of a run."""

    run_: Positional[
        Annotated[str, arg(help="a run folder, its name under --runs, or latest", metavar="RUN")]
    ]
    checkpoint: Annotated[Literal["best", "last", "first"], arg(help="which weights")] = "best"
    split: Annotated[str, arg(help="test, validation or train")] = "test"
    seed: Annotated[int, arg(help="of every random choice")] = 0
    out: Annotated[
        Path | None, arg(help="where to write; default: a folder inside the run", metavar="PATH")
    ] = None
    runs: Runs = Path("runs")
    device: Device = "auto"
    data_dir: DataDir = None
    json: Json = False

    def view(self) -> View:
        from nelbo import store

        run = store.find(self.run_, self.runs)
        return _view(run, self.device, self.data_dir, self.checkpoint, self.split, self.seed)

    def folder(self, view: View) -> Folder:
        from nelbo.generate import Folder

        return Folder(self.out or view.run.path / "generated")

    def report(self, view: View, files: list[Path], **more: Any) -> None:
        from nelbo import console

        table = {"run": view.run.name, "checkpoint": view.checkpoint, "split": view.split_name}
        if self.json:
            return console.emit(table | {"files": [str(file) for file in files]} | more)
        shown = [f"  {file}" for file in files[:12]] + (
            [f"  and {len(files) - 12} more"] if len(files) > 12 else []
        )
        print("\n".join(shown))
        return None


@dataclass
class Plot(OnView):
    """Draw pictures of a run: all that apply, or those named. `nelbo list picture` says what there is."""

    what: Positional[
        Annotated[tuple[str, ...], arg(help="names of pictures; none for all", metavar="WHAT")]
    ] = ()
    format: Annotated[tuple[Literal["png", "pdf", "svg"], ...], arg(help="of the figures")] = ("png",)

    def run(self) -> None:
        view = self.view()
        from nelbo import console

        files, left_out = _draw(view, list(self.what), self.out, self.format)
        for name, why in left_out.items():
            console.say(f"left out {name}: {why}")
        self.report(view, files, left_out=left_out)


@dataclass
class Sample(OnView):
    """Images from the prior; or, with --like, draws from the posterior of given images.

    --like example:3 --like example:7 draws like the first 3 and the first 7 of the split; --like all takes
    an example of every class.
    """

    n: Annotated[int, arg(aliases=("-n",), help="how many (for each image, with --like)")] = 16
    like: Annotated[tuple[str, ...], arg(help="12, FILE.png, example:CLASS, or all", metavar="A")] = ()
    temperature: Annotated[float, arg(help="scales draws from the prior")] = 1.0

    def run(self) -> None:
        view = self.view()
        from nelbo import generate

        out = self.folder(view)
        like = [f"example:{label}" for label in view.classes] if self.like == ("all",) else list(self.like)
        if like:
            generate.sample_like(view, out, self.n, like)
        else:
            generate.sample(view, out, self.n, self.temperature)
        self.report(view, out.files)


@dataclass
class Reconstruct(OnView):
    """Images through the model and back, from the posterior mean; the first of the split when none is given."""

    images: Positional[
        Annotated[tuple[str, ...], arg(help="12, FILE.png or example:CLASS", metavar="IMAGE")]
    ] = ()
    n: Annotated[int, arg(aliases=("-n",), help="how many, when no image is given")] = 16

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
        view = self.view()
        from nelbo import generate

        file = self.out or view.run.path / "generated" / f"latents-{view.split_name}.npz"
        shapes = generate.encode(view, file)
        self.report(view, [file], arrays=shapes)


@dataclass
class Interpolate(OnView):
    """A straight line in the latent between two images or class means: a row, an animation, arrays."""

    a: Positional[Reference] = "0"
    b: Positional[Reference] = "1"
    steps: Annotated[int, arg(help="points on the line, both ends included")] = 10

    def run(self) -> None:
        view = self.view()
        from nelbo import generate

        out = self.folder(view)
        generate.interpolate(view, out, self.a, self.b, self.steps)
        self.report(view, out.files)


@dataclass
class Traverse(OnView):
    """Latent dimensions moved one at a time from an image or a class mean: rows, animations, arrays."""

    a: Positional[Reference] = "0"
    dimensions: Annotated[tuple[int, ...], arg(help="which; none for all", metavar="INT")] = ()
    span: Annotated[float, arg(help="from -span to span")] = 3.0
    steps: Annotated[int, arg(help="images a dimension")] = 11

    def run(self) -> None:
        view = self.view()
        from nelbo import generate

        out = self.folder(view)
        generate.traverse(view, out, self.a, list(self.dimensions), self.span, self.steps)
        self.report(view, out.files)


@dataclass
class Recipes:
    """Every recipe, with its promise."""

    json: Json = False

    def run(self) -> None:
        from nelbo import console
        from nelbo.registering import docline, entries

        rows = {name: docline(entry) for name, entry in entries("recipe").items()}
        if self.json:
            return console.emit(rows)
        console.show(["recipe", "what and how good"], list(rows.items()))
        print("\nnelbo train RECIPE trains one; add --dry-run to see its configuration")
        return None


@dataclass
class List:
    """Every registered name of an axis (objective, prior, likelihood, net, dataset, picture, ...) with its fields."""

    axis: Positional[Annotated[str, arg(help="an axis; none lists them all", metavar="AXIS")]] = ""
    json: Json = False

    def run(self) -> None:
        from nelbo import console
        from nelbo.core import HOMES
        from nelbo.errors import did_you_mean
        from nelbo.registering import describe

        axis = self.axis if self.axis in HOMES else self.axis.removesuffix("s")
        if axis and axis not in HOMES:
            raise ConfigError(f"no axis is called {self.axis!r}; {did_you_mean(self.axis, HOMES)}")
        rows = {name: describe(name) for name in ([axis] if axis else HOMES)}
        if self.json:
            return console.emit(rows)
        for name, found in rows.items():
            console.show(
                [name, "fields", "what"], [(key, e["fields"], e["what"]) for key, e in found.items()]
            )
            print()
        return None


@dataclass
class Data:
    """Data sets: list what there is, get one, or check a folder or file of images."""

    action: Positional[Annotated[Literal["list", "get", "check"], arg(help="what to do")]] = "list"
    what: Positional[Annotated[str, arg(help="a name (get) or a path (check)", metavar="NAME|PATH")]] = ""
    data_dir: DataDir = None
    json: Json = False

    def run(self) -> None:
        from nelbo import api, console
        from nelbo import data as sets

        if self.action == "list":
            rows = [dataclasses.asdict(row) for row in sets.available(self.data_dir)]
            if self.json:
                return console.emit(rows)
            return console.show(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
        if not self.what:
            raise ConfigError(
                f"nelbo data {self.action} needs a name or a path, as in nelbo data {self.action} mnist"
            )
        source = sets.Data(source=self.what)
        source.check_source()
        table = api.describe_data(source.load(self.data_dir))
        if self.json:
            return console.emit(table)
        return console.show(["field", "value"], [(key, _cell(value)) for key, value in table.items()])


@dataclass
class Env:
    """Versions and hardware, as every run records them."""

    json: Json = False

    def run(self) -> None:
        from nelbo import console, engine

        table = engine.describe(engine.pick_device())
        if self.json:
            return console.emit(table)
        return console.show(["field", "value"], [(key, _cell(value)) for key, value in table.items()])


VERBS: dict[str, type[Any]] = {
    "train": Train,
    "evaluate": Evaluate,
    "plot": Plot,
    "sample": Sample,
    "reconstruct": Reconstruct,
    "encode": Encode,
    "interpolate": Interpolate,
    "traverse": Traverse,
    "recipes": Recipes,
    "data": Data,
    "list": List,
    "env": Env,
}


def parse(verb: type[Any], name: str, arguments: list[str]) -> Any:
    """A verb with its flags. For `train`, flags that are not its own are fields of the recipe."""
    overrides: dict[str, Any] = {}
    if verb is Train:
        arguments, overrides = _split_overrides(arguments)
    found = tyro.cli(
        verb,
        prog=f"nelbo {name}",
        args=arguments,
        config=(FlagCreatePairsOff,),
        use_underscores=False,
        add_help=True,
    )
    if overrides:
        found.overrides = overrides
    return found


def _split_overrides(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    from nelbo.config import parse_flags

    own = {"--" + item.name.rstrip("_").replace("_", "-") for item in fields(Train)} | {"--help", "-h"}
    own -= {"--recipe", "--overrides"}
    switches = {"--overwrite", "--dry-run", "--no-figures", "--json", "--help", "-h"}
    mine: list[str] = []
    fields_: list[str] = []
    target, expects = mine, False
    for word in arguments:
        if word.startswith("--") or word == "-h":
            flag, _, value = word.partition("=")
            target = mine if flag.replace("_", "-") in own else fields_
            expects = not value and flag not in switches
            target.append(word)
        elif expects:
            target.append(word)
            expects = False
        else:
            mine.append(word)
    return mine, parse_flags(fields_)


def _view(
    run: Run, device: str, data_dir: Path | None, checkpoint: str = "best", split: str = "test", seed: int = 0
) -> View:
    from nelbo.view import View

    return View.open(run, checkpoint=checkpoint, split=split, device=device, data_dir=data_dir, seed=seed)


def _draw(
    view: View, what: list[str], out: Path | None = None, formats: tuple[str, ...] = ("png",)
) -> tuple[list[Path], dict[str, str]]:
    from nelbo import pictures

    return pictures.draw(view, what, out or view.run.path / "figures", formats=formats)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return (
            " x ".join(map(str, value))
            if value and all(isinstance(v, int) for v in value)
            else ", ".join(map(str, value))
        )
    return (
        {True: "yes", False: "no", None: "-"}.get(value, str(value))
        if not isinstance(value, int) or isinstance(value, bool)
        else str(value)
    )
