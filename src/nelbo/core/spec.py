"""Specs <-> TOML <-> command line. Constructing is configuring.

A spec is a frozen, keyword-only, validated value. Its repr is its configuration, which is also its
entry in a run folder's `config.toml`. An abstract spec names an *axis*; its subclasses register
themselves under their kebab-case class name, and a field of the abstract type accepts

    an instance            ELBO(beta=4)
    a name                 "elbo"
    a table with a name    {name = "elbo", beta = 4}
    a scalar               4            where the axis says what a scalar means (schedules)
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator
from pydantic_core import PydanticCustomError

from nelbo.core.registry import lookup, register
from nelbo.errors import UnknownName, did_you_mean

S = TypeVar("S", bound="Spec")


def kebab(name: str) -> str:
    """Return `diagonal-gaussian` of `DiagonalGaussian`, `iwae` of `IWAE`, `latent-dim` of `latent_dim`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name)
    return spaced.replace("_", "-").lower()


class Spec(BaseModel):
    """A frozen, validated value that configures one component.

    Constructing one with a wrong field raises `pydantic.ValidationError`; files and flags go through `build`,
    which raises ConfigError. A field that may be None has None as its default: TOML has no null, so it is left out.
    """

    # Without protected namespaces a field may be called `model_...`, which pydantic keeps for itself.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, protected_namespaces=()
    )

    axis: ClassVar[str] = ""
    name: ClassVar[str] = ""
    scalar: ClassVar[str] = ""  # the field that a bare value sets, if a bare value is accepted

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for field, info in cls.model_fields.items():
            may_be_none = type(None) in options_of(info.annotation)
            if may_be_none and not info.is_required() and info.default is not None:
                raise TypeError(
                    f"{cls.__name__}.{field}: a field that may be None must have None as its default"
                )
        if cls.axis and "axis" not in cls.__dict__:  # the class that sets `axis` is abstract
            if "name" not in cls.__dict__:
                cls.name = kebab(cls.__name__)
            register(cls.axis, cls.name, cls)

    @classmethod
    def is_abstract(cls) -> bool:
        return "axis" in cls.__dict__ and bool(cls.axis)

    def setting(self, field: str, default: Any = None) -> Any:
        """Return the value of this field, or the default if this spec has no such field."""
        return getattr(self, field) if field in type(self).model_fields else default

    @classmethod
    def from_scalar(cls, value: object) -> dict[str, object] | None:
        """Return the table that a bare value stands for, or None where it stands for nothing."""
        if cls.is_abstract() and isinstance(value, str):
            return {"name": value}
        return {cls.scalar: value} if cls.scalar else None

    @classmethod
    def from_earlier(cls, table: dict[str, Any]) -> dict[str, Any]:
        """Return the table of this version for one of the version before, whose fields had other names.

        A field that is renamed stays readable for one version: its class moves the value here, and nothing else.
        """
        return table

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, cls):
            return value  # frozen and validated: there is nothing to copy
        if not isinstance(value, Mapping):
            value = cls.from_scalar(value)
            if value is None:
                raise PydanticCustomError("not_a_table", "expected {what}", {"what": _expected(cls)})
        # A copy: names are popped.
        table = {str(key).replace("-", "_"): entry for key, entry in value.items()}
        if cls.is_abstract():
            name = table.pop("name", None)
            if not isinstance(name, str):
                raise PydanticCustomError("no_name", "expected {what}", {"what": _expected(cls)})
            try:
                concrete: type[Self] = lookup(cls.axis, name)
            except UnknownName as error:  # as a pydantic error it gets the path of the field before it
                raise PydanticCustomError("unknown_name", "{why}", {"why": str(error)}) from None
            return concrete.model_validate(table)
        if cls.axis and table.pop("name", cls.name) != cls.name:
            raise PydanticCustomError("wrong_name", "expected name {name!r}", {"name": cls.name})
        table = cls.from_earlier(table)
        for key in table:
            if key not in cls.model_fields:
                fields = [kebab(field) for field in cls.model_fields]
                hint = did_you_mean(kebab(key), fields) if fields else "It has no fields"
                raise PydanticCustomError(
                    "unknown_field", "unknown field {field!r}; {hint}", {"field": kebab(key), "hint": hint}
                )
        for key, entry in table.items():
            # pydantic would take true for 1
            if isinstance(entry, bool) and bool not in options_of(cls.model_fields[key].annotation):
                raise PydanticCustomError(
                    "no_bool", "{field}: expected another value than true or false", {"field": kebab(key)}
                )
        return handler(table)


def _expected(cls: type[Spec]) -> str:
    if cls.is_abstract():
        article = "an" if cls.axis[0] in "aeiou" else "a"
        return f"the name of {article} {cls.axis}, or a table with a name"
    return f"a table of {', '.join(kebab(field) for field in cls.model_fields)}"


def options_of(annotation: object) -> list[object]:
    """Return the types that a field may hold: `int | None` -> [int | None, int, NoneType]."""
    return [annotation, *get_args(annotation)]
