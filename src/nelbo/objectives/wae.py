"""The Wasserstein autoencoder with a maximum mean discrepancy."""

from typing import ClassVar

from torch import Tensor

from nelbo.objectives.matching import Kernel, Matching, mmd


class WAE(Matching):
    """-log p(x|z) + weight * MMD^2(q(z), p(z)). Tolstikhin et al. 2018, eq. 4 and algorithm 2 (WAE-MMD).

    The optimal transport cost between images and model, with the constraint q(z) = p(z) relaxed to a penalty. The cost
    is -log p(x|z): of a Gaussian with fixed sigma the paper's squared error, divided by 2 sigma^2.

    kernel  imq, the inverse multiquadratics of the paper, or rbf, Gaussian; each at seven widths
    """

    part: ClassVar[str] = "mmd"

    kernel: Kernel = "imq"

    def distance(self, q_KBZ: Tensor, p_KBZ: Tensor) -> Tensor:
        return mmd(self.kernel, q_KBZ, p_KBZ)
