"""What a broken law says, and how laws are held against a component."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from nelbo.core.spec import Spec
from nelbo.engine import fixed_seed
from nelbo.errors import ConfigError, UnknownName, did_you_mean

T = TypeVar("T")
S = TypeVar("S", bound=Spec)
Law = Callable[[T], str]
"""Holds one law against a subject: returns the evidence in one line, or raises LawBroken."""

NOT = "does not apply: "
CPU = torch.device("cpu")
SEED = 20_131_220  # the checks give the same verdict every time
ERRORS = 5.0  # standard errors that a mean may be off: one in two million by chance


class LawBroken(AssertionError):
    """A component says something that is not true.

    component  its name and settings
    law        the law it breaks, in the words that `skip` takes
    found      the numbers
    look       what to look at
    """

    component: str = ""
    law: str = ""

    def __init__(self, found: str, look: str) -> None:
        super().__init__(found, look)
        self.found = found
        self.look = look

    def __str__(self) -> str:
        return f"{self.component} breaks the law {self.law!r}: {self.found}. Look at {self.look}"


def require(condition: bool | Tensor, found: str, look: str) -> None:
    """Raises LawBroken where the condition, or any element of it, is false."""
    if not bool(torch.as_tensor(condition).all()):
        raise LawBroken(found, look)


def does_not_apply(why: str) -> str:
    """The evidence of a law that cannot be held against this component."""
    return NOT + why


def title(law: Law[Any]) -> str:
    """`samples_match_the_density` -> `samples match the density`."""
    return law.__name__.replace("_", " ")


def keep(
    component: Spec, laws: Iterable[Law[T]], subject: T, skip: Collection[str] = (), only: str | None = None
) -> dict[str, str]:
    """Hold every law, or only one, against the subject, each with the same random stream: law -> its evidence.

    Raises LawBroken at the first one broken, UnknownName for a law to skip or to hold that there is not.
    """
    named = {title(law): law for law in laws}
    for name in [*skip, *([] if only is None else [only])]:
        if name not in named:
            raise UnknownName(f"axis {component.axis!r} has no law {name!r}; {did_you_mean(name, named)}")
    evidence = {}
    for name, law in named.items():
        if only is not None and name != only:
            continue
        if name in skip:
            evidence[name] = "skipped"
            continue
        with fixed_seed(SEED, CPU), torch.enable_grad(), float64():
            try:
                evidence[name] = law(subject)
            except LawBroken as broken:
                broken.component, broken.law = repr(component), name
                raise
            except Exception as error:
                error.add_note(f"while holding the law {name!r} against {component!r}")
                raise
    return evidence


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Whatever is built inside has its constants and weights in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def instance(component: S | type[S], base: type[S]) -> S:
    """The component itself, or its class with default settings; raises ConfigError for what is neither."""
    if isinstance(component, type) and issubclass(component, base):
        if component.is_abstract():
            raise ConfigError(f"{component.__name__} is abstract; check one of its subclasses")
        try:
            return component()
        except ValidationError as error:
            raise ConfigError(
                f"{component.__name__} has settings without a default; check an instance instead, as in "
                f"{component.__name__}({next(iter(component.model_fields))}=...): {error}"
            ) from None
    if isinstance(component, base):
        return component
    raise ConfigError(f"expected a component of axis {base.axis!r} or a class of one, not {component!r}")


# --- means and their standard errors ------------------------------------------------------------


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first axis and its standard error."""
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def show(values: Tensor) -> str:
    """A few numbers, short."""
    numbers = values.detach().double().flatten()[:4].tolist()
    return ", ".join(f"{number:.5g}" for number in numbers) + (", ..." if values.numel() > 4 else "")
