"""One importance-weighted bound for the decoder, another for the encoder."""

from collections.abc import Mapping

from torch import Tensor

from nelbo.core import Draw
from nelbo.objectives.base import Objective, Side
from nelbo.objectives.iwae import IWAE
from nelbo.objectives.miwae import MIWAE
from nelbo.objectives.weighted import Grouped, log_mean, with_gradient_of


class PIWAE(Grouped):
    """Decoder and prior follow the IWAE of all k samples, the encoder the MIWAE of M groups. Rainforth et al. 2018.

    The decoder gets the tightest bound, the encoder the less noisy gradient. With the shares u of all samples and v of
    groups (over M), one loss has both gradients: sum u log p(x, z) reaches the decoder and, through z, the encoder,
    where (v - u) dlog p(x, z)/dz makes u into v; -v log q belongs to the encoder alone. The value of the loss is minus
    the decoder's bound.
    """

    @property
    def follows(self) -> Mapping[Side, Objective | None]:
        groups = MIWAE(k=self.k, groups=self.groups, beta=self.beta)
        return {"encoder": groups, "decoder": IWAE(k=self.k, beta=self.beta)}

    @property
    def follows_samples(self) -> bool:
        return True

    def minimised(self, draw: Draw, log_w_KB: Tensor, beta: float) -> Tensor:
        decoder_KB = log_w_KB.softmax(0).detach()  # u
        encoder_KB = self.in_groups(log_w_KB).softmax(0).flatten(0, 1).detach() / self.groups  # v
        joint_B = self.followed(draw, beta, decoder_KB, encoder_KB)
        return with_gradient_of(log_mean(log_w_KB), joint_B - beta * (encoder_KB * draw.log_qz_KB).sum(0))
