"""What the tests of the sides share."""

from __future__ import annotations

import pytest
import torch

from nelbo.data import Batches


@pytest.fixture
def parts(tiny_recipe):
    """(overrides) -> recipe, splits, the first batch in its order."""

    def make(overrides=None):
        recipe = tiny_recipe(overrides)
        splits = recipe.data.load()
        batches = Batches(splits.train, splits.transforms, recipe.batch_size, device=torch.device("cpu"))
        return recipe, splits, next(batches.epoch())

    return make
