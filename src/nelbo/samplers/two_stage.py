"""A second VAE, of the latents."""

import torch
from torch import Tensor

from nelbo.core import Progress
from nelbo.likelihoods import Gaussian
from nelbo.likelihoods.spread import Learned as LearnedSpread
from nelbo.models import VAE, BuiltModel
from nelbo.nets import MLP
from nelbo.nets.base import Width
from nelbo.objectives import ELBO
from nelbo.samplers.base import Fitted, Latents, nonzero
from nelbo.samplers.learned import Learned


class TwoStage(Learned):
    """u ~ N(0, I), z ~ N(f(u), g I): a VAE whose images are the latents of the first (Dai & Wipf 2019, section 4).

    Dai & Wipf 2019, "Diagnosing and enhancing VAE models". The second VAE has as many latents u as the first has z, so
    that it can make q(z) exactly N(0, I) where the first, whose z lie on a thinner set than R^Z, could not; g is
    learned. Trained with the ELBO on posterior samples, standardised in each dimension.

    hidden   widths of the second encoder; the decoder has them in reverse
    """

    hidden: tuple[Width, ...] = (128, 128)

    def fitted(self, model: BuiltModel, train: Latents, validation: Latents | None) -> Fitted:
        z_NZ = train.z_NZ
        mean_Z, std_Z = z_NZ.mean(0), nonzero(z_NZ.std(0))
        spec = VAE(
            latent_dim=train.latent_dim,
            encoder=MLP(hidden=self.hidden),
            decoder=MLP(hidden=self.hidden[::-1]),
            likelihood=Gaussian(sigma=LearnedSpread(start=1.0)),
        )
        second = spec.build((1, 1, train.latent_dim)).to(z_NZ)
        objective = ELBO()

        def loss(u_BZ: Tensor) -> Tensor:
            return objective(second.draw(u_BZ[:, None, None]), Progress()).loss_B

        learn_NZ, stop_MZ = self.split(train, validation)
        self.learn(second, loss, (learn_NZ - mean_Z) / std_Z, (stop_MZ - mean_Z) / std_Z)
        return FromSecond(second, mean_Z, std_Z)


class FromSecond:
    """Latents that the second VAE draws."""

    def __init__(self, second: BuiltModel, mean_Z: Tensor, std_Z: Tensor) -> None:
        self.second = second
        self.mean_Z = mean_Z
        self.std_Z = std_Z

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        u_NZ = self.second.sample_prior(n)
        drawn: Tensor = self.second.decode(u_NZ).sample()
        return self.mean_Z + self.std_Z * drawn.flatten(1)
