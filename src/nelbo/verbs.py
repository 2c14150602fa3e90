"""The verbs of the command line, one dataclass each: its fields are its flags."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from nelbo import benching, choosing, comparing, diagnosing, flags, looking, reporting
from nelbo.errors import ConfigError, Interrupted, did_you_mean
from nelbo.flags import plain

if TYPE_CHECKING:
    from nelbo.store import Run


@dataclass
class Train:
    """Train a recipe or a configuration file; the same command resumes an interrupted run.

    Every field of the recipe is a flag: --epochs 5, --data PATH, --model.latent-dim 16,
    --objective elbo --objective.beta 4, --optimizer.lr 3e-4, --seed 1, --precision bf16.
    The model's parts need no prefix: --prior, --posterior, --likelihood, --latent-dim (see nelbo list).
    `nelbo train RECIPE --dry-run` lists those that are set, and the shapes of the network.
    """

    recipe: Positional[
        Annotated[str, plain("a recipe's name (see nelbo recipes) or FILE.toml", metavar="RECIPE")]
    ]
    runs: flags.Runs = Path("runs")
    name: Annotated[str | None, plain("of the run folder; default: recipe and seed", metavar="NAME")] = None
    device: flags.Device = "auto"
    data_dir: flags.DataDir = None
    overwrite: Annotated[bool, plain("replace a run of that name")] = False
    dry_run: Annotated[bool, plain("check and print the configuration, read no data, train nothing")] = False
    no_figures: Annotated[bool, plain("do not draw the pictures at the end")] = False
    import_: flags.Imports = ()
    json: flags.Json = False
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
        console.announce_download(recipe.data, self.data_dir)
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
        from nelbo import api, config, console, engine

        engine.check_precision(engine.pick_device(self.device), recipe.precision)
        shape = recipe.data.shape_without_reading()
        outline = None if shape is None else api.outline(recipe, shape)
        table = {"run": str(folder), "config": config.to_dict(recipe), "network": outline}
        if self.json:
            return console.emit(table)
        note = "" if outline is None else f"# {console.outlined(outline)}\n"
        print(f"# would train in {folder}\n{note}{config.dumps(recipe)}", end="")
        return None

    def _conclude(self, run: Run) -> None:
        """Measures the best checkpoint on the test split, draws the pictures, and prints where to look."""
        from nelbo import card as cards
        from nelbo import console

        summary = run.summary
        if "evaluate" not in summary["seconds"]:
            begun = time.perf_counter()
            card = cards.evaluate(
                run, samples=0, metrics=cards.QUICK, device=self.device, data_dir=self.data_dir
            )
            summary["metrics"] = card["metrics"]
            summary["seconds"]["evaluate"] = time.perf_counter() - begun
            if not self.no_figures:
                begun = time.perf_counter()
                files, _ = looking.draw(looking.open_view(run, self.device, self.data_dir), [])
                summary["seconds"]["figures"] = time.perf_counter() - begun
                console.say(f"{len(files)} pictures in {run.path / 'figures'}")
            run.write_json("summary.json", summary)
        if self.json:
            return console.emit({"run": run.name, "path": str(run.path), **summary})
        console.show_card(cards.read(run, samples=0))
        print(f"{summary['images_per_second']:,.0f} images/s in training. Next:  nelbo evaluate {run.path}")
        return None


@dataclass
class Evaluate:
    """Measure a checkpoint on a split: bound, importance-weighted NLL, what the latent carries, image quality."""

    run_: flags.RunName
    checkpoint: flags.Checkpoint = "best"
    split: flags.SplitName = "test"
    samples: Annotated[int, arg(help="K of the importance-weighted NLL; 0 leaves it out", metavar="INT")] = (
        500
    )
    metrics: Annotated[
        str, arg(help="all, or some: bound,importance (see nelbo list metric)", metavar="NAMES")
    ] = "all"
    compare_first: Annotated[bool, plain("the first checkpoint beside this one")] = False
    runs: flags.Runs = Path("runs")
    device: flags.Device = "auto"
    data_dir: flags.DataDir = None
    import_: flags.Imports = ()
    json: flags.Json = False

    def run(self) -> None:
        from nelbo import card as cards_of
        from nelbo import console, store
        from nelbo.registering import import_files

        import_files(self.import_)
        run = store.find(self.run_, self.runs)
        names = ["first", self.checkpoint] if self.compare_first else [self.checkpoint]
        chosen = None if self.metrics == "all" else [word.strip() for word in self.metrics.split(",")]
        try:
            with console.Measuring() as listener:
                cards = {
                    name: cards_of.evaluate(
                        run, checkpoint=name, split=self.split, samples=self.samples, metrics=chosen,
                        device=self.device, data_dir=self.data_dir, tell=listener,
                    )
                    for name in names
                }  # fmt: skip
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; the same command goes on with the importance-weighted estimate"
            ) from None
        card = cards[self.checkpoint]
        if self.json:
            return console.emit(card | ({"first": cards["first"]} if self.compare_first else {}))
        if self.compare_first:
            console.show_two_cards(cards["first"], card)
        else:
            console.show_card(card)
        return console.warn(card)


@dataclass
class Recipes:
    """Every recipe, with its promise."""

    import_: flags.Imports = ()
    json: flags.Json = False

    def run(self) -> None:
        from nelbo import console
        from nelbo.registering import docline, entries, import_files

        import_files(self.import_)
        rows = {name: docline(entry) for name, entry in entries("recipe").items()}
        if self.json:
            return console.emit(rows)
        console.show(["recipe", "what, how good (nats an image), how long on two cores"], list(rows.items()))
        print("\nnelbo train RECIPE trains one; add --dry-run to see its configuration")
        return None


@dataclass
class List:
    """Every registered name of an axis (objective, prior, likelihood, net, dataset, picture, ...) with its fields."""

    axis: Positional[Annotated[str, plain("an axis; none lists them all", metavar="[AXIS]")]] = ""
    import_: flags.Imports = ()
    json: flags.Json = False

    def run(self) -> None:
        from nelbo import console
        from nelbo.core import HOMES
        from nelbo.registering import describe, import_files

        import_files(self.import_)
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
    what: Positional[Annotated[str, plain("a name (get) or a path (check)", metavar="[NAME|PATH]")]] = ""
    size: Annotated[
        int | None, plain("height and width to resize to, as --data.size of train", metavar="INT")
    ] = None
    data_dir: flags.DataDir = None
    json: flags.Json = False

    def run(self) -> None:
        from nelbo import api, config, console
        from nelbo import data as sets

        if self.action == "list":
            rows = [dataclasses.asdict(row) for row in sets.available(self.data_dir)]
            if self.json:
                return console.emit({"datasets": rows})
            return console.show(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
        if not self.what:
            raise ConfigError(
                f"nelbo data {self.action} needs a name or a path, as in nelbo data {self.action} mnist"
            )
        source = config.build(sets.Data, {"source": self.what, "size": self.size}, "data")
        source.check_source()
        console.announce_download(source, self.data_dir)
        splits = source.load(self.data_dir)
        table = api.describe_data(splits) | ({"note": splits.note} if splits.note else {})
        if self.json:
            return console.emit(table)
        return console.show(["field", "value"], [(key, _cell(value)) for key, value in table.items()])


@dataclass
class Env:
    """Versions and hardware, as every run records them, and how steps are run here."""

    json: flags.Json = False

    def run(self) -> None:
        from nelbo import console, engine

        device = engine.pick_device()
        table = engine.describe(device) | {
            "auto_precision": engine.pick_precision("auto", device),
            "compiles": engine.why_not(device) or "yes",
        }
        if self.json:
            return console.emit(table)
        return console.show(["field", "value"], [(key, _cell(value)) for key, value in table.items()])


VERBS: dict[str, type[Any]] = {
    "train": Train,
    "evaluate": Evaluate,
    "compare": comparing.Compare,
    "report": reporting.Report,
    "doctor": diagnosing.Doctor,
    "plot": looking.Plot,
    "sample": looking.Sample,
    "samplers": choosing.Samplers,
    "reconstruct": looking.Reconstruct,
    "encode": looking.Encode,
    "interpolate": looking.Interpolate,
    "traverse": looking.Traverse,
    "recipes": Recipes,
    "data": Data,
    "list": List,
    "env": Env,
    "bench": benching.Bench,
}


def parse(verb: type[Any], name: str, arguments: list[str]) -> Any:
    """A verb with its flags. For `train`, flags that are not its own are fields of the recipe.

    Other verbs with `overrides` get flags with a dot: `--sampler.components 20`.
    """
    own = {"--" + item.name.rstrip("_").replace("_", "-") for item in fields(Train)} | {"--help", "-h"}
    arguments, foreign = flags.sort(arguments, own - {"--recipe", "--overrides"})
    overrides: dict[str, Any] = {}
    if verb is not Train:
        takes = any(item.name == "overrides" for item in fields(verb))
        inside, rest = flags.dotted(foreign) if takes else ([], foreign)
        arguments += rest
        overrides = _settings(inside) if inside else {}
    elif foreign and not {"--help", "-h"} & {*arguments}:
        overrides = _overrides(foreign, own)
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


def _settings(dotted: list[str]) -> dict[str, Any]:
    from nelbo.config import parse_flags

    return parse_flags(dotted)


def _overrides(foreign: list[str], own: set[str]) -> dict[str, Any]:
    """Flags as fields of a recipe; raises ConfigError for one that is neither a field nor a flag."""
    from nelbo.config import kebab, parse_flags
    from nelbo.recipe import PARTS_OF_THE_MODEL, Recipe

    heads = {kebab(name) for name in (*Recipe.model_fields, *PARTS_OF_THE_MODEL)} - {"recipe"}
    for word in foreign:
        head = word.partition("=")[0].removeprefix("--").partition(".")[0]
        if flags.is_flag(word) and kebab(head) not in heads:
            known = heads | {flag.removeprefix("--") for flag in own} - {"h", "-h", "overrides", "recipe"}
            raise ConfigError(
                f"no flag or field is called {word.partition('=')[0]}; {did_you_mean(head, known)}"
            )
    return parse_flags(foreign)


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
