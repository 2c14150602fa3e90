"""`make quick` runs the laws of a changed component, and the tests that carry a changed module's name."""

from __future__ import annotations

from nelbo.core.registry import lookup
from tests.quick import CONTRACTS, chosen_by


def test_a_component_is_held_to_its_laws_and_contracts():
    module = lookup("posterior", "spline").__module__
    tests, laws = chosen_by([f"src/{module.replace('.', '/')}.py"])
    assert "test_everything_registered_keeps_its_laws[every-setting-posterior-spline]" in laws
    assert set(CONTRACTS) <= set(tests)


def test_a_test_runs_itself_and_nothing_else_runs_more_than_contracts():
    assert "tests/test_vq.py" in chosen_by(["tests/test_vq.py"])[0]
    assert chosen_by(["docs/index.md"]) == (sorted(CONTRACTS), [])
