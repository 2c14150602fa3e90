"""Checks of a run's history: losses that rise, still fall or are not finite, over-fitting, an early end."""

from collections.abc import Iterator

from nelbo.doctor.base import Finding, check
from nelbo.doctor.case import Case, NotLooked, Row
from nelbo.doctor.command import Change
from nelbo.doctor.configuration import USUAL_RATE, moments

RISEN = 0.05  # of the loss: the last epoch above the best one
SPIKE = 0.1  # of the loss: an epoch above all before it, from which training came back
STEEP = 0.15  # of the loss: what as many epochs again would gain at the pace of the last quarter
OVER_FITTED = 0.02  # of the validation bound: the last epochs below the best one
ENOUGH = 10  # epochs at one beta, before a pace can be told from the steep beginning of every training
LEARNING = 0.01  # of the reconstruction: what an epoch improves while a model is still learning
LAST = 3  # epochs that are averaged against noise


def settled(case: Case) -> list[Row]:
    """Return the last epochs, since beta stopped moving: only their losses can be compared."""
    rows = case.epochs
    beta = rows[-1].get("beta") if rows else None
    first = next((i for i in range(len(rows), 0, -1) if rows[i - 1].get("beta") != beta), 0)
    return rows[first:]


def size_of(losses: list[float]) -> float:
    """Return the scale for changes of a loss, nats: the loss, or half of its fall if it is near zero."""
    return max(abs(losses[-1]), 0.5 * (max(losses) - losses[-1]), 1e-9)


def finite_totals(rows: list[Row], part: str = "train") -> list[float]:
    return [row[part]["total"] for row in rows if row.get(part, {}).get("total") is not None]


def slower(case: Case, factor: float) -> Change:
    """Return the training at a constant rate: the highest so far by `factor`, and no more than is usual."""
    highest = max(moments(case, case.recipe.optimizer.lr))
    return case.retrain({"optimizer.lr": min(USUAL_RATE, float(f"{highest / factor:.2g}"))})


def train_more(case: Case) -> tuple[str, Change]:
    """Return the changes for a run that has not trained far enough, and the command."""
    highest = max(moments(case, case.recipe.optimizer.lr))
    if highest < USUAL_RATE / 10:
        return f"Raise the learning rate, which is {highest:g}.", case.retrain({"optimizer.lr": USUAL_RATE})
    return "Train longer.", case.retrain({"epochs": 2 * case.recipe.epochs})


@check("history")
def diverging(case: Case) -> Iterator[Finding]:
    """A loss that rises, jumps, or is not finite."""
    assert case.run is not None
    remedy = "Train more slowly; a limit on the gradient (--clip-norm 1) also helps against single jumps."
    failed = [] if case.run.finished else case.run.history("failed")
    if failed:
        fault = "Training stopped because the loss or a weight was no longer finite."
        yield Finding(fault, "serious", failed[-1]["why"], remedy, slower(case, 10.0))
        return
    for part in ("train", "validation"):
        # A loss that is not finite is logged as null: JSON has no number for it.
        bad = [row["epoch"] for row in case.epochs if None in row.get(part, {}).values()]
        if bad:
            evidence = f"in epoch {bad[0]}; in {len(bad)} of {len(case.epochs)} epochs"
            yield Finding(f"The {part} loss was not finite.", "serious", evidence, remedy, slower(case, 10.0))
            return
    rows = settled(case)
    losses = finite_totals(rows)
    if len(losses) < LAST:
        raise NotLooked(f"fewer than {LAST} epochs at the final beta")
    size, best = size_of(losses), min(losses)
    jumps = [losses[i] - min(losses[:i]) for i in range(1, len(losses))]
    worst = max(range(len(jumps)), key=jumps.__getitem__)
    in_words = [f"{loss:,.1f} nats in epoch {row['epoch']}" for loss, row in zip(losses, rows, strict=False)]
    if losses[-1] - best > RISEN * size:
        fault = "The training loss ended higher than it had been: training diverged."
        end = f"{losses[-1]:,.1f} nats in epoch {rows[-1]['epoch']}"
        evidence = f"{end}, after {in_words[losses.index(best)]}"
        yield Finding(fault, "serious", evidence, remedy, slower(case, 10.0))
    elif jumps[worst] > SPIKE * size:
        before = min(losses[: worst + 1])
        evidence = f"{in_words[worst + 1]}, the best before being {before:,.1f}"
        fault = "The training loss jumped, and came back."
        yield Finding(fault, "worth knowing", evidence, remedy, slower(case, 3.0))


