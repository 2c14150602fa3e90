"""Any prior, fitted to the latents afterwards."""

import torch
from torch import Tensor

from nelbo.core.distributions import PriorModule
from nelbo.dists.base import Space, exact
from nelbo.errors import ConfigError
from nelbo.models import BuiltModel
from nelbo.priors import Prior
from nelbo.priors.real_nvp import RealNVP
from nelbo.samplers.base import Fitted, Latents, nonzero
from nelbo.samplers.learned import Learned

NOISE = 1e-3  # beside the deviation of the latents


class Density(Learned):
    """max_p 1/N sum_i log p(z_i), z_i ~ q(z | x_i): a prior p fitted by maximum likelihood after training.

    Ghosh et al. 2020, section 4, with any prior in place of a Gaussian mixture; with a flow it is the second stage of
    Böhm & Seljak 2020 ("Probabilistic auto-encoder"). Real latents are first whitened, z = mean + L u with L L^T their
    covariance, and p is a density of u: log p(z) = log p(u) - log det L. So a standard normal is the Gaussian of
    maximum likelihood, and a flow starts there.

    prior   any but those made of the model's own posteriors or of training images; `nelbo list prior`
    """

    prior: Prior = RealNVP()

    @property
    def spaces(self) -> tuple[Space, ...]:
        return (self.prior.space,)

    def fitted(self, model: BuiltModel, train: Latents, validation: Latents | None) -> Fitted:
        try:
            self.prior.check(train.latent_dim)
        except ValueError as error:
            raise ConfigError(f"sampler.prior: {error}") from None
        blocks = self.prior.blocks(train.latent_dim)
        if blocks != model.latent_space.blocks:
            raise ConfigError(
                f"sampler.prior: one-hot vectors of {self.prior.name} have the sizes {blocks}, and those of the "
                f"model {model.latent_space.blocks}"
            )
        module = self.prior.build(train.latent_dim).to(train.z_NZ)
        if module.made_of:
            raise ConfigError(
                f"sampler.prior: {self.prior.name} is made of {module.made_of} and cannot be fitted to latents "
                f"afterwards; train with --model.prior {self.prior.name}, or use another prior here "
                "(nelbo list prior)"
            )
        learn_NZ, stop_MZ = self.split(train, validation)
        white = Whitening(train.z_NZ) if self.prior.space == "real" else None
        if white is not None:
            learn_NZ, stop_MZ = white.noisy(learn_NZ), white.noisy(stop_MZ)
        self.learn(module, lambda u_BZ: -module.log_prob(u_BZ), learn_NZ, stop_MZ)  # maximum likelihood
        return FromDensity(module, white)


class Whitening:
    """u = L^-1 (z - mean) with L L^T the covariance of the latents it is made of, and of a little noise.

    The noise has a thousandth of their root mean square deviation. A dimension that never changes, or changes exactly
    with others, would otherwise let the likelihood grow without limit.
    """

    def __init__(self, z_NZ: Tensor) -> None:
        self.mean_Z = z_NZ.mean(0)
        centred_NZ = exact(z_NZ - self.mean_Z)
        covariance_ZZ = centred_NZ.T @ centred_NZ / max(1, len(z_NZ) - 1)
        self.noise = NOISE * float(nonzero(covariance_ZZ.diagonal().sqrt()).square().mean().sqrt())
        covariance_ZZ.diagonal().add_(self.noise**2)
        self.L_ZZ = torch.linalg.cholesky(covariance_ZZ).to(z_NZ)
        self.log_det = self.L_ZZ.diagonal().log().sum()

    def noisy(self, z_NZ: Tensor) -> Tensor:
        """Return latents whitened, with the noise: to be learned from."""
        return self.of(z_NZ + self.noise * torch.randn(z_NZ.shape).to(z_NZ))

    def of(self, z_NZ: Tensor) -> Tensor:
        u_ZN: Tensor = torch.linalg.solve_triangular(self.L_ZZ, (z_NZ - self.mean_Z).T, upper=False)
        return u_ZN.T

    def back(self, u_NZ: Tensor) -> Tensor:
        return torch.addmm(self.mean_Z, u_NZ, self.L_ZZ.T)


class FromDensity:
    """Latents from a fitted prior, and their density."""

    def __init__(self, module: PriorModule, white: Whitening | None) -> None:
        self.module, self.white = module, white

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        u_NZ = self.module.sample(n)
        return u_NZ if self.white is None else self.white.back(u_NZ)

    def log_prob(self, z_BZ: Tensor) -> Tensor:
        if self.white is None:
            return self.module.log_prob(z_BZ)
        log_pu_B: Tensor = self.module.log_prob(self.white.of(z_BZ))
        return torch.as_tensor(log_pu_B - self.white.log_det)  # log p(z) = log p(u) - log det L
