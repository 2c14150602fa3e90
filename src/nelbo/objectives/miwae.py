"""The mean of several importance-weighted bounds."""

from torch import Tensor

from nelbo.core import Draw
from nelbo.objectives.weighted import Grouped, log_mean


class MIWAE(Grouped):
    """1/M sum_m log 1/K sum_k w_mk: M groups of K samples, k = M K in all. Rainforth et al. 2018, section 5.

    M = 1 is the IWAE of k samples, M = k the ELBO of as many. The signal-to-noise ratio of the encoder's gradient
    grows as sqrt(M) and falls as 1 / sqrt(K) (their theorem 1).
    """

    def minimised(self, draw: Draw, log_w_KB: Tensor, beta: float) -> Tensor:
        return -log_mean(self.in_groups(log_w_KB)).mean(0)  # log-mean over K, then mean over the M groups
