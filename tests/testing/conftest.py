"""Components of these tests are forgotten after each of them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _registry(_forgotten: None) -> None:
    """Forget them."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A fault is held against the law that must find it; that no earlier law is fooled by it is asked when slow."""
    if "laws" in metafunc.fixturenames:
        cases = [
            pytest.param("its own", id="its-law"),
            pytest.param("all", id="all-laws", marks=pytest.mark.slow),
        ]
        metafunc.parametrize("laws", cases)
