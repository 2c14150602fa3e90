"""Distributions: posteriors q(z|x), priors p(z) and likelihoods p(x|z), as specs and as values."""

from nelbo.dists.base import Likelihood, Posterior, Prior
from nelbo.dists.bernoulli import Bernoulli
from nelbo.dists.gaussian import Gaussian
from nelbo.dists.normal import DiagonalGaussian, StandardNormal

__all__ = ["Bernoulli", "DiagonalGaussian", "Gaussian", "Likelihood", "Posterior", "Prior", "StandardNormal"]
