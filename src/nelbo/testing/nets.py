"""The laws of a network."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from nelbo.core.vocabulary import Shape
from nelbo.errors import NelboError
from nelbo.nets import Net
from nelbo.nets.base import Encoder
from nelbo.testing.densities import learns
from nelbo.testing.law import Evidence, instance, keep, require, require_alone
from nelbo.testing.settings import Outcome, settings_tell_apart, weights_of

# Even and odd, wide and high: strides divide some of them and not others.
SHAPES = ((1, 28, 28), (3, 33, 17), (2, 9, 14), (1, 8, 8))
LATENTS = 7


def check_net(
    net: Net | type[Net], *, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold the laws of a network against one, or against a class with its default settings.

    Its encoder and decoder fit images of any height, width and channels and say how many features they give; in
    evaluation mode an image's features do not depend on the others; every weight learns; every setting changes
    something. For `skip`, `only` and what it returns or raises see `check`.
    """
    spec = instance(net, Net)
    return keep(spec, LAWS, spec, skip, only)


def _pair(spec: Net, shape: Shape) -> tuple[Encoder, nn.Module]:
    return spec.encoder(shape).double(), spec.decoder(LATENTS, shape).double()


def any_image_fits(spec: Net) -> str | Evidence:
    for shape in SHAPES:
        encoder, decoder = _pair(spec, shape)
        features_BF, outputs = encoder(torch.rand(3, *shape)), decoder(torch.randn(3, LATENTS))
        form, features = tuple(features_BF.shape), encoder.features
        fault = f"images of {shape} give features of shape {form}, and `features` is {features}"
        require(form == (3, features), fault, "encoder(shape) and its `features`")
        fault = f"latents give {tuple(outputs.shape)} for images of {shape}"
        look = "decoder(latent_dim, shape): sizes that a stride does not divide"
        require(outputs.shape == (3, *shape), fault, look)
    return ", ".join("x".join(map(str, shape)) for shape in SHAPES)


def images_are_judged_alone(spec: Net) -> str | Evidence:
    encoder, decoder = _pair(spec, SHAPES[2])
    for module, value in ((encoder, torch.rand(4, *SHAPES[2])), (decoder, torch.randn(4, LATENTS))):
        with torch.no_grad():
            among, alone = module.eval()(value)[:1], module(value[:1])
        require_alone("outputs of the first are", among, alone, "what mixes a batch in evaluation mode")
    return "the same alone and among others"


def every_weight_learns(spec: Net) -> str | Evidence:
    encoder, decoder = _pair(spec, SHAPES[2])
    total: Tensor = encoder(torch.rand(4, *SHAPES[2])).square().sum()
    (total + decoder(torch.randn(4, LATENTS)).square().sum()).backward()
    weights = [*encoder.named_parameters(), *decoder.named_parameters()]
    for name, weight in weights:
        require(learns(weight.grad), f"{name} has no gradient", f"whether {name} is used")
    return f"{len(weights)} weights"


@settings_tell_apart
def every_setting_changes_something(spec: Net) -> Outcome:
    results: dict[str, Tensor | str] = {}
    for part in ("encoder", "decoder"):
        try:
            torch.manual_seed(11)
            module = spec.encoder(SHAPES[2]) if part == "encoder" else spec.decoder(LATENTS, SHAPES[2])
        except NelboError as error:
            results[part] = type(error).__name__
            continue
        results |= {f"{part} {name}": value for name, value in weights_of(module).items()}
        size = SHAPES[2] if part == "encoder" else (LATENTS,)
        for mode in (True, False):
            torch.manual_seed(12)
            results[f"{part} {mode}"] = module.train(mode)(torch.randn(3, *size)).detach()
    return results


LAWS = (any_image_fits, every_setting_changes_something, images_are_judged_alone, every_weight_learns)
