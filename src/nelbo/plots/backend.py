"""Matplotlib, imported whatever the environment says about windows: nelbo's figures are drawn without any."""

import contextlib
import importlib
import os
import sys


def import_matplotlib() -> None:
    """Import matplotlib; where MPLBACKEND names no backend that there is, as if it were not set."""
    name = os.environ.get("MPLBACKEND")
    if name is None or "matplotlib" in sys.modules:
        importlib.import_module("matplotlib")
        return
    # Matplotlib's own import fails at a wrong name, and then leaves half of itself behind.
    del os.environ["MPLBACKEND"]
    try:
        matplotlib = importlib.import_module("matplotlib")
    finally:
        os.environ["MPLBACKEND"] = name  # as the caller left it
    with contextlib.suppress(ValueError):  # of another matplotlib, or mistyped
        if name:
            matplotlib.rcParams["backend"] = name  # the line of its import


import_matplotlib()  # when this module is imported, and so before any that draws
