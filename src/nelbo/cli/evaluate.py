"""The verb `nelbo evaluate`."""

from dataclasses import dataclass
from typing import Annotated

from nelbo.cli import flags
from nelbo.cli.flags import plain
from nelbo.cli.verb import Answer, Looking

K = 500
# Of two checkpoints: `importance` at K = 500 takes half and `information` a third of the time of Fashion-MNIST's card.
K_OF_TWO = 50
# What is left took 127 s with an empty cache on one busy core, 68 of them the classifier of `quality`.
NOT_OF_TWO = ("information", "quality")


@dataclass
class Evaluate(Looking):
    """Measure a checkpoint on a split: bound, importance-weighted NLL, what the latent carries, image quality."""

    usage = "evaluate RUN"
    summary = "bound, importance-weighted NLL and more, with standard errors"
    order = 30

    run_: flags.RunName
    checkpoint: flags.Checkpoint = "best"
    split: flags.AnySplit = None
    samples: Annotated[
        int | None,
        plain(f"K of the importance-weighted NLL, or 0 for none; default: {K}, with --compare-first {K_OF_TWO}",
              metavar="INT")
    ] = None  # fmt: skip
    metrics: Annotated[
        str | None,
        plain("all, or some: bound,importance (see nelbo list metric); default: all, with --compare-first all but "
              + ", ".join(NOT_OF_TWO), metavar="NAMES")
    ] = None  # fmt: skip
    compare_first: Annotated[bool, plain("the first checkpoint beside this one")] = False

    def run(self) -> Answer:
        from nelbo.cli import console
        from nelbo.evaluation import card as cards_of
        from nelbo.evaluation import tables
        from nelbo.training import store

        run = store.find(self.run_, self.runs)
        # "first" twice is measured once: the cards are by name.
        names = ["first", self.checkpoint] if self.compare_first else [self.checkpoint]
        samples = (K_OF_TWO if self.compare_first else K) if self.samples is None else self.samples
        if self.compare_first and self.samples is None:
            console.say(
                f"K = {K_OF_TWO} for two checkpoints; --samples {K} is nearer to the likelihood, "
                "and that estimate takes ten times as long"
            )
        without = NOT_OF_TWO if self.compare_first and self.metrics is None else ()
        if without:
            console.say(f"left out, for it takes long: {', '.join(without)}; --metrics all measures it too")
        chosen = None if self.metrics in (None, "all") else flags.names_in(self.metrics)
        with console.Measuring(resumes="the importance-weighted estimate") as listener:
            cards = {
                name: cards_of.evaluate(
                    run, checkpoint=name, split=self.split, samples=samples, metrics=chosen, without=without,
                    device=self.device, data_dir=self.data_dir, data=self.data, tell=listener,
                )
                for name in names
            }  # fmt: skip
        card = cards[self.checkpoint]

        def show() -> None:
            if self.compare_first:
                console.show_table(tables.of_two_cards(cards["first"], card))
            else:
                console.show_card(card)
            console.warn(card)

        return Answer(card | ({"first": cards["first"]} if self.compare_first else {}), show)
