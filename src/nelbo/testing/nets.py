"""The laws of a network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from nelbo.errors import NelboError
from nelbo.nets import Net
from nelbo.testing.densities import ROUNDING
from nelbo.testing.law import Evidence, instance, keep, require, show
from nelbo.testing.settings import Outcome, settings_change_something, weights_of

SHAPES = ((1, 28, 28), (3, 33, 17), (2, 9, 14), (1, 8, 8))
LATENTS = 7


def check_net(
    net: Net | type[Net], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a network against one, or against a class with its default settings.

    Its encoder and decoder fit images of any height, width and channels and say how many features they give; in
    evaluation mode an image's features do not depend on the others; every weight learns; every setting changes
    something. Returns each law with its evidence. Raises LawBroken. `skip` leaves laws out by name; `only` holds one.
    """
    spec = instance(net, Net)
    return keep(spec, LAWS, spec, skip, only)


def _pair(spec: Net, shape: tuple[int, int, int]) -> tuple[Any, nn.Module]:
    return spec.encoder(shape).double(), spec.decoder(LATENTS, shape).double()


def any_image_fits(spec: Net) -> str | Evidence:
    for shape in SHAPES:
        encoder, decoder = _pair(spec, shape)
        features, outputs = encoder(torch.rand(3, *shape)), decoder(torch.randn(3, LATENTS))
        seen = f"images of {shape} give features of shape {tuple(features.shape)}, and `features` is {encoder.features}"
        require(features.shape == (3, encoder.features), seen, "encoder(shape) and its `features`")
        seen = f"latents give {tuple(outputs.shape)} for images of {shape}"
        require(
            outputs.shape == (3, *shape),
            seen,
            "decoder(latent_dim, shape): sizes that a stride does not divide",
        )
    return ", ".join("x".join(map(str, shape)) for shape in SHAPES)


def images_are_judged_alone(spec: Net) -> str | Evidence:
    encoder, decoder = _pair(spec, SHAPES[2])
    for module, value in ((encoder, torch.rand(4, *SHAPES[2])), (decoder, torch.randn(4, LATENTS))):
        with torch.no_grad():
            among, alone = module.eval()(value)[:1], module(value[:1])
        seen = f"outputs of the first are {show(alone)} alone and {show(among)} among others"
        require((among - alone).abs() <= ROUNDING, seen, "what mixes a batch in evaluation mode")
    return "the same alone and among others"


def every_weight_learns(spec: Net) -> str | Evidence:
    encoder, decoder = _pair(spec, SHAPES[2])
    total: Tensor = encoder(torch.rand(4, *SHAPES[2])).square().sum()
    (total + decoder(torch.randn(4, LATENTS)).square().sum()).backward()
    weights = [*encoder.named_parameters(), *decoder.named_parameters()]
    for name, weight in weights:
        good = (
            weight.grad is not None and bool(weight.grad.isfinite().all()) and bool((weight.grad != 0).any())
        )
        require(good, f"{name} has no gradient", f"whether {name} is used")
    return f"{len(weights)} weights"


def every_setting_changes_something(spec: Net) -> str | Evidence:
    return settings_change_something(spec, _outcome)


def _outcome(spec: Net) -> Outcome:
    found: dict[str, Tensor | str] = {}
    for part in ("encoder", "decoder"):
        try:
            torch.manual_seed(11)
            module = spec.encoder(SHAPES[2]) if part == "encoder" else spec.decoder(LATENTS, SHAPES[2])
        except NelboError as error:
            found[part] = type(error).__name__
            continue
        found |= {f"{part} {name}": value for name, value in weights_of(module).items()}
        size = SHAPES[2] if part == "encoder" else (LATENTS,)
        for mode in (True, False):
            torch.manual_seed(12)
            found[f"{part} {mode}"] = module.train(mode)(torch.randn(3, *size)).detach()
    return found


LAWS = (any_image_fits, every_setting_changes_something, images_are_judged_alone, every_weight_learns)
