"""Distributions: posteriors q(z|x), priors p(z) and likelihoods p(x|z), as specs and as values."""

from nelbo.dists.base import Likelihood, Posterior, Prior
from nelbo.dists.bernoulli import Bernoulli
from nelbo.dists.categorical import Categorical
from nelbo.dists.continuous_bernoulli import ContinuousBernoulli
from nelbo.dists.gaussian import Gaussian
from nelbo.dists.laplace import Laplace
from nelbo.dists.logistic import DiscretisedLogistic, DiscretisedLogisticMixture
from nelbo.dists.normal import DiagonalGaussian, StandardNormal
from nelbo.dists.spread import Fixed, Learned, Optimal, PerPixel, Spread

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiagonalGaussian",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "Fixed",
    "Gaussian",
    "Laplace",
    "Learned",
    "Likelihood",
    "Optimal",
    "PerPixel",
    "Posterior",
    "Prior",
    "Spread",
    "StandardNormal",
]
