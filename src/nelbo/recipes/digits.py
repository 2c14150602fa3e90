"""The demonstration, on digits that are part of scikit-learn."""

from nelbo.data import Binarise, Data
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO
from nelbo.optim import Adam
from nelbo.schedules import Linear
from nelbo.training.recipe import START, Recipe, recipe


@recipe(group=START)
def digits() -> Recipe:
    """The demo: 1,797 embedded 8x8 digits, binarised, MLP, latent 2. Test NELBO 19.3 +- 0.2 (n = 3); 5 s."""
    return Recipe(
        data=Data(source="digits", transforms=(Binarise(),), validation=0.1),
        model=VAE(latent_dim=2, encoder=MLP(hidden=(256, 128)), decoder=MLP(hidden=(128, 256))),
        objective=ELBO(beta=Linear(epochs=20)),  # without the ramp the latent is ignored for ten epochs
        optimizer=Adam(lr=1e-3),
        epochs=100,
        batch_size=64,
        latent_every=5,
    )
