"""Components of these tests are forgotten after each of them."""

from __future__ import annotations

import pytest

from nelbo import core


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for axis in core.HOMES:
        core.names(axis)  # what is built in stays
    monkeypatch.setattr(core, "_entries", {axis: dict(found) for axis, found in core._entries.items()})
