"""For every space of latents: how one integrates over it, and how samples are set beside a density there."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nelbo.core.registry import lookup, names
from nelbo.dists.base import Space
from nelbo.dists.hyperbolic import from_origin, to_origin
from nelbo.posteriors import DiagonalGaussian, Posterior
from nelbo.priors import Prior, StandardNormal
from nelbo.testing.law import ERRORS
from nelbo.testing.numeric import Grid, around, mismatch, product
from nelbo.testing.settings import changed

Part = TypeVar("Part", Posterior, Prior)
SIZES: dict[Space, tuple[int, int]] = {"real": (1, 2), "ball": (1, 2), "sphere": (2, 3)}
MOST_STATES = 5000  # of one-hot latents that are enumerated
SHARED = {"categories", "variables"}  # fields that say the same on both axes
WITH_BLOCKS = 12  # latents where they are one-hot: 2, 3, 4 and 6 categories divide them
ON_SPHERE = 1e-6  # of a length in float64, twice mirrored
FEW_STATES = 4  # beside which a plane of reals is integrated, and not a line alone


@dataclasses.dataclass(frozen=True)
class Support:
    """The space of some latents: what their densities are integrated over."""

    space: Space
    blocks: tuple[int, ...]
    latents: int

    @classmethod
    def of(cls, spec: Posterior | Prior, latents: int) -> Support:
        return cls(spec.space, spec.blocks(latents), latents)

    @property
    def reals(self) -> int:
        return self.latents - sum(self.blocks)

    @property
    def states(self) -> int:
        return math.prod(self.blocks)

    @property
    def integrable(self) -> bool:
        """True if there is a quadrature over it."""
        if self.blocks:
            return self.states <= MOST_STATES and self.reals <= (1 if self.states > FEW_STATES else 2)
        return self.latents in SIZES[self.space]

    def grid(self, samples_NZ: Tensor, n: int = 241) -> Grid:
        """Return a grid for densities there, around samples where the space has no end; finer with n."""
        match self.space:
            case "real":
                return around(samples_NZ, n)
            case "ball":  # a grid of vectors v from the origin, as one of z = tanh(r / 2) v / r with r = |v|
                plane = around(to_origin(samples_NZ), n)
                r_M = plane.points_MZ.norm(dim=1).clamp_min(1e-9)
                # The Jacobian: d tanh(r / 2) / dr along v, tanh(r / 2) / r in each direction across it. Capped where
                # it is nothing: cosh(350)^2 still fits in float64.
                along_M, across_M = (
                    0.5 / r_M.clamp_max(700.0).mul(0.5).cosh().square(),
                    (0.5 * r_M).tanh() / r_M,
                )
                weights_M = plane.weights_M * along_M * across_M ** (self.latents - 1)
                return Grid(from_origin(plane.points_MZ), weights_M, plane.cell_MZ * across_M[:, None])
            case "sphere" if self.latents == 2:
                return _circle(16 * n)
            case "sphere":
                # Gauss-Legendre points by height, even by longitude: bands of equal height have equal areas.
                height, weight = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(n))
                heights = Grid(height[:, None], weight, torch.zeros(n, 1, dtype=torch.float64))
                pairs = product(heights, _circle(2 * n))
                height_M1, radius_M1 = pairs.points_MZ[:, :1], (1.0 - pairs.points_MZ[:, :1].square()).sqrt()
                points_MZ = torch.cat([height_M1, radius_M1 * pairs.points_MZ[:, 1:]], 1)
                return Grid(points_MZ, pairs.weights_M, torch.full_like(points_MZ, 2.0 / n))
        states_SZ = self._enumerated()
        counted = Grid(states_SZ, torch.ones_like(states_SZ[:, 0]), torch.zeros_like(states_SZ))
        return product(around(samples_NZ[:, : self.reals], n), counted) if self.reals else counted

    def mismatch(self, samples_NZ: Tensor, grid: Grid, density_M: Tensor) -> str:
        """Describe how samples disagree with a density on such a grid; empty if they do not."""
        length_N = samples_NZ.norm(dim=1)
        length = f"samples have a length of up to {float(length_N.max()):.6g}: they are not"
        if self.space == "sphere" and bool(((length_N - 1.0).abs() > ON_SPHERE).any()):
            return f"{length} on the unit sphere"
        if self.space == "ball" and bool((length_N >= 1.0).any()):
            return f"{length} in the open unit ball"
        if not self.blocks:
            return mismatch(samples_NZ, grid, density_M)
        codes_NZ, states_SZ = samples_NZ[:, self.reals :], self._enumerated()
        state_N = (codes_NZ @ states_SZ.T).argmax(1)
        if not torch.equal(states_SZ[state_N], codes_NZ):
            return "samples are no one-hot vectors"
        mass_MS = (grid.weights_M * density_M).view(-1, self.states)
        chance_S = mass_MS.sum(0) / mass_MS.sum()
        share_S = torch.bincount(state_N, minlength=self.states) / len(state_N)
        error_S = (chance_S * (1.0 - chance_S) / len(state_N)).sqrt()  # of a binomial share
        # One sample more: of a state with hardly any chance a single one is many errors.
        if bool(((share_S - chance_S).abs() > ERRORS * error_S + 1.0 / len(state_N)).any()):
            worst = int(((share_S - chance_S).abs() - ERRORS * error_S).argmax())
            return (
                f"samples are in state {worst} with a share of {float(share_S[worst]):.4g}, log_prob gives "
                f"{float(chance_S[worst]):.4g} +- {float(error_S[worst]):.2g}"
            )
        for state in range(self.states) if self.reals else ():
            rows = slice(state, None, self.states)  # the states alternate fastest in a product
            points_MZ, cell_MZ = (x[rows, : self.reals].contiguous() for x in (grid.points_MZ, grid.cell_MZ))
            reals = Grid(points_MZ, grid.weights_M[rows].contiguous(), cell_MZ)
            samples_KZ = samples_NZ[state_N == state, : self.reals]
            if len(samples_KZ) > 1000 and (fault := mismatch(samples_KZ, reals, density_M[rows])):
                return f"{fault}, of state {state}"
        return ""

    def _enumerated(self) -> Tensor:
        """Return every state of the one-hot part, one row each: (S, sum of the blocks)."""
        choices = itertools.product(*(torch.eye(size, dtype=torch.float64) for size in self.blocks))
        return torch.stack([torch.cat(choice) for choice in choices])


def _circle(n: int) -> Grid:
    angle_M = torch.arange(n, dtype=torch.float64) * (2.0 * math.pi / n)
    points_MZ = torch.stack([angle_M.cos(), angle_M.sin()], 1)
    return Grid(points_MZ, torch.full_like(angle_M, 2.0 * math.pi / n), torch.full_like(points_MZ, 2.0 / n))


def fits(spec: Posterior | Prior, latents: int) -> bool:
    try:
        spec.check(latents)
    except ValueError:
        return False
    return True


def some_latents(spec: Posterior | Prior, least: int) -> int:
    """Return the smallest number of latents from `least` up that there can be."""
    return next(latents for latents in itertools.count(least) if fits(spec, latents))


def small_latents(spec: Posterior | Prior) -> list[int]:
    """Return the one or two smallest numbers of latents, where one can integrate over them."""
    start = some_latents(spec, 1)
    possible = [latents for latents in range(start, 2 * start + 2) if fits(spec, latents)]
    return [latents for latents in possible if Support.of(spec, latents).integrable][:2]


def few(spec: Posterior | Prior) -> str:
    return f"of {' and of '.join(map(str, small_latents(spec)))} latents"


def told_apart_with(spec: Posterior | Prior) -> int:
    """Return a number of latents that settings are told apart with: one that several numbers of categories divide."""
    return WITH_BLOCKS if spec.blocks(some_latents(spec, 1)) else some_latents(spec, 3)


def points(spec: Posterior | Prior, latents: int, *shape: int) -> Tensor:
    """Return latents of the space, (*shape, Z): random normal ones, or draws from a prior that lives there."""
    if spec.space == "real":
        return torch.randn(*shape, latents)
    prior = spec if isinstance(spec, Prior) else beside(spec, Prior)
    return prior.build(latents).sample(math.prod(shape)).view(*shape, latents)


def fellows(spec: Posterior | Prior, base: type[Part]) -> Iterator[Part]:
    """Yield the components of the other axis whose latents are those of this one, in the registry's order."""
    latents = some_latents(spec, 2)
    for name in names(base.axis):
        kind = lookup(base.axis, name)
        if kind.space != spec.space:
            continue
        # The number of categories is a field of both, and must be the same.
        both = SHARED & set(kind.model_fields) & set(type(spec).model_fields)
        fellow = changed(kind(), **{field: spec.setting(field) for field in both})
        if fellow is not None and fits(fellow, latents) and fellow.blocks(latents) == spec.blocks(latents):
            yield fellow


def beside(spec: Posterior | Prior, base: type[Part]) -> Part:
    """Return the component of the other axis that this one is tried with: the usual, or the smallest of its space."""
    if spec.space == "real":
        usual = StandardNormal() if issubclass(base, Prior) else DiagonalGaussian()
        assert isinstance(usual, base)
        return usual
    latents = some_latents(spec, 2)

    def weights(part: Part) -> int:
        built = part.build(latents) if isinstance(part, Prior) else part.build(1, latents)
        return sum(weight.numel() for weight in built.parameters())

    return min(fellows(spec, base), key=weights)
