"""The course of training, and the importance-weighted estimate of an evaluation."""

import numpy as np

from nelbo import plots
from nelbo.core import layout
from nelbo.evaluation import card
from nelbo.metrics.importance import curve_points
from nelbo.pictures.base import Drawn, picture
from nelbo.pictures.view import NotApplicable, View


@picture(group="training", order=1, in_report="chart")
def curves(view: View) -> Drawn:
    """Total, reconstruction, KL and NELBO by epoch, training and validation."""
    history = view.run.history()
    if not history:
        raise NotApplicable(f"{view.run.name} has no finished epoch to draw")
    series: dict[str, dict[str, list[float | None]]] = {}
    shown_as = {"bound": (-1.0, view.run.recipe.objective.bound_name), "kl": (1.0, "KL")}
    for quantity in ("total", "reconstruction", "kl", "bound"):
        sign, name = shown_as.get(quantity, (1.0, quantity))  # the bound is negated: all four curves fall
        for split in ("train", "validation"):
            values = [row.get(split, {}).get(quantity) for row in history]
            if any(value is not None for value in values):
                signed = [None if value is None else sign * value for value in values]
                series.setdefault(name, {})[split] = signed
    best = view.run.summary.get("best_epoch")
    epochs = [row["epoch"] for row in history]
    notes = ["train: averaged over the epoch, while the weights move; validation: after it, fixed noise"]
    if view.model.observation_kind == "binary" and view.splits.pixels != "binary":
        notes.append(
            "pixels between black and white under a Bernoulli: NELBO is a cross-entropy plus KL, not a likelihood"
        )
    title = f"{view.run.name} · training and validation"
    yield "curves", plots.epoch_curves(epochs, series, title=title, best_epoch=best, notes=notes)


@picture(group="training", order=2)
def steps(view: View) -> Drawn:
    """The loss of every step (needs log-steps in the recipe)."""
    losses = [loss for row in view.run.history("steps") for loss in row["loss"]]
    if not losses:
        raise NotApplicable(f"{view.run.name} kept no loss of every step; train with --log-steps true")
    yield "steps", plots.step_curve(np.array(losses, dtype=float), title=f"{view.run.name} · training")


@picture(group="estimates", order=1, in_report="chart")
def iw_curve(view: View) -> Drawn:
    """The importance-weighted NLL over the number of samples K (after `nelbo evaluate`)."""
    if not view.is_own:  # the cards that are read belong to the run's own data
        raise NotApplicable(f"{view.splits.name} is not the data that {view.run.name} was trained on")
    saved = card.read(view.run, view.split_name, view.checkpoint, having="iw_nll_curve")
    if not saved:
        raise NotApplicable(
            f"{view.run.name} has no importance-weighted estimate of this checkpoint and split yet; "
            f"make one with: nelbo evaluate {view.run.quoted}"
        )
    metrics = saved["metrics"]
    bound = card.read(view.run, view.split_name, view.checkpoint, having="nelbo")
    notes = [
        "nested samples of each image; where the curve still falls, more samples would lower it further",
        "pixels between black and white: a cross-entropy, not a likelihood"
        if card.is_grey(metrics["iw_nll"])
        else "",
    ]
    nelbo = layout.number(bound["metrics"]["nelbo"]) if bound else None
    title = f"{view.title} · importance-weighted NLL"
    points, values = curve_points(saved["samples"]), layout.numbers(metrics["iw_nll_curve"])
    yield "iw-curve", plots.estimate_curve(points, values, title=title, nelbo=nelbo, notes=notes)
