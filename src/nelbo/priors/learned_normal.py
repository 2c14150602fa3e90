"""The diagonal normal prior whose mean and variances are learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nelbo.dists.base import LOG_2PI
from nelbo.dists.normal import NormalPrior, cross_entropy
from nelbo.priors.base import Prior


class LearnedNormal(Prior):
    """p(z) = N(m, diag(v)), m and log v weights that begin at the standard normal. Kingma & Welling 2014, section 2.1.

    Gaussian posteriors have their KL to it in closed form (their appendix B). With a linear layer after the
    posterior's mean and before the decoder it describes nothing that N(0, I) does not: it frees the scale of latents.
    """

    def build(self, latent_dim: int) -> LearnedNormalModule:
        return LearnedNormalModule(latent_dim)


class LearnedNormalModule(NormalPrior):
    """N(mean_Z, diag(exp(log_var_Z)))."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.mean_Z = nn.Parameter(torch.zeros(latent_dim))
        self.log_var_Z = nn.Parameter(torch.zeros(latent_dim))

    def log_prob(self, z: Tensor) -> Tensor:
        scaled = (z - self.mean_Z).square() * (-self.log_var_Z).exp()
        return -0.5 * (scaled + self.log_var_Z + LOG_2PI).sum(-1)

    def sample(self, n: int) -> Tensor:
        noise_NZ = torch.randn(n, len(self.mean_Z), device=self.mean_Z.device, dtype=self.mean_Z.dtype)
        return torch.addcmul(self.mean_Z, (0.5 * self.log_var_Z).exp(), noise_NZ)

    def cross_entropy(self, mean_BZ: Tensor, var_BZ: Tensor) -> Tensor:
        return cross_entropy(mean_BZ, var_BZ, self.mean_Z, self.log_var_Z)
