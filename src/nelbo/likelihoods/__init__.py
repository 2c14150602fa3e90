"""Likelihoods p(x | z): specs, the modules that they build, and their values."""

from nelbo.likelihoods.base import Likelihood
from nelbo.likelihoods.bernoulli import Bernoulli
from nelbo.likelihoods.categorical import Categorical
from nelbo.likelihoods.continuous_bernoulli import ContinuousBernoulli
from nelbo.likelihoods.gaussian import Gaussian
from nelbo.likelihoods.laplace import Laplace
from nelbo.likelihoods.logistic import DiscretisedLogistic, DiscretisedLogisticMixture
from nelbo.likelihoods.spread import Fixed, Learned, Optimal, PerPixel, Spread

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "Fixed",
    "Gaussian",
    "Laplace",
    "Learned",
    "Likelihood",
    "Optimal",
    "PerPixel",
    "Spread",
]
