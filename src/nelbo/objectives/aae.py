"""The adversarial autoencoder."""

from typing import ClassVar

from pydantic import Field
from torch import nn

from nelbo.core import Draw, Progress, Terms
from nelbo.core.vocabulary import Shape
from nelbo.objectives.base import Owner, halves
from nelbo.objectives.critic import Critic, CriticModule, taken_for_real, told_apart
from nelbo.objectives.matching import prior_draws


class AAE(Owner):
    """Reconstruction, and latents that a critic cannot tell from the prior's. Makhzani et al. 2016, section 2.

        encoder, decoder   -log p(x|z) + weight * -log D(z)       z ~ q(z|x)
        critic             -log D(z') - log(1 - D(z))             z' ~ p(z), z detached

    No KL is minimised: the aggregated posterior, not each q(z|x), is moved to any prior that can be sampled. Of a
    posterior that is a point there is no bound; of one with a density the ELBO is reported, which was not trained.

    weight  of the adversarial term, beside nats of the reconstruction
    critic  of latents
    """

    needs_density: ClassVar[bool] = False
    loss_is_bound: ClassVar[bool] = False

    weight: float = Field(default=1.0, ge=0.0)
    critic: Critic = Critic()

    def build(self, latent_dim: int, shape: Shape) -> CriticModule:
        return self.critic.build(latent_dim)

    def terms(self, draw: Draw, progress: Progress, module: nn.Module | None) -> Terms:
        assert module is not None
        parts, bound_B = halves(draw)
        fooled_B = taken_for_real(module(draw.z_KBZ)).mean(0)  # the encoder plays the generator's part
        # The critic's own loss must not move the encoder: z is a constant to it.
        critic_B = told_apart(module(prior_draws(draw)), module(draw.z_KBZ.detach())).mean(0)
        loss_B = parts["reconstruction"] + self.weight * fooled_B
        parts |= {"adversarial": fooled_B, "critic_loss": critic_B}
        return Terms(loss_B, bound_B, parts, critic_loss_B=critic_B)
