"""The laws of an objective that owns a module, beside those of every objective."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn

from nelbo.core import Draw, Progress, Terms
from nelbo.engine import fixed_seed
from nelbo.errors import NelboError
from nelbo.models import VAE, BuiltModel
from nelbo.nets import MLP
from nelbo.objectives import Objective, Owner
from nelbo.optim import FusedAdam
from nelbo.testing.densities import learns
from nelbo.testing.law import CPU, SEED, Evidence, Law, LawBroken, does_not_apply, float64, require, show
from nelbo.testing.settings import Outcome, weights_of, with_every_setting

SHAPE = (1, 8, 9)
IMAGES = 4
MOMENT = Progress(epoch=2, epochs=4, step=15, steps=30, images=40)
NO_WEIGHTS = does_not_apply("what it owns has no weights")


@dataclasses.dataclass(frozen=True)
class Game:
    """A small model, the module that the objective owns, and one draw, in float64 and training mode."""

    spec: Owner
    model: BuiltModel
    module: nn.Module
    draw: Draw

    @classmethod
    def of(cls, spec: Owner) -> Game:
        with fixed_seed(SEED, CPU), float64():
            small = VAE(latent_dim=3, encoder=MLP(hidden=(8,)), decoder=MLP(hidden=(8,)))
            model = small.build(SHAPE).double().train()
            module = spec.build(small.latent_dim, SHAPE).double().train()
            x_BCHW = torch.rand(IMAGES, *SHAPE).round()
            return cls(spec, model, module, model.draw(x_BCHW, spec.k))

    def terms(self) -> Terms:
        torch.manual_seed(SEED)
        return self.spec.terms(self.draw, MOMENT, self.module)

    def next(self) -> Game:
        """Return the same players a step later, before other images."""
        with fixed_seed(SEED + 1, CPU), float64():
            x_BCHW = torch.rand(IMAGES, *SHAPE).round()
            return dataclasses.replace(self, draw=self.model.draw(x_BCHW, self.spec.k))

    @property
    def weights(self) -> list[nn.Parameter]:
        return list(self.module.parameters())


def owner_outcome(spec: Objective) -> Outcome:
    """Return what tells owners apart: two steps, the module after them, settings of its optimiser."""
    if not isinstance(spec, Owner):
        return {}
    results: dict[str, Tensor | str] = {"own settings": repr(sorted(spec.critic_settings().items()))}
    try:
        game = Game.of(spec)
        for step, terms in enumerate((game.terms(), game.next().terms())):
            losses = {"loss": terms.loss_B, "own loss": terms.critic_loss_B, **terms.parts}
            for key, loss in losses.items():
                results |= {} if loss is None else {f"own {step} {key}": loss.detach()}
    except NelboError as error:
        return results | {"own refused": type(error).__name__}
    return results | {f"own {name}": value for name, value in weights_of(game.module).items()}


class Held:
    """A way to call a function again and again: what it detaches stays what it was at the first call.

    Then a loss in which one player's part is detached for the other has the slopes that autograd gives it.
    """

    def __init__(self) -> None:
        self.constants: list[Tensor] = []

    def __call__(self, function: Callable[[], Tensor]) -> Tensor:
        places = itertools.count()
        detach = torch.Tensor.detach

        def hold(tensor: Tensor) -> Tensor:
            if (place := next(places)) == len(self.constants):
                # A copy: finite differences move weights in place, and what shares their memory with them.
                self.constants.append(detach(tensor).clone())
            return self.constants[place]

        with mock.patch.object(torch.Tensor, "detach", hold):
            return function()


@with_every_setting
def what_it_owns_learns_by_its_own_loss(spec: Owner) -> str | Evidence:
    """Require that critic_loss_B has one number an image, and a gradient by every weight of the module."""
    game = Game.of(spec)
    if not game.weights:
        return NO_WEIGHTS
    critic_loss_B = game.terms().critic_loss_B
    if critic_loss_B is None:
        fault = "critic_loss_B is None, and the module has weights"
        raise LawBroken(fault, "the loss of what it owns, in Terms.critic_loss_B")
    fault = f"critic_loss_B has shape {tuple(critic_loss_B.shape)} for {IMAGES} images: {show(critic_loss_B)}"
    require(critic_loss_B.shape == (IMAGES,) and bool(critic_loss_B.isfinite().all()), fault, "critic_loss_B")
    slopes = torch.autograd.grad(critic_loss_B.mean(), game.weights, allow_unused=True)
    for (name, _), slope in zip(game.module.named_parameters(), slopes, strict=True):
        gradient = "no gradient" if slope is None else f"a gradient of {show(slope)}"
        look = f"whether {name} is used; weights of its own follow critic_loss_B alone"
        require(learns(slope), f"{name} has {gradient} by critic_loss_B", look)
    return f"{len(slopes)} weights"


@with_every_setting
def its_own_loss_does_not_reach_the_model(spec: Owner) -> str | Evidence:
    """Require that no weight of the model has a gradient by critic_loss_B, which sees detached latents and images."""
    game = Game.of(spec)
    critic_loss_B = game.terms().critic_loss_B
    if critic_loss_B is None or not critic_loss_B.requires_grad:
        return NO_WEIGHTS
    weights = list(game.model.parameters())
    slopes = torch.autograd.grad(critic_loss_B.mean(), weights, allow_unused=True)
    for (name, _), slope in zip(game.model.named_parameters(), slopes, strict=True):
        if slope is not None:
            fault = f"the model's {name} has a gradient of {show(slope)} by critic_loss_B"
            look = "what critic_loss_B is made of: detach what comes from the model, prior samples too"
            require(slope == 0, fault, look)
    return f"none by {len(weights)} weights of the model"


@with_every_setting
def it_changes_buffers_in_training_only(spec: Owner) -> str | Evidence:
    game = Game.of(spec)
    game.module.eval()
    before = {name: value.clone() for name, value in game.module.state_dict().items()}
    first, second = game.terms(), game.terms()
    for name, value in game.module.state_dict().items():
        fault = f"{name} moves from {show(before[name])} to {show(value)} in evaluation mode"
        require(torch.equal(before[name], value), fault, "where it is changed: only if own.training")
    fault = f"in evaluation mode the loss is {show(first.loss_B)}, then {show(second.loss_B)}"
    require(torch.equal(first.loss_B, second.loss_B), fault, "what the module remembers")
    return f"{sum(1 for _ in game.module.buffers())} buffers"


@with_every_setting
def its_settings_are_those_of_an_optimiser(spec: Owner) -> str | Evidence:
    settings = spec.critic_settings()
    accepted = set(inspect.signature(FusedAdam).parameters) - {"params"}
    unknown = sorted(set(settings) - accepted)
    require(not unknown, f"critic_settings has {unknown}", f"critic_settings: {', '.join(sorted(accepted))}")
    if weights := Game.of(spec).weights:  # values that it refuses raise here
        FusedAdam(weights, **{"lr": 1e-3, **settings}, fused=True)
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "the model's own"


OWNER_LAWS: tuple[Law[Owner], ...] = (
    what_it_owns_learns_by_its_own_loss,
    its_own_loss_does_not_reach_the_model,
    it_changes_buffers_in_training_only,
    its_settings_are_those_of_an_optimiser,
)
