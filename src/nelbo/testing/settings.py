"""The law that every setting does something, for any component: other values are found from a field's type."""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Annotated, Concatenate, Literal, TypeVar, Union, get_args, get_origin

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


def changed(spec: S, **values: object) -> S | None:
    """Return a validated copy with other values; None where these values cannot be."""
    fields = {field: spec.setting(field) for field in type(spec).model_fields}
    try:
        return type(spec)(**(fields | values))
    except ValidationError:
        return None


def variations(spec: S, without: str = "") -> Iterator[S]:
    """Yield the spec with one field changed, for every field (but one) and every other value known for it."""
    for field, info in type(spec).model_fields.items():
        for value in _candidates(info.annotation, spec.setting(field)) if field != without else ():
            variant = changed(spec, **{field: value})
            if variant is not None and variant != spec:
                yield variant


def _candidates(annotation: object, now: object) -> Iterator[object]:
    """Yield values for a field of this type, among them some that its bounds refuse: the caller leaves those out."""
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
    elif annotation in (int, float):
        start = now if isinstance(now, int | float) and not isinstance(now, bool) else 0
        if annotation is int:
            yield from (int(number) for number in (start + 1, 2 * start + 3, start - 1))
        else:  # near and far, above and below: a bound may refuse one side, and a small step change nothing
            yield from (1.5 * start + 0.25, start / 2, start + 0.05)
            yield from (10.0 * start + 10.0, 100.0 * start + 100.0)
    elif origin is tuple:
        items = tuple(now) if isinstance(now, tuple | list) else ()
        of_any_length = len(arguments) == 2 and arguments[1] is Ellipsis
        if of_any_length:
            for item in _candidates(arguments[0], items[-1] if items else None):
                yield (*items, item)
            yield items[:-1]
        for place, item in enumerate(items):
            for value in _candidates(arguments[0 if of_any_length else place], item):
                yield (*items[:place], value, *items[place + 1 :])
    elif inspect.isclass(annotation) and issubclass(annotation, Spec):
        if isinstance(now, Spec):
            yield from variations(now)
        for name in names(annotation.axis) if annotation.is_abstract() else ():
            with contextlib.suppress(ValidationError):  # of a component that has settings without a default
                yield lookup(annotation.axis, name)()


def settings_tell_apart(outcome: Callable[[S], Outcome]) -> Law[S]:
    """Make the law of `settings_change_something` from the function that gives the outcome of a configuration."""

    @functools.wraps(outcome)
    def law(spec: S) -> str | Evidence:
        return settings_change_something(spec, outcome)

    return law


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
    @functools.cache  # an outcome may cost a training, and the same configuration comes again and again
    def outcome_of(spec: S) -> Outcome:
        torch.manual_seed(SEED)
        try:
            return dict(outcome(spec))
        except NelboError as error:  # a refusal is an effect too
            return {"refused": str(error)}

    for field, info in type(spec).model_fields.items():
        now = spec.setting(field)
        values = [v for v in _candidates(info.annotation, now) if v != now]
        wholes = [whole for v in reversed(values) if (whole := changed(spec, **{field: v})) is not None]
        possible = [whole.setting(field) for whole in wholes]  # as validation leaves it
        if possible or not isinstance(now, Spec):  # of some axes there is only one that fits
            is_choice = get_origin(info.annotation) is Literal or info.annotation is bool
            values_that_agree = _undistinguished if is_choice else _idle
            starts = itertools.chain([spec], variations(spec, field))
            if alike := values_that_agree(field, [now, *values], starts, outcome_of):
                setting = f"{type(spec).__name__}.{field} = {' or '.join(map(repr, alike[1:]))}"
                look = "should be used: outputs, densities, weights and losses are all the same"
                raise LawBroken(f"{setting} gives what {alike[0]!r} gives", f"where {field} {look}")
            yield field
        parts = {type(value): value for value in (*possible, now) if isinstance(value, Spec)}
        for part in (part for part in parts.values() if part.axis not in apart):
            inside = _live_fields(part, _within(spec, field, outcome), apart)
            yield from (f"{field}.{kebab(type(part).__name__)}.{name}" for name in inside)


def _within(spec: S, field: str, outcome: Callable[[S], Outcome]) -> Callable[[Spec], Outcome]:
    """Return the outcome of the whole as a function of the component in this field."""

    def outcome_with(part: Spec) -> Outcome:
        whole = changed(spec, **{field: part})
        return REFUSED if whole is None else outcome(whole)

    return outcome_with


def _undistinguished(
    field: str, values: list[object], starts: Iterable[S], outcome_of: Callable[[S], Outcome]
) -> list[object]:
    """Return two values that no configuration tells apart, or none."""
    pairs = set(itertools.combinations(range(len(values)), 2))
    for start in starts:
        outcomes = dict(_outcomes(field, values, start, outcome_of))
        valid = {(a, b) for a, b in pairs if a in outcomes and b in outcomes}
        pairs -= {(a, b) for a, b in valid if not _same(outcomes[a], outcomes[b])}
        if not pairs:
            return []
    return [values[place] for place in min(pairs)]


def _idle(
    field: str, values: list[object], starts: Iterable[S], outcome_of: Callable[[S], Outcome]
) -> list[object]:
    """Return nothing where some configuration tells three of the values apart, or all; otherwise those it does not."""
    repeated: list[object] = []
    for start in starts:
        different: dict[int, Outcome] = {}
        twins: dict[int, list[int]] = {}
        for place, outcome in _outcomes(field, values, start, outcome_of):
            twin = next((earlier for earlier in different if _same(outcome, different[earlier])), None)
            if twin is None:
                different[place] = outcome
            # Beside one that is accepted, all that are refused are different alike.
            elif not _same(outcome, REFUSED):
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


def _outcomes(
    field: str, values: list[object], start: S, outcome_of: Callable[[S], Outcome]
) -> Iterator[tuple[int, Outcome]]:
    """Yield the outcome of each value that is valid in this configuration, with its place among the values."""
    for place, value in enumerate(values):
        spec = changed(start, **{field: value})
        if spec is not None:
            yield place, outcome_of(spec)


def _same(left: Outcome, right: Outcome) -> bool:
    def equal(one: Tensor | str, two: Tensor | str) -> bool:
        if isinstance(one, Tensor) and isinstance(two, Tensor):
            return one.shape == two.shape and torch.allclose(one, two, rtol=0, atol=0, equal_nan=True)
        return type(one) is type(two) and bool(one == two)

    return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)


def weights_of(module: nn.Module) -> dict[str, Tensor | str]:
    """Return the trainable weights and the buffers of a built module, for an outcome."""
    weights = {f"weight {name}": value.detach().clone() for name, value in module.named_parameters()}
    return {**weights, **{f"buffer {name}": value.clone() for name, value in module.named_buffers()}}


def with_every_setting(law: Callable[Concatenate[S, ...], str | Evidence]) -> Law[S]:
    """Hold the law against the component, and against it with one setting changed, for every other value known.

    A law with a parameter `thorough` may take fewer samples and directions where it is False: for the variations, of
    which there are many. The evidence counts the settings that it holds for, those left out (refused together, or to
    which the law does not apply) and those for which the numbers could not tell.
    """
    briefly = {"thorough": False} if "thorough" in inspect.signature(law).parameters else {}

    @functools.wraps(law)
    def law_of_all(spec: S) -> Evidence:
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
        settings, left_out, undecided = counts.values()
        return dataclasses.replace(evidence, settings=settings, left_out=left_out, undecided=undecided)

    return law_of_all
