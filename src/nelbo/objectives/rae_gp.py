"""The regularised autoencoder whose decoder's gradient is penalised."""

from typing import ClassVar

import torch
from pydantic import Field

from nelbo.core import Draw, Progress, Terms
from nelbo.objectives.rae import RAE


class RAEGP(RAE):
    """-log p(x|z) + latent_weight * 1/2 |z|^2 + decoder_weight * |d E[x|z] / dz|^2. Ghosh et al. 2020, section 3.1, GP.

    The squared Frobenius norm of the decoder's Jacobian, estimated without bias from one product a sample:
    E|v' J|^2 = |J|^2 for v of independent random signs (Hutchinson 1990). Where nothing is differentiated (in
    validation) the latents are decoded once more, so that this can be.
    """

    name: ClassVar[str] = "rae-gp"

    decoder_weight: float = Field(default=1e-2, ge=0.0)

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        assert draw.likelihood is not None
        assert draw.decode is not None
        training, has_graph = torch.is_grad_enabled(), draw.z_KBZ.requires_grad
        with torch.enable_grad():
            if has_graph:
                z_KBZ, mean = draw.z_KBZ, draw.likelihood.mean
            else:
                z_KBZ = draw.z_KBZ.detach().requires_grad_()
                mean = draw.decode(z_KBZ).mean
            signs = torch.randn_like(mean).sign()
            # One product v' J: the whole Jacobian would take as many passes back as there are pixels.
            (slope_KBZ,) = torch.autograd.grad(
                mean, z_KBZ, signs, create_graph=training, allow_unused=not has_graph
            )
        if slope_KBZ is None:  # of a decoder that is a table of discrete latents
            penalty_B = torch.zeros_like(draw.log_px_KB[0])
        else:
            penalty_B = slope_KBZ.square().sum(-1).mean(0)
        return self.regularised(draw, self.decoder_weight, gradient_penalty=penalty_B)
