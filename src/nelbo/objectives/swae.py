"""The sliced Wasserstein autoencoder."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from nelbo.objectives.matching import Matching


class SWAE(Matching):
    """-log p(x|z) + weight * SW^2(q(z), p(z)). Kolouri et al. 2019, algorithm 1.

    SW^2 is the mean over directions of the squared Wasserstein distance between projections onto a line, where the
    best transport is in order of size:

        SW^2 = 1/(L B) sum_l sum_i (sort(theta_l . z)_i - sort(theta_l . z')_i)^2      z ~ q(z), z' ~ p(z)

    projections  L: directions on the unit sphere, drawn anew for every batch
    """

    part: ClassVar[str] = "sliced_wasserstein"

    projections: int = Field(default=50, ge=1)

    def distance(self, q_KBZ: Tensor, p_KBZ: Tensor) -> Tensor:
        random_LZ = torch.randn(self.projections, q_KBZ.shape[-1], dtype=q_KBZ.dtype, device=q_KBZ.device)
        directions_LZ = F.normalize(random_LZ, dim=-1)  # a normal vector points in a uniform direction
        return sliced(q_KBZ, p_KBZ, directions_LZ)


def sliced(q_KBZ: Tensor, p_KBZ: Tensor, directions_LZ: Tensor) -> Tensor:
    """Return the mean squared 2-Wasserstein distance of the projections; too large for few samples."""

    def ordered(z_KBZ: Tensor) -> Tensor:
        # No matrix product: it would be rounded to bfloat16 where the step runs in it.
        return (z_KBZ.unsqueeze(-2) * directions_LZ).sum(-1).sort(-2).values

    return (ordered(q_KBZ) - ordered(p_KBZ)).square().mean()
