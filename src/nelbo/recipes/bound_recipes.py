"""Bounds and gradient estimators on the embedded digits, at one network and one length of training."""

from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO, Objective
from nelbo.objectives.capacity_control import CapacityControl
from nelbo.objectives.ciwae import CIWAE
from nelbo.objectives.geco import GECO
from nelbo.objectives.iwae import IWAE
from nelbo.objectives.miwae import MIWAE
from nelbo.objectives.piwae import PIWAE
from nelbo.objectives.renyi import Renyi
from nelbo.recipes.model_recipes import on_digits
from nelbo.schedules import Cyclic, Linear, Sigmoid
from nelbo.training.recipe import Recipe, recipe

WARM_UP = Linear(epochs=20)  # without it the latents are ignored for ten epochs


def _bound(objective: Objective) -> Recipe:
    model = VAE(latent_dim=8, encoder=MLP(hidden=(128,)), decoder=MLP(hidden=(128,)))
    return on_digits(model, objective, lr=2e-3, latent_every=20)


@recipe
def elbo_warm_up() -> Recipe:
    """digits, MLP, latent 8, ELBO with a linear warm-up. Test NELBO 18.1 +- 0.1 (n = 3); 6 s."""
    return _bound(ELBO(beta=WARM_UP))


@recipe
def cyclic_warm_up() -> Recipe:
    """digits, MLP, latent 8, ELBO with a warm-up in four cycles. Test NELBO 18.1 +- 0.1 (n = 3); 4 s."""
    return _bound(ELBO(beta=Cyclic(period=25)))


@recipe
def sigmoid_warm_up() -> Recipe:
    """digits, MLP, latent 8, ELBO with a sigmoid warm-up. Test NELBO 18.1 +- 0.0 (n = 3); 3 s."""
    return _bound(ELBO(beta=Sigmoid(epochs=40)))


@recipe
def free_bits() -> Recipe:
    """digits, MLP, latent 8, ELBO with a free bit for every two latents. Test NELBO 17.9 +- 0.2 (n = 3); 4 s."""
    return _bound(ELBO(free_bits=0.7, group=2))


@recipe
def capacity_control() -> Recipe:
    """digits, MLP, latent 8, a KL brought to 8 nats. Test NELBO 19.0 +- 0.1 (n = 3); 5 s."""
    return _bound(CapacityControl(gamma=5.0, capacity=Linear(end=8.0, epochs=50)))


@recipe
def geco() -> Recipe:
    """digits, MLP, latent 8, GECO at 0.2 nats a pixel. Test NELBO 18.3 +- 0.1 (n = 3); 4 s."""
    return _bound(GECO(tolerance=0.2, rate=0.03))


@recipe
def iwae() -> Recipe:
    """digits, MLP, latent 8, IWAE with 5 samples. Test NELBO 18.5 +- 0.2 (n = 3); 4 s."""
    return _bound(IWAE(k=5, beta=WARM_UP))


@recipe
def iwae_stl() -> Recipe:
    """digits, MLP, latent 8, IWAE with 5 samples, sticking the landing. Test NELBO 18.3 +- 0.2 (n = 3); 4 s."""
    return _bound(IWAE(k=5, beta=WARM_UP, gradient="stl"))


@recipe
def iwae_dreg() -> Recipe:
    """digits, MLP, latent 8, IWAE with 5 samples, doubly reparametrised. Test NELBO 18.4 +- 0.2 (n = 3); 6 s."""
    return _bound(IWAE(k=5, beta=WARM_UP, gradient="dreg"))


@recipe
def miwae() -> Recipe:
    """digits, MLP, latent 8, MIWAE with 4 groups of 4 samples. Test NELBO 18.2 +- 0.1 (n = 3); 5 s."""
    return _bound(MIWAE(k=16, groups=4, beta=WARM_UP))


@recipe
def piwae() -> Recipe:
    """digits, MLP, latent 8, PIWAE with 4 groups of 4 samples. Test NELBO 18.6 +- 0.1 (n = 3); 12 s."""
    return _bound(PIWAE(k=16, groups=4, beta=WARM_UP))


@recipe
def ciwae() -> Recipe:
    """digits, MLP, latent 8, CIWAE with 16 samples. Test NELBO 19.0 +- 0.3 (n = 3); 5 s."""
    return _bound(CIWAE(k=16, share=0.05, beta=WARM_UP))


@recipe
def renyi() -> Recipe:
    """digits, MLP, latent 8, Renyi bound at alpha 0.5 with 5 samples. Test NELBO 18.1 +- 0.0 (n = 3); 3 s."""
    return _bound(Renyi(k=5, alpha=0.5, beta=WARM_UP))
