"""The objective of models whose latents are codes."""

from typing import ClassVar

from nelbo.core import Draw, Progress, Terms
from nelbo.objectives.base import Objective, halves, kl_of
from nelbo.schedules import Constant, Schedule


class VQ(Objective):
    """-log p(x|z) - log p(codes) + commitment || encoded - sg[codes] ||^2. van den Oord et al. 2017, eq. 3.

    The first two terms are the ELBO, which is the bound that is reported: q is certain of its codes, and its KL is
    their length. The codebook's own term of the paper (the second of eq. 3) is not here: the codebook follows the
    encodings by running means, as in the paper's appendix A.1. A prior that is learned is fitted by the code length.

    commitment   the paper's beta: weight of the squared distance between what the encoder says and its codes
    """

    commits: ClassVar[bool] = True

    commitment: Schedule = Constant(value=0.25)

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        parts, bound_B = halves(draw)
        loss_B = parts["reconstruction"] + kl_of(parts)
        if (distance_B := draw.posterior.commitment_B) is not None:
            loss_B = loss_B + self.commitment(progress) * distance_B  # third term of eq. 3
            parts |= {"commitment": distance_B, **draw.posterior.usage}
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts)
