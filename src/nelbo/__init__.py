"""nelbo: train, measure and explore variational autoencoders.

    import nelbo

    run = nelbo.train("digits")
    card = nelbo.evaluate(run)
    model = nelbo.load(run)

Importing this package is cheap: torch is imported when one of these is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nelbo.doctor import diagnose
    from nelbo.evaluation.card import evaluate
    from nelbo.evaluation.comparison import compare
    from nelbo.evaluation.samplers import sampler
    from nelbo.evaluation.scoring import score
    from nelbo.pictures.figures import plot
    from nelbo.training.api import train
    from nelbo.training.loaded import load
    from nelbo.training.recipe import Recipe
    from nelbo.training.store import Run

__version__ = "0.1.0"
__all__ = ["Recipe", "Run", "compare", "diagnose", "evaluate", "load", "plot", "sampler", "score", "train"]

_HOMES = {
    "train": "training.api",
    "load": "training.loaded",
    "evaluate": "evaluation.card",
    "compare": "evaluation.comparison",
    "diagnose": "doctor",
    "sampler": "evaluation.samplers",
    "score": "evaluation.scoring",
    "plot": "pictures.figures",
    "Recipe": "training.recipe",
    "Run": "training.store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nelbo' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"nelbo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
