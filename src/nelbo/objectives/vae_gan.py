"""The VAE whose reconstructions are compared by the features of a critic."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from nelbo.core import Draw, Progress, Terms
from nelbo.core.vocabulary import Shape
from nelbo.objectives.base import Owner, halves, kl_of
from nelbo.objectives.critic import ImageCritic, ImageCriticModule, taken_for_real, told_apart
from nelbo.objectives.matching import prior_draws
from nelbo.schedules import Constant, Schedule


class VAEGAN(Owner):
    """KL and the squared error of a critic's features, and images that it takes for real. Larsen et al. 2016, alg. 1.

        encoder   beta * KL(q || p) + 1/2 |D_l(x) - D_l(x')|^2
        decoder   gamma * 1/2 |D_l(x) - D_l(x')|^2 - log D(x') - log D(x'')
        critic    -log D(x) - log(1 - D(x')) - log(1 - D(x''))

    x' = E[x|z] of z ~ q(z|x), x'' = E[x|z] of z ~ p(z), D_l the features of layer l, where the critic's `net` ends. One
    loss: what only the decoder minimises is made of latents that are detached. The likelihood is not trained, and
    needs no spread; the ELBO reported says how far this leads from it.

    beta    weight of the KL against an error whose scale is the critic's: 1 in the paper; a number or a schedule
    gamma   weight of the feature error in the decoder's loss, against the critic's verdict
    critic  of images
    """

    name: ClassVar[str] = "vae-gan"
    loss_is_bound: ClassVar[bool] = False
    one_loss: ClassVar[bool] = False

    beta: Schedule = Constant(value=1.0)
    gamma: float = Field(default=1.0, ge=0.0)
    critic: ImageCritic = ImageCritic(lr=1e-4)

    def build(self, latent_dim: int, shape: Shape) -> ImageCriticModule:
        return ImageCriticModule(self.critic, shape)

    def terms(self, draw: Draw, progress: Progress, module: nn.Module | None) -> Terms:
        assert isinstance(module, ImageCriticModule)
        assert draw.x_BCHW is not None
        assert draw.likelihood is not None
        assert draw.decode is not None
        parts, bound_B = halves(draw)
        # x' of detached latents, at the cost of another decoding: what only the decoder minimises stops there.
        fakes = draw.decode(draw.z_KBZ.detach()).mean, draw.decode(prior_draws(draw)).mean
        real_BF = module.features(draw.x_BCHW)

        def error(features_KBF: Tensor) -> Tensor:
            return 0.5 * (features_KBF - real_BF).square().sum(-1).mean(0)  # -log of a Gaussian of variance 1

        again_KBF = module.features(fakes[0])
        error_B = error(module.features(draw.likelihood.mean))
        fooled_B = (taken_for_real(module.head(again_KBF)) + taken_for_real(module(fakes[1]))).mean(0)
        critic_B = told_apart(module.head(real_BF), *(module(fake.detach()) for fake in fakes)).mean(0)
        loss_B = self.beta(progress) * kl_of(parts) + error_B
        # error_B reaches encoder and decoder with weight 1; the rest of the decoder's gamma is on detached latents.
        loss_B = loss_B + (self.gamma - 1.0) * error(again_KBF) + fooled_B
        parts |= {"feature_error": error_B, "adversarial": fooled_B, "critic_loss": critic_B}
        return Terms(loss_B, bound_B, parts, critic_loss_B=critic_B)
