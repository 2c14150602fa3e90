"""The importance-weighted bound, with three estimators of its gradient."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from nelbo.core import Draw
from nelbo.objectives.base import Objective, Side
from nelbo.objectives.weighted import (
    ImportanceWeighted,
    along,
    log_mean,
    slope_of_posterior,
    with_gradient_of,
)


class IWAE(ImportanceWeighted):
    """log 1/k sum_k w_k, w_k = p(x|z_k) p(z_k) / q(z_k|x). Burda et al. 2016, eq. 8.

    gradient, by the encoder (by the decoder it is always that of the bound), with shares v_k = w_k / sum w:

    total  of the bound as it stands. Its signal-to-noise ratio falls with k (Rainforth et al. 2018, theorem 1)
    stl    "sticking the landing": sum v_k dlog w_k/dz_k dz_k/dphi, the score left out (Roeder et al. 2017). Unbiased
           for k = 1; for k > 1 it is biased (Tucker et al. 2019) and follows no bound
    dreg   doubly reparametrised: sum v_k^2 dlog w_k/dz_k dz_k/dphi (Tucker et al. 2019, IWAE-DReG). Unbiased for
           every k. At another beta the factor is beta v_k^2 + (1 - beta) v_k, by the same identity

    The last two are exactly zero where q is the true posterior, and need a posterior that is reparametrised.
    """

    gradient: Literal["total", "stl", "dreg"] = "total"

    @property
    def follows(self) -> Mapping[Side, Objective | None]:
        if self.gradient == "total":
            return super().follows
        plain = IWAE(k=self.k, beta=self.beta)
        return {"encoder": None if self.gradient == "stl" and self.k > 1 else plain, "decoder": plain}

    @property
    def follows_samples(self) -> bool:
        return self.gradient != "total"

    def minimised(self, draw: Draw, log_w_KB: Tensor, beta: float) -> Tensor:
        bound_B = log_mean(log_w_KB)
        if self.gradient == "total":
            return -bound_B
        share_KB = log_w_KB.softmax(0).detach()  # v_k
        # The factor of dreg is v_k^2 at beta 1 (Tucker et al. 2019), that of stl v_k (Roeder et al. 2017).
        encoder_KB = (1.0 - beta + beta * share_KB) * share_KB if self.gradient == "dreg" else share_KB
        minus_log_q_KBZ = -beta * encoder_KB[..., None] * slope_of_posterior(draw)
        joint_B = self.followed(draw, beta, share_KB, encoder_KB)
        return with_gradient_of(bound_B, joint_B + along(minus_log_q_KBZ, draw.z_KBZ).sum(0))
