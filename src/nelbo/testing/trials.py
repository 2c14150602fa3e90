"""The draws on which an objective is tried: of models whose log p(x) is known."""

import functools

import torch
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.core.distributions import PosteriorValue
from nelbo.engine import fixed_seed
from nelbo.errors import NelboError
from nelbo.models.vq import VQVAE, VQVAEModule
from nelbo.nets import MLP
from nelbo.objectives import Objective, Owner, halves
from nelbo.testing.exact import Discrete, LinearGaussian, correlated_table, images_of
from nelbo.testing.law import CPU, SEED, float64
from nelbo.testing.settings import changed

COPIES = 1000  # of each image, each with its own noise
TOGETHER = 16  # draws of every image at a time: some objectives compare each image of a batch with each other
START = Progress()


def called(spec: Objective, draw: Draw, progress: Progress) -> Terms:
    """Call the objective as the loop does, with a fresh module in evaluation mode where it owns one."""
    if not isinstance(spec, Owner):
        return spec(draw, progress)
    assert draw.x_BCHW is not None
    _, channels, height, width = draw.x_BCHW.shape
    with fixed_seed(SEED, CPU):  # the same module at every call, and the caller's stream is not moved
        module = spec.build(draw.z_KBZ.shape[-1], (channels, height, width)).to(draw.z_KBZ.dtype).eval()
    return spec.terms(draw, progress, module)


@functools.cache
def gaussian() -> LinearGaussian:
    """Return the linear-Gaussian model, with a posterior that is close and not exact."""
    return LinearGaussian()


@functools.cache
def discrete() -> tuple[Discrete, Discrete]:
    """Return the enumerable models: with a closed-form KL for each latent, and without any."""
    return Discrete(), Discrete(correlated_table())


@functools.cache
def coded() -> tuple[VQVAEModule, Tensor]:
    """Return a VQ-VAE with 25 latents in all, and images of its own: float64, evaluation mode."""
    net = MLP(hidden=(8,))
    spec = VQVAE(codes=5, positions=2, code_dim=3, encoder=net, decoder=net)
    with fixed_seed(SEED, CPU), float64():
        model = spec.build((1, 2, 3)).double().eval()
        return model, images_of(model, 4)


def with_samples(
    draw: Draw, z_KBZ: Tensor, posterior: PosteriorValue | None = None, x_BCHW: Tensor | None = None
) -> Draw:
    """Return a draw of the same model with other samples, and where they are given with another q and other images."""
    x_BCHW = draw.x_BCHW if x_BCHW is None else x_BCHW
    assert draw.decode is not None
    assert x_BCHW is not None
    likelihood = draw.decode(z_KBZ)
    return Draw(
        z_KBZ=z_KBZ, log_px_KB=likelihood.log_prob(x_BCHW), posterior=posterior or draw.posterior, prior=draw.prior,
        x_BCHW=x_BCHW, likelihood=likelihood, decode=draw.decode, decoder_weights=draw.decoder_weights,
    )  # fmt: skip


@torch.no_grad()
def drawn(spec: Objective, k: int, copies: int = COPIES) -> Terms:
    """Call the objective on `copies` draws of k samples for each image of the linear-Gaussian model, in batches."""
    law = gaussian()
    torch.manual_seed(k)
    sizes = [min(TOGETHER, copies - start) for start in range(0, copies, TOGETHER)]
    batches = [called(spec, law.model.draw(law.x_BCHW.repeat(n, 1, 1, 1), k), START) for n in sizes]
    bounds = [terms.bound_B for terms in batches if terms.bound_B is not None]
    parts = {
        name: torch.cat([terms.parts[name].expand_as(terms.loss_B) for terms in batches])
        for name in batches[0].parts
    }
    losses = torch.cat([terms.loss_B for terms in batches])
    return Terms(losses, torch.cat(bounds) if len(bounds) == len(batches) else None, parts)


@torch.no_grad()
def enumerated(spec: Objective, model: Discrete, k: int) -> dict[str, Tensor] | None:
    """Return exact expectations over all draws: `loss`, `bound` and the parts, (16,) each. None where refused."""
    total: dict[str, Tensor] = {}
    torch.manual_seed(k)  # of prior samples, say
    for start in range(0, 4**k, TOGETHER // 4):  # a quarter: 16 images a draw, and not 4
        draw, probability_BM = model.every_draw(k, slice(start, start + TOGETHER // 4))
        try:
            terms = called(spec, draw, START)
        except NelboError:
            return None
        values = {"loss": terms.loss_B}
        values |= {name: part.expand_as(terms.loss_B) for name, part in terms.parts.items()}
        if terms.bound_B is not None:
            values["bound"] = terms.bound_B
        for name, value_B in values.items():
            summand_B = (value_B.view(16, -1) * probability_BM).sum(1)
            total[name] = total[name] + summand_B if start else summand_B
    return total


@torch.no_grad()
def reports_the_elbo(spec: Objective) -> bool:
    """Return True if its bound is the ELBO of every draw, number by number: then it is at most log p(x)."""
    law = gaussian()
    draws = [law.model.draw(law.x_BCHW, k) for k in (1, spec.k, 5)]
    draws += [model.every_draw(1)[0] for model in discrete()]
    for draw in draws:
        bound_B, elbo_B = called(spec, draw, START).bound_B, halves(draw)[1]
        if bound_B is None or elbo_B is None or not torch.allclose(bound_B, elbo_B, rtol=0, atol=1e-9):
            return False
    return True


def with_k(spec: Objective, *sizes: int) -> dict[int, Objective]:
    """Return the objective with each number of samples that it accepts: of a group, where it weighs them in groups."""
    counts = [k * spec.setting("groups", 1) for k in sizes]
    return {k: variant for k in counts if (variant := changed(spec, k=k)) is not None}


def plain(spec: Objective) -> Objective | None:
    """Return the objective with k = 1 and, where it has them, beta = 1 and one group of samples."""
    ones: dict[str, float] = {"beta": 1.0, "groups": 1}
    return changed(spec, k=1, **{name: one for name, one in ones.items() if name in type(spec).model_fields})
