"""A step of the method: draw, objective, backward; clip, step, average. `engine.Step` decides how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nelbo import engine
from nelbo.data import Batches
from nelbo.metrics import quantities, sums
from nelbo.schedules import Constant
from nelbo.training.recipe import Recipe
from nelbo.training.state import State


def make_step(
    recipe: Recipe, state: State, batches: Batches, tell: Callable[[str], None], **more: Any
) -> engine.Step:
    """The method itself, in two halves: pixels to gradients, gradients to weights."""
    model, optimizer, average, own_module = state.model, state.optimizer, state.average, state.own
    theirs = list(own_module.parameters()) if own_module else []
    weights = list(model.parameters())
    parameters = [*weights, *theirs]
    precision = engine.pick_precision(recipe.precision, state.device)
    compiled = engine.compiles(recipe.compile, state.device, recipe.epochs * len(batches), model)
    state.how["precision"] = precision

    def gradients(rows: Tensor, now: engine.Now) -> engine.Gradient:
        x_BCHW = batches.finish(rows)
        with engine.autocast(state.device, precision):
            draw = model.draw(x_BCHW, recipe.objective.k)
            terms = now.objective.terms(draw, now.progress, own_module)
        loss = terms.loss_B.sum() if recipe.batch_reduction == "sum" else terms.loss_B.mean()
        found = quantities(terms)
        slopes = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=bool(theirs) or None)
        if theirs:
            assert terms.critic_loss_B is not None
            slopes += torch.autograd.grad(terms.critic_loss_B.mean(), theirs, allow_unused=True)
        with torch.no_grad():
            model.after_step(draw)  # after the gradients: what it moves must not change under them
        return tuple(found), sums(found), slopes

    def update(gradients: Sequence[Tensor | None], now: engine.Now) -> None:
        for parameter, gradient in zip(parameters, own(gradients, parameters), strict=True):
            parameter.grad = gradient
        if recipe.clip_norm is not None:
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
        rate=None if isinstance(recipe.optimizer.lr, Constant) else recipe.optimizer.lr,
        share=average.share if average else None,
        images=batches.n,
        compiled=compiled,
        clock=state.clock,
        tell=tell,
        **more,
    )


def own(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Each parameter's gradient in memory of its own, laid out as the parameter is.

    What accumulating into `.grad` sees to: that of w.sum() is one number expanded, those of a and b in a + b are one
    tensor; fused kernels would read past the first, and clipping would scale the second twice.
    """
    found: list[Tensor | None] = []
    seen: set[int] = set()
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is not None:
            if gradient.stride() != parameter.stride() or gradient.data_ptr() in seen:
                gradient = torch.empty_like(parameter).copy_(gradient)
            seen.add(gradient.data_ptr())
        found.append(gradient)
    return found
