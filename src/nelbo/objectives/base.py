"""What every objective is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from nelbo.config import Spec
from nelbo.core import Draw, Progress, Terms


class Objective(Spec):
    """Maps a Draw of `k` samples an image to the loss that is minimised and the bound that is reported.

    `parts` holds at least `reconstruction` (-log p(x|z)) and `kl`, each nats an image of shape B.
    """

    axis: ClassVar[str] = "objective"
    k: int = Field(default=1, ge=1)

    @field_validator("k")
    @classmethod
    def _at_least_one_sample(cls, k: int) -> int:  # also where a subclass gives k a default of its own
        if k < 1:
            raise ValueError("expected at least one sample")
        return k

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        raise TypeError(f"{type(self).__name__} is abstract")
