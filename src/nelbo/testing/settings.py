"""The law that every setting does something, for any component: other values are found from a field's type."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Concatenate, Generic, Literal, TypeVar, Union, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec, kebab
from nelbo.errors import ConfigError, NelboError
from nelbo.testing.law import SEED, Evidence, Law, LawBroken, Verdict, does_not_apply, held

S = TypeVar("S", bound=Spec)
Outcome = Mapping[str, Tensor | str]
"""Everything by which two configurations of a component can be told apart."""
REFUSED: Outcome = {"refused": "validation"}
ENOUGH = 3  # different outcomes show that a number is used, and not only whether there is one


def changed(spec: S, **values: Any) -> S | None:
    """A validated copy with other values; None where these values cannot be."""
    kept = {field: spec.setting(field) for field in type(spec).model_fields}
    try:
        return type(spec)(**(kept | values))
    except ValidationError:
        return None


def variations(spec: S, without: str = "") -> Iterator[S]:
    """The spec with one field changed, for every field (but one) and every other value that is known for it."""
    for field, info in type(spec).model_fields.items():
        for value in _candidates(info.annotation, spec.setting(field)) if field != without else ():
            other = changed(spec, **{field: value})
            if other is not None and other != spec:
                yield other


def _candidates(annotation: Any, now: Any) -> Iterator[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _candidates(arguments[0], now)
    elif origin is Literal:
        yield from arguments
    elif origin in (Union, types.UnionType):
        for option in arguments:
            yield from _candidates(option, now)
    elif annotation is type(None):
        yield None
    elif annotation is bool:
        yield not now
    elif annotation is int:
        yield from _numbers(now, int)
    elif annotation is float:
        yield from _numbers(now, float)
    elif origin is tuple:
        yield from _tuples(arguments, now)
    elif inspect.isclass(annotation) and issubclass(annotation, Spec):
        yield from _specs(annotation, now)


def _numbers(now: Any, kind: type[int] | type[float]) -> Iterator[int | float]:
    """Near and far, above and below; what the bounds of the field refuse is left out by the caller."""
    start = now if isinstance(now, int | float) and not isinstance(now, bool) else 0
    near: tuple[float, ...] = (start + 1, 2 * start + 3, start - 1)
    if kind is float:
        near = (1.5 * start + 0.25, start / 2, start + 0.05, 10.0 * start + 10.0, 100.0 * start + 100.0)
    for number in near:
        yield kind(number)


def _tuples(arguments: tuple[Any, ...], now: Any) -> Iterator[tuple[Any, ...]]:
    items = tuple(now) if isinstance(now, tuple | list) else ()
    of_any_length = len(arguments) == 2 and arguments[1] is Ellipsis
    if of_any_length:
        for item in _candidates(arguments[0], items[-1] if items else None):
            yield (*items, item)
        yield items[:-1]
    for place, item in enumerate(items):
        for other in _candidates(arguments[0 if of_any_length else place], item):
            yield (*items[:place], other, *items[place + 1 :])


def _specs(base: type[Spec], now: Any) -> Iterator[Spec]:
    """The same component with another setting, then every other component of its axis."""
    if isinstance(now, Spec):
        yield from variations(now)
    if not base.is_abstract():
        return
    for name in names(base.axis):
        try:
            yield lookup(base.axis, name)()
        except ValidationError:  # has settings without a default
            continue


def settings_change_something(
    spec: S, outcome: Callable[[S], Outcome], apart: Collection[str] = ()
) -> str | Evidence:
    """Require of every field that its values give different outcomes. Returns the names of the fields.

    Of a choice every value must differ from every other; of a number, a list or a component three values must differ
    (some may lie below all that they meet, as a floor does). A field may matter only beside another one (a share of
    something that is off): where changing it alone does nothing, it is changed again from every configuration that
    differs in one other field. Where a field is itself a component, its settings and those of every other component
    of its axis are held to the same, but for axes in `apart`, whose components keep this law by themselves. Raises
    ConfigError for a field whose values cannot be guessed (a text).
    """
    if not type(spec).model_fields:
        return does_not_apply("it has no settings")
    return ", ".join(_live_fields(spec, outcome, apart))


def _live_fields(spec: S, outcome: Callable[[S], Outcome], apart: Collection[str] = ()) -> Iterator[str]:
    seen = _Seen(outcome)
    for field in type(spec).model_fields:
        now = spec.setting(field)
        values = [v for v in _candidates(type(spec).model_fields[field].annotation, now) if v != now]
        wholes = [whole for v in reversed(values) if (whole := changed(spec, **{field: v})) is not None]
        possible = [whole.setting(field) for whole in wholes]  # as validation leaves it
        if possible or not isinstance(now, Spec):  # of some axes there is only one that fits
            _changes_something(spec, field, values, seen)
            yield field
        parts = {type(value): value for value in (*possible, now) if isinstance(value, Spec)}
        for part in (part for part in parts.values() if part.axis not in apart):
            inside = _live_fields(part, _within(spec, field, outcome), apart)
            yield from (f"{field}.{kebab(type(part).__name__)}.{name}" for name in inside)


def _within(spec: S, field: str, outcome: Callable[[S], Outcome]) -> Callable[[Spec], Outcome]:
    """Return the outcome of the whole as a function of the component in this field."""

    def of_part(part: Spec) -> Outcome:
        whole = changed(spec, **{field: part})
        return REFUSED if whole is None else outcome(whole)

    return of_part


def _changes_something(spec: S, field: str, others: list[Any], seen: _Seen[S]) -> None:
    values = [spec.setting(field), *others]
    starts = itertools.chain([spec], variations(spec, field))
    if _is_choice(spec, field):
        alike = _alike(field, values, starts, seen)
    else:
        alike = _idle(field, values, starts, seen)
    if alike:
        raise LawBroken(
            f"{type(spec).__name__}.{field} = {' or '.join(map(repr, alike[1:]))} gives what {alike[0]!r} gives",
            f"where {field} should be used: outputs, densities, weights and losses are all the same",
        )


def _is_choice(spec: Spec, field: str) -> bool:
    annotation = type(spec).model_fields[field].annotation
    return get_origin(annotation) is Literal or annotation is bool


def _alike(field: str, values: list[Any], starts: Iterable[S], seen: _Seen[S]) -> list[Any]:
    """Two values that no configuration tells apart, or none."""
    pairs = set(itertools.combinations(range(len(values)), 2))
    for start in starts:
        found = dict(_outcomes(field, values, start, seen))
        pairs = {(a, b) for a, b in pairs if a not in found or b not in found or _same(found[a], found[b])}
        if not pairs:
            return []
    return [values[place] for place in min(pairs)]


def _idle(field: str, values: list[Any], starts: Iterable[S], seen: _Seen[S]) -> list[Any]:
    """Nothing where some configuration tells three of the values apart, or all; otherwise values that it does not."""
    repeated: list[Any] = []
    for start in starts:
        different: dict[int, Outcome] = {}
        twins: dict[int, list[int]] = {}
        for place, outcome in _outcomes(field, values, start, seen):
            twin = next((other for other, known in different.items() if _same(outcome, known)), None)
            if twin is None:
                different[place] = outcome
            elif not _same(
                outcome, REFUSED
            ):  # beside one that is accepted, all that are refused are different alike
                twins.setdefault(twin, [twin]).append(place)
            if len(different) == ENOUGH:
                return []
        if len(different) > 1 and not twins:
            return []
        if twins and not repeated:
            repeated = [values[place] for place in max(twins.values(), key=len)]
    if not repeated:
        raise ConfigError(
            f"{type(start).__name__}.{field}: no other value than {values[0]!r} is known, so that nobody can tell "
            "whether the setting does something (only numbers, choices, tuples of them and components can be "
            "varied); skip this law, and test the field by itself"
        )
    return repeated


def _outcomes(field: str, values: list[Any], start: S, seen: _Seen[S]) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each value that is valid in this configuration, with its place among the values."""
    for place, value in enumerate(values):
        other = changed(start, **{field: value})
        if other is not None:
            yield place, seen.of(other)


