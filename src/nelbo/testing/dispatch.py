"""One check for all axes."""

from collections.abc import Callable, Collection

from nelbo.errors import ConfigError
from nelbo.testing.law import Evidence
from nelbo.testing.likelihoods import check_likelihood
from nelbo.testing.models import check_model
from nelbo.testing.nets import check_net
from nelbo.testing.objectives import check_objective
from nelbo.testing.posteriors import check_posterior
from nelbo.testing.priors import check_prior
from nelbo.testing.samplers import check_sampler

CHECKS: dict[str, Callable[..., dict[str, Evidence]]] = {  # axis -> its check
    "objective": check_objective,
    "model": check_model,
    "net": check_net,
    "posterior": check_posterior,
    "prior": check_prior,
    "likelihood": check_likelihood,
    "sampler": check_sampler,
}


def check(component: object, *, skip: Collection[str] = (), only: str | None = None) -> dict[str, Evidence]:
    """Hold the laws of its axis against a component, or against a class with its default settings.

    `skip` leaves laws out by name; `only` holds one. Returns each law with its evidence. Raises LawBroken, and
    ConfigError for what is on no axis that has laws.
    """
    axis = getattr(component, "axis", None)
    if axis not in CHECKS:
        raise ConfigError(
            f"there are no laws for {component!r}; expected a component, or a class of one, of these axes: "
            f"{', '.join(CHECKS)}"
        )
    return CHECKS[axis](component, skip=skip, only=only)
