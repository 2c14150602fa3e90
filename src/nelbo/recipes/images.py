"""The recipe for images of one's own: everything in it follows from what the images are."""

import math

from nelbo.data import Data
from nelbo.data.survey import Survey
from nelbo.likelihoods import Bernoulli, DiscretisedLogistic, Gaussian, Likelihood
from nelbo.likelihoods.spread import Learned
from nelbo.models import VAE
from nelbo.nets import MLP, Net, Residual
from nelbo.objectives import ELBO
from nelbo.optim import Adam
from nelbo.schedules import Cosine, Linear
from nelbo.training.recipe import Chosen, Recipe, recipe_for_data

DIGITS = Survey("digits", 1797, 1, (8, 8), (8, 8), "levels", spread=0.38, labels="10 classes")
LARGEST = 64  # height and width in pixels of a default: larger images take hours on two cores
FEW_PIXELS = 12 * 12  # up to which convolutions have nothing to share
WIDTHS = (32, 64, 128, 128, 128)  # channels of the levels; each has half the size of the one before
SMALLEST = 4  # height and width at which halving ends
SEEN = 350e6  # pixels of all epochs together, whatever their number: about ten minutes on two cores
EPOCHS = (20, 400)  # at least, at most


@recipe_for_data(DIGITS)
def images(facts: Survey) -> Chosen:
    """Your own images: looks at them and chooses size, network, latent, likelihood and length, and says why."""
    height, width = size = _size(facts)
    resized = None if facts.one_size and size == facts.largest else size
    net, network = _network(size, facts.n)
    latent = max(2, min(128, round(math.sqrt(facts.channels * height * width))))
    likelihood, why = _likelihood(facts)
    epochs_for_seen = SEEN / (facts.n * height * width)
    epochs = max(EPOCHS[0], min(EPOCHS[1], round(epochs_for_seen / 10) * 10))
    batch = 32 if facts.n < 5_000 else 64 if facts.n < 20_000 else 128
    warm_up, patience = max(1, epochs // 10), max(5, epochs // 5)
    recipe = Recipe(
        data=Data(source="digits", size=resized, validation=0.1, test=0.1),
        model=VAE(latent_dim=latent, encoder=net, decoder=_backwards(net), likelihood=likelihood),
        objective=ELBO(beta=Linear(epochs=warm_up)),
        optimizer=Adam(lr=Cosine(start=1e-3, end=5e-5)),
        epochs=epochs,
        batch_size=batch,
        patience=patience,
        # As in the run that was measured (benchmarks/photos.py). Alone it does not save twice the rate from NaN.
        clip_norm=1e4 if facts.pixels != "binary" else None,
        latent_every=max(1, epochs // 10),
    )
    how = "as they are" if resized is None else f"resized to {height} x {width} (another: --data.size 128)"
    reasons = (
        f"images: {facts}; {how}",
        f"network: {network}; latent {latent}, the root of {facts.channels * height * width} numbers an image",
        f"likelihood: {why}",
        f"training: {epochs} epochs of batches of {batch}, about the same work for every data set; the KL warms up for "
        f"{warm_up}, and training stops after {patience} epochs without a better validation bound",
        f"splits: {_splits(facts)}",
    )
    return Chosen(recipe, reasons)


def _size(facts: Survey) -> tuple[int, int]:
    """Return the height and width to train at: the smallest image's, at most 64 pixels on the longer side."""
    height, width = facts.smallest
    shrink = min(1.0, LARGEST / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _network(size: tuple[int, int], n: int) -> tuple[Net, str]:
    if size[0] * size[1] <= FEW_PIXELS:
        return MLP(
            hidden=(512, 256), activation="silu"
        ), f"fully connected, for {size[0]} x {size[1]} pixels are few"
    levels = max(1, min(len(WIDTHS), math.ceil(math.log2(max(size) / SMALLEST))))
    dropout = 0.1 if n < 1_000 else 0.0
    words = f"residual convolutions, {levels} levels of half the size each"
    words += f", dropout {dropout:g}, for {n:,} images are few" if dropout else ""
    return Residual(channels=WIDTHS[:levels], dropout=dropout), words


def _backwards(net: Net) -> Net:
    if isinstance(net, Residual):
        return net.model_copy(update={"channels": net.channels[::-1]})
    return MLP(hidden=(256, 512), activation="silu")


def _likelihood(facts: Survey) -> tuple[Likelihood, str]:
    # A first guess of the error: a fifth of the spread of the pixels. It is learned from there.
    start = max(0.01, facts.spread / 5)
    if facts.pixels == "binary":
        return Bernoulli(), "bernoulli, for every pixel is black or white"
    if facts.pixels == "levels":
        words = (
            "discretised-logistic, a probability of the 256 levels: bits/dim are real; its width is learned, so "
            "that sharp images are worth it"
        )
        return DiscretisedLogistic(scale=Learned(start=start)), words
    words = (
        f"gaussian with a learned width, for the pixels are numbers from {facts.low:.3g} to {facts.high:.3g}"
    )
    return Gaussian(sigma=Learned(start=start), mean="identity"), words


def _splits(facts: Survey) -> str:
    own = [split for split in ("validation", "test") if split in facts.splits]
    taken = [split for split in ("validation", "test") if split not in facts.splits]
    words = [f"{' and '.join(own)} as the source has them"] if own else []
    return ", ".join([*words, *(f"{split} a tenth of the training images" for split in taken)])
