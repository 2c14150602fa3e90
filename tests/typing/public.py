"""The types that a user's editor shows for the public interface. mypy reads this file; nobody runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

import nelbo
from nelbo.core.distributions import LikelihoodValue, PosteriorValue, PriorModule
from nelbo.core.layout import Card
from nelbo.models.base import BuiltModel


def check(images: NDArray[np.uint8], x: Tensor) -> None:
    """Assert the types of what the verbs return."""
    recipe = nelbo.Recipe()
    assert_type(recipe.epochs, int)
    run = nelbo.train(recipe, data=images)
    assert_type(run, nelbo.Run)
    assert_type(run.path, Path)
    assert_type(nelbo.evaluate(run), Card)
    assert_type(nelbo.plot(run, "scatter"), Figure | list[Figure])
    model = nelbo.load(run)
    assert_type(model, BuiltModel)
    assert_type(model.encode(x), PosteriorValue)
    assert_type(model.encode(x).mean, Tensor)
    assert_type(model.decode(x), LikelihoodValue)
    assert_type(model.prior, PriorModule)
    assert_type(model.reconstruct(x), Tensor)
    assert_type(model.sample(2), Tensor)
