"""One method a row, each on the embedded digits: what changes in the recipe, and what the record of it promises.

    python benchmarks/methods.py [--seeds 0 1 2] [--only iwae vamp-prior] [--samples 1000] [--runs DIR]
    python benchmarks/methods.py --only iwae --print       the command that trains it by hand

Trains and records them in benchmarks/records/, one file a method, as `record.py` does for the recipes. The tables of
docs/objectives, posteriors, priors and models come from these records (`axes_pages.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import record

from nelbo.core.registry import lookup, names
from nelbo.training.recipe import Recipe, RecipeForData, named, resolve

BASE = "digits"
Changes = Mapping[str, Any]


class Method(NamedTuple):
    """A row: the folder of docs/ it belongs to, its overrides of the recipe `digits`, and its promise."""

    part: str
    changes: Changes
    promise: str


LATENT_8: dict[str, Any] = {"model.latent_dim": 8}
BOUND: dict[str, Any] = LATENT_8 | {
    "model.encoder.hidden": [128],
    "model.decoder.hidden": [128],
    "optimizer.lr": 0.002,
    "latent_every": 20,
}
AGGREGATE: dict[str, Any] = LATENT_8 | {"epochs": 60, "latent_every": 10}
NETS: dict[str, Any] = {"model.encoder.hidden": [256, 128], "model.decoder.hidden": [128, 256]}
FAST: dict[str, Any] = {"optimizer.lr": 0.003}
POINT: dict[str, Any] = {"model.posterior": "dirac"}
# Without a warm-up the latents are ignored for ten epochs. The ELBO of the base recipe has this one already.
WARM_UP: dict[str, Any] = {"objective.beta": "linear", "objective.beta.epochs": 20}
IWAE: dict[str, Any] = {"objective": "iwae", "objective.k": 5} | WARM_UP

# fmt: off
METHODS = {
    # Bounds and gradient estimators
    "elbo-warm-up": Method("objectives", BOUND,
        "MLP, latent 8, ELBO with a linear warm-up. Test NELBO 18.1 +- 0.1 (n = 3); 6 s."),
    "cyclic-warm-up": Method("objectives", BOUND | {"objective.beta": "cyclic", "objective.beta.period": 25},
        "MLP, latent 8, ELBO with a warm-up in four cycles. Test NELBO 18.1 +- 0.1 (n = 3); 4 s."),
    "sigmoid-warm-up": Method("objectives", BOUND | {"objective.beta": "sigmoid", "objective.beta.epochs": 40},
        "MLP, latent 8, ELBO with a sigmoid warm-up. Test NELBO 18.1 +- 0.0 (n = 3); 3 s."),
    "free-bits": Method("objectives", BOUND | {"objective.beta": 1.0, "objective.free_bits": 0.7,
        "objective.group": 2},
        "MLP, latent 8, ELBO with a free bit for every two latents. Test NELBO 17.9 +- 0.2 (n = 3); 4 s."),
    "capacity-control": Method("objectives", BOUND | {"objective": "capacity-control", "objective.gamma": 5.0,
        "objective.capacity": "linear", "objective.capacity.end": 8.0, "objective.capacity.epochs": 50},
        "MLP, latent 8, a KL brought to 8 nats. Test NELBO 19.0 +- 0.1 (n = 3); 5 s."),
    "geco": Method("objectives", BOUND | {"objective": "geco", "objective.tolerance": 0.2, "objective.rate": 0.03},
        "MLP, latent 8, GECO at 0.2 nats a pixel. Test NELBO 18.3 +- 0.1 (n = 3); 4 s."),
    "iwae": Method("objectives", BOUND | IWAE,
        "MLP, latent 8, IWAE with 5 samples. Test NELBO 18.5 +- 0.2 (n = 3); 4 s."),
    "iwae-stl": Method("objectives", BOUND | IWAE | {"objective.gradient": "stl"},
        "MLP, latent 8, IWAE with 5 samples, sticking the landing. Test NELBO 18.3 +- 0.2 (n = 3); 4 s."),
    "iwae-dreg": Method("objectives", BOUND | IWAE | {"objective.gradient": "dreg"},
        "MLP, latent 8, IWAE with 5 samples, doubly reparametrised. Test NELBO 18.4 +- 0.2 (n = 3); 6 s."),
    "miwae": Method("objectives", BOUND | {"objective": "miwae", "objective.k": 16, "objective.groups": 4} | WARM_UP,
        "MLP, latent 8, MIWAE with 4 groups of 4 samples. Test NELBO 18.2 +- 0.1 (n = 3); 5 s."),
    "piwae": Method("objectives", BOUND | {"objective": "piwae", "objective.k": 16, "objective.groups": 4} | WARM_UP,
        "MLP, latent 8, PIWAE with 4 groups of 4 samples. Test NELBO 18.6 +- 0.1 (n = 3); 12 s."),
    "ciwae": Method("objectives", BOUND | {"objective": "ciwae", "objective.k": 16, "objective.share": 0.05} | WARM_UP,
        "MLP, latent 8, CIWAE with 16 samples. Test NELBO 19.0 +- 0.3 (n = 3); 5 s."),
    "renyi": Method("objectives", BOUND | {"objective": "renyi", "objective.k": 5, "objective.alpha": 0.5} | WARM_UP,
        "MLP, latent 8, Renyi bound at alpha 0.5 with 5 samples. Test NELBO 18.1 +- 0.0 (n = 3); 3 s."),
    # The aggregated posterior
    "tcvae": Method("objectives", AGGREGATE | {"objective": "tcvae", "objective.beta": 3.0},
        "MLP, latent 8, beta-TCVAE with beta 3. Test NELBO 19.3 +- 0.2 (n = 3); 5 s."),
    "factor-vae": Method("objectives", AGGREGATE | {"objective": "factor-vae", "objective.gamma": 3.0},
        "MLP, latent 8, FactorVAE with gamma 3. Test NELBO 18.3 +- 0.2 (n = 3); 7 s."),
    "dip-vae": Method("objectives", AGGREGATE | {"objective": "dip-vae"},
        "MLP, latent 8, DIP-VAE-II. Test NELBO 20.0 +- 0.2 (n = 3); 6 s."),
    "info-vae": Method("objectives", AGGREGATE | {"objective": "info-vae", "objective.alpha": 0.5},
        "MLP, latent 8, InfoVAE with half of the KL and an MMD. Test NELBO 19.1 +- 0.1 (n = 3); 9 s."),
    "wae": Method("objectives", AGGREGATE | POINT | {"objective": "wae", "objective.weight": 20.0},
        "MLP, latent 8, a point as posterior, WAE-MMD: not a bound (n = 3); 10 s."),
    "swae": Method("objectives", AGGREGATE | POINT | {"objective": "swae", "objective.weight": 20.0},
        "MLP, latent 8, a point as posterior, sliced Wasserstein: not a bound (n = 3); 4 s."),
    # Autoencoders: regularised, perceptual, adversarial
    "rae-l2": Method("objectives", LATENT_8 | POINT | {"objective": "rae-l2", "objective.latent_weight": 0.1,
        "objective.decoder_weight": 0.005},
        "MLP, latent 8, a point and L2 of the decoder's weights; not a bound (n = 3); 3 s."),
    "rae-gp": Method("objectives", LATENT_8 | POINT | {"objective": "rae-gp", "objective.latent_weight": 0.1,
        "objective.decoder_weight": 0.1},
        "MLP, latent 8, a point and a penalty on the decoder's gradient; not a bound (n = 3); 4 s."),
    "rae-sn": Method("objectives", LATENT_8 | POINT | {"objective": "rae", "objective.latent_weight": 0.001,
        "model.decoder.spectral_norm": True},
        "MLP, latent 8, a point and a decoder with spectral normalisation; not a bound (n = 3); 4 s."),
    "ms-ssim": Method("objectives", LATENT_8 | {"objective": "ms-ssim", "objective.window": 3,
        "objective.scales": 2} | WARM_UP,
        "MLP, latent 8, half likelihood and half MS-SSIM of two scales. Test NELBO 18.2 +- 0.1 (n = 3); 7 s."),
    "aae": Method("objectives", LATENT_8 | POINT | {"objective": "aae", "objective.critic.hidden": [128, 128],
        "objective.critic.lr": 0.001},
        "MLP, latent 8, a point whose aggregate a critic holds to the prior; not a bound (n = 3); 4 s."),
    # A faster critic than this one always wins.
    "vae-gan": Method("objectives", LATENT_8 | {"objective": "vae-gan", "objective.beta": 0.1,
        "objective.gamma": 20.0, "objective.critic.net.hidden": [256], "objective.critic.lr": 0.0001},
        "MLP, latent 8, features of a critic instead of pixels. Test NELBO 19.5 +- 0.2 (n = 3); 33 s."),
    # Posteriors on R^Z
    "diagonal-gaussian": Method("posteriors", LATENT_8,
        "MLP, latent 8, diagonal Gaussian: what the others are set beside. Test NELBO 17.7 +- 0.1 (n = 3); 6 s."),
    "full-gaussian": Method("posteriors", LATENT_8 | {"model.posterior": "full-gaussian"},
        "MLP, latent 8, Gaussian with any covariance. Test NELBO 17.6 +- 0.2 (n = 3); 6 s."),
    "low-rank-gaussian": Method("posteriors", LATENT_8 | {"model.posterior": "low-rank-gaussian"},
        "MLP, latent 8, Gaussian with a diagonal covariance plus rank 2. Test NELBO 17.6 +- 0.2 (n = 3); 5 s."),
    "laplace-posterior": Method("posteriors", LATENT_8 | {"model.posterior": "laplace"},
        "MLP, latent 8, Laplace posterior. Test NELBO 18.4 +- 0.2 (n = 3); 5 s."),
    "planar": Method("posteriors", LATENT_8 | {"model.posterior": "planar", "model.posterior.layers": 10},
        "MLP, latent 8, 10 planar flows. Test NELBO 17.6 +- 0.1 (n = 3); 23 s."),
    "radial": Method("posteriors", LATENT_8 | {"model.posterior": "radial", "model.posterior.layers": 10},
        "MLP, latent 8, 10 radial flows. Test NELBO 17.8 +- 0.0 (n = 3); 9 s."),
    "iaf": Method("posteriors", LATENT_8 | {"model.posterior": "iaf", "model.posterior.hidden": 128},
        "MLP, latent 8, 2 inverse autoregressive flows of width 128. Test NELBO 17.8 +- 0.1 (n = 3); 24 s."),
    "spline-flow": Method("posteriors", LATENT_8 | {"model.posterior": "spline"},
        "MLP, latent 8, 2 coupling layers of splines. Test NELBO 17.6 +- 0.1 (n = 3); 16 s."),
    # Priors on R^Z
    "learned-normal-prior": Method("priors", LATENT_8 | {"model.prior": "learned-normal"},
        "MLP, latent 8, a prior of learned means and variances. Test NELBO 17.6 +- 0.1 (n = 3); 5 s."),
    "mixture-prior": Method("priors", LATENT_8 | {"model.prior": "mixture", "model.prior.components": 50},
        "MLP, latent 8, a prior of 50 normals. Test NELBO 17.4 +- 0.1 (n = 3); 9 s."),
    "vamp-prior": Method("priors", LATENT_8 | {"model.prior": "vamp", "model.prior.components": 200},
        "MLP, latent 8, VampPrior of 200 pseudo-inputs. Test NELBO 17.3 +- 0.1 (n = 3); 23 s."),
    "exemplar-prior": Method("priors", LATENT_8 | {"model.prior": "exemplar"},
        "MLP, latent 8, a prior of the training images. Test NELBO 17.1 +- 0.2 (n = 3); 22 s."),
    "real-nvp-prior": Method("priors", LATENT_8 | {"model.prior": "real-nvp", "model.prior.layers": 8,
        "model.prior.hidden": [64]},
        "MLP, latent 8, a prior of affine couplings. Test NELBO 17.5 +- 0.1 (n = 3); 15 s."),
    "maf-prior": Method("priors", LATENT_8 | {"model.prior": "maf"},
        "MLP, latent 8, a masked autoregressive prior. Test NELBO 17.4 +- 0.2 (n = 3); 9 s."),
    # Latents that live elsewhere than on R^Z
    "vmf": Method("spaces", {"model.latent_dim": 8, "model.posterior": "vmf", "model.prior": "uniform-sphere"},
        "MLP, latent 8, von Mises-Fisher on the sphere in R^8. Test NELBO 18.2 +- 0.1 (n = 3); 16 s."),
    "poincare": Method("spaces", {"model.latent_dim": 2, "model.posterior": "poincare",
        "model.prior": "wrapped-normal"},
        "MLP, latent 2, wrapped normal on the Poincare disk. Test NELBO 19.7 +- 0.2 (n = 3); 27 s."),
    "gumbel-softmax": Method("spaces", FAST | {"model.latent_dim": 40, "model.posterior": "gumbel-softmax",
        "model.posterior.categories": 4, "model.prior": "categorical", "model.prior.categories": 4},
        "MLP, latent 40, ten variables of four categories. Test NELBO 18.9 +- 0.1 (n = 3); 9 s."),
    "joint": Method("spaces", FAST | {"model.latent_dim": 14, "model.posterior": "joint",
        "model.posterior.categories": 10, "model.prior": "joint", "model.prior.categories": 10,
        "objective.free_bits": 1.0},
        "MLP, four reals beside a variable of ten, a free nat each. Test NELBO 17.9 +- 0.0 (n = 3); 10 s."),
    # Other models than the VAE
    "hierarchical-vae": Method("models", NETS | {"model": "hierarchical-vae", "model.latent_dim": 8,
        "model.between.hidden": [64]},
        "MLP, two levels of 4 latents each. Test NELBO 17.5 +- 0.2 (n = 3); 8 s."),
    "vq-vae": Method("models", NETS | {"model": "vq-vae", "model.codes": 32, "model.positions": 2,
        "model.prior": "autoregressive", "objective": "vq"},
        "MLP, 2 codes of 32, an autoregressive prior over them. Test NELBO 18.8 +- 0.2 (n = 3); 14 s."),
    "autoregressive-prior": Method("models", NETS | {"model": "vq-vae", "model.codes": 16, "model.positions": 4,
        "model.prior": "autoregressive", "objective": "vq"},
        "MLP, 4 codes of 16, an autoregressive prior over them. Test NELBO 20.0 +- 0.1 (n = 3); 5 s."),
}
# fmt: on


def recipe_of(name: str) -> Recipe:
    """Return a method's recipe, or the registered recipe of that name."""
    return resolve(BASE, METHODS[name].changes) if name in METHODS else named(name)


def every() -> list[str]:
    """Return the names of all recipes and methods, but for a recipe that is another one for all data."""
    fixed = {name for name in names("recipe") if not isinstance(lookup("recipe", name), RecipeForData)}
    return sorted({*fixed, *METHODS})


def command(name: str) -> str:
    """Return the command that trains a method by hand."""
    return " ".join([f"nelbo train {BASE}", *record.flags(METHODS[name].changes)])


def main() -> None:
    parser = record.parser(__doc__ or "", list(METHODS))
    parser.add_argument("--print", action="store_true", help="print the commands, train nothing")
    options = parser.parse_args()
    if options.print:
        print("\n".join(command(name) for name in options.only))
        return
    for name in options.only:
        record.record_seeds(options, BASE, METHODS[name].changes, name)


if __name__ == "__main__":
    main()
