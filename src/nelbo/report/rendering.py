"""Templates to HTML. A template's values are escaped, unless another template wrote them."""

import functools
import re
from typing import Any

import jinja2
from markupsafe import Markup

# Control characters, lone surrogates and two code points that HTML cannot hold.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates of this package: autoescaped, and an unknown name in one is an error."""

    def printable(value: object) -> object:
        if isinstance(value, Markup):  # already written by another template
            return value
        return "" if value is None else UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("nelbo.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=printable,
    )
    templates.filters |= {"sentence": sentence, "minus": minus}
    return templates


def macros(name: str) -> Any:
    """Return a template as a module whose macros write the sections of a page."""
    return environment().get_template(f"{name}.html.j2").module


def sentence(text: str) -> str:
    """Return a text with a capital first letter: tables have none, for they are also printed on a terminal."""
    return text[:1].upper() + text[1:]


def minus(text: str) -> str:
    """Return a number with the minus sign of print, and a dash where there is no number."""
    return "\N{EN DASH}" if text == "-" else text.replace("-", "\N{MINUS SIGN}")
