"""One network on the digits under every prior on R^Z: what the prior alone is worth."""

from __future__ import annotations

from nelbo.models import VAE
from nelbo.objectives import ELBO
from nelbo.priors import Prior
from nelbo.priors.exemplar import Exemplar
from nelbo.priors.learned_normal import LearnedNormal
from nelbo.priors.maf import MAF
from nelbo.priors.mixture import Mixture
from nelbo.priors.real_nvp import RealNVP
from nelbo.priors.vamp import Vamp
from nelbo.recipes.model_recipes import NETS, on_digits
from nelbo.schedules import Linear
from nelbo.training.recipe import Recipe, recipe


def _under(prior: Prior) -> Recipe:
    return on_digits(VAE(latent_dim=8, prior=prior, **NETS), ELBO(beta=Linear(epochs=20)))


@recipe
def learned_normal_prior() -> Recipe:
    """digits, MLP, latent 8, a prior of learned means and variances. Test NELBO 17.6 +- 0.1 (n = 3); 5 s."""
    return _under(LearnedNormal())


@recipe
def mixture_prior() -> Recipe:
    """digits, MLP, latent 8, a prior of 50 normals. Test NELBO 17.4 +- 0.1 (n = 3); 9 s."""
    return _under(Mixture(components=50))


@recipe
def vamp_prior() -> Recipe:
    """digits, MLP, latent 8, VampPrior of 200 pseudo-inputs. Test NELBO 17.3 +- 0.1 (n = 3); 23 s."""
    return _under(Vamp(components=200))


@recipe
def exemplar_prior() -> Recipe:
    """digits, MLP, latent 8, a prior of the training images. Test NELBO 17.1 +- 0.2 (n = 3); 22 s."""
    return _under(Exemplar())


@recipe
def real_nvp_prior() -> Recipe:
    """digits, MLP, latent 8, a prior of affine couplings. Test NELBO 17.5 +- 0.1 (n = 3); 15 s."""
    return _under(RealNVP(layers=8, hidden=(64,)))


@recipe
def maf_prior() -> Recipe:
    """digits, MLP, latent 8, a masked autoregressive prior. Test NELBO 17.4 +- 0.2 (n = 3); 9 s."""
    return _under(MAF())