class _Seen(Generic[S]):
    """Outcomes, each made once, with one random stream."""

    def __init__(self, outcome: Callable[[S], Outcome]) -> None:
        self.outcome = outcome
        self.known: dict[S, Outcome] = {}

    def of(self, spec: S) -> Outcome:
        if spec not in self.known:
            torch.manual_seed(SEED)
            try:
                self.known[spec] = dict(self.outcome(spec))
            except NelboError as error:  # a refusal is an effect too
                self.known[spec] = {"refused": str(error)}
        return self.known[spec]


def _same(one: Outcome, other: Outcome) -> bool:
    return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)


def _equal(one: Tensor | str, other: Tensor | str) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True))
    return type(one) is type(other) and bool(one == other)


def weights_of(module: nn.Module) -> dict[str, Tensor | str]:
    """Return the trainable weights and the buffers of a built module, for an outcome."""
    found: dict[str, Tensor | str] = {
        f"weight {name}": value.detach().clone() for name, value in module.named_parameters()
    }
    return found | {f"buffer {name}": value.clone() for name, value in module.named_buffers()}


def with_every_setting(law: Callable[Concatenate[S, ...], str | Evidence]) -> Law[S]:
    """Hold the law against the component, and against it with one setting changed, for every other value known.

    A law with a parameter `thorough` may take fewer samples and directions where it is False: for the variations, of
    which there are many. The evidence counts the settings that it holds for, those left out (refused together, or to
    which the law does not apply) and those for which the numbers could not tell.
    """
    briefly = {"thorough": False} if "thorough" in inspect.signature(law).parameters else {}

    @functools.wraps(law)
    def of_all(spec: S) -> Evidence:
        evidence = held(law(spec))
        counts = {Verdict.HELD: 1, Verdict.NOT_APPLICABLE: 0, Verdict.UNDECIDED: 0}
        for variant in variations(spec):
            try:
                counts[held(law(variant, **briefly)).verdict] += 1
            except NelboError:  # settings that do not go together here
                counts[Verdict.NOT_APPLICABLE] += 1
            except LawBroken as broken:
                raise LawBroken(f"as {variant!r}, {broken.found}", broken.look) from None
        if evidence.verdict is not Verdict.HELD:
            return evidence
        return dataclasses.replace(
            evidence,
            settings=counts[Verdict.HELD],
            left_out=counts[Verdict.NOT_APPLICABLE],
            undecided=counts[Verdict.UNDECIDED],
        )

    return of_all
