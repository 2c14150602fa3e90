"""Checks of the layers of a trained network: units that never fire."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nelbo.doctor.base import Finding, Severity, check
from nelbo.doctor.case import Case, NotLooked

DEAD_SHARE = 0.9  # of the units of a layer; a healthy MNIST encoder with a plane for a latent had 113 of 128


@check("weights", "data")
def dead_units(case: Case) -> Iterator[Finding]:
    """ReLU units that are zero for every image: they pass no gradient and never come back."""
    highest = activations(case)
    if not highest:
        raise NotLooked("the network has no ReLU, and other activations pass a gradient everywhere")
    dead = {layer: (int((top <= 0).sum()), len(top)) for layer, top in highest.items()}
    bad = {layer: counts for layer, counts in dead.items() if counts[0] > DEAD_SHARE * counts[1]}
    if not bad:
        return
    everything = any(count == total for count, total in bad.values())
    fault = f"{'All' if everything else 'Most'} units of a layer are dead."
    severity: Severity = "serious" if everything else "worth knowing"
    words = ", ".join(f"{count} of {total} after {layer}" for layer, (count, total) in bad.items())
    evidence = f"never above zero on {case.looked('test')}: {words}"
    smaller_rate = "a smaller learning rate kills fewer units too."
    remedy = f"Use an activation that passes a gradient everywhere; {smaller_rate}"
    yield Finding(fault, severity, evidence, remedy, case.retrain(leaky(case)))


def leaky(case: Case) -> dict[str, object]:
    """Return the changes that replace ReLU in the networks that have it."""
    changes: dict[str, object] = {}
    for part in ("encoder", "decoder"):
        net = case.recipe.model.setting(part)
        if net is not None and net.setting("activation") == "relu":
            changes[f"model.{part}.activation"] = "leaky-relu"
    # Where no field chooses the activation, other initial weights may do.
    return changes or {"seed": case.recipe.seed + 1}


@torch.no_grad()
def activations(case: Case) -> dict[str, Tensor]:
    """Return the largest output of each unit (of each channel, anywhere) of every ReLU, by layer."""
    highest: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> None:
        top = output.flatten(2).amax(2).amax(0) if output.dim() > 2 else output.amax(0)
        highest[layer] = torch.maximum(highest[layer], top) if layer in highest else top

    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, layer in case.model.named_modules()
        if isinstance(layer, nn.ReLU)
    ]
    try:
        for x_BCHW in case.view("test").batches():
            case.model.draw(x_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return highest
