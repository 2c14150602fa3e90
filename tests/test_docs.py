"""Every metric has a page that names each of its values, and says how to read them."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from nelbo.core.registry import lookup, names
from nelbo.evaluation import card as card_of

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "metrics"


def yielded(metric: str) -> set[str]:
    """Names that the module of a metric writes as `yield "name", ...`."""
    module = ast.parse(inspect.getsource(inspect.getmodule(lookup("metric", metric))))
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            first = node.value.elts[0]
            if isinstance(first, ast.Constant):
                found.add(first.value)
    return found


@pytest.mark.parametrize("metric", names("metric"))
def test_every_metric_has_a_page(metric):
    text = (PAGES / f"{metric}.md").read_text(encoding="utf-8")
    missing = {name for name in yielded(metric) if f"`{name}`" not in text}
    assert missing == set()
    assert re.search(r"how to read", text, flags=re.I)
    assert re.search(r"normal", text, flags=re.I)
    assert re.search(r"\b(19|20)\d\d\b", text), "the paper and its year"


def test_the_pages_name_every_value_of_a_card(run_copy):
    card = card_of.evaluate(run_copy, samples=5, device="cpu")
    for metric, values in card["sections"].items():
        text = (PAGES / f"{metric}.md").read_text(encoding="utf-8")
        assert [name for name in values if f"`{name}`" not in text] == []


def test_there_is_no_page_of_nothing():
    assert {page.stem for page in PAGES.glob("*.md")} - {"README"} == set(names("metric"))
