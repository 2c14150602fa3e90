"""The verb `nelbo train`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, OnRuns
from nelbo.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from nelbo.training.api import Plan
    from nelbo.training.store import Run


@dataclass
class Train(OnRuns):
    """Train a recipe, a configuration file or a folder of images; the same command resumes an interrupted run.

    `nelbo train FOLDER` looks at the images and chooses what fits them: short for `nelbo train images --data FOLDER`.
    Every field of the recipe is a flag: --epochs 5, --data PATH, --model.latent-dim 16,
    --objective elbo --objective.beta 4, --optimizer.lr 3e-4, --seed 1, --precision bf16.
    Short names: --lr is --optimizer.lr, --beta is --objective.beta, and the model's parts need no prefix: --encoder,
    --decoder, --prior, --posterior, --likelihood, --latent-dim (see nelbo list). A field that is true or false needs
    no value: --log-steps. --seeds 0:3 trains with the seeds 0, 1 and 2, one run after the other.
    `nelbo train RECIPE --dry-run` lists those that are set, and the shapes of the network.
    """

    usage = "train RECIPE | FOLDER | FILE.toml"
    summary = "train; the same command resumes an interrupted run"
    order = 20

    recipe: Positional[
        Annotated[
            str, plain("a recipe (see nelbo recipes), a folder of images, or FILE.toml", metavar="RECIPE")
        ]
    ]
    name: Annotated[str | None, plain("name of the run; default: recipe and seed", metavar="NAME")] = None
    seeds: Annotated[
        str | None, plain("a run for each seed: 0:3 is 0, 1 and 2; NAME gets -s0, -s1, -s2", metavar="A:B")
    ] = None
    overwrite: Annotated[bool, plain("replace a run of that name")] = False
    dry_run: Annotated[
        bool, plain("print configuration and shapes, from the headers of the data; train nothing")
    ] = False
    no_figures: Annotated[bool, plain("do not draw the pictures at the end")] = False
    overrides: flags.Overrides = field(default_factory=dict)

    @classmethod
    def settings(cls, unknown: list[str]) -> flags.Settings:
        """Take flags as fields of the recipe; raise ConfigError for one that is neither a field nor a flag."""
        if not unknown:
            return {}, []
        from nelbo.core.config import parse_flags
        from nelbo.core.spec import kebab
        from nelbo.training.recipe import SHORT, Recipe, types_of

        # The recipe itself is the positional argument.
        heads = {kebab(name) for name in (*Recipe.model_fields, *SHORT)} - {"recipe"}
        for word in filter(flags.is_flag, unknown):
            head = word.partition("=")[0].removeprefix("--").partition(".")[0]
            if kebab(head) not in heads:
                names = heads | {kebab(item.name.rstrip("_")) for item in fields(cls)} | {"help"}
                hint = did_you_mean(head, names - {"overrides", "recipe"})
                raise ConfigError(f"no flag or field is called {word.partition('=')[0]}; {hint}")
        return parse_flags(unknown, types_of), []

    @classmethod
    def stands_alone(cls, flag: str) -> bool:
        """Return True for a field of the recipe that is true or false, with a dot or without."""
        return flags.true_or_false(flag)

    def run(self) -> Answer:
        from nelbo.cli import console, seeds
        from nelbo.training import api

        if self.seeds is not None:
            return seeds.train_each(self, seeds.in_range(self.seeds))
        plan = api.plan(
            self.recipe, self.overrides, runs=self.runs, name=self.name, overwrite=self.overwrite,
            data_dir=self.data_dir,
        )  # fmt: skip
        if self.dry_run:
            return self._describe(plan)
        for line in plan.reasons:
            console.say(line)
        console.announce_download(plan.recipe.data, self.data_dir)
        with console.Training(plan.recipe.epochs) as listener:
            run = api.train(plan, device=self.device, data_dir=self.data_dir, tell=listener)
        if plan.finished:
            console.say(
                f"{plan.folder} is finished already; train it anew with --overwrite, or choose another --name"
            )
        return self._conclude(run)

    def _describe(self, plan: Plan) -> Answer:
        from nelbo import engine
        from nelbo.core import config
        from nelbo.training import api

        recipe = plan.recipe
        engine.check_precision(engine.pick_device(self.device), recipe.precision)
        outline = api.outline(recipe, api.shape_without_loading(recipe, self.data_dir))
        table = {
            "run": str(plan.folder),
            "reasons": plan.reasons,
            "config": config.to_dict(recipe),
            "network": dataclasses.asdict(outline),
        }
        lines = [f"would train in {plan.folder}", *plan.reasons, str(outline)]
        text = "".join(f"# {line}\n" for line in lines) + config.dumps(recipe)
        return Answer(table, lambda: print(text, end=""))

    def _choose_sampler(self, run: Run) -> None:
        """Compare the prior with a fitted mixture on validation images, and say which draws better; in seconds."""
        from nelbo.cli import console
        from nelbo.core.layout import number
        from nelbo.errors import NelboError
        from nelbo.evaluation import samplers

        if (run.path / samplers.FILE).is_file():  # a choice that somebody made stays
            return
        try:
            table = samplers.compare(
                run, samplers.QUICK, device=self.device, data_dir=self.data_dir, quick=True
            )
        except NelboError as error:
            console.say(f"samples are drawn from the prior: {error}")
            return
        values = [
            number(row["metrics"][table["by"]]) for row in table["samplers"].values() if "metrics" in row
        ]
        if table["chosen"] != "prior" and len(values) == 2:
            prior, fitted = values
            console.say(
                f"a {table['chosen']} fitted to the latents draws nearer to the validation images than the prior: "
                f"distance {fitted:.3g} against {prior:.3g}; nelbo sample {run.quoted} --sampler chosen"
            )

    def _conclude(self, run: Run) -> Answer:
        """Measure the best checkpoint on the test split, or what there is; draw the pictures; say where to look."""
        from nelbo import pictures
        from nelbo.cli import console
        from nelbo.evaluation import card as cards
        from nelbo.pictures.view import View
        from nelbo.training import api

        summary, split = run.summary, api.measured_split(run)
        if "evaluate" not in summary["seconds"]:  # a finished run that is started again is not measured again
            begun = time.perf_counter()
            # The metrics of a few seconds; K = 0, for the estimate costs K passes of the decoder an image.
            card = cards.evaluate(
                run, split=split, samples=0, metrics=cards.quick(), device=self.device, data_dir=self.data_dir
            )
            summary["metrics"] = card["metrics"]
            summary["seconds"]["evaluate"] = time.perf_counter() - begun
            if not self.no_figures:
                begun = time.perf_counter()
                self._choose_sampler(run)
                view = View.open(run, split=split, device=self.device, data_dir=self.data_dir)
                files, _ = pictures.draw(view, [], run.path / "figures")  # none named: all that apply
                summary["seconds"]["figures"] = time.perf_counter() - begun
                console.say(f"{len(files)} pictures in {run.path / 'figures'}")
            run.write_json("summary.json", summary)

        def show() -> None:
            console.show_card(cards.read(run, split=split, samples=0))
            rate = f"{summary['images_per_second']:,.0f} images/s in training"
            flag = "" if split == "test" else f" --split {split}"
            print(f"{rate}. Next:  nelbo evaluate {run.quoted}{flag}")

        return Answer({"run": run.name, "path": str(run.path), **summary}, show)
