"""Losses whose gradient is not that of their value: what they follow in expectation, by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nelbo.core import Draw
from nelbo.objectives import Objective
from nelbo.schedules import Constant
from nelbo.testing.law import ERRORS, Evidence, does_not_apply, mean_and_error, require, show
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
        _same_slope(spec, None, "", directions)
        return "of a surrogate loss, in expectation against the bound's"
    for side in ("encoder", "decoder"):
        target = spec.follows.get(side)
        if target is None:
            _bias_is_real(spec, side, directions)
            continue
        _can_be_followed(target, is_differentiated)
        _same_slope(spec, target, side, directions)
    return f"of a surrogate loss, in expectation {_in_words(spec.follows)}"


def _beta_is_one(spec: Objective) -> bool:
    return bool(spec.setting("beta", Constant(value=1.0)) == Constant(value=1.0))


def _in_words(follows: Mapping[Any, Objective | None]) -> str:
    whose = {
        side: "biased" if target is None else f"against that of {target.name}"
        for side, target in follows.items()
    }
    return "; ".join(f"by the {side}'s weights {words}" for side, words in whose.items())


def _can_be_followed(target: Objective, is_differentiated: Callable[[Objective], bool]) -> None:
    """Require that an objective's loss has the gradient of its value, and is minus a bound."""
    seen = f"it follows {target!r}, whose own gradient is not that of its loss"
    require(is_differentiated(target), seen, "follows: an objective whose loss is no surrogate")
    if _beta_is_one(target):
        value_B, error_B = mean_and_error(-drawn(target, target.k).loss_B.view(COPIES, -1))
        log_px_B = gaussian().log_px_B
        seen = f"it follows {target!r}, which rises to {show(value_B)} where log p(x) is {show(log_px_B)}"
        require(value_B <= log_px_B + ERRORS * error_B, seen, "follows: an objective that maximises a bound")


def _bias_is_real(spec: Objective, side: str, directions: int) -> None:
    """A gradient that is said to follow no bound does not follow its own; and with one sample there is no bias."""
    if not _beta_is_one(spec):
        return
    single = plain(spec)
    if single is not None:
        seen = f"with one sample, too, it says that its gradient by the {side} is biased"
        biased = bool(single.follows) and single.follows.get(side) is None  # type: ignore[call-overload]
        require(not biased, seen, "follows: one sample has an unbiased gradient")
    gaps = _off(spec, None, side, directions)
    numbers = ", ".join(f"{gap:.2g} +- {error:.2g}" for gap, error, _ in gaps)
    biased = any(abs(gap) > ERRORS * error for gap, error, _ in gaps)
    require(
        biased, f"it says that its gradient by the {side} is biased, and it is off by {numbers}", "follows"
    )


def _same_slope(spec: Objective, target: Objective | None, side: str, count: int) -> None:
    by = f" of the {side}'s weights" if side else ""
    whose = "minus the bound" if target is None else f"the loss of {target!r}"
    for gap, error, slope in _off(spec, target, side, count):
        difference = (
            f"along a random direction{by} {whose} has slope {slope:.4g}, "
            f"the loss's gradient is off by {gap:.4g} +- {error:.2g}"
        )
        require(abs(gap) <= ERRORS * error + ROUNDING * (0.1 + abs(slope)), difference, LOOK)


def _weights(side: str) -> list[nn.Parameter]:
    """Return weights of the linear-Gaussian model: of the encoder and posterior, of all the rest, or all."""
    named = gaussian().model.named_parameters()
    return [
        weight
        for name, weight in named
        if not side or (side == "encoder") == name.startswith(("encoder.", "posterior."))
    ]


def _off(
    spec: Objective, target: Objective | None, side: str, count: int
) -> list[tuple[float, float, float]]:
    """Return how far the loss's gradient is off along `count` random directions, its error, and the right slope.

    The right slope is that of the target's loss, or where there is none of minus the bound that is reported. All
    directions share their samples, so that each block costs one gradient.
    """
    model, x_BCHW = gaussian().model, gaussian().x_BCHW.repeat(COPIES_A_BLOCK, 1, 1, 1)
    weights = _weights(side)
    before = [weight.detach().clone() for weight in weights]
    directions = [[torch.randn_like(weight) for weight in weights] for _ in range(count)]
    # Drawn at once: the blocks reset the stream that directions come from.
    block_seeds = torch.randint(2**31, (BLOCKS,)).tolist()

    @torch.no_grad()
    def move(step: float, direction: list[Tensor]) -> None:
        for weight, start, way in zip(weights, before, direction, strict=True):
            weight.copy_(start + step * way)

    @torch.no_grad()
    def value_at(seed: int, step: float, direction: list[Tensor]) -> float:
        move(step, direction)
        torch.manual_seed(seed)
        return float(_value(spec, target, model.draw(x_BCHW, spec.k)).mean())

    gaps = torch.empty(BLOCKS, count)
    slopes, step = torch.empty(BLOCKS, count), 1e-4
    for block, seed in enumerate(block_seeds):
        torch.manual_seed(seed)
        loss = called(spec, model.draw(x_BCHW, spec.k), START).loss_B.mean()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        for place, direction in enumerate(directions):
            along = sum(float((slope * way).sum()) for slope, way in zip(gradients, direction, strict=True))
            try:
                rise = value_at(seed, step, direction) - value_at(seed, -step, direction)
            finally:
                move(0.0, direction)
            slopes[block, place] = rise / (2 * step)
            gaps[block, place] = along - slopes[block, place]
    gap_D, error_D = mean_and_error(gaps)
    return list(zip(gap_D.tolist(), error_D.tolist(), slopes.mean(0).tolist(), strict=True))


def _value(spec: Objective, target: Objective | None, draw: Draw) -> Tensor:
    """Return the value that should be minimised, for each image."""
    if target is not None:
        return called(target, draw, START).loss_B
    bound_B = called(spec, draw, START).bound_B
    require(
        bound_B is not None,
        "the gradient of its loss is not the slope of its loss, and it reports no bound to compare it with",
        "detached tensors in loss_B, or in-place changes",
    )
    assert bound_B is not None
    return -bound_B
