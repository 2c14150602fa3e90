"""The spaces of latents, and moves in them: between two latents, along one direction, to the middle of many."""

import dataclasses
import math

import torch
from torch import Tensor

from nelbo.dists.base import Space
from nelbo.dists.hyperbolic import from_origin, from_point, move, to_origin
from nelbo.dists.onehot import one_hot
from nelbo.dists.sphere import unit
from nelbo.errors import ConfigError

KARCHER = 100  # steps to a Fréchet mean, down the slope
IN_WORDS: dict[Space, str] = {
    "real": "any real numbers",
    "sphere": "points of the unit sphere",
    "ball": "points of the open unit ball",
    "one-hot": "one-hot vectors",
    "mixed": "real numbers beside one-hot vectors",
    "codes": "vectors of a codebook",
}


@dataclasses.dataclass(frozen=True)
class LatentSpace:
    """The space of a model's latents. `blocks`: sizes of the one-hot vectors (or codes) that the last latents are.

    Whatever comes out is a latent of that space. On the sphere and in the ball lines are geodesics.
    """

    space: Space = "real"
    blocks: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        return IN_WORDS[self.space]

    def reals(self, latent_dim: int) -> int:
        """Return the number of latents that are no part of a one-hot vector."""
        return latent_dim - sum(self.blocks)

    def directions(self, latent_dim: int) -> list[str]:
        """Return the ways one can go, by name: latent dimensions, then categorical variables."""
        along = [f"z{place}" for place in range(self.reals(latent_dim))]
        return along + [f"variable {place}" for place in range(len(self.blocks))]

    def tempered(self, z: Tensor, temperature: float) -> Tensor:
        """Return latents at `temperature` times their distance from the origin; raise ConfigError without one."""
        if temperature == 1.0:
            return z
        match self.space:
            case "real":
                return temperature * z
            case "ball":
                return from_origin(temperature * to_origin(z))
            case "mixed":
                reals = self.reals(z.shape[-1])
                return torch.cat([temperature * z[..., :reals], z[..., reals:]], -1)
        raise ConfigError(
            f"temperature {temperature:g}: latents are {self.words}, which have no origin to be drawn nearer to; "
            "use temperature 1"
        )

    def path(self, start_Z: Tensor, end_Z: Tensor, share_S: Tensor) -> Tensor:
        """Return points at these shares of the way, both ends exactly included: (S, Z).

        Of one-hot vectors those that differ change one after the other.
        """
        share_S1 = share_S[:, None]
        match self.space:
            case "sphere":
                along = (start_Z * end_Z).sum()
                across_Z = end_Z - along * start_Z
                angle_S1 = share_S1 * torch.atan2(across_Z.norm(), along)  # acos has no digits near 0, pi
                if across_Z.norm() < 1e-6 and along < 0:  # opposite points: along any great circle
                    axis_Z = torch.zeros_like(start_Z)
                    axis_Z[start_Z.abs().argmin()] = 1.0
                    across_Z = axis_Z - (axis_Z * start_Z).sum() * start_Z
                way_SZ = angle_S1.cos() * start_Z + angle_S1.sin() * unit(across_Z)
            case "ball":
                way_SZ = move(start_Z.expand(len(share_S), -1), share_S1 * from_point(start_Z, end_Z))
            case _:
                way_SZ = start_Z * (1.0 - share_S1) + end_Z * share_S1
        first, changing = self.reals(len(start_Z)), []
        for size in self.blocks:  # each is one end's or the other's: a mean of two would be no one-hot vector
            block = slice(first, first + size)
            if not torch.equal(start_Z[block], end_Z[block]):
                changing.append(block)
            way_SZ[:, block] = start_Z[block]
            first += size
        for place, block in enumerate(changing):
            changed_S = share_S > (place + 0.5) / len(changing)
            way_SZ[changed_S, block] = end_Z[block]
        ends = torch.where(share_S1 == 0.0, start_Z, end_Z)  # to the last bit, which a geodesic rounds
        return torch.where((share_S1 == 0.0) | (share_S1 == 1.0), ends, way_SZ)

    def middle(self, z_NZ: Tensor) -> Tensor:
        """Return the mean of latents (on the sphere its direction, in the ball Fréchet's) or the commonest category."""
        mean_Z = z_NZ.mean(0)
        match self.space:
            case "sphere":
                return unit(mean_Z)
            case "ball":
                for _ in range(KARCHER):
                    v_NZ = from_point(mean_Z, z_NZ)
                    r_N = torch.linalg.vector_norm(v_NZ, dim=-1).clamp_min(1e-3)
                    # Down the slope of the mean of r^2 / 2, whose curvature r coth r bounds.
                    mean_Z = move(mean_Z, v_NZ.mean(0) / (r_N / r_N.tanh()).mean())
        if self.blocks:
            mean_Z = mean_Z.clone()
            pieces = torch.split(mean_Z[self.reals(len(mean_Z)) :], list(self.blocks))
            mean_Z[self.reals(len(mean_Z)) :] = torch.cat([one_hot(piece) for piece in pieces])
        return mean_Z

    def moved(self, z_Z: Tensor, direction: int, span: float, steps: int) -> Tensor:
        """Return copies of a latent that differ along one of the `directions`: (steps, Z).

        real, mixed   dimension j runs from -span to span
        ball          the same of the vector from the origin, whose length is the distance
        sphere        half a great circle through z, on which dimension j runs from -1 to 1
        one-hot       the variable goes through its categories
        """
        directions = len(self.directions(len(z_Z)))
        if not 0 <= direction < directions:
            raise ConfigError(f"no latent dimension {direction}; this model has 0 to {directions - 1}")
        if steps < 2:
            raise ConfigError(f"a traversal needs 2 steps or more (got {steps})")
        reals = self.reals(len(z_Z))
        if direction >= reals:
            return self._through_categories(z_Z, direction - reals, steps)
        start_Z = to_origin(z_Z) if self.space == "ball" else z_Z
        moved_SZ = start_Z.repeat(steps, 1)
        moved_SZ[:, direction] = torch.linspace(-span, span, steps)
        if self.space == "ball":
            return from_origin(moved_SZ)
        if self.space == "sphere":
            angle_S = torch.linspace(-0.5 * math.pi, 0.5 * math.pi, steps)
            moved_SZ[:, direction] = 0.0
            moved_SZ = unit(moved_SZ) * angle_S.cos()[:, None]
            moved_SZ[:, direction] = angle_S.sin()
        return moved_SZ

    def _through_categories(self, z_Z: Tensor, variable: int, steps: int) -> Tensor:
        first, size = self.reals(len(z_Z)) + sum(self.blocks[:variable]), self.blocks[variable]
        moved_SZ = z_Z.repeat(steps, 1)
        moved_SZ[:, first : first + size] = 0.0
        category_S = torch.arange(steps) * size // steps
        moved_SZ[torch.arange(steps), first + category_S] = 1.0
        return moved_SZ
