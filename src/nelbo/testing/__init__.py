"""The laws that components keep, for whoever adds one: each is one line in a test.

    from nelbo.testing import check_objective
    check_objective(IWAE)

`check` takes a component of any axis that has laws. Every check returns its laws with their evidence, and raises
LawBroken, an AssertionError that names the component, the law, the numbers, and what to look at. Also here: the
models whose log p(x) is known exactly.
"""

from nelbo.testing.dispatch import check
from nelbo.testing.exact import Discrete, LinearGaussian, evidence
from nelbo.testing.law import Evidence, LawBroken, Verdict
from nelbo.testing.likelihoods import check_likelihood
from nelbo.testing.models import check_model
from nelbo.testing.nets import check_net
from nelbo.testing.objectives import check_objective
from nelbo.testing.posteriors import check_posterior
from nelbo.testing.priors import check_prior
from nelbo.testing.samplers import check_sampler

__all__ = [
    "Discrete",
    "Evidence",
    "LawBroken",
    "LinearGaussian",
    "Verdict",
    "check",
    "check_likelihood",
    "check_model",
    "check_net",
    "check_objective",
    "check_posterior",
    "check_prior",
    "check_sampler",
    "evidence",
]
