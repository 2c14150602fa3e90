"""The draws on which an objective is tried: of models whose log p(x) is known."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.engine import fixed_seed
from nelbo.errors import NelboError
from nelbo.objectives import Objective, Owner, halves
from nelbo.testing.exact import Discrete, LinearGaussian, correlated_table
from nelbo.testing.law import CPU, SEED
from nelbo.testing.settings import changed

COPIES = 1000  # of each image, each with its own noise
TOGETHER = 16  # draws of every image at a time: some objectives compare each image of a batch with each other
START = Progress()


def called(spec: Objective, draw: Draw, progress: Progress) -> Terms:
    """The objective as the loop calls it, with a fresh module of its own, in evaluation mode, where it owns one."""
    if not isinstance(spec, Owner):
        return spec(draw, progress)
    with fixed_seed(SEED, CPU):
        own = spec.build(draw.z_KBZ.shape[-1], _shape_of(draw)).to(draw.z_KBZ.dtype).eval()
    return spec.terms(draw, progress, own)


def _shape_of(draw: Draw) -> tuple[int, int, int]:
    assert draw.x_BCHW is not None
    _, channels, height, width = draw.x_BCHW.shape
    return channels, height, width


@functools.cache
def gaussian() -> LinearGaussian:
    """The linear-Gaussian model, with a posterior that is close and not exact."""
    return LinearGaussian()


@functools.cache
def discrete() -> tuple[Discrete, Discrete]:
    """The enumerable models: with a closed-form KL for each latent, and without any."""
    return Discrete(), Discrete(correlated_table())


@torch.no_grad()
def drawn(spec: Objective, k: int, copies: int = COPIES) -> Terms:
    """The objective on `copies` draws of k samples for each image of the linear-Gaussian model, in batches."""
    law = gaussian()
    torch.manual_seed(k)
    sizes = [min(TOGETHER, copies - start) for start in range(0, copies, TOGETHER)]
    found = [called(spec, law.model.draw(law.x_BCHW.repeat(n, 1, 1, 1), k), START) for n in sizes]
    bounds = [terms.bound_B for terms in found if terms.bound_B is not None]
    parts = {name: torch.cat([_each(terms, name) for terms in found]) for name in found[0].parts}
    losses = torch.cat([terms.loss_B for terms in found])
    return Terms(losses, torch.cat(bounds) if len(bounds) == len(found) else None, parts)


def _each(terms: Terms, name: str) -> Tensor:
    """A part as one number an image."""
    return terms.parts[name].expand_as(terms.loss_B)


@torch.no_grad()
def enumerated(spec: Objective, model: Discrete, k: int) -> dict[str, Tensor] | None:
    """Exact expectations over all draws: `loss`, `bound` and the parts, each of shape (16,). None where refused."""
    total: dict[str, Tensor] = {}
    torch.manual_seed(k)  # of prior samples, say
    for start in range(0, 4**k, TOGETHER // 4):
        draw, probability_BM = model.every_draw(k, slice(start, start + TOGETHER // 4))
        try:
            terms = called(spec, draw, START)
        except NelboError:
            return None
        found = {"loss": terms.loss_B, **{name: _each(terms, name) for name in terms.parts}}
        if terms.bound_B is not None:
            found["bound"] = terms.bound_B
        for name, value_B in found.items():
            here_B = (value_B.view(16, -1) * probability_BM).sum(1)
            total[name] = total[name] + here_B if start else here_B
    return total


@torch.no_grad()
def reports_the_elbo(spec: Objective) -> bool:
    """Return True if its bound is the ELBO of every draw, number by number: then it is at most log p(x)."""
    law = gaussian()
    draws = [law.model.draw(law.x_BCHW, k) for k in (1, spec.k, 5)] + [
        model.every_draw(1)[0] for model in discrete()
    ]
    for draw in draws:
        bound_B, elbo_B = called(spec, draw, START).bound_B, halves(draw)[1]
        if bound_B is None or elbo_B is None or not torch.allclose(bound_B, elbo_B, rtol=0, atol=1e-9):
            return False
    return True


def with_k(spec: Objective, *sizes: int) -> dict[int, Objective]:
    """The objective with each number of samples that it accepts: of a group, where it weighs them in groups."""
    found = {k * spec.setting("groups", 1): changed(spec, k=k * spec.setting("groups", 1)) for k in sizes}
    return {k: other for k, other in found.items() if other is not None}


def plain(spec: Objective) -> Objective | None:
    """The objective with k = 1 and, where it has them, beta = 1 and one group of samples."""
    ones: dict[str, float] = {"beta": 1.0, "groups": 1}
    return changed(spec, k=1, **{name: one for name, one in ones.items() if name in type(spec).model_fields})
