"""Checks of q(z | x) itself: the source of its samples, and the shapes it can take.

These look at behaviour, not at names, so that they hold for a plug-in's posterior too: the posterior's head is
built with random weights and asked about random features.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nelbo.core.distributions import PosteriorValue
from nelbo.dists.spaces import IN_WORDS
from nelbo.doctor.base import Finding, check
from nelbo.doctor.case import Case, NotLooked
from nelbo.engine import fixed_seed
from nelbo.posteriors import DiagonalGaussian
from nelbo.priors import StandardNormal

FEATURES, PROBES, SAMPLES = 8, 64, 256  # of the random head: features in, inputs, samples of each
STEIN_ERROR = 0.25  # ten times the noise of an entry with 64 x 256 samples
WIDE = 1e3  # features so large that only a squashed mean stays small
USUAL = {"model.posterior.parametrisation": "log-variance"}


def built_posterior(case: Case, scale: float = 1.0) -> PosteriorValue:
    """Return q(z | x) of this configuration's kind, untrained, for PROBES random inputs."""
    spec = case.recipe.model.setting("posterior")
    if spec is None:
        raise NotLooked(f"a {case.recipe.model.name} has no posterior of its own to look at")
    cpu = torch.device("cpu")
    with fixed_seed(0, cpu), torch.no_grad():
        head = spec.build(FEATURES, case.recipe.model.latent_dim)  # type: ignore[attr-defined]
        value: PosteriorValue = head(scale * torch.randn(PROBES, FEATURES))
        return value


def stein_matrix(posterior: PosteriorValue, samples: int = SAMPLES) -> Tensor:
    """Return E[(z_i - mean_i) d log q / d z_j], float64 (Z, Z): minus the identity where z comes from the density q."""
    # Stein's identity (Stein 1972), for any smooth density on R^Z.
    z_KBZ = posterior.rsample(samples).detach().requires_grad_()
    (score_KBZ,) = torch.autograd.grad(posterior.log_prob(z_KBZ).sum(), z_KBZ)
    moved_KBZ = (z_KBZ.detach() - posterior.mean.detach()).double()
    std_BZ = moved_KBZ.square().mean(0).sqrt().clamp_min(1e-12)
    # Scaled by the samples' own standard deviation, so that dimensions can be compared.
    left, right = (moved_KBZ / std_BZ).flatten(0, 1), (score_KBZ.double() * std_BZ).flatten(0, 1)
    return left.T @ right / len(left)


@check("configuration")
def sampled_posterior(case: Case) -> Iterator[Finding]:
    """A posterior whose samples do not come from the density that its KL is computed with: no bound then exists."""
    latent_dim = case.recipe.model.latent_dim  # type: ignore[attr-defined]
    posterior = built_posterior(case)
    if posterior.is_point:
        raise NotLooked("this posterior is a point: it has no density, and no KL is computed with one")
    if (space := case.recipe.model.posterior.space) != "real":  # type: ignore[attr-defined]
        raise NotLooked(f"Stein's identity is of densities on R^Z, and latents here are {IN_WORDS[space]}")
    with fixed_seed(1, torch.device("cpu")), torch.enable_grad():
        try:
            matrix_ZZ = stein_matrix(posterior)
        except RuntimeError:  # NotImplementedError is one
            raise NotLooked("this posterior has no density that can be differentiated") from None
    error_ZZ = matrix_ZZ + torch.eye(latent_dim, dtype=torch.float64)
    worst = float(error_ZZ.abs().max())
    reason = posterior.not_a_bound
    if reason is None and worst <= STEIN_ERROR:
        return
    i, j = divmod(int(error_ZZ.abs().argmax()), latent_dim)
    evidence = (
        f"Stein's identity: the mean of (z_{i} - mean_{i}) d log q / d z_{j} over {PROBES * SAMPLES:,} samples is "
        f"{float(matrix_ZZ[i, j]):.2f} instead of {-1 if i == j else 0}"
    )
    remedy = "Use a posterior that samples its own density."
    changes = {"model.posterior": "diagonal-gaussian"}
    if isinstance(case.recipe.model.setting("posterior"), DiagonalGaussian):
        remedy = "Draw the noise of each latent dimension by itself."
        changes = {"model.posterior.noise": "independent"}
    fault = "The posterior that is sampled is not the one whose KL is computed: the loss bounds nothing."
    evidence = f"{reason}. {evidence}" if reason else evidence
    yield Finding(fault, "serious", evidence, remedy, case.retrain(changes))


@check("configuration")
def unbounded_sigma(case: Case) -> Iterator[Finding]:
    """A standard deviation that can be zero or negative, where log sigma^2 is minus infinity."""
    std_BZ = built_posterior(case).std
    if std_BZ is None:
        raise NotLooked("this posterior has no standard deviation to look at")
    if bool((std_BZ > 0).all()):
        return
    evidence = f"untrained, {float((std_BZ < 0).double().mean()):.0%} of the standard deviations are negative"
    if case.weights is not None and case.data is not None:
        stds = (case.model.encode(x_BCHW).std for x_BCHW in case.view("test").batches())
        std_NZ = torch.cat([std_BZ.cpu() for std_BZ in stds if std_BZ is not None])
        negative = float((std_NZ < 0).double().mean())
        evidence = (
            f"on {case.looked('test')} {negative:.0%} of the standard deviations are negative, and the one nearest to "
            f"zero is {float(std_NZ.abs().min()):.1g}; the KL grows as its logarithm"
        )
    fault = "The posterior's standard deviation is unbounded"
    consequence = "it passes through zero, where the KL is infinite."
    remedy = "Let the network give the log-variance, which makes every value a positive standard deviation."
    yield Finding(f"{fault}: {consequence}", "serious", evidence, remedy, case.retrain(USUAL))


@check("configuration")
def bounded_mean(case: Case) -> Iterator[Finding]:
    """A posterior mean that is squashed, so that most of the prior lies where no image is encoded."""
    mean_BZ = built_posterior(case, WIDE).mean.detach()
    bound, latent_dim = float(mean_BZ.abs().max()), mean_BZ.shape[-1]
    if bound > WIDE / 100 or not isinstance(case.recipe.model.setting("prior"), StandardNormal):
        return
    mass = math.erf(bound / math.sqrt(2.0)) ** latent_dim  # of N(0, I) in the box [-bound, bound]^Z
    fault = "The posterior's mean cannot leave a box that holds little of the prior."
    box = f"no mean is beyond {bound:.3g} in any of {latent_dim} dimensions"
    evidence = f"{box}; the prior has {mass:.1%} of its mass there"
    remedy = "Leave the mean unbounded, so that the posterior can cover what is sampled from the prior."
    yield Finding(fault, "worth knowing", evidence, remedy, case.retrain(USUAL))
