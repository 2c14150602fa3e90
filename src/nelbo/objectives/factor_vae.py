"""FactorVAE: a critic estimates the total correlation of the latents."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nelbo.core import Draw, Progress, Terms
from nelbo.core.vocabulary import Shape
from nelbo.objectives.base import Owner, halves, kl_of
from nelbo.objectives.critic import Critic, CriticModule, told_apart


class FactorVAE(Owner):
    """-ELBO + gamma * TC, TC = KL(q(z) || prod_j q(z_j)) by a critic. Kim & Mnih 2018, eq. 2 and 3, algorithm 2.

        critic   -log D(z) - log(1 - D(z'))     z ~ q(z), z' the same with each dimension permuted over the batch
        TC       E_q(z)[log D(z) / (1 - D(z))], which is the critic's logit

    The estimate is the total correlation where the critic is perfect, and below it in expectation otherwise.

    gamma   of the total correlation, beside the ELBO
    critic  of latents
    """

    loss_is_bound: ClassVar[bool] = False

    gamma: float = Field(default=10.0, ge=0.0)
    critic: Critic = Critic(hidden=(128, 128))

    def build(self, latent_dim: int, shape: Shape) -> CriticModule:
        return self.critic.build(latent_dim)

    def terms(self, draw: Draw, progress: Progress, module: nn.Module | None) -> Terms:
        assert module is not None
        parts, bound_B = halves(draw)
        correlation_B = module(draw.z_KBZ).mean(0)  # the logit is log D / (1 - D): eq. 3
        z_KBZ = draw.z_KBZ.detach()
        # The paper permutes the latents of a second batch; these are of the same one, which halves the encoder's work.
        critic_B = told_apart(module(z_KBZ), module(permuted(z_KBZ))).mean(0)
        loss_B = parts["reconstruction"] + kl_of(parts) + self.gamma * correlation_B  # eq. 2
        parts |= {"total_correlation": correlation_B, "critic_loss": critic_B}
        return Terms(loss_B, bound_B, parts, critic_loss_B=critic_B)


def permuted(z_KBZ: Tensor) -> Tensor:
    """Return each dimension in its own random order over the batch: a sample of prod_j q(z_j) (algorithm 1)."""
    order_KBZ = torch.rand_like(z_KBZ).argsort(-2)  # `randperm` has one order: this is one for each dimension
    return z_KBZ.gather(-2, order_KBZ)
