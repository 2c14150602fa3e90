"""The law of an objective for models whose latents are codes: on a model whose codes can all be listed."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from nelbo.core import Progress
from nelbo.engine import fixed_seed
from nelbo.models.vq import VQVAE, VQVAEModule
from nelbo.nets import MLP
from nelbo.objectives import Objective
from nelbo.testing.exact import images_of
from nelbo.testing.law import CPU, SEED, float64, require, show

SHAPE = (1, 2, 3)


@functools.cache
def coded() -> tuple[VQVAEModule, Tensor]:
    """A VQ-VAE with 25 latents in all, and images of its own: float64, evaluation mode."""
    net = MLP(hidden=(8,))
    spec = VQVAE(codes=5, positions=2, code_dim=3, encoder=net, decoder=net)
    with fixed_seed(SEED, CPU), float64():
        model = spec.build(SHAPE).double().eval()
        return model, images_of(model, 4)


@torch.no_grad()
def bounds_of_codes_hold(spec: Objective) -> None:
    """Require that the bound is log p(x, z) of the codes that are taken, and at most log p(x), the sum over all."""
    model, x_BCHW = coded()
    terms = spec(model.draw(x_BCHW, spec.k), Progress())
    z_SZ = model.every_latent()
    log_joint_SB = model.decode(z_SZ[:, None]).log_prob(x_BCHW) + model.prior.log_prob(z_SZ)[:, None]
    taken_B = (z_SZ[:, None] == model.encode(x_BCHW).mean).all(-1).double().argmax(0)
    right_B = log_joint_SB.gather(0, taken_B[None])[0]
    assert terms.bound_B is not None
    seen = f"of a model with {len(z_SZ)} latents it reports {show(terms.bound_B)}, where log p(x, z) is "
    look = "bound_B: the commitment is no part of it, and the code length is"
    require((terms.bound_B - right_B).abs() < 1e-9, f"{seen}{show(right_B)}", look)
    above = f"{seen}at most {show(log_joint_SB.logsumexp(0))}"
    require(terms.bound_B <= log_joint_SB.logsumexp(0), above, look)
