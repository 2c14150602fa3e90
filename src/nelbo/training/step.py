"""A step of the method: draw, objective, backward; clip, step, average. `engine.Step` decides how it is run."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nelbo import engine
from nelbo.data import Batches
from nelbo.engine.capturing import Recorder
from nelbo.metrics import quantities, sums
from nelbo.schedules import Constant
from nelbo.training.recipe import Recipe
from nelbo.training.state import State


def make_step(
    recipe: Recipe,
    state: State,
    batches: Batches,
    tell: Callable[[str], None],
    recorder: Callable[[torch.device], Recorder] | None = None,
) -> engine.Step:
    """Return the method itself, in two halves: pixels to gradients, gradients to weights."""
    model, optimizer, average, critic = state.model, state.optimizer, state.average, state.critic
    critic_weights = list(critic.parameters()) if critic else []
    weights = list(model.parameters())
    parameters = [*weights, *critic_weights]
    precision = engine.pick_precision(recipe.precision, state.device)
    compiled = engine.compiles(recipe.compile, state.device, recipe.epochs * len(batches), model)
    state.execution["precision"] = precision

    def gradients(rows: Tensor, now: engine.Now) -> engine.Gradient:
        x_BCHW = batches.finish(rows)
        with engine.autocast(state.device, precision):
            draw = model.draw(x_BCHW, recipe.objective.k)
            terms = now.objective.terms(draw, now.progress, critic)
        loss = terms.loss_B.sum() if recipe.batch_reduction == "sum" else terms.loss_B.mean()
        logged = quantities(terms)
        # Both losses share the graph of the draw, so that it must outlive the first of two backward passes.
        keep = bool(critic_weights) or None
        slopes = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=keep)
        if critic_weights:
            assert terms.critic_loss_B is not None
            slopes += torch.autograd.grad(terms.critic_loss_B.mean(), critic_weights, allow_unused=True)
        with torch.no_grad():
            model.after_step(draw)  # after the gradients: what it moves must not change under them
        return tuple(logged), sums(logged), slopes

    def update(gradients: Sequence[Tensor | None], now: engine.Now) -> None:
        for parameter, gradient in zip(parameters, contiguous(gradients, parameters), strict=True):
            parameter.grad = gradient
        if recipe.clip_norm is not None:  # the model alone: a critic's loss has another scale
            nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
        recipe.optimizer.set_rate(optimizer, now.progress)
        optimizer.step()
        if average:
            average.update(model, now.share)

    return engine.Step(
        gradients,
        update,
        recipe.objective,
        optimizer,
        batch_size=recipe.batch_size,
        device=state.device,
        rate=None if isinstance(recipe.optimizer.lr, Constant) else recipe.optimizer.lr,  # only if it moves
        share=average.share if average else None,
        images=batches.n,
        compiled=compiled,
        clock=state.clock,
        tell=tell,
        recorder=recorder,
    )


def contiguous(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Return each parameter's gradient in memory of its own, laid out as the parameter is.

    Accumulating into `.grad` would do the same. The gradient of w.sum() is one number expanded, those of a and b in
    a + b are one tensor; fused kernels would read past the first, and clipping would scale the second twice.
    """
    separate: list[Tensor | None] = []
    taken: set[int] = set()  # addresses
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is not None:
            if gradient.stride() != parameter.stride() or gradient.data_ptr() in taken:
                gradient = torch.empty_like(parameter).copy_(gradient)
            taken.add(gradient.data_ptr())
        separate.append(gradient)
    return separate
