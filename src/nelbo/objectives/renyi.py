"""The Renyi bound."""

from torch import Tensor

from nelbo.core import Draw
from nelbo.objectives.weighted import ImportanceWeighted, log_mean


class Renyi(ImportanceWeighted):
    """1/(1 - alpha) log 1/k sum_k w_k^(1 - alpha). Li & Turner 2016, section 4.

    alpha = 1 is the ELBO, alpha = 0 the IWAE, alpha -> -infinity max_k log w_k (VR-max). With alpha in [0, 1] it is at
    most log p(x) in expectation; with alpha < 0 it may lie above and is no bound (their theorems 1 and 2).
    What is reported is the importance-weighted bound of the same samples, for every alpha.

    alpha  below 0 it covers mass, above 1 it seeks modes; near 1 float32 loses 1e-7 / (1 - alpha) of log w's spread
    """

    alpha: float = 0.5

    def minimised(self, draw: Draw, log_w_KB: Tensor, beta: float) -> Tensor:
        mean_B = log_w_KB.mean(0)
        if self.alpha == 1.0:  # the limit, which the formula has as 0 / 0
            return -mean_B
        # About the mean: near alpha 1 the quotient is of a small number, and log w of a hundred nats would drown it.
        spread_KB = (1.0 - self.alpha) * (log_w_KB - mean_B)
        return -(mean_B + log_mean(spread_KB) / (1.0 - self.alpha))
