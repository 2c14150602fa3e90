"""Laws, their evidence, and the function that holds them against a component."""

import contextlib
import dataclasses
import enum
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from nelbo.core.spec import Spec
from nelbo.engine import fixed_seed
from nelbo.errors import ConfigError, UnknownName, did_you_mean

T = TypeVar("T")
S = TypeVar("S", bound=Spec)


class Verdict(enum.Enum):
    """The outcome of a law that is not broken."""

    HELD = "held"
    NOT_APPLICABLE = "does not apply"
    UNDECIDED = "undecided"  # the numbers at hand could not tell: of too few samples that count
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The outcome of one law; `words` are the numbers, or the reason, on one line.

    settings    how many configurations the law was held for
    left_out    configurations that are refused together, or to which the law does not apply
    undecided   configurations for which the numbers could not tell
    """

    verdict: Verdict
    words: str
    settings: int = 1
    left_out: int = 0
    undecided: int = 0

    def __str__(self) -> str:
        words = self.words if self.verdict is Verdict.HELD else f"{self.verdict.value}: {self.words}"
        counts = [f"{self.settings} settings"] if self.settings + self.left_out + self.undecided > 1 else []
        counts += [f"{self.left_out} left out"] if self.left_out else []
        counts += [f"{self.undecided} undecided"] if self.undecided else []
        return f"{words} ({', '.join(counts)})" if counts else words


Law = Callable[[T], str | Evidence]
"""Holds one law against a subject: returns its evidence (words alone mean that it holds), or raises LawBroken."""

CPU = torch.device("cpu")
SEED = 20_131_220  # any fixed number: a verdict that changed from run to run would be no test
ERRORS = 5.0  # standard errors that a mean may be off: one in two million by chance
ROUNDING = 1e-9  # what float64 loses in a few hundred operations


class LawBroken(AssertionError):
    """The error of a component that says something that is not true.

    component  its name and settings
    law        the law it breaks, in the words that `skip` takes
    found      the numbers
    look       what to look at
    """

    component: str = ""
    law: str = ""

    def __init__(self, fault: str, look: str) -> None:
        super().__init__(fault, look)
        self.found = fault
        self.look = look

    def __str__(self) -> str:
        return f"{self.component} breaks the law {self.law!r}: {self.found}. Look at {self.look}"


def require(condition: bool | Tensor, fault: str, look: str) -> None:
    """Raise LawBroken where the condition, or any element of it, is false."""
    if not bool(torch.as_tensor(condition).all()):
        raise LawBroken(fault, look)


def require_form(
    name: str, tensor: Tensor, form: tuple[tuple[int, ...], torch.dtype], instead: str, look: str
) -> None:
    """Require a shape and a type; `instead` ends the sentence on the form that the tensor has."""
    fault = f"{name} has shape {tuple(tensor.shape)} and {tensor.dtype}{instead}"
    require((tuple(tensor.shape), tensor.dtype) == form, fault, look)


def require_alone(name: str, among: Tensor, alone: Tensor, look: str) -> None:
    """Require that numbers are the same whether their image is alone in its batch or among others."""
    fault = f"{name} {show(alone)} alone and {show(among)} among others"
    require((among - alone).abs() <= ROUNDING, fault, look)


def does_not_apply(why: str) -> Evidence:
    """Return the evidence of a law that cannot be held against this component."""
    return Evidence(Verdict.NOT_APPLICABLE, why)


def held(outcome: str | Evidence) -> Evidence:
    """Return the outcome of a law as evidence."""
    return Evidence(Verdict.HELD, outcome) if isinstance(outcome, str) else outcome


def keep(
    component: Spec, laws: Iterable[Law[T]], subject: T, skip: Collection[str] = (), only: str | None = None
) -> dict[str, Evidence]:
    """Hold every law, or only one, against the subject, each with the same random stream: law -> its evidence.

    Raises LawBroken at the first one broken, UnknownName for a law to skip or to hold that there is not.
    """
    named = {law.__name__.replace("_", " "): law for law in laws}
    for name in [*skip, *([] if only is None else [only])]:
        if name not in named:
            raise UnknownName(f"axis {component.axis!r} has no law {name!r}; {did_you_mean(name, named)}")
    evidence = {}
    for name, law in named.items():
        if only is not None and name != only:
            continue
        if name in skip:
            evidence[name] = Evidence(Verdict.SKIPPED, "by name")
            continue
        # Gradients are switched on because a test may hold laws inside no_grad.
        with fixed_seed(SEED, CPU), torch.enable_grad(), float64():
            try:
                evidence[name] = held(law(subject))
            except LawBroken as broken:
                broken.component, broken.law = repr(component), name
                raise
            except Exception as error:
                error.add_note(f"while holding the law {name!r} against {component!r}")
                raise
    return evidence


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Give whatever is built inside its constants and weights in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def instance(component: S | type[S], base: type[S]) -> S:
    """Return the component, or its class with default settings; raise ConfigError for what is neither."""
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


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the first axis and its standard error."""
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def show(values: Tensor, errors: Tensor | None = None) -> str:
    """Return the first four numbers, short; means with their errors as `mean +- error`."""
    if errors is not None:
        return f"{show(values)} +- {show(errors)}"
    numbers = values.detach().double().flatten()[:4].tolist()
    return ", ".join(f"{number:.5g}" for number in numbers) + (", ..." if values.numel() > 4 else "")
