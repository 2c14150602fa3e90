"""The loop. Read it from top to bottom: batch, step (step.py), log; then evaluate and save."""

import math
from collections.abc import Callable

import torch

from nelbo import engine
from nelbo.core import Progress
from nelbo.core.layout import EpochRow
from nelbo.data import Batches, Splits
from nelbo.errors import Interrupted, TrainingFailed
from nelbo.metrics import LatentSums, Means, Split, quantities
from nelbo.schedules import Schedule
from nelbo.training.events import EpochDone, Resumed, StepDone, Tell, TrainingBegun, Warned
from nelbo.training.recipe import Recipe
from nelbo.training.state import State
from nelbo.training.step import make_step
from nelbo.training.store import Run

LATENT_IMAGES = 10_000  # how many training images the latent statistics use when there is no validation split


def fit(recipe: Recipe, splits: Splits, run: Run, device: torch.device, tell: Tell) -> State:
    """Train until `recipe.epochs`, from the run's last checkpoint if it has one.

    `tell` hears `Resumed`, `TrainingBegun`, `StepDone`, `EpochDone` and `Warned`. Raises Interrupted (a checkpoint is
    saved) and TrainingFailed (the loss is not finite; the checkpoints of earlier epochs are kept).
    """
    state = State.fresh(recipe, splits.shape, device)
    if run.checkpoint_path("last").is_file():
        run.resume(state.unpack)
        tell(Resumed(state.epoch, state.batch))
    run.forget_after(state.epoch - 1)  # an epoch that is done again is logged again
    images, size = splits.train, recipe.batch_size
    batches = Batches(images, splits.transforms, size, device=device, shuffle_seed=recipe.seed, training=True)
    state.observe_training_images(batches)
    step = make_step(recipe, state, batches, lambda message: tell(Warned(message)))
    tell(TrainingBegun(step.compiles))
    warned = False
    patience = math.inf if recipe.patience is None else recipe.patience
    # Small networks train faster on fewer threads: their steps are shorter than the waking of a thread.
    threads = engine.threads_for(state.model, size * recipe.objective.k, device)
    with threads as state.threads, step.running(), engine.interruption() as interrupted:
        while state.epoch <= recipe.epochs and state.epoch - 1 - state.best_epoch < patience:
            with state.clock("train"):
                train_epoch(recipe, state, batches, step, interrupted.is_set, tell)
                engine.synchronise(device)
            if not state.healthy:  # never over a good checkpoint
                raise TrainingFailed(f"{run.name}: {state.what_diverged()}")
            state.execution |= step.how
            if state.batch < len(batches):
                run.save("last", *state.prepare_for_evaluation().pack())
                raise Interrupted(f"interrupted in epoch {state.epoch}; the same command goes on from there")
            row = close_epoch(recipe, state, splits, run)
            warning = row.pop("warning", "")
            tell(EpochDone(row))
            if warning and not warned:
                tell(Warned(f"after epoch {row['epoch']}: {warning}"))
                warned = True
    return state


def train_epoch(
    recipe: Recipe, state: State, batches: Batches, step: engine.Step, stopped: Callable[[], bool], tell: Tell
) -> None:
    """Train the remaining batches of one epoch; stop early, between two batches, when `stopped()`."""
    state.train(True)
    steps = recipe.epochs * len(batches)
    for rows in batches.rows(state.epoch, start=state.batch, at_once=step.at_once):
        steps_done = -(-len(rows) // recipe.batch_size)  # rounded up: the last batch may be short
        indices = range(state.step, state.step + steps_done)
        progress = [Progress(state.epoch, recipe.epochs, index, steps, batches.n) for index in indices]
        measured = step(rows, progress)
        state.means.add_sums(measured.names, measured.sums_SQ, measured.counts)
        state.step += len(indices)
        state.batch += len(indices)
        state.images += len(rows)
        tell(StepDone(state.batch, len(batches), measured))
        if stopped():
            return


def close_epoch(recipe: Recipe, state: State, splits: Splits, run: Run) -> EpochRow:
    """Measure, log and save after an epoch, and move the counters to the next one."""
    trained = state.means.result()
    row: EpochRow = {"event": "epoch", "epoch": state.epoch, "step": state.step, "train": trained}
    steps = recipe.epochs * state.batch
    progress = Progress(state.epoch, recipe.epochs, state.step - 1, steps, len(splits.train))
    state.prepare_for_evaluation()
    if isinstance(beta := recipe.objective.setting("beta"), Schedule):
        row["beta"] = beta(progress)
    due = recipe.latent_every and (state.epoch % recipe.latent_every == 0 or state.epoch == recipe.epochs)
    latents = LatentSums() if due else None
    if splits.validation is not None:
        with state.clock("validation"):
            row["validation"] = validate(recipe, state, splits, progress, latents)
    if latents is not None:
        with state.clock("latent"):
            row |= look_at_latents(state, splits, latents)
    if recipe.log_steps:
        run.log({"event": "steps", "epoch": state.epoch, "loss": state.means.per_batch("total")})
    bound = row.get("validation", {}).get("bound", math.nan)
    better = math.isfinite(bound) and (state.best_bound is None or bound > state.best_bound)
    if better:
        state.best_bound, state.best_epoch = bound, state.epoch
    newest = state.best_bound is None  # nothing to select on so far: the last epoch is kept
    names = [name for name, due in (("first", state.epoch == 1), ("best", better or newest)) if due]
    row["seconds"] = dict(state.seconds)
    run.log({key: value for key, value in row.items() if key != "warning"})
    with state.clock("checkpoint"):
        for name in names:
            run.save(name, state.evaluated.state_dict(), {"epoch": state.epoch})
        if newest:
            state.best_epoch = state.epoch
        state.epoch, state.batch, state.means = state.epoch + 1, 0, Means()
        run.save("last", *state.pack())  # at the very end: after a crash before it the epoch is repeated
    return row | {"best_epoch": state.best_epoch, "how": state.execution | {"threads": state.threads}}


def validate(
    recipe: Recipe, state: State, splits: Splits, progress: Progress, latents: LatentSums | None = None
) -> dict[str, float]:
    """Return the quantities of training on the validation split, with fixed noise; `latents` gets its posteriors."""
    means, model = Means(), state.evaluated
    assert splits.validation is not None
    split = Split(splits.validation, splits, state.device)
    for x_BCHW in split.batches():
        draw = model.draw(x_BCHW, recipe.objective.k)
        means.add(quantities(recipe.objective.terms(draw, progress, state.critic)))
        if latents is not None:
            latents.add(draw.posterior, model.prior, draw.sample)
    return means.result()


def look_at_latents(state: State, splits: Splits, latents: LatentSums) -> EpochRow:
    """Return KL of each latent dimension and active units, with a warning when the posterior has collapsed."""
    if splits.validation is None:  # otherwise `validate` has shown them
        images = splits.train.select(torch.arange(min(LATENT_IMAGES, len(splits.train))))
        model = state.evaluated
        for x_BCHW in Split(images, splits, state.device).batches():
            latents.add(model.encode(x_BCHW), model.prior)
    statistics = latents.result()
    return {"latent": statistics.to_row(), "warning": statistics.warning}
