"""The ELBO and the importance-weighted bound, combined."""

from pydantic import Field
from torch import Tensor

from nelbo.core import Draw
from nelbo.objectives.weighted import ImportanceWeighted, log_mean


class CIWAE(ImportanceWeighted):
    """share ELBO + (1 - share) IWAE, both of the same k samples. Rainforth et al. 2018, section 5.

    share  of the ELBO: beta of the paper, which here is the weight of the KL. 0 is the IWAE, 1 the ELBO
    """

    share: float = Field(default=0.05, ge=0.0, le=1.0)

    def minimised(self, draw: Draw, log_w_KB: Tensor, beta: float) -> Tensor:
        # Samples of both terms are shared: the second costs no pass of the networks.
        return -(self.share * log_w_KB.mean(0) + (1.0 - self.share) * log_mean(log_w_KB))
