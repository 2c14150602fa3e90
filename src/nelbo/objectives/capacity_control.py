"""A KL that is held at a capacity."""

from typing import ClassVar

from pydantic import Field

from nelbo.core import Draw, Progress, Terms
from nelbo.objectives.base import Objective, halves, kl_of
from nelbo.schedules import Constant, Schedule


class CapacityControl(Objective):
    """-E_q[log p(x|z)] + gamma |KL - C|, C growing slowly. Burgess et al. 2018, eq. 8.

    The KL is its mean over the batch, so that images may differ in how much they tell. The bound reported is the ELBO.

    gamma     nats for each nat that the KL is off
    capacity  C, nats: a number or a schedule; the paper's grows linearly from 0 to 25
    """

    loss_is_bound: ClassVar[bool] = False
    gamma: float = Field(default=10.0, ge=0.0)
    capacity: Schedule = Constant(value=25.0)

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        parts, bound_B = halves(draw)
        kl_B = kl_of(parts)
        # A sum, and no `full`: in a captured step the scheduled number is a tensor.
        capacity_B = self.capacity(progress) + kl_B.detach() * 0.0
        loss_B = parts["reconstruction"] + self.gamma * (kl_B.mean() - capacity_B).abs()  # eq. 8
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts | {"capacity": capacity_B})
