"""The importance-weighted estimate of an evaluation."""

from nelbo import plots
from nelbo.core import layout
from nelbo.evaluation import card
from nelbo.metrics.importance import curve_points
from nelbo.pictures.base import Drawn, picture
from nelbo.pictures.view import NotApplicable, View


@picture(group="estimates", order=1, in_report="chart")
def iw_curve(view: View) -> Drawn:
    """The importance-weighted NLL over the number of samples K (after `nelbo evaluate`)."""
    if not view.is_own:  # the cards that are read belong to the run's own data
        raise NotApplicable(f"{view.splits.name} is not the data that {view.run.name} was trained on")
    saved = card.read(view.run, view.split_name, view.checkpoint, having="iw_nll_curve")
    if not saved:
        raise NotApplicable(
            f"{view.run.name} has no importance-weighted estimate of this checkpoint and split yet; "
            f"make one with: nelbo evaluate {view.run.name}"
        )
    metrics = saved["metrics"]
    bound = card.read(view.run, view.split_name, view.checkpoint, having="nelbo")
    notes = [
        "nested samples of each image; where the curve still falls, more samples would lower it further",
        "pixels are grey: a cross-entropy, not a likelihood" if card.is_grey(metrics["iw_nll"]) else "",
    ]
    nelbo = layout.number(bound["metrics"]["nelbo"]) if bound else None
    title = f"{view.title} · importance-weighted NLL"
    points, values = curve_points(saved["samples"]), layout.numbers(metrics["iw_nll_curve"])
    yield "iw-curve", plots.estimate_curve(points, values, title=title, nelbo=nelbo, notes=notes)
