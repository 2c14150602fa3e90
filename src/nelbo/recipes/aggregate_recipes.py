"""Objectives on the aggregated posterior, on the embedded digits."""

from nelbo.models import VAE
from nelbo.objectives import Objective
from nelbo.objectives.dip_vae import DIPVAE
from nelbo.objectives.factor_vae import FactorVAE
from nelbo.objectives.info_vae import InfoVAE
from nelbo.objectives.swae import SWAE
from nelbo.objectives.tcvae import TCVAE
from nelbo.objectives.wae import WAE
from nelbo.posteriors import DiagonalGaussian, Posterior
from nelbo.posteriors.dirac import Dirac
from nelbo.recipes.model_recipes import NETS, on_digits
from nelbo.training.recipe import Recipe, recipe


def _digits(objective: Objective, posterior: Posterior = DiagonalGaussian()) -> Recipe:  # noqa: B008  frozen
    model = VAE(latent_dim=8, posterior=posterior, **NETS)
    return on_digits(model, objective, epochs=60, latent_every=10)


@recipe
def tcvae() -> Recipe:
    """digits, MLP, latent 8, beta-TCVAE with beta 3. Test NELBO 19.3 +- 0.2 (n = 3); 5 s."""
    return _digits(TCVAE(beta=3.0))


@recipe
def factor_vae() -> Recipe:
    """digits, MLP, latent 8, FactorVAE with gamma 3. Test NELBO 18.3 +- 0.2 (n = 3); 7 s."""
    return _digits(FactorVAE(gamma=3.0))


@recipe
def dip_vae() -> Recipe:
    """digits, MLP, latent 8, DIP-VAE-II. Test NELBO 20.0 +- 0.2 (n = 3); 6 s."""
    return _digits(DIPVAE())


@recipe
def info_vae() -> Recipe:
    """digits, MLP, latent 8, InfoVAE with half of the KL and an MMD. Test NELBO 19.1 +- 0.1 (n = 3); 9 s."""
    return _digits(InfoVAE(alpha=0.5))


@recipe
def wae() -> Recipe:
    """digits, MLP, latent 8, a point as posterior, WAE-MMD: not a bound (n = 3); 10 s."""
    return _digits(WAE(weight=20.0), Dirac())


@recipe
def swae() -> Recipe:
    """digits, MLP, latent 8, a point as posterior, sliced Wasserstein: not a bound (n = 3); 4 s."""
    return _digits(SWAE(weight=20.0), Dirac())
