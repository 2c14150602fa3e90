"""Losses whose gradient is not that of their value: what they follow in expectation, by finite differences."""

from collections.abc import Callable

import torch
from torch import Tensor

from nelbo.objectives import Objective
from nelbo.objectives.base import Side
from nelbo.schedules import Constant
from nelbo.testing.law import ERRORS, Evidence, LawBroken, does_not_apply, mean_and_error, require, show
from nelbo.testing.trials import COPIES, START, called, drawn, gaussian, plain

# In which a slope is compared: along a single one little may depend on what is wrong.
DIRECTIONS = 4
BLOCKS, COPIES_A_BLOCK = 20, 250  # each block costs one gradient, and two values a direction
ROUNDING = 1e-5  # of finite differences, a tenth of it nats and the rest a share of the slope
LOOK = "detached tensors and weights in loss_B"


def surrogate_follows(
    spec: Objective, is_differentiated: Callable[[Objective], bool], directions: int = DIRECTIONS
) -> str | Evidence:
    """Require that the expected gradient is the slope of its own bound, or of what it says that it follows.

    What it follows is an objective whose loss is differentiated as it is and, at beta 1, minus a bound.
    """
    if not spec.follows:
        if not _beta_is_one(spec):
            return does_not_apply(
                "its loss is a surrogate, and the bound at beta 1 is not what that stands for"
            )
        _same_slope(spec, None, None, directions)
        return "of a surrogate loss, in expectation against the bound's"
    sides: tuple[Side, ...] = ("encoder", "decoder")
    for side in sides:
        target = spec.follows.get(side)
        if target is None:
            _bias_is_real(spec, side, directions)
            continue
        fault = f"it follows {target!r}, whose own gradient is not that of its loss"
        require(is_differentiated(target), fault, "follows: an objective whose loss is no surrogate")
        if _beta_is_one(target):
            value_B, error_B = mean_and_error(-drawn(target, target.k).loss_B.view(COPIES, -1))
            log_px_B = gaussian().log_px_B
            rise = f"which rises to {show(value_B)} where log p(x) is {show(log_px_B)}"
            fault, look = f"it follows {target!r}, {rise}", "follows: an objective that maximises a bound"
            require(value_B <= log_px_B + ERRORS * error_B, fault, look)
        _same_slope(spec, target, side, directions)
    words = [
        f"by the {side}'s weights {'biased' if target is None else f'against that of {target.name}'}"
        for side, target in spec.follows.items()
    ]
    return f"of a surrogate loss, in expectation {'; '.join(words)}"


def _beta_is_one(spec: Objective) -> bool:
    return bool(spec.setting("beta", Constant(value=1.0)) == Constant(value=1.0))


def _bias_is_real(spec: Objective, side: Side, directions: int) -> None:
    """Require of a gradient that follows no bound that it is not that of its own; of one sample there is no bias."""
    if not _beta_is_one(spec):
        return
    single = plain(spec)
    if single is not None:
        fault = f"with one sample, too, it says that its gradient by the {side} is biased"
        biased = bool(single.follows) and single.follows.get(side) is None
        require(not biased, fault, "follows: one sample has an unbiased gradient")
    gaps = _gaps(spec, None, side, directions)
    numbers = ", ".join(f"{gap:.2g} +- {error:.2g}" for gap, error, _ in gaps)
    biased = any(abs(gap) > ERRORS * error for gap, error, _ in gaps)
    fault = f"it says that its gradient by the {side} is biased, and it is off by {numbers}"
    require(biased, fault, "follows")


def _same_slope(spec: Objective, target: Objective | None, side: Side | None, count: int) -> None:
    weights = f" of the {side}'s weights" if side else ""
    loss = "minus the bound" if target is None else f"the loss of {target!r}"
    for gap, error, slope in _gaps(spec, target, side, count):
        slopes = f"along a random direction{weights} {loss} has slope {slope:.4g}"
        fault = f"{slopes}, the loss's gradient is off by {gap:.4g} +- {error:.2g}"
        require(abs(gap) <= ERRORS * error + ROUNDING * (0.1 + abs(slope)), fault, LOOK)


def _gaps(
    spec: Objective, target: Objective | None, side: Side | None, count: int
) -> list[tuple[float, float, float]]:
    """Return how far the loss's gradient is off along `count` random directions, its error, and the right slope.

    The right slope is that of the target's loss, or where there is none of minus the bound that is reported.
    """
    model, x_BCHW = gaussian().model, gaussian().x_BCHW.repeat(COPIES_A_BLOCK, 1, 1, 1)
    weights = [
        weight
        for name, weight in model.named_parameters()
        if not side or (side == "encoder") == name.startswith(("encoder.", "posterior."))
    ]
    before = [weight.detach().clone() for weight in weights]
    directions = [[torch.randn_like(weight) for weight in weights] for _ in range(count)]
    # Drawn at once: the blocks reset the stream that directions come from.
    block_seeds = torch.randint(2**31, (BLOCKS,)).tolist()

    @torch.no_grad()
    def move(step: float, direction: list[Tensor]) -> None:
        for weight, start, part in zip(weights, before, direction, strict=True):
            weight.copy_(start + step * part)

    @torch.no_grad()
    def value_at(seed: int, step: float, direction: list[Tensor]) -> float:
        """Return the value that should be minimised, a step away, of the block's very samples."""
        move(step, direction)
        torch.manual_seed(seed)
        terms = called(spec if target is None else target, model.draw(x_BCHW, spec.k), START)
        if target is not None:
            return float(terms.loss_B.mean())
        if terms.bound_B is None:
            raise LawBroken(
                "the gradient of its loss is not the slope of its loss, and it reports no bound to compare it with",
                "detached tensors in loss_B, or in-place changes",
            )
        return float(-terms.bound_B.mean())

    gaps = torch.empty(BLOCKS, count)
    slopes, step = torch.empty(BLOCKS, count), 1e-4
    for block, seed in enumerate(block_seeds):
        torch.manual_seed(seed)  # all directions share these samples: a block costs one gradient
        loss = called(spec, model.draw(x_BCHW, spec.k), START).loss_B.mean()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        for place, direction in enumerate(directions):
            along = sum(float((slope * part).sum()) for slope, part in zip(gradients, direction, strict=True))
            try:  # the model is shared (`gaussian`): whatever happens, its weights go back
                rise = value_at(seed, step, direction) - value_at(seed, -step, direction)
            finally:
                move(0.0, direction)
            slopes[block, place] = rise / (2 * step)  # central: its error is of second order in the step
            gaps[block, place] = along - slopes[block, place]
    gap_D, error_D = mean_and_error(gaps)
    return list(zip(gap_D.tolist(), error_D.tolist(), slopes.mean(0).tolist(), strict=True))