def fall(case: Case) -> tuple[str, float]:
    """Describe the fall of the loss at the end of training, and the gain of as many epochs again at that pace.

    The gain is a share of the loss (`size_of`); 0 where there are too few epochs to tell.
    """
    rows = settled(case)
    part = "validation" if all("validation" in row for row in rows) else "train"
    losses, total = finite_totals(rows, part), len(case.epochs)
    if len(losses) < ENOUGH:
        return f"fewer than {ENOUGH} epochs at the final beta tell no pace", 0.0
    quarter = len(losses) // 4
    pace = (losses[-1 - quarter] - losses[-1]) / quarter
    words = (
        f"the {part} loss fell by {pace:.2f} nats an epoch over the last {quarter} epochs, to {losses[-1]:,.1f}; at "
        f"that pace {total} epochs more would gain {pace * total:.0f} nats"
    )
    return words, pace * total / size_of(losses)


def under_trained(case: Case) -> bool:
    """Return True if a model may explain little because it trained too briefly."""
    gain = fall(case)[1]
    if gain or len(case.epochs) < 2:
        return gain > STEEP
    # A run too short for a pace: its last epoch still improved the reconstruction, which any beta leaves comparable.
    before, last = (row["train"].get("reconstruction") for row in case.epochs[-2:])
    return None not in (before, last) and before - last > LEARNING * abs(last)


@check("history")
def still_falling(case: Case) -> Iterator[Finding]:
    """A loss that still fell steeply when training ended: more epochs, or a larger rate, would have gained much."""
    words, gain = fall(case)
    if gain == 0.0:
        raise NotLooked(words)
    if gain <= STEEP:
        return
    fault = "Training ended while the loss was still falling steeply."
    yield Finding(fault, "worth knowing", words, *train_more(case))


@check("history")
def over_fitting(case: Case) -> Iterator[Finding]:
    """A validation bound that got worse since its best epoch while training improved."""
    rows = settled(case)
    if not rows or not all("bound" in row.get("validation", {}) for row in rows):
        raise NotLooked("no validation bound was logged; --data.validation 0.1 keeps a split for it")
    nelbos = [-row["validation"]["bound"] for row in rows if row["validation"]["bound"] is not None]
    trained = finite_totals(rows)
    best = min(range(len(nelbos)), key=nelbos.__getitem__)
    if len(nelbos) - best <= LAST or len(trained) != len(nelbos):
        return
    last = sum(nelbos[-LAST:]) / LAST
    worse, improved = last - nelbos[best], trained[best] - trained[-1]
    if worse <= OVER_FITTED * size_of([nelbos[0], nelbos[best]]) or improved <= 0:
        return
    epoch = rows[best]["epoch"]
    evidence = (
        f"validation NELBO {nelbos[best]:,.1f} nats in epoch {epoch}, {last:,.1f} over the last {LAST} of "
        f"{rows[-1]['epoch']}; the training loss fell by {improved:.1f} in the meantime"
    )
    remedy = (
        f"Stop when it no longer improves. (The checkpoint `best` is of epoch {epoch} already.) Fewer weights, or "
        "more images, move that epoch."
    )
    fault = "The model over-fits: its validation bound has been getting worse while training went on."
    change = case.retrain({"patience": max(5, len(case.epochs) // 10)})
    yield Finding(fault, "worth knowing", evidence, remedy, change)


@check("history")
def unfinished(case: Case) -> Iterator[Finding]:
    """A run that ended, or was ended, before its last epoch."""
    assert case.run is not None
    if case.run.finished or case.run.history("failed"):
        return
    evidence = f"{len(case.epochs)} of {case.recipe.epochs} epochs are logged, and there is no summary"
    remedy = "The same command goes on where it stopped (unless it is training right now)."
    yield Finding("The run has not finished.", "worth knowing", evidence, remedy, case.resume())
